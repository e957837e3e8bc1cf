"""Hollow sessions: the wrapper's own cost, and whether answers come from a cache.

The real `Runtime`, `Stream` and `Worker` run: checks, colour order, copies into the session's buffers, ring, `order`,
result. Only the session is hollow: its buffers are there, `run` and the token copy return at once (the copy is the
backend's work: a device copy on a GPU). Whatever remains is paid on every answer, on every backend.

A cache (MLPerf's TEST04) would make the same clip again cheaper than a new clip. Time alone would not prove that there
is none, so the runs of the graph are counted too: as many as answers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...bundle import Bundle, GraphEntry, TensorSpec
from ...engine import Runtime
from ...engine.sessions.contract import Backend, HostSession, Session, allocate
from ..baselines.contract import CLIP, STREAM, Inputs, clip_baseline, stream_baseline
from ..report.records import CacheCheck
from ..statistics import Ratio
from .closed import Candidate, Clock, LoadConfig, closed_loop

WORKER = "worker"
ANSWERS = 3
TOLERANCE = 0.10  # MLPerf's: repeated input may be 10 % faster


class HollowSession(HostSession):
    """Implements `engine.sessions.contract.Session` for one graph; only counts its runs."""

    runs = 0

    def __init__(self, entry: GraphEntry) -> None:
        self.inputs: Mapping[str, TensorSpec] = {spec.name: spec for spec in entry.inputs}
        self.outputs: Mapping[str, TensorSpec] = {spec.name: spec for spec in entry.outputs}
        self._buffers = {**allocate(self.inputs), **allocate(self.outputs)}

    def input(self, name: str) -> npt.NDArray[Any]:
        return self._buffers[name]

    def output(self, name: str) -> npt.NDArray[Any]:
        return self._buffers[name]

    def run(self) -> None:
        self.runs += 1

    def take(self, source: Session, output: str, name: str, row: int, index: int = 0) -> None:
        return None

    def close(self) -> None:
        self._buffers = {}


@dataclass(frozen=True)
class WrapperCost:
    """Own cost of one answer, in microseconds.

    Attributes:
        n: calls behind each figure.
        clip_p50_us, clip_p95_us: `runtime(clip)`.
        push_p50_us, push_p95_us: `stream.push(frame, t)` with hop 1.
        worker_p50_us, worker_p95_us: the same through a worker, from `submit` to the future's result: what is more than
            `push` is the frame's copy and two changes of threads. None in reports from before it was measured.
    """

    n: int
    clip_p50_us: float
    clip_p95_us: float
    push_p50_us: float
    push_p95_us: float
    worker_p50_us: float | None
    worker_p95_us: float | None


def measure_wrapper(bundle: Bundle, precision: str, inputs: Inputs, clock: Clock = time.perf_counter_ns) -> WrapperCost:
    """Times the wrapper's calls, interleaved, and then the worker, over hollow sessions.

    Args:
        bundle: gives shapes and sampling; no graph of it is opened.
        precision: of the index entries that are read.
        inputs: clips at the model's own size.
        clock: a monotonic clock in nanoseconds.
    """
    config = LoadConfig(rounds=20, block=50, settle=2, warmup=20)
    hollow = Backend("hollow", precision, HollowSession)
    with Runtime(bundle, hollow) as runtime:
        baselines = (clip_baseline(runtime, inputs, CLIP), stream_baseline(runtime, inputs, STREAM))
        candidates = [Candidate(baseline.name, baseline.answer) for baseline in baselines]
        taken = closed_loop(candidates, config, clock=clock).latency_ms
    with Runtime(bundle, hollow) as runtime, runtime.worker() as worker:
        stream = worker.stream(hop=1, color="rgb", warmup="repeat")

        def submit(index: int) -> None:
            worker.submit(stream, inputs.frame(index), index / inputs.fps).result()

        through = closed_loop([Candidate(WORKER, submit)], config, clock=clock).latency_ms
    every_ms = (taken[CLIP], taken[STREAM], through[WORKER])
    return WrapperCost(config.samples, *(float(us) for ms in every_ms for us in np.percentile(ms * 1e3, (50, 95))))


# --------------------------------------------------------------------------------------------------------------- cache
def count_runs(runtime: Runtime, inputs: Inputs, answers: int = ANSWERS) -> int:
    """Count the graph's runs for so many answers to one and the same clip."""
    opened: list[HollowSession] = []

    def open_counting(entry: GraphEntry) -> HollowSession:
        opened.append(HollowSession(entry))
        return opened[-1]

    with Runtime(runtime.bundle, Backend(runtime.backend, runtime.precision, open_counting)) as counted:
        for _ in range(answers):
            counted(inputs.clip(0), color="rgb")
    return sum(session.runs for session in opened)


def cache_check(runtime: Runtime, inputs: Inputs, repeated: Ratio, noise: float) -> CacheCheck:
    """Decides whether answers come from a cache.

    Args:
        runtime: the one that was timed.
        inputs: what it was fed.
        repeated: one clip again and again over clips in rotation, from one interleaved run.
        noise: A/A noise of that run.
    """
    calls = count_runs(runtime, inputs)
    cached = calls < ANSWERS or repeated.high < 1.0 - max(noise, TOLERANCE)
    return CacheCheck(repeated, noise, calls, ANSWERS, cached)
