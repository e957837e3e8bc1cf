"""Throughput of several workers without a deadline (MLPerf's offline scenario in small).

Each worker is a thread with a runtime of its own, opened in that thread; the backends release Python's lock while they
compute. All clips are at hand from the start.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .closed import Clock

OpenStep = Callable[[], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class OfflineResult:
    """One run of all workers.

    Attributes:
        start_ns, latency_ns: int64 `[n]` in the order of the step index.
        seconds: from the first beginning to the last end.
    """

    start_ns: npt.NDArray[np.int64]
    latency_ns: npt.NDArray[np.int64]
    seconds: float

    @property
    def throughput_hz(self) -> float:
        """Results per second of wall clock."""
        return len(self.latency_ns) / self.seconds


def offline(open_step: OpenStep, workers: int, results: int, warmup: int, clock: Clock = time.perf_counter_ns
            ) -> OfflineResult:  # fmt: skip
    """Runs steps 0 ... results - 1 on all workers, whoever is free taking the next.

    Args:
        open_step: opens one worker's runtime and gives its step; called in the worker's own thread.
        workers: threads.
        results: timed steps in all.
        warmup: untimed steps of each worker before the common start.
        clock: a monotonic clock in nanoseconds.

    Raises:
        Exception: the first that a worker raised; the others end.
    """
    start, taken = np.empty(results, np.int64), np.empty(results, np.int64)
    numbers: Iterator[int] = iter(range(results))
    ready, lock, failed = threading.Barrier(workers), threading.Lock(), threading.Event()

    def work() -> None:
        try:
            with open_step() as step:
                for index in range(warmup):
                    step(index)
                ready.wait()
                while not failed.is_set():
                    with lock:
                        number = next(numbers, None)
                    if number is None:
                        break
                    began = clock()
                    step(number)
                    taken[number] = clock() - began
                    start[number] = began
        except threading.BrokenBarrierError:
            pass  # another worker failed before the start; its error is the one to show
        except BaseException:
            failed.set()
            ready.abort()
            raise

    with ThreadPoolExecutor(workers, "offline") as pool:
        for done in [pool.submit(work) for _ in range(workers)]:
            done.result()
    return OfflineResult(start, taken, (int((start + taken).max()) - int(start.min())) / 1e9)
