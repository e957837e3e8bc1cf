"""The verb `fieldtest`: a process for every step, its failure recorded, the rest done.

What is done is kept in `OUT.part` beside the kit, so that a test that was ended goes on where it was; another bundle,
machine or version begins anew.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

from ... import __version__
from ...bundle import Bundle
from ...bundle.files import dump_json, parse_json, sha256, write_atomic, writing
from ...bundle.sealed import only_writer
from ...engine.machine.environment import find_gpu, read_power_mode, target_here
from ...engine.sessions.backends import choose_precisions
from ...errors import EXIT_ENVIRONMENT, LogoformerError, command
from ..load.closed import Progress
from ..report import fields
from ..sensors.machine import Machine, read_machine
from .kit import DONE, FAILED, NOT_RUN, TOO_LONG, FieldKit, KitStep, kit_files, write_kit
from .plan import BUNDLE, CLI, TARGETS, FieldStep, plan
from .privacy import Scrubber

STATE = "state.json"
# The child ends with this process, whatever ends it (1 is PR_SET_PDEATHSIG), and runs a module as `python -m` does.
_BOOT = """
import ctypes, os, runpy, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() == int(sys.argv.pop(1)):
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""
_POLL_S = 0.05


def fieldtest(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    iterations: int = 140,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> FieldKit:
    """Runs every step that was not done yet, lists what the kit will hold, and writes it.

    Args:
        path: the bundle; its engines are built into it.
        out: the kit, a zip.
        iterations: timed results of each row.
        progress: called with (step, done, total).
        say: prints a line.

    Raises:
        BadInputError: there is no bundle.
        VerificationError: no precision of it was accepted.
        MachineError: the folder of `out` may not be written, or another field test writes there.
    """
    bundle, target = Bundle(path), Path(out)
    work = target.with_name(f"{target.name}.part")
    backend = next(name for name, kind in TARGETS.items() if kind == target_here())
    kit = _index(bundle, backend)
    steps = plan(backend, kit.precision, choose_precisions(bundle, "verdict", "onnxruntime")[0], iterations)
    scrub = Scrubber.here({str(bundle.path.resolve()): BUNDLE, str(bundle.path): BUNDLE, bundle.path.name: BUNDLE})
    kit = replace(kit, machine=fields.read(Machine, scrub.value(asdict(kit.machine))))
    with writing(work):
        work.mkdir(parents=True, exist_ok=True)
    with only_writer(work):
        done = _resumed(work, _fingerprint(kit, steps))
        for number, step in enumerate(steps):
            if progress is not None:
                progress(step.name, number, len(steps))
            if step.name not in done:
                record, result = run_step(step, {BUNDLE: str(bundle.path)}, scrub)
                if result is not None:
                    write_atomic(work / record.result, dump_json(result))
                done[step.name] = record
                _keep(work, _fingerprint(kit, steps), done)
            say(_line(done[step.name]))
        records = tuple(done[step.name] for step in steps)
        results = {one.result: (work / one.result).read_bytes() for one in records if one.result}
        kit = replace(kit, steps=records, files=kit_files(results))
        for line in contents(kit):
            say(line)
        write_kit(target, kit, results)
        _clear(work, steps)
    return kit


def contents(kit: FieldKit) -> list[str]:
    """What a kit holds, for people, before it is written."""
    machine = ", ".join(filter(None, (kit.machine.board, kit.machine.cpu, kit.machine.system)))
    lines = ["The kit holds, and nothing else:"]
    lines.append(f"  kit.json  the machine ({machine}; {kit.gpu.model if kit.gpu else 'no GPU'}), versions, the steps")
    lines += [f"  {one.name}  {one.size} bytes" for one in kit.files]
    lines.append(
        "No paths, no names of users or hosts, no serial numbers, no pictures. Look at it: it is a zip of JSON."
    )
    return lines


def run_step(step: FieldStep, paths: dict[str, str], scrub: Scrubber) -> tuple[KitStep, Any]:
    """Runs one step in a process of its own.

    Returns:
        What became of it, and what it printed as JSON, without private texts; None where it gave nothing.
    """
    words = step.words_for(paths)
    began = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        code, peak = _run([step.module, *words], step.limit_s, out, err)
        seconds = time.monotonic() - began
        said, complaint = _tail(out), _tail(err)
    result, status, why, advice = None, DONE, "", ""
    if code is None:
        status, why = TOO_LONG, f"it was ended after {step.limit_s} s"
    elif code == 0:
        result = _json(said)
        status, why = (DONE, "") if result is not None else (FAILED, "it gave no JSON")
    else:
        error = _json(complaint) or {}
        status = NOT_RUN if code == EXIT_ENVIRONMENT else FAILED
        last = complaint.decode("utf-8", "replace").strip().splitlines()[-1:]
        why = str(error.get("what") or "".join(last)[:300] or f"it ended with {code} and said nothing")
        why = f"{why} Likely cause: {error['cause']}" if error.get("cause") else why
        advice = str(error.get("next", ""))
    if result is not None:
        result = scrub.value(doctor_facts(result) if step.name == "doctor" else result)
    shown = command(*(("logoformer",) if step.module == CLI else ("python", "-m", step.module)), *step.words)
    record = KitStep(
        name=step.name,
        command=shown,
        needs_gpu=step.needs_gpu,
        limit_s=step.limit_s,
        status=status,
        exit_code=code,
        seconds=round(seconds, 2),
        peak_rss_mib=round(peak / 1024, 1),
        why=scrub.text(why),
        next=scrub.text(advice),
        result=f"{step.name}.json" if result is not None else "",
    )
    return record, result


def _run(words: list[str], limit_s: float, out: IO[bytes], err: IO[bytes]) -> tuple[int | None, int]:
    """(exit code, or None when it took too long; KiB that it held at most)."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    child = subprocess.Popen(
        [sys.executable, "-c", _BOOT, str(os.getpid()), *words],
        stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, start_new_session=True,
    )  # fmt: skip
    limit = time.monotonic() + limit_s
    try:
        while True:
            found, status, used = os.wait4(child.pid, os.WNOHANG)
            if found:
                child.returncode = os.waitstatus_to_exitcode(status)
                return child.returncode, used.ru_maxrss
            if time.monotonic() > limit:
                return None, 0
            time.sleep(_POLL_S)
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def doctor_facts(said: dict[str, Any]) -> dict[str, Any]:
    """What of `doctor` goes into a kit: no folder of this machine."""
    kept = ("exit_code", "system", "architecture", "python", "jetson", "board", "l4t", "driver", "cuda", "backends")
    return {
        **{name: said[name] for name in kept},
        "debian_packages": said["debian_packages"],
        "gpus": [{name: gpu[name] for name in ("name", "sm", "memory_mib")} for gpu in said["gpus"]],
        "modules": {name: {"version": m["version"], "owners": m["owners"]} for name, m in said["modules"].items()},
        "checks": [{name: check[name] for name in ("name", "status", "text")} for check in said["checks"]],
    }


def _index(bundle: Bundle, backend: str) -> FieldKit:
    return FieldKit(
        created=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        logoformer=__version__,
        machine=read_machine(),
        gpu=find_gpu(),
        power_mode=read_power_mode(),
        backend=backend,
        precision=choose_precisions(bundle, "verdict", backend)[0],
        preset=str(bundle.manifest["model"].get("preset", "")),
        graphs={f"{graph.graph}.{graph.precision}.b{graph.batch}": graph.sha256 for graph in bundle.graphs},
        steps=(),
        files=(),
    )


def _fingerprint(kit: FieldKit, steps: tuple[FieldStep, ...]) -> str:
    """Tells whether what was done before belongs to the same test."""
    machine = (kit.machine.cpu, kit.machine.board, kit.machine.system, kit.machine.packages, kit.machine.python)
    same = (kit.logoformer, machine, asdict(kit.gpu) if kit.gpu else None, kit.power_mode, kit.graphs)
    return sha256(dump_json([same, [asdict(step) for step in steps]]))


def _resumed(work: Path, fingerprint: str) -> dict[str, KitStep]:
    """Steps that were done before; none when the state is another test's, or is damaged."""
    try:
        state = parse_json((work / STATE).read_bytes(), STATE)
        done = {item["name"]: fields.read(KitStep, item) for item in state["steps"]}
        whole = all((work / step.result).is_file() for step in done.values() if step.result)
        return done if state["fingerprint"] == fingerprint and whole else {}
    except (OSError, LogoformerError, LookupError, TypeError, ValueError):
        return {}


def _keep(work: Path, fingerprint: str, done: dict[str, KitStep]) -> None:
    state = {"fingerprint": fingerprint, "steps": [asdict(step) for step in done.values()]}
    write_atomic(work / STATE, dump_json(state))


def _clear(work: Path, steps: Iterable[FieldStep]) -> None:
    """Removes what field tests wrote, and the folder unless it holds anything else."""
    for own in (*(work / f"{step.name}.json" for step in steps), work / STATE, *work.glob(".part-*"), work / ".lock"):
        own.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        work.rmdir()


def _line(step: KitStep) -> str:
    return f"{step.name:<13} {step.status:<13} {step.seconds:6.1f} s  {step.why}".rstrip()


def _tail(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def _json(said: bytes) -> Any:
    """The last line as an object; None when it is none."""
    lines = said.strip().splitlines()
    try:
        found = json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
