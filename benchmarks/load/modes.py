"""The modes of load: how the same artifact is asked, and what each way says.

* closed: the next begins when the last is answered; all baselines interleaved.
* paced: frames arrive by the clock, and queue.
* multi: one new frame of each of several faces.
* offline: as many clips at once as the machine takes.

Every mode gives back answers that it was given *while it timed*, to be compared with the verified ones.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ...engine import Runtime
from ..accuracy import ClipAnswer, StreamAnswer, recording, sampled
from ..baselines.contract import CLIP, CLIP_REPEATED, Answer, Baseline, Inputs, answer_of, clip_baseline
from ..report.records import CPU, Comparison, Pace, Row
from ..report.rows import closed_row, make_row
from ..statistics import Summary, ratio
from .closed import Candidate, Clock, LoadConfig, LoadResult, Progress, closed_loop
from .offline import offline
from .paced import paced

APART = 5  # frames between the places where the faces of one run begin: no two see the same


@dataclass(frozen=True)
class ModeResult:
    """What one mode gave.

    Attributes:
        rows: without energy.
        clips: answers to clips, all of them.
        streams: answers of streams, a sample.
        comparisons: of these rows.
    """

    rows: tuple[Row, ...]
    clips: tuple[ClipAnswer, ...] = ()
    streams: tuple[StreamAnswer, ...] = ()
    comparisons: tuple[Comparison, ...] = ()


# -------------------------------------------------------------------------------------------------------------- closed
def run_closed(
    baselines: Sequence[Baseline],
    load: LoadConfig,
    zero_ns: int,
    progress: Progress | None = None,
    *,
    clock: Clock = time.perf_counter_ns,
) -> tuple[ModeResult, LoadResult]:
    """All baselines interleaved, one step at a time. `CLIP_REPEATED` is timed but gets no row of its own.

    Args:
        baselines: names all different.
        load: how much.
        zero_ns: second 0 of the report.
        progress: called after each block.
        clock: a monotonic clock in nanoseconds.
    """
    answers: dict[str, dict[int, Answer]] = {baseline.name: {} for baseline in baselines}
    candidates = [Candidate(baseline.name, recording(baseline, answers[baseline.name])) for baseline in baselines]
    result = closed_loop(candidates, load, clock=clock, progress=progress)
    steps = [int(step) for step in result.steps.reshape(-1)]
    clips: list[ClipAnswer] = []
    streams: list[StreamAnswer] = []
    for baseline in baselines:
        if not baseline.same_weights:
            continue
        given = answers[baseline.name]
        if baseline.hop is None:
            same = baseline.name == CLIP_REPEATED
            clips += [
                ClipAnswer(0 if same else step, given[step].probabilities, baseline.name, baseline.tolerance)
                for step in steps
            ]
        else:
            checked = [steps[place] for place in sampled(len(steps))]
            streams += [
                StreamAnswer((step + 1) * baseline.hop - 1, 0, given[step].probabilities, baseline.name)
                for step in checked
            ]
    shown = [baseline for baseline in baselines if baseline.name != CLIP_REPEATED]
    rows = tuple(closed_row(baseline, result, answers[baseline.name], zero_ns) for baseline in shown)
    return ModeResult(rows, tuple(clips), tuple(streams)), result


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
    answers: dict[int, Answer] = {}
    with runtime.stream(hop=hop, color="rgb", warmup="repeat") as stream:

        def step(index: int) -> bool:
            result = stream.push(inputs.frame(index), index / inputs.fps)
            if result is not None:
                answers[index] = answer_of(result)
            return result is not None

        first = load.warmup * hop
        for index in range(first):
            step(index)
        result = paced(step, rate_hz, load.samples * hop, first=first, progress=progress)
    name = f"paced {rate_hz:g} Hz"
    what = f"stream.push at {rate_hz:g} frames/s, hop {hop}: scheduled arrival of the frame -> probabilities"
    baseline = Baseline(name, what, runtime.precision, True, lambda index: answers[index], runtime.backend, device, hop)
    pace = Pace(
        rate_hz=rate_hz,
        achieved_hz=result.achieved_hz,
        queued=result.queued,
        longest_queue=result.longest_queue,
        wake_us=result.wake_us,
        service=Summary.of(result.service_ms),
    )
    steps = [int(step) for step in result.steps]
    given = [answers[step] for step in steps]
    due_s = (result.due_ns - zero_ns) / 1e9
    row = make_row(
        baseline, "paced", due_s[None], result.latency_ms[None], given,
        throughput_hz=result.achieved_hz / hop, pace=pace,
    )  # fmt: skip
    checked = [steps[place] for place in sampled(len(steps))]
    return ModeResult((row,), streams=tuple(StreamAnswer(step, 0, answers[step].probabilities) for step in checked))


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
    kept: dict[str, dict[int, list[Answer]]] = {}
    baselines, candidates = {}, []
    for name, count in ((many, faces), (again, faces), (one, 1)):
        runtime = open_runtime()
        answers = kept.setdefault(name, {})
        candidates.append(Candidate(name, _stepping(runtime, inputs, count, hop, answers)))
        what = f"runtime.step: {hop} new uint8 frame(s) of each of {count} face(s) -> {count} x probabilities"
        baselines[name] = Baseline(
            name, what, runtime.precision, True, _first_of(answers), runtime.backend, device, hop
        )
    result = closed_loop(candidates, load, progress=progress)
    steps = [int(step) for step in result.steps.reshape(-1)]
    rows, streams = [], []
    for name, count in ((many, faces), (again, faces), (one, 1)):
        start_s = (result.start_ns[name] - zero_ns) / 1e9
        given = [answer for step in steps for answer in kept[name][step]]
        rows.append(make_row(baselines[name], "multi", start_s, result.latency_ms[name], given, streams=count))
        for place in sampled(len(steps)):
            frame = (steps[place] + 1) * hop - 1
            streams += [
                StreamAnswer(frame, face * APART, answer.probabilities)
                for face, answer in enumerate(kept[name][steps[place]])
            ]
    noise = ratio(result.latency_ms[many], result.latency_ms[again])
    against = ratio(result.latency_ms[many], result.latency_ms[one])
    comparisons = (Comparison(many, one, against, noise.noise), Comparison(many, again, noise, noise.noise))
    return ModeResult(tuple(rows), streams=tuple(streams), comparisons=comparisons)


def _first_of(answers: dict[int, list[Answer]]) -> Callable[[int], Answer]:
    return lambda index: answers[index][0]


def _stepping(
    runtime: Runtime, inputs: Inputs, count: int, hop: int, into: dict[int, list[Answer]]
) -> Callable[[int], None]:
    streams = [runtime.stream(hop=hop, color="rgb", warmup="repeat") for _ in range(count)]

    def step(index: int) -> None:
        for frame in range(index * hop, (index + 1) * hop):
            time_s = frame / inputs.fps
            asked = {stream: (inputs.frame(face * APART + frame), time_s) for face, stream in enumerate(streams)}
            results = runtime.step(asked)
        into[index] = [answer_of(r) for r in results.values() if r is not None]

    return step


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
    answers: dict[int, Answer] = {}
    seen: list[Runtime] = []
    lock = threading.Lock()

    @contextlib.contextmanager
    def open_step() -> Iterator[Callable[[int], None]]:
        with open_runtime() as runtime:
            baseline = clip_baseline(runtime, inputs, CLIP, device)
            with lock:
                seen.append(runtime)
            yield recording(baseline, answers)

    result = offline(open_step, workers, load.samples, max(load.warmup, 1))
    runtime = seen[0]
    what = f"{workers} threads, each with a runtime of its own: latency of one clip among them"
    baseline = Baseline("offline", what, runtime.precision, True, lambda index: answers[index], runtime.backend, device)
    given = [answers[index] for index in range(load.samples)]
    start_s, latency = (result.start_ns - zero_ns) / 1e9, result.latency_ns / 1e6
    row = make_row(baseline, "offline", start_s[None], latency[None], given, throughput_hz=result.throughput_hz)
    clips = tuple(ClipAnswer(index, answer.probabilities) for index, answer in enumerate(given))
    return ModeResult((row,), clips)


def workers_of(device: str, threads: int) -> int:
    """Threads of the offline mode: one a CPU; two where a card works, so that one copies while the other computes."""
    return max(threads, 1) if device == CPU else 2
