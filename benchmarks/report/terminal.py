"""A report as text for the terminal.

A percentile that too few samples stand behind is not printed: its place says how many it needs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...errors import printable
from ..baselines.contract import CLIP, STREAM
from ..baselines.trtexec import DEFINITIONS
from ..statistics import Summary
from .records import ReportRow, RowComparison, Telemetry, TrtexecRun
from .report import Report
from .text_tables import columns, ms

SHOWN = (50.0, 90.0, 95.0, 99.0)
ROW_HEAD = ("precision", "n", "mean ms", "CoV", *(f"p{p:g} ms" for p in SHOWN), "max ms")  # of `row_cells`


def report_text(report: Report) -> str:
    """The whole report for a terminal, at most 120 columns where names allow it."""
    report.require_measured()
    subject, settings = report.subject, report.settings
    lines = [
        f"{subject.bundle} ({subject.preset}, {subject.precision}) on {subject.backend}",
        report.machine.line(),
        f"{', '.join(settings.modes)}; {settings.threads} threads each, {settings.rounds} rounds x {settings.block}"
        f" steps interleaved, {settings.inputs} inputs in rotation, seed {settings.seed}",
        report.qualification.line(),
        "",
    ]
    if report.rows:
        cells = ([*row_cells(row), f"{row.throughput_hz:.1f}"] for row in report.rows)
        lines += columns([["baseline", *ROW_HEAD, "1/s"], *cells])
        lines += ["", "pNN: of the sample (with 99 % confidence the true one is at most the value in brackets)"]
        lines += [f"  {row.name}: {row.what}" for row in report.rows]
    stages = [
        [row.name, *(f"{name} {value:.3f}" for name, value in row.stages_p50_ms)]
        for row in report.rows
        if row.stages_p50_ms
    ]
    if stages:
        lines += ["", "stages, p50 ms:", *columns(stages)]
    if report.comparisons:
        lines += ["", "ratios of medians round by round, intervals at 99 %, beside one program against itself (A/A):"]
        lines += columns([ratio_cells(c) for c in report.comparisons])
    lines += [f"skipped: {item.name}: {item.reason}" for item in report.skipped]
    lines += ["", *details(report), *checks(report), *(f"note: {note}" for note in report.notes)]
    return "\n".join(printable(line) for line in lines) + "\n"


def row_cells(row: ReportRow) -> list[str]:
    """Name, precision, samples, mean, variation, percentiles and maximum of a row."""
    s = row.summary
    shown = (percentile_text(s, p) for p in SHOWN)
    return [row.name, row.precision, str(s.n), ms(s.mean_ms), f"{100 * s.cov:.1f} %", *shown, ms(s.max_ms)]


def percentile_text(summary: Summary, percentile: float) -> str:
    """A percentile with its bound, or the number of samples that it needs."""
    found = summary.at(percentile)
    if found is None:
        needed = next((n for p, n in summary.withheld if p == percentile), 0)
        return f"(needs n={needed})"
    return f"{ms(found.value_ms)} ({ms(found.upper_ms)})"


def ratio_cells(c: RowComparison) -> list[str]:
    """Names, ratio, interval and noise of a comparison."""
    noise = "" if c.noise is None else f"A/A ±{100 * c.noise:.1f} %"
    return [
        f"{c.numerator} / {c.denominator}",
        f"{c.ratio.value:.3f}",
        f"[{c.ratio.low:.3f}, {c.ratio.high:.3f}]",
        noise,
    ]


def checks(report: Report) -> Iterator[str]:
    """Accuracy, cache, own cost and roofline, one line each."""
    w = report.wrapper
    for a in report.accuracy:
        yield (
            f"answers in {a.precision}: {a.golden_clips} golden clips before timing: clip {a.clip_share:.3%}, frame + "
            f"temporal {a.pair_share:.3%} of the deviation between clips, same class {a.agreement:.1%}"
        )
        yield (
            f"  while timed: {a.timed_answers} to clips within {a.timed_difference:.1e} of the verified ones; "
            f"{a.stream_answers} of the stream within {a.stream_share:.3%} of runtime(clip)"
        )
    if report.cache is not None:
        c, r = report.cache, report.cache.repeated
        yield (
            f"cache: one clip again and again takes {r.value:.3f} [{r.low:.3f}, {r.high:.3f}] of clips in rotation, "
            f"A/A ±{100 * c.noise:.1f} %; {c.calls} runs of the graph for {c.answers} answers to one clip"
            f"{': ANSWERS COME FROM A CACHE' if c.cached else ''}"
        )
    yield (
        f"own cost over a hollow session (n={w.n}): runtime(clip) p50 {w.clip_p50_us:.0f} us, "
        f"p95 {w.clip_p95_us:.0f} us; stream.push p50 {w.push_p50_us:.0f} us, p95 {w.push_p95_us:.0f} us"
        + (
            ""
            if w.worker_p50_us is None or w.worker_p95_us is None
            else f"; worker p50 {w.worker_p50_us:.0f} us, p95 {w.worker_p95_us:.0f} us"
        )
    )
    yield f"the load generator adds {report.harness_us:.2f} us to each latency; the run took {report.seconds:.0f} s"
    if report.roofline is not None:
        for item in report.roofline.measured:
            over = f"{item.row} took {item.ratio:.2f} times the {ms(item.floor_ms)} ms floor of {item.device}"
            yield f"roofline (computed): {over}"
        if report.roofline.failed:
            yield f"roofline: {report.roofline.failed}"
        if not report.roofline.works:
            yield f"roofline {report.roofline.how}"


# --------------------------------------------------------------------------------------------------- beside the table
def details(report: Report) -> Iterator[str]:
    """Everything that a report has of these parts, none that it lacks."""
    for row in report.rows:
        yield from _row(row)
    if report.cold is not None:
        cold = report.cold
        names = ("process", "import", "load", "first", "total")
        parts = (f"{name} {np.median(getattr(cold, name + '_ms')):.0f}" for name in names)
        yield (
            f"cold start, median of {len(cold.total_ms)} new processes, ms: {', '.join(parts)}; "
            f"warm {np.median(cold.warm_ms):.2f}; files in the page cache"
        )
    if report.idle_gaps:
        gaps = (
            f"{gap.gap_s:g} s {np.median(gap.latency_ms):.2f}" + ("" if gap.ratio is None else f" (x{gap.ratio:.2f})")
            for gap in report.idle_gaps
        )
        times = len(report.idle_gaps[0].latency_ms)
        yield f"first answer after a pause, median of {times}, ms: {', '.join(gaps)}"
    yield from _telemetry(report.telemetry)
    if report.trtexec:
        yield from _trtexec(report.trtexec)
        yield from _beside_trtexec(report)


def _row(row: ReportRow) -> Iterator[str]:
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


def _telemetry(telemetry: Telemetry) -> Iterator[str]:
    facts = ", ".join(f"{name}: {value}" for name, value in sorted(telemetry.facts.items()))
    if facts:
        yield f"machine: {facts}"
    for series in telemetry.series:
        if series.value:
            low, high = min(series.value), max(series.value)
            yield f"  {series.name}: {low:g}..{high:g} {series.unit} in {len(series.value)} samples ({series.source})"
    yield from (f"  not readable: {item}" for item in telemetry.unreadable)


def _beside_trtexec(report: Report) -> Iterator[str]:
    """Our device time beside trtexec's GPU Compute Time, which means the same."""
    theirs = {run.graph: dict(run.gpu_ms).get("median") for run in report.trtexec}
    for name, graphs in ((CLIP, ("clip",)), (STREAM, ("frame", "temporal"))):
        row, parts = report.row(name), [theirs.get(graph) for graph in graphs]
        if row is None or None in parts:
            continue
        median, total = row.device_ms.at(50) if row.device_ms else None, sum(part or 0.0 for part in parts)
        if median is None:
            yield f"{name}: no device time was taken, so nothing compares with trtexec's {total:g} ms"
        else:
            yield (
                f"{name}: device time p50 {median.value_ms:.3f} ms, trtexec's {' + '.join(graphs)} {total:g} ms: "
                f"{median.value_ms / total:.2f} of it"
            )


def _trtexec(runs: tuple[TrtexecRun, ...]) -> Iterator[str]:
    for run in runs:
        figures = ", ".join(f"{name} {value:g}" for name, value in run.gpu_ms)
        yield f"trtexec {run.version}, {run.graph}: GPU compute ms: {figures}; {run.throughput_hz:.1f} queries/s"
        yield f"  {run.command}"
    yield "what its words mean (here | trtexec 10.x | trtexec 11.x by default):"
    yield from (f"  {what}: {ours} | {ten} | {eleven}" for what, ours, ten, eleven in DEFINITIONS)
