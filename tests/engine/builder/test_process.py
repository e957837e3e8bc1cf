"""Builds that go wrong, each in a real process: killed, crashed, out of memory, interrupted. Nothing is ever left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from logoformer.engine.builder import process as module
from logoformer.engine.builder.compile import BuildOptions, BuiltEngine
from logoformer.engine.builder.process import build_engine
from logoformer.engine.machine.memory import MIB, Memory
from logoformer.errors import EXIT_ENVIRONMENT, BadInputError, MachineError, RefusedError

EMPTY = b"\x3a\x02\x12\x00"  # a graph with an empty name and nothing in it
DEVICE = BuildOptions(target="tensorrt")
Scripted = Callable[..., None]


def build(onnx: bytes = EMPTY, options: BuildOptions = DEVICE, **more: object) -> BuiltEngine:
    return build_engine(onnx, options, shown="frame.onnx", **more)  # type: ignore[arg-type]


def fails() -> MachineError:
    """The build fails for want of something on this machine: exit code 6, the graph and a next step are named."""
    with pytest.raises(MachineError) as caught:
        build()
    assert caught.value.exit_code == EXIT_ENVIRONMENT == 6
    assert "frame.onnx" in caught.value.what
    assert caught.value.next
    assert children() == []
    return caught.value


def children() -> list[int]:
    """Ids of this process's living children that build; other tests' pools leave one that tracks resources."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        if f"\nPPid:\t{os.getpid()}\n" in text and "\nState:\tZ" not in text:
            words = (status.parent / "cmdline").read_bytes()
            found += [int(status.parent.name)] if b"engine.builder.process" in words else []
    return found


def test_what_a_build_is_and_what_it_was_given(scripted: Scripted):
    scripted("well")
    seen: list[tuple[str, int, int]] = []
    built = build_engine(EMPTY, replace(DEVICE, workspace_bytes=3 * MIB), lambda *step: seen.append(step))
    assert (built.target, built.tensorrt_version, built.cuda) == ("tensorrt", "10.3.0", "")
    assert f" {3 * MIB} NONE".encode() in built.plan
    assert built.timing_cache == b"measured;"
    assert built.flags["timing_cache"] == "new"
    assert seen == [("Building engine", 0, 2)]
    assert built.peak_bytes > 4 * MIB
    assert children() == []


def test_the_workspace_follows_what_is_free(scripted: Scripted):
    scripted("well")
    built = build()
    assert "MemAvailable" in str(built.flags["workspace_source"])
    assert int(built.flags["workspace_bytes"] or 0) > 64 * MIB


def test_hardware_compatibility_only_when_asked_for(scripted: Scripted):
    scripted("well")
    assert build().flags["hardware_compatibility"] == "NONE"
    built = build(options=replace(DEVICE, hardware_compatible=True))
    assert b"AMPERE_PLUS" in built.plan and built.flags["hardware_compatibility"] == "AMPERE_PLUS"


@pytest.mark.parametrize(
    ("script", "cache", "used"), [("well", b"before;measured;", "used"), ("other-gpu", b"measured;", "new")]
)
def test_a_timing_cache_goes_in_and_comes_out(scripted: Scripted, script: str, cache: bytes, used: str):
    scripted(script)
    built = build(timing_cache=b"before;")
    assert (built.timing_cache, built.flags["timing_cache"]) == (cache, used)


# ------------------------------------------------------------------------------------------------------------- drills
def test_drill_out_of_memory_that_looks_like_something_else(scripted: Scripted):
    scripted("short")
    error = fails()
    assert "not enough memory" in error.cause and "it asked for 1024 MiB at once" in error.cause
    assert error.cause.count("MemAvailable") == 2  # when it began, when it failed
    assert "--workspace-mib" in error.next
    assert any("Could not find any implementation" in line for line in error.log)


def test_drill_killed_by_the_kernel(scripted: Scripted):
    scripted("killed")
    error = fails()
    assert "killed (signal 9)" in error.what
    assert "memory ran out" in error.cause and "MiB at most; before: " in error.cause
    assert "add swap" in error.next


def test_drill_no_memory_in_the_library(scripted: Scripted):
    scripted("bad-alloc")
    error = fails()
    assert "could not get the memory that it asked for" in error.what
    assert any("bad_alloc" in line for line in error.log)


def test_drill_no_memory_in_python(scripted: Scripted):
    scripted("memory-error")
    with pytest.raises(MachineError, match="ran out of memory"):
        build()


def test_drill_crash(scripted: Scripted):
    scripted("crash")
    error = fails()
    assert "crashed (SIGSEGV)" in error.what
    assert "CUDA driver: internal fault" in error.log


def test_drill_a_fault_of_ours_or_theirs_is_told_with_its_traceback(scripted: Scripted):
    scripted("fault")
    error = fails()
    assert "status 1" in error.what
    assert "ZeroDivisionError: a fault of the binding" in error.log


def test_drill_memory_that_runs_short_ends_the_build_before_the_kernel_ends_something(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    scripted(f"hang {tmp_path / 'pid'}")
    left = iter([2000, 1500, 1000])

    def read() -> Memory:
        return Memory(8000 * MIB, next(left, 40) * MIB, 0, "MemAvailable")

    monkeypatch.setattr(module, "read_memory", read)
    error = fails()
    assert "runs out of memory" in error.what
    assert "before: 2000 MiB free of 8000 MiB (MemAvailable); now: 40 MiB free" in error.cause


def test_swap_counts_as_memory_that_is_left(scripted: Scripted, monkeypatch: pytest.MonkeyPatch):
    scripted("well")
    monkeypatch.setattr(module, "read_memory", lambda: Memory(8000 * MIB, 40 * MIB, 4000 * MIB, "MemAvailable"))
    assert build().plan


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_drill_an_interrupt_ends_the_child(scripted: Scripted, tmp_path: Path, error: type[BaseException]):
    scripted(f"hang {tmp_path / 'pid'}")

    def interrupt(*step: object) -> None:
        raise error

    with pytest.raises(error):
        build_engine(EMPTY, DEVICE, interrupt)
    assert children() == []


def test_drill_a_stop_by_the_supervisor_ends_both(scripted: Scripted, tmp_path: Path):
    """A parent that is killed outright cannot clean up: its child ends all the same."""
    for stop in (signal.SIGTERM, signal.SIGKILL):
        noted = tmp_path / f"pid{stop.value}"
        scripted(f"hang {noted}")
        code = f"import sys; sys.path[:] = {sys.path!r}\n"
        code += "from logoformer.engine.builder.process import *\n"
        code += f"build_engine({EMPTY!r}, BuildOptions(target='tensorrt'))"
        parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        child = wait_for(noted)
        parent.send_signal(stop)
        try:
            parent.wait(30)
        finally:
            parent.kill()
        deadline = time.monotonic() + 30
        while alive(child) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not alive(child), stop


def wait_for(noted: Path) -> int:
    """The id that the child notes once it is compiling."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if noted.exists() and noted.read_text():
            return int(noted.read_text())
        time.sleep(0.05)
    raise TimeoutError(noted)


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


# ----------------------------------------------------------------------------------------------------------- the way
def test_errors_come_back_as_what_they_are(scripted: Scripted):
    scripted("no-int8")
    with pytest.raises(BadInputError, match=r"conv/DequantizeLinear \(DequantizeLinear\): Could not infer") as caught:
        build(b"\x12\x04int8" + EMPTY)
    assert caught.value.next
    with pytest.raises(RefusedError, match=r"frame\.onnx is not an ONNX file"):
        build(b"nonsense")


def test_no_tensorrt_is_said_by_the_child_too(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(MachineError, match="needs the Python package tensorrt"):
        build()


def test_the_child_does_not_import_what_lies_in_the_current_folder(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    scripted("well")
    for name in ("json", "importlib", "tensorrt", "logoformer", "ctypes"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('planted')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert build().plan


def test_a_large_graph_and_two_builds_at_once(scripted: Scripted):
    scripted("well")
    large = b"\x32" + b"\x80\x80\x80\x04" + bytes(8 << 20) + EMPTY  # 8 MiB of doc string
    plans: list[bytes] = []
    threads = [threading.Thread(target=lambda data=data: plans.append(build(data).plan)) for data in (large, EMPTY)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({plan[:64] for plan in plans}) == 2


def test_the_child_imports_nothing_heavy(scripted: Scripted):
    code = "import sys; import logoformer.engine.builder.process; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    top = {name.partition(".")[0] for name in loaded}
    assert top & {"torch", "onnx", "onnxruntime", "cv2", "tensorrt", "tensorrt_rtx", "cryptography"} == set()
