"""How far a build is, from TensorRT's phases: one number from 0 to 1 that only grows, so that what is left can be told.

Phases lie inside each other: 'Building engine' has a few steps, and in one of them 'Timing tactics' has a thousand.
"""

from __future__ import annotations


class Overall:
    """Follows phases as `ProgressRelay` tells them.

    >>> overall = Overall()
    >>> [overall("build", 0, 2), overall("time", 5, 10), overall("build", 1, 2), overall("build", 2, 2)]
    [0.0, 0.25, 0.5, 1.0]
    """

    def __init__(self) -> None:
        self._open: list[tuple[str, int, int]] = []  # phase, done, total; each inside the one before
        self._share = 0.0

    def __call__(self, phase: str, done: int, total: int) -> float:
        """Takes a step of a phase; returns the share of the whole that is done."""
        names = [name for name, _, _ in self._open]
        if phase in names:
            del self._open[names.index(phase) :]
        while self._open and self._open[-1][1] >= self._open[-1][2]:  # ended: what begins now stands beside it
            self._open.pop()
        self._open.append((phase, done, max(total, 1)))
        inner = 0.0
        for _, finished, steps in reversed(self._open):
            inner = min((finished + inner) / steps, 1.0)
        self._share = max(self._share, inner)
        return self._share
