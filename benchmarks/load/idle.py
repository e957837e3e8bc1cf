"""Latency of the first answer after a pause."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from ..report.records import IdleGap
from .closed import Clock, Progress

GAPS_S = (0.0, 0.1, 0.5, 2.0)


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
