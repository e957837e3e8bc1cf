"""The closed loop on baselines: rows, and the answers that were given *while it timed*."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..accuracy import TimedAnswer, recording, sampled, stream_answers
from ..baselines.contract import CLIP_REPEATED, Baseline, StepAnswer
from ..report.records import ReportRow
from ..report.rows import make_row
from .closed import Candidate, Clock, LoadConfig, LoadResult, Progress, closed_loop


def run_closed(
    baselines: Sequence[Baseline],
    load: LoadConfig,
    zero_ns: int,
    progress: Progress | None = None,
    *,
    mode: str = "closed",
    clock: Clock = time.perf_counter_ns,
) -> tuple[list[ReportRow], list[TimedAnswer], LoadResult]:
    """Times all baselines interleaved; `CLIP_REPEATED` gets no row of its own.

    Args:
        baselines: names all different.
        load: how much.
        zero_ns: second 0 of the report.
        progress: called after each block.
        mode: of the rows.
        clock: a monotonic clock in nanoseconds.

    Returns:
        The rows, without energy; the answers to clips and a sample of those of streams; every latency.
    """
    answers: dict[str, dict[int, StepAnswer]] = {baseline.name: {} for baseline in baselines}
    candidates = [Candidate(one.name, recording(one.answer, answers[one.name])) for one in baselines]
    result = closed_loop(candidates, load, clock=clock, progress=progress)
    steps = [int(step) for step in result.steps.reshape(-1)]
    rows: list[ReportRow] = []
    checked: list[TimedAnswer] = []
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
                checked.append(TimedAnswer(clip, given[step].probabilities, baseline))
        else:
            for step in sampled(steps):
                checked += stream_answers((step + 1) * baseline.hop - 1, given[step], baseline)
    return rows, checked, result
