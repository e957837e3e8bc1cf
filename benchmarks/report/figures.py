"""The pictures of `report.html`, drawn from the records of a report.

Every picture comes with the table of what it shows, for those who cannot see it and for those who want the figures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..accuracy import Accuracy
from ..roofline.report import ANSWERS, Roofline
from . import svg
from .records import ColdStart, IdleGap, ReportRow, RowComparison, Series
from .svg import BOTTOM, LEFT, RIGHT, TOP, WIDTH, ChartBar, Figure, bar_chart, element, hint, label, number
from .terminal import ratio_cells

BINS = 40
MAX_POINTS = 1500  # of one series in a picture; the JSON holds all


# ------------------------------------------------------------------------------------------------------------ latencies
def histogram_figure(row: ReportRow, key: str, colour: int) -> Figure:
    """One row's latencies as a histogram, with the share that was at most so slow."""
    values = np.sort(row.rounds().reshape(-1))
    height, bottom, top = 190.0, 190.0 - BOTTOM, TOP + 12
    x = svg.linear(values.tolist(), LEFT, WIDTH - RIGHT)
    counts, edges = np.histogram(values, bins=min(BINS, max(8, len(values) // 4)), range=(x.low, x.high))
    y = svg.linear([float(counts.max())], bottom, top, zero=True)
    share = svg.Scale(0.0, 1.0, bottom, top)
    parts = [*svg.x_axis(x, bottom, "latency, ms", top), *svg.y_axis(y, "answers")]
    for count, low, high in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if count:
            told = hint(f"{count} answers from {number(low)} to {number(high)} ms")
            width = max(x(high) - x(low) - 0.6, 0.6)
            shape = {"x": x(low), "y": y(count), "width": width, "height": bottom - y(count)}
            parts.append(element("rect", told, **shape, class_=f"fill s{colour % 6}"))
    shares = np.linspace(1 / len(values), 1.0, min(len(values), MAX_POINTS))
    slowest = np.quantile(values, shares, method="inverted_cdf")  # of that share
    parts.append(svg.path([(x(v), share(s)) for v, s in zip(slowest.tolist(), shares.tolist(), strict=True)], "cdf"))
    for found in row.summary.percentiles:
        place, told = x(found.value_ms), hint(f"p{found.percentile:g} {number(found.value_ms)} ms")
        parts.append(element("line", told, x1=place, x2=place, y1=top, y2=bottom, class_="mark dim"))
        parts.append(label(place + 2, TOP + 8, f"p{found.percentile:g}", class_="tick"))
    s = row.summary
    text = (
        f"{s.n} answers. Bars: how many took so long. Dashed: the share that took at most so long (right edge: all). "
        f"Mean {number(s.mean_ms)} ms, coefficient of variation {100 * s.cov:.1f} %."
    )
    rows = [(f"p{p.percentile:g}", number(p.value_ms), number(p.upper_ms)) for p in s.percentiles]
    rows += [(f"p{p:g}", f"needs n={n}", "") for p, n in s.withheld]
    rows += [("min", number(s.min_ms), ""), ("mean", number(s.mean_ms), ""), ("max", number(s.max_ms), "")]
    head = ("", "ms", "at most, at 99 % confidence")
    return Figure(key, f"Latencies of {row.name}", text, height, parts, head, rows)


def time_figure(rows: Sequence[ReportRow], series: Sequence[Series]) -> Figure:
    """Latencies by the moment they began, above what the sensors said at that moment."""
    panels = [(kind, found) for kind in ("temperature", "clock", "power") if (found := _of_kind(series, kind))]
    names, top = svg.legend([row.name for row in rows])
    top += 10
    tall, small, gap = 130.0, 60.0, 32.0
    height = top + tall + len(panels) * (small + gap) + BOTTOM
    moments = [t for row in rows for block in row.at_s for t in block] + [t for one in series for t in one.t_s]
    x = svg.linear(moments, LEFT, WIDTH - RIGHT)
    bottom = height - BOTTOM
    y = svg.linear([ms for row in rows for block in row.latency_ms for ms in block], top + tall, top, zero=True)
    parts = [*names, *svg.x_axis(x, bottom, "seconds of the run", top)]
    parts += svg.y_axis(y, "latency, ms")
    for index, row in enumerate(rows):
        points = [pair for at, ms in zip(row.at_s, row.latency_ms, strict=True) for pair in zip(at, ms, strict=True)]
        step = max(1, len(points) * len(rows) // MAX_POINTS)
        dots = "".join(f"M{x(t):.1f},{y(ms):.1f}h.01" for t, ms in points[::step])
        parts.append(element("path", d=dots or "M0,0", class_=f"line dots s{index % 6}"))
    table = [(row.name, *_spread([ms for block in row.latency_ms for ms in block]), "ms") for row in rows]
    for place, (kind, found) in enumerate(panels):
        low = top + tall + (place + 1) * (small + gap)
        scale = svg.linear([v for one in found for v in one.value], low, low - small)
        parts += svg.y_axis(scale, f"{kind}, {found[0].unit}: " + ", ".join(one.name for one in found), 3)
        for index, one in enumerate(found):
            points = [(x(t), scale(v)) for t, v in zip(one.t_s, one.value, strict=True)]
            parts.append(svg.path(points[:: max(1, len(points) // MAX_POINTS)], f"line s{index % 6}"))
    table += [(one.name, *_spread(one.value), one.unit) for _, found in panels for one in found]
    below = "Below: what the sensors said meanwhile."
    nothing = "No sensor of temperature, clock or power could be read on this machine."
    text = f"Each dot is one answer, at the moment it began. {below if panels else nothing}"
    return Figure("time", "Latency over time", text, height, parts, ("", "min", "median", "max", "unit"), table)


def _of_kind(series: Sequence[Series], kind: str) -> list[Series]:
    """At most six of a kind, those that move most first: the others are in the JSON."""
    found = [one for one in series if one.kind == kind and len(one.value) > 1]
    return sorted(found, key=lambda one: min(one.value) - max(one.value))[:6]


def _spread(values: Sequence[float]) -> tuple[str, str, str]:
    if not values:
        return ("", "", "")
    return number(min(values)), number(float(np.median(values))), number(max(values))


# ----------------------------------------------------------------------------------------------------------- bar charts
def stages_figure(rows: Sequence[ReportRow]) -> Figure:
    """Where the time of an answer goes, stage after stage."""
    staged = [row for row in rows if row.stages_p50_ms]
    names = list(dict.fromkeys(name for row in staged for name, _ in row.stages_p50_ms))
    bars, table = [], []
    for row in staged:
        total, done, pieces = sum(ms for _, ms in row.stages_p50_ms), 0.0, []
        shown = f"{row.name} ({row.precision})"
        for name, ms in row.stages_p50_ms:
            share = 100 * ms / total if total else 0.0
            pieces.append((done, done + ms, names.index(name), f"{name}: {number(ms)} ms, {share:.0f} %"))
            table.append((f"{shown}: {name}", number(ms), f"{share:.1f} %"))
            done += ms
        bars.append(ChartBar(f"{shown}: {number(total)} ms", tuple(pieces)))
    text = "Medians of each stage, from the frame in host memory to the answer in host memory."
    axis, head = "ms, medians, one after the other", ("", "p50 ms", "of the sum")
    return bar_chart("stages", "Where the time goes", text, bars, axis, head, table, names)


def side_by_side_figure(rows: Sequence[ReportRow], comparisons: Sequence[RowComparison], ours: Sequence[str]) -> Figure:
    """All programs of the interleaved run: p50 as a bar, p90 as a mark."""
    bars = [
        ChartBar(
            f"{row.name} ({row.precision}, {row.device}) {number(_p50(row))} ms",
            ((0.0, _p50(row), 0 if row.name in ours else 1, row.what),),
            (_p90(row), ""),
            row.name in ours,
        )
        for row in sorted(rows, key=_p50)
    ]
    text = (
        "One interleaved run: the same clips, the same threads, rounds in an order drawn anew. Blue is this project. "
        "The table: medians over medians with the interval at 99 %, beside the noise of one program against itself."
    )
    axis, head = "ms an answer: bar p50, mark p90", ("", "ratio", "interval", "noise (A/A)")
    return bar_chart("side", "Side by side", text, bars, axis, head, [ratio_cells(c) for c in comparisons])


def _p50(row: ReportRow) -> float:
    found = row.summary.at(50.0)
    return found.value_ms if found else row.summary.mean_ms


def _p90(row: ReportRow) -> float:
    found = row.summary.at(90.0)
    return found.value_ms if found else row.summary.max_ms


def floors_figure(found: Roofline, answer: str) -> Figure:
    """The floor of one answer on every device, by precision; a mark where it was measured."""
    graphs = ANSWERS[answer]
    precisions = list(dict.fromkeys(work.precision for work in found.works))
    measured = {(m.device, m.precision): m for m in found.measured if m.row == answer}
    bars, table = [], []
    for device in found.devices:
        named = False
        for colour, precision in enumerate(precisions):
            least = found.floor_ms(device.name, precision, graphs)
            if least is None:
                continue
            over = measured.get((device.name, precision))
            mark = None if over is None else (over.measured_ms, f"measured {number(over.measured_ms)} ms")
            piece = (0.0, least, colour, f"{precision}: at least {number(least)} ms")
            bars.append(ChartBar("" if named else device.name, (piece,), mark))
            named = True
            shown = ("", "") if over is None else (number(over.measured_ms), f"{over.ratio:.2f}")
            table.append((f"{device.name}, {precision}", number(least), *shown, device.source, device.note))
    text = (
        f"The least time for one answer of {answer} ({' + '.join(graphs)}): {found.how}. All products at the dense "
        "peak, or weights, input and output once at the peak bandwidth, whichever is longer. "
        + ("The dark mark is what was measured here." if measured else "Nothing of it was measured here.")
    )
    title = f"Roofline: floor of {answer} by device (computed)"
    axis = "ms, each line ten times the last"
    head = ("", "floor ms", "measured ms", "measured / floor", "source", "note")
    return bar_chart(f"floor-{answer}", title, text, bars, axis, head, table, precisions, log=True)


def cold_figure(found: ColdStart) -> Figure:
    """Cold start by phase: medians, one after the other."""
    stages = {
        "process": found.process_ms,
        "import": found.import_ms,
        "load": found.load_ms,
        "first answer": found.first_ms,
        "warm answer": found.warm_ms,
    }
    bars, table, done = [], [], 0.0
    for colour, (name, values) in enumerate(stages.items()):
        middle = float(np.median(values))
        bars.append(ChartBar(f"{name}: {number(middle)} ms", ((done, done + middle, colour, ""),)))
        table.append((name, number(min(values)), number(middle), number(max(values)), str(len(values))))
        done += middle
    text = "Medians over new processes, each stage after the one before; a warm answer stands at the end to compare."
    axis, head = "ms since the process was started", ("", "min ms", "median ms", "max ms", "processes")
    return bar_chart("cold", "Cold start", text, bars, axis, head, table)


def idle_figure(gaps: Sequence[IdleGap]) -> Figure:
    """The first answer after a pause."""
    bars, table = [], []
    for gap in gaps:
        middle, longest = float(np.median(gap.latency_ms)), max(gap.latency_ms)
        ratio = "" if gap.ratio is None else f", {gap.ratio:.2f} x back to back"
        name = f"after {number(gap.gap_s)} s: {number(middle)} ms{ratio}"
        bars.append(ChartBar(name, ((0.0, middle, 0, ""),), (longest, "")))
        shown = "" if gap.ratio is None else f"{gap.ratio:.3f}"
        table.append((f"{number(gap.gap_s)} s", number(middle), number(longest), shown, str(len(gap.latency_ms))))
    text = "Clocks fall and caches are given away while nothing is asked."
    axis = "ms of the first answer: bar median, mark longest"
    head = ("pause", "median ms", "max ms", "over back to back", "times")
    return bar_chart("idle", "The first answer after a pause", text, bars, axis, head, table)


# ----------------------------------------------------------------------------------------------------- other pictures
def precision_figure(rows: Sequence[ReportRow], accuracy: Sequence[Accuracy]) -> Figure:
    """Distance from PyTorch's answers against latency, by precision."""
    points = []
    for found in accuracy:
        for row in rows:
            if row.precision == found.precision:
                share = found.pair_share if row.name.startswith("stream") else found.clip_share
                points.append((row, found, 100 * share))
    height = TOP + 190.0
    x = svg.linear([_p50(row) for row, _, _ in points], LEFT, WIDTH - 90, zero=True)
    y = svg.linear([1.2 * share for _, _, share in points], height - BOTTOM, TOP + 16, zero=True)
    parts = [*svg.x_axis(x, height - BOTTOM, "p50, ms an answer", TOP + 16)]
    parts += svg.y_axis(y, "off PyTorch's answer, % of the deviation between clips")
    names = list(dict.fromkeys(row.precision for row, _, _ in points))
    table = []
    for row, found, share in points:
        colour = names.index(row.precision) % 6
        told = hint(f"{row.name} {row.precision}: {number(_p50(row))} ms, off by {share:.3f} %")
        parts.append(element("circle", told, cx=x(_p50(row)), cy=y(share), r=5, class_=f"fill s{colour}"))
        parts.append(label(x(_p50(row)) + 8, y(share) - 3, f"{row.name} {row.precision}", class_="tick"))
        shown = (number(_p50(row)), f"{share:.4f} %", f"{100 * found.agreement:.1f} %", found.verdict)
        table.append((f"{row.name} {row.precision}", *shown))
    text = "The same artifact was timed and compared with the PyTorch model's golden answers: left and low is better."
    head = ("", "p50 ms", "off by", "same class", "verdict")
    return Figure("precision", "Accuracy beside latency, by precision", text, height, parts, head, table)


def matrix_figure(rows: Sequence[ReportRow]) -> Figure:
    """Every cell of precision x hop x streams: the darker, the longer."""
    hops = sorted({row.hop for row in rows if row.hop is not None})
    lines = sorted({(row.precision, row.streams) for row in rows if row.hop is not None})
    cells = {(row.precision, row.streams, row.hop): row for row in rows if row.hop is not None}
    top, left, tall = TOP + 26.0, 120.0, 30.0
    wide = (WIDTH - RIGHT - left) / max(len(hops), 1)
    longest = max((_p50(row) for row in cells.values()), default=1.0)
    parts = [label(left + wide * (i + 0.5), top - 8, f"hop {hop}", "middle") for i, hop in enumerate(hops)]
    table = []
    for place, (precision, streams) in enumerate(lines):
        y = top + tall * place
        parts.append(label(4, y + 19, f"{precision}, {streams} streams"))
        for index, hop in enumerate(hops):
            row = cells.get((precision, streams, hop))
            if row is None:
                continue
            told = hint(f"{row.what}: p50 {number(_p50(row))} ms, {number(row.throughput_hz)} answers a second")
            shade = f"{0.15 + 0.6 * _p50(row) / longest:.2f}"
            box = {"x": left + wide * index + 1, "y": y + 1, "width": wide - 2, "height": tall - 2}
            parts.append(element("rect", told, **box, fill_opacity=shade, class_="fill s0"))
            parts.append(label(left + wide * (index + 0.5), y + 19, f"{number(_p50(row))} ms", "middle"))
            table.append((row.name, number(_p50(row)), number(row.throughput_hz)))
    text = "A step is one answer for each stream, after so many new frames of each. The darker, the longer."
    height, head = top + tall * len(lines) + 8, ("", "p50 ms", "answers a second")
    return Figure("matrix", "Precision, hop and streams", text, height, parts, head, table)
