"""Modes of load on one bundle: closed, paced, multi and offline.

* closed: the next begins when the last is answered; all baselines interleaved.
* paced: frames arrive by the clock, and queue.
* multi: one new frame of each of several faces.
* offline: as many clips at once as the machine takes.

Every mode gives back answers that it was given *while it timed*, to be compared with the verified ones.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ...engine import Runtime
from ..accuracy import ClipAnswer, StreamAnswer, recording, sampled, stream_answers
from ..baselines.contract import (
    CLIP,
    CLIP_REPEATED,
    Baseline,
    Inputs,
    StepAnswer,
    answer_of,
    clip_baseline,
    faces_baseline,
)
from ..report.records import CPU, ReportRow, RowComparison
from ..report.rows import make_row
from ..statistics import ratio
from .closed import Candidate, Clock, LoadConfig, LoadResult, Progress, closed_loop
from .offline import offline
from .paced import paced


@dataclass(frozen=True)
class ModeResult:
    """Rows and recorded answers of one mode.

    Attributes:
        rows: without energy.
        clips: answers to clips, all of them.
        streams: answers of streams, a sample.
        comparisons: of these rows.
    """

    rows: tuple[ReportRow, ...]
    clips: tuple[ClipAnswer, ...] = ()
    streams: tuple[StreamAnswer, ...] = ()
    comparisons: tuple[RowComparison, ...] = ()


# -------------------------------------------------------------------------------------------------------------- closed
def run_closed(
    baselines: Sequence[Baseline],
    load: LoadConfig,
    zero_ns: int,
    progress: Progress | None = None,
    *,
    mode: str = "closed",
    clock: Clock = time.perf_counter_ns,
) -> tuple[ModeResult, LoadResult]:
    """Times all baselines interleaved; `CLIP_REPEATED` gets no row of its own.

    Args:
        baselines: names all different.
        load: how much.
        zero_ns: second 0 of the report.
        progress: called after each block.
        mode: of the rows.
        clock: a monotonic clock in nanoseconds.
    """
    answers: dict[str, dict[int, StepAnswer]] = {baseline.name: {} for baseline in baselines}
    candidates = [Candidate(one.name, recording(one.answer, answers[one.name])) for one in baselines]
    result = closed_loop(candidates, load, clock=clock, progress=progress)
    steps = [int(step) for step in result.steps.reshape(-1)]
    rows: list[ReportRow] = []
    clips: list[ClipAnswer] = []
    streams: list[StreamAnswer] = []
    for baseline in baselines:
        name, given = baseline.name, answers[baseline.name]
        if name != CLIP_REPEATED:
            every = [answer for step in steps for answer in (given[step], *given[step].others)]
            start_s = (result.start_ns[name] - zero_ns) / 1e9
            rows.append(make_row(baseline, mode, start_s, result.latency_ms[name], every))
        if not baseline.same_weights:
            continue
        if baseline.hop is None:
            for step in steps:
                clip = 0 if name == CLIP_REPEATED else step
                clips.append(ClipAnswer(clip, given[step].probabilities, baseline))
        else:
            for step in sampled(steps):
                streams += stream_answers((step + 1) * baseline.hop - 1, given[step], baseline)
    return ModeResult(tuple(rows), tuple(clips), tuple(streams)), result


# --------------------------------------------------------------------------------------------------------------- paced
def run_paced(
    runtime: Runtime, inputs: Inputs, rate_hz: float, hop: int, load: LoadConfig, device: str, zero_ns: int,
    progress: Progress | None = None,
) -> ModeResult:  # fmt: skip
    """One stream at a camera's rate, latency from scheduled arrival.

    Args:
        runtime: of the bundle.
        inputs: what it is fed.
        rate_hz: frames per second.
        hop: frames for one answer.
        load: gives the number of answers and of untimed frames before.
        device: 'cpu', or the GPU's name.
        zero_ns: second 0 of the report.
        progress: called after each frame.
    """
    answers: dict[int, StepAnswer] = {}
    with runtime.stream(hop=hop, color="rgb", warmup="repeat") as stream:

        def step(index: int) -> bool:
            result = stream.push(inputs.frame(index), index / inputs.fps)
            if result is not None:
                answers[index] = answer_of([result])
            return result is not None

        first = load.warmup * hop
        for index in range(first):
            step(index)
        result = paced(step, rate_hz, load.samples * hop, first=first, progress=progress)
    name = f"paced {rate_hz:g} Hz"
    what = f"stream.push at {rate_hz:g} frames/s, hop {hop}: scheduled arrival of the frame -> probabilities"
    baseline = Baseline(name, what, runtime.precision, True, lambda index: answers[index], runtime.backend, device, hop)
    steps = [int(step) for step in result.steps]
    given = [answers[step] for step in steps]
    due_s = (result.due_ns - zero_ns) / 1e9
    row = make_row(
        baseline, "paced", due_s[None], result.latency_ms[None], given,
        throughput_hz=result.pace.achieved_hz / hop, pace=result.pace,
    )  # fmt: skip
    streams = [found for step in sampled(steps) for found in stream_answers(step, answers[step], baseline)]
    return ModeResult((row,), streams=tuple(streams))


# --------------------------------------------------------------------------------------------------------------- multi
def run_multi(
    open_runtime: Callable[[], Runtime], inputs: Inputs, faces: int, hop: int, load: LoadConfig, device: str,
    zero_ns: int, progress: Progress | None = None,
) -> ModeResult:  # fmt: skip
    """Several faces through `runtime.step`, beside one face alone and beside itself.

    Args:
        open_runtime: opens one more runtime of the bundle.
        inputs: what is fed.
        faces: n, at least 2, at most those of the bundle's arena.
        hop: frames for one answer of each face.
        load: how much.
        device: 'cpu', or the GPU's name.
        zero_ns: second 0 of the report.
        progress: called after each block.
    """
    many, again, one = f"{faces} streams", f"{faces} streams again", "1 stream alone"
    baselines = [
        faces_baseline(open_runtime(), inputs, name, hop, count, device)
        for name, count in ((many, faces), (again, faces), (one, 1))
    ]
    part, result = run_closed(baselines, load, zero_ns, progress, mode="multi")
    noise = ratio(result.latency_ms[many], result.latency_ms[again])
    against = ratio(result.latency_ms[many], result.latency_ms[one])
    comparisons = (RowComparison(many, one, against, noise.noise), RowComparison(many, again, noise, noise.noise))
    return replace(part, comparisons=comparisons)


# ------------------------------------------------------------------------------------------------------------- offline
def run_offline(
    open_runtime: Callable[[], contextlib.AbstractContextManager[Runtime]], inputs: Inputs, workers: int,
    load: LoadConfig, device: str, zero_ns: int,
) -> ModeResult:  # fmt: skip
    """Clips through as many runtimes as there are workers.

    Args:
        open_runtime: opens one more runtime; called in the worker's thread.
        inputs: what is fed.
        workers: threads, each with its runtime.
        load: gives the number of results.
        device: 'cpu', or the GPU's name.
        zero_ns: second 0 of the report.
    """
    answers: dict[int, StepAnswer] = {}
    seen: list[Runtime] = []

    @contextlib.contextmanager
    def open_step() -> Iterator[Callable[[int], None]]:
        with open_runtime() as runtime:
            seen.append(runtime)
            yield recording(clip_baseline(runtime, inputs, CLIP, device).answer, answers)

    result = offline(open_step, workers, load.samples, max(load.warmup, 1))
    runtime = seen[0]
    what = f"{workers} threads, each with a runtime of its own: latency of one clip among them"
    baseline = Baseline("offline", what, runtime.precision, True, lambda index: answers[index], runtime.backend, device)
    given = [answers[index] for index in range(load.samples)]
    start_s, latency = (result.start_ns - zero_ns) / 1e9, result.latency_ns / 1e6
    row = make_row(baseline, "offline", start_s[None], latency[None], given, throughput_hz=result.throughput_hz)
    clips = [ClipAnswer(index, answer.probabilities, baseline) for index, answer in enumerate(given)]
    return ModeResult((row,), tuple(clips))


def workers_of(device: str, threads: int) -> int:
    """Threads of the offline mode: one a CPU; two on a GPU, one copying, one computing."""
    return max(threads, 1) if device == CPU else 2
