"""Latency of a first answer: in a new process, phase by phase, and after a pause.

The child's clock readings are compared with the parent's: on Linux `time.monotonic_ns` is one clock for all processes.
The files of the bundle are in the page cache, as after the first start since boot; dropping it needs root.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import MachineError
from ..report.records import ColdStart, IdleGap
from .closed import Clock, Progress

GAPS_S = (0.0, 0.1, 0.5, 2.0)
STARTS = 5
WARM = 20  # answers after the first one
TIMEOUT_S = 600.0
# The child reads the clock before it imports anything of ours.
CODE = f"import time; entered = time.monotonic_ns(); from {__name__} import child; child(entered)"


def cold_starts(bundle: Path, backend: str, precision: str, threads: int, starts: int = STARTS,
                progress: Progress | None = None, device: int = 0, *, strict: bool = False) -> ColdStart:  # fmt: skip
    """Starts new processes that open the bundle and answer.

    Args:
        bundle: its folder.
        backend: of `logoformer.load`.
        precision: of `logoformer.load`.
        threads: of `logoformer.load`.
        starts: processes.
        progress: called after each.
        device: of `logoformer.load`.
        strict: of `logoformer.load`.

    Raises:
        MachineError: a process failed.
    """
    found = []
    for done in range(starts):
        found.append(_start(bundle, backend, precision, threads, device, strict=strict))
        if progress is not None:
            progress("cold start", done + 1, starts)
    return ColdStart(**{name: tuple(one[name] for one in found) for name in found[0]})


def _start(bundle: Path, backend: str, precision: str, threads: int, device: int, *, strict: bool) -> dict[str, float]:
    words = [sys.executable, "-c", CODE, str(bundle), backend, precision, str(threads), str(device), str(int(strict))]
    paths = [path for path in sys.path if path]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}  # the child finds what this process found
    began = time.monotonic_ns()
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, env=env, check=False)
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"A cold start took longer than {TIMEOUT_S:.0f} s.") from error
    if done.returncode:
        raise MachineError(
            f"The process of a cold start ended with {done.returncode}.", log=done.stderr.splitlines()[-20:]
        )
    return phases(began, json.loads(done.stdout.splitlines()[-1]))


def phases(began_ns: int, marks: Mapping[str, Any]) -> dict[str, float]:
    """Milliseconds of each phase.

    Args:
        began_ns: when the parent asked for the process.
        marks: what the child said: `entered`, `imported`, `loaded`, `first` in nanoseconds, `warm_ms`.
    """
    order = [began_ns, *(int(marks[name]) for name in ("entered", "imported", "loaded", "first"))]
    found = {
        f"{name}_ms": (end - begin) / 1e6
        for name, (begin, end) in zip(("process", "import", "load", "first"), itertools.pairwise(order), strict=True)
    }
    return {**found, "warm_ms": float(marks["warm_ms"]), "total_ms": (order[-1] - began_ns) / 1e6}


def child(entered_ns: int) -> None:
    """The measured process: opens the bundle, answers, and prints when it reached each phase.

    Args:
        entered_ns: `time.monotonic_ns` in the process's first line.
    """
    bundle, backend, precision, threads, device, strict = sys.argv[1:]
    from ...bundle import Bundle
    from ...engine import load

    marks: dict[str, float] = {"entered": entered_ns, "imported": time.monotonic_ns()}
    opened = Bundle(Path(bundle))
    with load(
        opened, backend=backend, precision=precision, threads=int(threads), device=int(device), strict=strict == "1"
    ) as runtime:
        for graph in ("clip", "frame", "temporal"):
            runtime.session(graph)
        marks["loaded"] = time.monotonic_ns()
        clips = opened.golden().clips
        # The clips are read before the clock of the first answer starts: they stand for a camera.
        before = time.monotonic_ns()
        runtime(clips[0], color="rgb")
        marks["first"] = marks["loaded"] + time.monotonic_ns() - before
        warm = []
        for index in range(1, WARM + 1):
            before = time.monotonic_ns()
            runtime(clips[index % len(clips)], color="rgb")
            warm.append((time.monotonic_ns() - before) / 1e6)
    sys.stdout.write(json.dumps({**marks, "warm_ms": sorted(warm)[len(warm) // 2]}) + "\n")


# --------------------------------------------------------------------------------------------------------------- pauses
def idle_gaps(
    step: Callable[[int], object],
    gaps_s: Sequence[float] = GAPS_S,
    repeats: int = 8,
    *,
    clock: Clock = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
    progress: Progress | None = None,
    seed: int = 0,
) -> tuple[IdleGap, ...]:
    """Times one answer after each pause, the pauses in an order drawn anew in every repeat.

    Before each pause two answers are given, so that every pause begins alike.

    Args:
        step: works on an index; every call gets the next one.
        gaps_s: pauses, the first being 0.
        repeats: of each pause.
        clock: a monotonic clock in nanoseconds.
        sleep: passes seconds.
        progress: called after each pause.
        seed: of the order.

    Raises:
        ValueError: the first pause is not 0.
    """
    if not gaps_s or gaps_s[0] != 0:
        raise ValueError(f"the first pause must be 0, to compare the others with; got {list(gaps_s)}")
    rng = np.random.default_rng(seed)
    taken: list[list[float]] = [[] for _ in gaps_s]
    index = done = 0
    for _ in range(repeats):
        for place in rng.permutation(len(gaps_s)):
            for _ in range(2):
                step(index)
                index += 1
            if gaps_s[place] > 0:
                sleep(gaps_s[place])
            began = clock()
            step(index)
            taken[place].append((clock() - began) / 1e6)
            index, done = index + 1, done + 1
            if progress is not None:
                progress("idle gaps", done, repeats * len(gaps_s))
    base = float(np.median(taken[0]))
    return tuple(
        IdleGap(gap, tuple(ms), None if gap == 0 else float(np.median(ms)) / base)
        for gap, ms in zip(gaps_s, taken, strict=True)
    )
