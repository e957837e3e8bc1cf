"""The parts of a report beside its table, as lines of text: queueing, cold start, pauses, sensors, energy, trtexec."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..baselines.trtexec import DEFINITIONS
from .records import ColdStart, IdleGap, Row, Telemetry, TrtexecRun
from .report import Report


def details(report: Report) -> Iterator[str]:
    """Everything that a report has of these parts, none that it lacks."""
    for row in report.rows:
        yield from _row(row)
    if report.cold is not None:
        yield _cold(report.cold)
    yield from _idle(report.idle_gaps)
    yield from _telemetry(report.telemetry)
    if report.trtexec:
        yield from _trtexec(report.trtexec)


def _row(row: Row) -> Iterator[str]:
    if row.pace is not None:
        p = row.pace
        closed = p.service.at(50)
        service = "" if closed is None else f"; without queueing a closed loop would show p50 {closed.value_ms:.2f} ms"
        yield (
            f"{row.name}: {p.achieved_hz:.1f} of {p.rate_hz:g} frames/s worked off, {p.queued} frames queued, at most "
            f"{p.longest_queue} at once{service}; the harness woke up {p.wake_us:.0f} us late"
        )
        if p.achieved_hz < 0.98 * p.rate_hz:
            yield f"  this machine does not keep up with {p.rate_hz:g} frames/s: latency grows with the run"
    if row.device_ms is not None and (median := row.device_ms.at(50)) is not None:
        yield f"{row.name}: device time p50 {median.value_ms:.3f} ms, by events on its stream"
    if row.energy is not None:
        e = row.energy
        idle = "" if e.idle_w is None else f", {e.idle_w:.2f} W idle before"
        yield (
            f"{row.name}: {e.energy_mj:.2f} mJ per result at {e.mean_w:.2f} W ({e.rail}; {e.samples} samples in "
            f"{e.seconds:.1f} s{idle}; idle power is not subtracted)"
        )


def _cold(cold: ColdStart) -> str:
    names = ("process", "import", "load", "first", "total")
    parts = (f"{name} {np.median(getattr(cold, name + '_ms')):.0f}" for name in names)
    return (
        f"cold start, median of {len(cold.total_ms)} new processes, ms: {', '.join(parts)}; "
        f"warm {np.median(cold.warm_ms):.2f}; files in the page cache"
    )


def _idle(gaps: tuple[IdleGap, ...]) -> Iterator[str]:
    if gaps:
        shown = (
            f"{gap.gap_s:g} s {np.median(gap.latency_ms):.2f}" + ("" if gap.ratio is None else f" (x{gap.ratio:.2f})")
            for gap in gaps
        )
        yield f"first answer after a pause, median of {len(gaps[0].latency_ms)}, ms: {', '.join(shown)}"


def _telemetry(telemetry: Telemetry) -> Iterator[str]:
    facts = ", ".join(f"{name}: {value}" for name, value in sorted(telemetry.facts.items()))
    if facts:
        yield f"machine: {facts}"
    for series in telemetry.series:
        if series.value:
            low, high = min(series.value), max(series.value)
            yield f"  {series.name}: {low:g}..{high:g} {series.unit} in {len(series.value)} samples ({series.source})"
    yield from (f"  not readable: {item}" for item in telemetry.unreadable)


def _trtexec(runs: tuple[TrtexecRun, ...]) -> Iterator[str]:
    for run in runs:
        figures = ", ".join(f"{name} {value:g}" for name, value in run.gpu_ms)
        yield f"trtexec {run.version}, {run.graph}: GPU compute ms: {figures}; {run.throughput_hz:.1f} queries/s"
        yield f"  {run.command}"
    yield "what its words mean (here | trtexec 10.x | trtexec 11.x by default):"
    yield from (f"  {what}: {ours} | {ten} | {eleven}" for what, ours, ten, eleven in DEFINITIONS)
