"""Whether answers come from a cache (MLPerf's TEST04): the same clip again must cost what a new clip costs.

Time alone would not prove it, so the runs of the graph are counted too: as many as answers.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from ...engine import Runtime
from ...engine.sessions.contract import Session
from ..baselines.contract import Inputs
from ..report.records import CacheCheck
from ..statistics import Ratio

ANSWERS = 3
TOLERANCE = 0.10  # MLPerf's: repeated input may be 10 % faster


class CountingSession:
    """A session that counts how often it runs; everything else is the session's own."""

    def __init__(self, session: Session) -> None:
        self._session, self.runs = session, 0
        self.inputs, self.outputs = session.inputs, session.outputs

    def input(self, name: str) -> npt.NDArray[Any]:
        return self._session.input(name)

    def output(self, name: str) -> npt.NDArray[Any]:
        return self._session.output(name)

    def run(self) -> None:
        self.runs += 1
        self._session.run()

    def take(self, *words: Any, **more: Any) -> None:
        self._session.take(*words, **more)

    def close(self) -> None:
        """Leaves the session to whoever opened it."""


def count_runs(runtime: Runtime, inputs: Inputs, answers: int = ANSWERS) -> int:
    """How often the clip graph runs for so many answers to one and the same clip."""
    counting = CountingSession(runtime.session("clip"))
    with Runtime(runtime.bundle, lambda _entry: counting, runtime.backend, runtime.precision) as counted:
        for _ in range(answers):
            counted(inputs.clip(0), color="rgb")
    return counting.runs


def cache_check(runtime: Runtime, inputs: Inputs, repeated: Ratio, noise: float) -> CacheCheck:
    """The verdict.

    Args:
        runtime: the one that was timed.
        inputs: what it was fed.
        repeated: one clip again and again over clips in rotation, from one interleaved run.
        noise: A/A noise of that run.
    """
    calls = count_runs(runtime, inputs)
    cached = calls < ANSWERS or repeated.high < 1.0 - max(noise, TOLERANCE)
    return CacheCheck(repeated, noise, calls, ANSWERS, cached)
