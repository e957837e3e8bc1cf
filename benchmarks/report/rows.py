"""Rows and comparisons of a report, made of latencies and answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..baselines.contract import (
    CLIP,
    CLIP_AGAIN,
    COMPILED,
    EAGER,
    NAIVE,
    OPENVINO,
    ORT,
    ORT_CUDA,
    PER_FRAME,
    POLYGRAPHY,
    STREAM,
    STREAM_AGAIN,
    Baseline,
    StepAnswer,
)
from ..qualify import timed_windows
from ..sensors.telemetry import row_energy
from ..statistics import Ratio, Summary, ratio
from .records import Pace, ReportRow, RowComparison, Telemetry

_AGAIN = {CLIP: CLIP_AGAIN, STREAM: STREAM_AGAIN}
# (ours, over which baseline)
_COMPARED = (
    *((CLIP, name) for name in (EAGER, COMPILED, ORT, OPENVINO, ORT_CUDA, POLYGRAPHY)),
    *((STREAM, name) for name in (NAIVE, CLIP, EAGER, PER_FRAME)),
    *_AGAIN.items(),
)

DEVICE_RUNS = 100  # of each engine, for `device_ms`


def make_row(
    baseline: Baseline,
    mode: str,
    start_s: npt.NDArray[np.float64],
    latency_ms: npt.NDArray[np.float64],
    answers: Sequence[StepAnswer],
    *,
    throughput_hz: float | None = None,
    pace: Pace | None = None,
) -> ReportRow:
    """One row; its energy is added when the telemetry is complete.

    Args:
        baseline: who was timed.
        mode: of `records.MODES`.
        start_s: when each latency began, float64 `[R, K]`.
        latency_ms: float64 `[R, K]`.
        answers: what was answered in the timed steps, any order.
        throughput_hz: results per second; None: one step after the other.
        pace: of the mode 'paced'.
    """
    device = [answer.device_ms for answer in answers if answer.device_ms is not None]
    if baseline.device_ms is not None:
        device = [time_ms for time_ms in (baseline.device_ms() for _ in range(DEVICE_RUNS)) if time_ms is not None]
    return ReportRow(
        name=baseline.name,
        what=baseline.what,
        mode=mode,
        precision=baseline.precision,
        backend=baseline.backend,
        device=baseline.device,
        streams=baseline.streams,
        hop=baseline.hop,
        summary=Summary.of(latency_ms.reshape(-1)),
        throughput_hz=throughput_hz if throughput_hz is not None else baseline.streams * 1e3 / float(latency_ms.mean()),
        stages_p50_ms=stage_medians(answers),
        device_ms=Summary.of(device) if device else None,
        energy=None,
        pace=pace,
        at_s=_blocks(np.round(start_s, 6)),
        latency_ms=_blocks(latency_ms),
    )


def with_energy(rows: Iterable[ReportRow], telemetry: Telemetry) -> tuple[ReportRow, ...]:
    """The rows, each with the energy of its own timed windows where power was read often enough."""
    return tuple(
        replace(row, energy=row_energy(telemetry, timed_windows([row]), row.streams * row.summary.n)) for row in rows
    )


def stage_medians(answers: Sequence[StepAnswer]) -> tuple[tuple[str, float], ...]:
    """(stage, median over the answers) in the order they run.

    Stages that only some answers went through are left out: opening a session belongs to the first alone.
    """
    shared = [name for name in answers[0].stages_ms if all(name in answer.stages_ms for answer in answers)]
    return tuple((name, float(np.median([answer.stages_ms[name] for answer in answers]))) for name in shared)


def _blocks(values: npt.NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(map(float, block)) for block in values)


def comparisons_of(
    latency_ms: Mapping[str, npt.NDArray[np.float64]], devices: Mapping[str, str]
) -> list[RowComparison]:
    """The comparisons that this run allows, each beside the A/A noise of its numerator.

    Two devices make no ratio: a card's stream over a processor's re-run would say more of the card than of the stream.

    Args:
        latency_ms: by baseline, float64 `[R, K]`.
        devices: that they ran on, by baseline.
    """
    ratios: dict[tuple[str, str], Ratio] = {
        (a, b): ratio(latency_ms[a], latency_ms[b])
        for a, b in _COMPARED
        if a in latency_ms and b in latency_ms and devices[a] == devices[b]
    }
    noise = {a: found.noise for (a, b), found in ratios.items() if b == _AGAIN[a]}
    return [RowComparison(a, b, found, noise.get(a)) for (a, b), found in ratios.items()]
