"""The verb `build` on a small bundle: what is filed, trusted, fallen back on, swept, and left alone when it fails."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from logoformer.bundle import Bundle
from logoformer.bundle import files as bundle_files
from logoformer.cli import main as cli
from logoformer.engine.builder import bundle as module
from logoformer.engine.builder.bundle import build_bundle
from logoformer.engine.builder.compile import BuildOptions
from logoformer.engine.machine.environment import Gpu, platform_name
from logoformer.engine.trust.admit import Running, admit_engine
from logoformer.engine.trust.index import read_index
from logoformer.engine.trust.store import TrustStore, cache_name
from logoformer.errors import BadInputError, LogoformerError, MachineError, RefusedError

DEVICE = BuildOptions(target="tensorrt")
ORIN = Gpu("Orin", "sm87", True, "12.6", 8)
Contents = Callable[[Path], dict[str, bytes]]


def graph_bytes(graph: str, precision: str) -> bytes:
    """A model with a producer's name and an empty graph: enough for the scan, and for what compiles nothing."""
    name = f"{graph} {precision}".encode()
    return b"\x12" + bytes([len(name)]) + name + b"\x3a\x02\x12\x00"


@pytest.fixture
def bundle(write_bundle: Callable[..., Bundle], tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "face.bundle", "", make=graph_bytes, precisions=("fp32", "fp16", "int8")).path


@pytest.fixture
def store(tmp_path: Path) -> TrustStore:
    return TrustStore(tmp_path / "state")


# -------------------------------------------------------------------------------------------------------- what is made
def test_what_was_built_here_is_admitted_here_and_nowhere_else(scripted, bundle, store, monkeypatch):
    scripted("well")
    report = build_bundle(bundle, DEVICE, trust=store, graphs=["frame"])
    assert [e.precision for e in report.engines] == ["fp32", "fp16", "int8"]
    entry = report.engines[1]
    assert entry.target == "tensorrt10.3.0-unknown"
    known = replace(entry, compute_capabilities=("sm87",))
    here = Running("tensorrt", "10.3.0", "sm87", platform_name())
    assert admit_engine(report.folder, known, here, trust=store) == (report.folder / entry.file).read_bytes()
    with pytest.raises(RefusedError, match="not trusted"):
        admit_engine(report.folder, known, here, trust=TrustStore(store.folder.parent / "of another user"))
    with pytest.raises(RefusedError, match="a GPU that was not recorded"):
        admit_engine(report.folder, entry, here, trust=store)


def test_the_index_says_how_and_where_it_was_built(scripted, bundle, store, monkeypatch):
    scripted("well")
    entry = build_bundle(bundle, DEVICE, trust=store, graphs=["frame"], precisions=["fp16"]).engines[0]
    assert (entry.platform, entry.cuda, entry.verdict) == (platform_name(), "", "built, not run")
    assert entry.flags["strongly_typed"] is True and entry.flags["tf32"] is False
    assert "MemAvailable" in entry.flags["workspace_source"]
    assert entry.flags["peak_bytes"] > 1 << 20
    assert read_index(bundle / "engines") == (entry,)


def test_a_gpu_that_is_there_names_the_engine(bundle, store, scripted, monkeypatch):
    """The child finds the GPU through the driver; here its record is made in this process, with a GPU put in place."""
    from logoformer.engine.builder import compile as build

    scripted("well")
    monkeypatch.setattr(build, "find_gpu", lambda device: ORIN)
    monkeypatch.setattr(module, "read_power_mode", lambda: "MAXN_SUPER (2)")
    monkeypatch.setattr(module, "build_engine", build.build_here)
    entry = build_bundle(bundle, DEVICE, trust=store, graphs=["frame"], precisions=["fp16"]).engines[0]
    assert (entry.target, entry.compute_capabilities, entry.cuda) == ("tensorrt10.3.0-sm87", ("sm87",), "12.6")
    assert (entry.gpu, entry.power_mode) == ("Orin, 8 multiprocessors", "MAXN_SUPER (2)")
    assert read_index(bundle / "engines") == (entry,)


def test_progress_tells_each_engine_and_how_far_it_is(scripted, bundle, store):
    scripted("well")
    seen: list[tuple[str, int, int]] = []
    build_bundle(bundle, DEVICE, trust=store, precisions=["fp16"], progress=lambda *step: seen.append(step))
    names = [f"{graph} fp16 ({n}/3)" for n, graph in enumerate(("clip", "frame", "temporal"), 1)]
    assert seen == [(name, 0, 100) for name in names]


# -------------------------------------------------------------------------------------------------------- timing cache
CACHE = f"timing.tensorrt10.3.0.{platform_name()}"


def test_what_one_build_measured_the_next_one_uses(scripted, bundle, store):
    scripted("well")
    report = build_bundle(bundle, DEVICE, trust=store, precisions=["fp16"])
    assert [e.flags["timing_cache"] for e in report.engines] == ["new", "used", "used"]
    assert store.admit_cache(CACHE, 1000) == (b"measured;" * 3, "")
    assert report.notes == ()


def test_drill_a_timing_cache_of_somebody_else_is_not_used_and_that_is_said(scripted, bundle, store):
    scripted("well")
    store.record_cache(CACHE, b"ours")
    store.cache_path(CACHE).write_bytes(b"evil")
    report = build_bundle(bundle, DEVICE, trust=store, graphs=["frame"], precisions=["fp16"])
    assert report.engines[0].flags["timing_cache"] == "new"
    assert len(report.notes) == 1 and "is not used: it is not the file that was recorded" in report.notes[0]
    assert store.admit_cache(CACHE, 1000) == (b"measured;", "")


def test_rtx_keeps_no_timing_cache(rtx, small_onnx, write_bundle, store, tmp_path):
    path = write_bundle(tmp_path / "b", "", make=lambda graph, precision: small_onnx(precision)).path
    report = build_bundle(path, BuildOptions(compute_capabilities=("sm86",)), trust=store, graphs=["frame"])
    assert [e.flags["timing_cache"] for e in report.engines] == ["", ""]
    assert not (store.folder / "caches").exists()
    assert {e.sha256 for e in report.engines} == set(store.read().engines)


# ------------------------------------------------------------------------------------------------------------ fallback
def test_int8_that_does_not_build_is_an_error_that_names_the_way_out(scripted, bundle, store, contents):
    scripted("no-int8")
    before = contents(bundle)
    with pytest.raises(BadInputError, match="conv/DequantizeLinear") as caught:
        build_bundle(bundle, DEVICE, trust=store, graphs=["frame"], precisions=["int8"])
    assert caught.value.next.startswith("--allow-fallback builds fp16")
    assert contents(bundle) == before


@pytest.mark.parametrize("script", ["no-int8", "no-int8-kernels"])
def test_int8_falls_back_to_fp16_when_that_is_allowed_and_it_is_recorded(scripted, bundle, store, script):
    scripted(script)
    report = build_bundle(bundle, DEVICE, trust=store, graphs=["frame"], precisions=["int8"], allow_fallback=True)
    (entry,) = report.engines
    assert entry.precision == "fp16"
    assert entry.graph_sha256 == Bundle(bundle).graph("frame", "fp16", 1).sha256
    assert entry.fallback["precision"] == "int8"
    reason = "Could not infer output types" if script == "no-int8" else "no INT8 implementation"
    assert reason in entry.fallback["reason"]
    assert report.notes[0].startswith("frame int8 was NOT built; fp16 takes its place: ")
    assert read_index(report.folder) == (entry,)


def test_a_fallback_builds_nothing_twice(scripted, bundle, store):
    scripted("no-int8")
    wanted = ["fp16", "int8"]
    report = build_bundle(bundle, DEVICE, trust=store, graphs=["frame"], precisions=wanted, allow_fallback=True)
    assert [(e.precision, e.fallback.get("precision")) for e in report.engines] == [("fp16", "int8")]


def test_a_disk_that_is_full_is_no_reason_to_fall_back(scripted, bundle, store, monkeypatch):
    def full(*args: object) -> None:
        raise MachineError("The disk is full.")

    scripted("well")
    monkeypatch.setattr(module, "write_engine", full)
    with pytest.raises(MachineError, match="disk is full"):
        build_bundle(bundle, DEVICE, trust=store, precisions=["int8"], allow_fallback=True)


def test_the_plan_of_an_engine_for_all_gpus_from_ampere_on(rtx, scripted, small_onnx, write_bundle, store, tmp_path):
    scripted("well")
    path = write_bundle(tmp_path / "b", "", make=lambda graph, precision: small_onnx(precision)).path
    options = replace(DEVICE, hardware_compatible=True)
    (entry,) = build_bundle(path, options, trust=store, graphs=["frame"], precisions=["fp16"], plan_sm="sm86").engines
    assert entry.flags["hardware_compatibility"] == "AMPERE_PLUS" and entry.plan["sm86"]["kernels"] > 0


def test_only_int8_has_something_to_fall_back_on(scripted, bundle, store):
    scripted("short")
    with pytest.raises(MachineError, match="built no engine") as caught:
        build_bundle(bundle, DEVICE, trust=store, precisions=["fp16"], allow_fallback=True)
    assert "allow-fallback" not in caught.value.next


def test_the_command_says_a_fallback_aloud(scripted, bundle, capsys):
    scripted("no-int8")
    words = ["build", str(bundle), "--target", "tensorrt", "--graph", "frame", "--precision", "int8"]
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert cli.main(words) == 3
        assert "--allow-fallback" in capsys.readouterr().err
        assert cli.main([*words, "--allow-fallback"]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "NOTE: frame int8 was NOT built; fp16 takes its place" in capsys.readouterr().out


# -------------------------------------------------------------------------------------------------------------- drills
def test_drill_without_tensorrt(bundle, fails):
    text = fails(6, "build", bundle, "--target", "tensorrt", names=("tensorrt",))
    assert "pip install 'logoformer[tensorrt]'" in text or "--system-site-packages" in text


@pytest.mark.parametrize("script", ["short", "killed", "crash", "bad-alloc", "memory-error", "fault"])
def test_drill_a_build_that_fails_leaves_everything_as_it_was(scripted, bundle, store, script, contents):
    scripted("well")
    build_bundle(bundle, DEVICE, trust=store, graphs=["clip"], precisions=["fp16"])
    before = contents(bundle)
    scripted(script)
    with pytest.raises(MachineError):
        build_bundle(bundle, DEVICE, trust=store)
    assert contents(bundle) == before
    Bundle(bundle)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_drill_killed_build(scripted, bundle, tmp_path, stop, contents):
    """Stopped in the middle: no part of an engine, the bundle opens, the process of the build is gone."""
    before = contents(bundle)
    noted = tmp_path / "pid"
    scripted(f"hang {noted}")
    code = f"import sys; sys.path[:] = {sys.path!r}\nfrom logoformer.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "build", str(bundle), "--target", "tensorrt"]
    running = subprocess.Popen(words, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (noted.exists() and noted.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(stop)
    try:
        said = running.communicate(timeout=30)[1].decode()
    finally:
        running.kill()
    assert running.returncode == (-9 if stop == signal.SIGKILL else 130), said
    child = Path(f"/proc/{noted.read_text()}/status")
    while child.exists() and "\nState:\tZ" not in child.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.exists() or "\nState:\tZ" in child.read_text()
    assert contents(bundle) == before
    assert not list(bundle.rglob(".part-*"))
    Bundle(bundle)


def refuse_writes(monkeypatch: pytest.MonkeyPatch, code: int, below: Path) -> None:
    """The system refuses to open anything for writing below a folder, as it does when the disk is full or read-only."""
    real = os.open

    def opening(path: Any, flags: int, *args: Any, **more: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) and str(path).startswith(str(below)):
            raise OSError(code, os.strerror(code), str(path))
        return real(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", opening)


def test_drill_disk_full(scripted, bundle, store, monkeypatch, contents):
    """It fills up while the engine is compiled: the write fails, and nothing of it stays."""
    scripted("well")
    build_bundle(bundle, DEVICE, trust=store, graphs=["clip"], precisions=["fp16"])
    before = contents(bundle)
    real = module.build_engine

    def fill(*args: Any, **more: Any) -> Any:
        built = real(*args, **more)
        refuse_writes(monkeypatch, errno.ENOSPC, bundle)
        return built

    monkeypatch.setattr(module, "build_engine", fill)
    with pytest.raises(MachineError, match="No space left") as caught:
        build_bundle(bundle, DEVICE, trust=store, graphs=["frame"])
    assert (caught.value.exit_code, caught.value.cause) == (6, "the disk is full")
    assert contents(bundle) == before


def test_drill_a_disk_too_small_is_said_before_anything_is_compiled(scripted, bundle, store, monkeypatch):
    monkeypatch.setattr(bundle_files.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))
    monkeypatch.setattr(module, "build_engine", lambda *args, **more: pytest.fail("it was compiled"))
    scripted("well")
    with pytest.raises(MachineError, match="0 MiB left") as caught:
        build_bundle(bundle, DEVICE, trust=store)
    assert "--engines-dir" in caught.value.next


def test_drill_read_only_root(scripted, bundle, store, tmp_path, monkeypatch, contents):
    """A bundle on a read-only file system: refused early with the way out, which then works."""
    scripted("well")
    before = contents(bundle)
    (bundle / "engines").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(module, "build_engine", lambda *args, **more: pytest.fail("it was compiled"))
        patch.setattr(os, "access", lambda path, mode: not str(path).startswith(str(bundle)))
        (bundle / "engines").rmdir()
        with pytest.raises(MachineError, match="Permission denied") as caught:
            build_bundle(bundle, DEVICE, trust=store)
        assert "--engines-dir" in caught.value.next and not (bundle / "engines").exists()
    (bundle / "engines").mkdir()
    with monkeypatch.context() as patch:
        refuse_writes(patch, errno.EROFS, bundle)
        patch.setattr(module, "build_engine", lambda *args, **more: pytest.fail("it was compiled"))
        with pytest.raises(MachineError, match="Read-only file system") as caught:
            build_bundle(bundle, DEVICE, trust=store)
    assert "--engines-dir" in caught.value.next
    refuse_writes(monkeypatch, errno.EROFS, bundle)
    elsewhere = tmp_path / "engines of mine"
    report = build_bundle(bundle, DEVICE, trust=store, graphs=["frame"], engines_dir=elsewhere)
    assert report.folder == elsewhere and read_index(elsewhere) == report.engines[:0] + tuple(
        sorted(report.engines, key=lambda e: e.key)
    )
    assert contents(bundle) == before


def test_drill_a_trust_store_that_cannot_be_written_is_said_before_anything_is_compiled(
    scripted, bundle, tmp_path, monkeypatch, contents
):
    scripted("well")
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(module, "build_engine", lambda *args, **more: pytest.fail("it was compiled"))
    before = contents(bundle)
    with pytest.raises(MachineError) as caught:
        build_bundle(bundle, DEVICE, trust=TrustStore(tmp_path / "file" / "state"))
    assert "XDG_STATE_HOME" in caught.value.next
    assert contents(bundle) == before


# --------------------------------------------------------------------------------------------------------- no onnx here
def test_a_device_without_the_onnx_package_builds(rtx, small_onnx, write_bundle, tmp_path):
    """A package that cannot be imported hides the real one, for the command and for the process it starts."""
    path = write_bundle(tmp_path / "b", "", make=lambda graph, precision: small_onnx(precision)).path
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for name in ("onnx", "torch", "onnxruntime", "cv2", "google"):
        (blocked / f"{name}.py").write_text(f"raise ModuleNotFoundError('blocked', name={name!r})")
    code = f"""
import sys; sys.path[:] = {[str(blocked), *sys.path]!r}
from logoformer.cli.main import main
assert main(["build", sys.argv[1], "--gpus", "sm86", "--graph", "frame", "--plan-sm", "sm86"]) == 0
try:
    import onnx
except ModuleNotFoundError:
    print("blocked")
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("blocked\n")
    assert len(read_index(path / "engines")) == 2


# ---------------------------------------------------------------------------------------------------------------- sweep
def test_replaced_engines_are_swept_an_hour_after_they_were_replaced(scripted, bundle, store, monkeypatch):
    scripted("well")

    def build(mib: int) -> Path:
        options = replace(DEVICE, workspace_bytes=mib << 20)
        report = build_bundle(bundle, options, trust=store, graphs=["frame"], precisions=["fp16"])
        return report.folder / report.engines[0].file

    first = build(1)
    signature = first.with_name(first.name + ".sig")
    signature.write_bytes(b"s" * 64)
    kept = [first.parent / "notes.txt", first.parent / "mine.engine"]
    for item in kept:
        item.write_bytes(b"not ours")
    for item in (*kept, first, signature):
        os.utime(item, (1, 1))
    second = build(2)
    assert first.exists() and second.exists()  # who opened the last index may still want it
    assert time.time() - first.stat().st_mtime < 600
    third = build(3)
    assert first.exists()
    os.utime(first, (1, 1))
    os.utime(signature, (1, 1))
    part = first.parent / ".part-0123.engine"
    part.write_bytes(b"")
    os.utime(part, (1, 1))
    fourth = build(4)
    assert not first.exists() and not signature.exists() and not part.exists()
    assert second.exists() and third.exists() and fourth.exists() and all(item.exists() for item in kept)


def test_a_linked_folder_is_not_swept(scripted, bundle, store, tmp_path):
    scripted("well")
    aside = tmp_path / "aside"
    aside.mkdir()
    victim = aside / "frame.fp16.b1.01234567.engine"
    victim.write_bytes(b"")
    os.utime(victim, (1, 1))
    (bundle / "engines").mkdir()
    (bundle / "engines" / "linked").symlink_to(aside)
    build_bundle(bundle, DEVICE, trust=store, graphs=["frame"], precisions=["fp16"])
    assert victim.exists()


def test_a_cache_name_here_has_no_gpu() -> None:
    assert cache_name("timing", Running("tensorrt", "10.3.0", None, platform_name())) == CACHE


def test_errors_keep_their_kind(scripted, bundle, store):
    scripted("well")
    damaged = next((bundle / "graphs").glob("frame.fp16*"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(LogoformerError) as caught:
        build_bundle(bundle, DEVICE, trust=store, graphs=["frame"], allow_fallback=True)
    assert type(caught.value) is RefusedError


def test_kernels_that_tensorrt_does_not_tell_are_missed_aloud(scripted, bundle, store):
    """The inspection runs in a process of its own too: what ends it does not end the build."""
    scripted("untold")
    done = build_bundle(bundle, DEVICE, trust=store, graphs=["frame"], precisions=["fp16"])
    assert len(done.engines) == 1 and done.engines[0].plan == {}
    assert "TensorRT does not tell its kernels" in done.notes[0] and "nothing proves" in done.notes[0]
