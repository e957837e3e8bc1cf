"""The open loop: frames arrive by the clock, as from a camera, and queue.

A closed loop waits for each answer before it asks again, so one stall of 50 ms is one slow answer in it. A camera does
not wait: the frames that arrive meanwhile queue up, and their answers are late too. Here a latency begins with the
*scheduled* arrival of its frame, so that queueing is in it (what a closed loop leaves out is known as coordinated
omission; MLPerf's server scenario counts likewise from the scheduled time).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..report.records import Pace
from ..statistics import Summary
from .closed import Clock, Progress

Wait = Callable[[int], None]
SPIN_S = 0.001  # the last part of a wait is spent looking at the clock: sleep alone wakes up late


@dataclass(frozen=True)
class PacedResult:
    """Every answer of an open loop.

    Attributes:
        due_ns, start_ns, end_ns: int64 `[n]` of the frames that were answered: scheduled arrival, beginning of their
            work, answer.
        steps: int64 `[n]`, the index of each such frame.
        pace: its queueing; `achieved_hz` is the rate itself where the server kept up.
    """

    due_ns: npt.NDArray[np.int64]
    start_ns: npt.NDArray[np.int64]
    end_ns: npt.NDArray[np.int64]
    steps: npt.NDArray[np.int64]
    pace: Pace

    @property
    def latency_ms(self) -> npt.NDArray[np.float64]:
        """From scheduled arrival to answer, float64 `[n]`."""
        return (self.end_ns - self.due_ns) / 1e6


def wait_until(due_ns: int) -> None:
    """Returns at or just after a time of `time.perf_counter_ns`."""
    left = (due_ns - time.perf_counter_ns()) / 1e9 - SPIN_S
    if left > 0:
        time.sleep(left)
    while time.perf_counter_ns() < due_ns:
        pass


def paced(
    step: Callable[[int], bool],
    rate_hz: float,
    frames: int,
    *,
    first: int = 0,
    clock: Clock = time.perf_counter_ns,
    wait: Wait = wait_until,
    progress: Progress | None = None,
) -> PacedResult:
    """Offers frames at a fixed rate to one server; nothing is dropped.

    Args:
        step: works on the frame of an index, says whether it was answered.
        rate_hz: arrivals per second.
        frames: how many arrive.
        first: index of the first.
        clock: a monotonic clock in nanoseconds.
        wait: returns at a time of that clock.
        progress: called after each frame.

    Raises:
        ValueError: no frame, or no rate.
    """
    if frames < 1 or not rate_hz > 0:
        raise ValueError(f"an open loop needs frames and a rate; got {frames} at {rate_hz} Hz")
    period_ns = 1e9 / rate_hz
    start, end = np.empty(frames, np.int64), np.empty(frames, np.int64)
    answered = np.zeros(frames, bool)
    zero = clock() + round(period_ns)
    due = zero + np.round(np.arange(frames) * period_ns).astype(np.int64)
    for i in range(frames):
        if clock() < due[i]:
            wait(int(due[i]))
        start[i] = clock()
        answered[i] = step(first + i)
        end[i] = clock()
        if progress is not None:
            progress("paced", i + 1, frames)
    waited = np.concatenate([[False], end[:-1] > due[1:]])
    # At the end of frame i, those have arrived that are due by then; i + 1 of them are done.
    waiting = np.searchsorted(due, end, side="left") - np.arange(1, frames + 1)
    idle = (start - due)[~waited]
    return PacedResult(
        due_ns=due[answered],
        start_ns=start[answered],
        end_ns=end[answered],
        steps=(first + np.flatnonzero(answered)).astype(np.int64),
        pace=Pace(
            rate_hz=rate_hz,
            achieved_hz=frames / (max(int(end[-1]) - zero, frames * period_ns) / 1e9),
            queued=int(waited.sum()),
            longest_queue=max(int(waiting.max()), 0),
            wake_us=float(np.median(idle)) / 1e3,
            service=Summary.of((end - start)[answered] / 1e6),
        ),
    )
