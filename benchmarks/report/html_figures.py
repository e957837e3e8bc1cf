"""More pictures of the report: the computed floors of devices, accuracy beside latency, the matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..accuracy import Accuracy
from ..roofline.report import ANSWERS, Roofline
from . import html_svg as svg
from .html_charts import Figure
from .html_svg import BOTTOM, LEFT, RIGHT, TOP, WIDTH, element, hint, label, number
from .records import ColdStart, IdleGap, Row


# ------------------------------------------------------------------------------------------------------------- roofline
def floors(found: Roofline, answer: str) -> Figure:
    """The floor of one answer on every device, by precision; a mark where it was measured."""
    graphs = ANSWERS[answer]
    precisions = list(dict.fromkeys(work.precision for work in found.works))
    rows = [
        (device, precision, least)
        for device in found.devices
        for precision in precisions
        if (least := found.floor_ms(device.name, precision, graphs)) is not None
    ]
    measured = {(m.device, m.precision): m for m in found.measured if m.row == answer}
    top = TOP + svg.legend_height(precisions) + 2
    devices = list(dict.fromkeys(device.name for device, _, _ in rows))
    each = 14.0 * len(precisions)
    height = top + sum(18.0 + each for _ in devices) + BOTTOM
    x = svg.logarithmic(
        [least for _, _, least in rows] + [m.measured_ms for m in measured.values()], LEFT - 40, WIDTH - RIGHT
    )
    parts = [*svg.legend(precisions, TOP + 4), *svg.x_axis(x, height - BOTTOM, "ms, each line ten times the last", top)]
    table = []
    for place, name in enumerate(devices):
        y = top + (18.0 + each) * place + 13
        parts.append(label(LEFT - 40, y, name))
        for device, precision, least in (row for row in rows if row[0].name == name):
            line = y + 4 + 14.0 * precisions.index(precision)
            parts.append(
                element("rect", hint(f"{precision}: at least {number(least)} ms"), x=x.start, y=line, height=11,
                        width=max(x(least) - x.start, 0.7), class_=f"fill s{precisions.index(precision) % 6}")
            )  # fmt: skip
            mark = measured.get((device.name, precision))
            if mark is not None:
                place_x = x(mark.measured_ms)
                told = hint(f"measured {number(mark.measured_ms)} ms")
                parts.append(element("line", told, x1=place_x, x2=place_x, y1=line - 2, y2=line + 13, class_="mark"))
            times = (number(least), "" if mark is None else number(mark.measured_ms))
            ratio = "" if mark is None else f"{mark.ratio:.2f}"
            table.append((f"{device.name}, {precision}", *times, ratio, device.source, device.note))
    text = (
        f"The least time for one answer of {answer} ({' + '.join(graphs)}): {found.how}. All products at the dense "
        "peak, or weights, input and output once at the peak bandwidth, whichever is longer. "
        + ("The dark mark is what was measured here." if measured else "Nothing of it was measured here.")
    )
    title = f"Roofline: floor of {answer} by device (computed)"
    picture = svg.chart(f"floor-{answer}", height, title, text, parts)
    head = ("", "floor ms", "measured ms", "measured / floor", "source", "note")
    return Figure(title, text, picture, head, tuple(table))


# ---------------------------------------------------------------------------------------------- accuracy beside latency
def precisions(rows: Sequence[Row], accuracy: Sequence[Accuracy]) -> Figure:
    """How far each precision's answers are from PyTorch's, against what an answer costs."""
    points = []
    for found in accuracy:
        for row in rows:
            if row.precision == found.precision:
                share = found.pair_share if row.name.startswith("stream") else found.clip_share
                points.append((row, found, 100 * share))
    height = TOP + 190.0
    x = svg.linear([_median(row) for row, _, _ in points], LEFT, WIDTH - 90, zero=True)
    y = svg.linear([1.2 * share for _, _, share in points], height - BOTTOM, TOP + 16, zero=True)
    parts = [*svg.x_axis(x, height - BOTTOM, "p50, ms an answer", TOP + 16)]
    parts += svg.y_axis(y, LEFT, WIDTH - RIGHT, "off PyTorch's answer, % of the deviation between clips")
    names = list(dict.fromkeys(row.precision for row, _, _ in points))
    table = []
    for row, found, share in points:
        colour = names.index(row.precision) % 6
        told = hint(f"{row.name} {row.precision}: {number(_median(row))} ms, off by {share:.3f} %")
        parts.append(element("circle", told, cx=x(_median(row)), cy=y(share), r=5, class_=f"fill s{colour}"))
        parts.append(label(x(_median(row)) + 8, y(share) - 3, f"{row.name} {row.precision}", class_="tick"))
        shown = (number(_median(row)), f"{share:.4f} %", f"{100 * found.agreement:.1f} %", found.verdict)
        table.append((f"{row.name} {row.precision}", *shown))
    text = "The same artifact was timed and compared with the PyTorch model's golden answers: left and low is better."
    title = "Accuracy beside latency, by precision"
    picture = svg.chart("precision", height, title, text, parts)
    return Figure(title, text, picture, ("", "p50 ms", "off by", "same class", "verdict"), tuple(table))


def _median(row: Row) -> float:
    found = row.summary.at(50.0)
    return found.value_ms if found else row.summary.mean_ms


# --------------------------------------------------------------------------------------------------- matrix, cold, idle
def matrix(rows: Sequence[Row]) -> Figure:
    """Every cell of precision x hop x streams: the darker, the longer."""
    hops = sorted({row.hop for row in rows if row.hop is not None})
    lines = sorted({(row.precision, row.streams) for row in rows if row.hop is not None})
    cells = {(row.precision, row.streams, row.hop): row for row in rows if row.hop is not None}
    top, left, tall = TOP + 26.0, 120.0, 30.0
    wide = (WIDTH - RIGHT - left) / max(len(hops), 1)
    longest = max((_median(row) for row in cells.values()), default=1.0)
    parts = [label(left + wide * (i + 0.5), top - 8, f"hop {hop}", "middle") for i, hop in enumerate(hops)]
    table = []
    for place, (precision, streams) in enumerate(lines):
        y = top + tall * place
        parts.append(label(4, y + 19, f"{precision}, {streams} streams"))
        for index, hop in enumerate(hops):
            row = cells.get((precision, streams, hop))
            if row is None:
                continue
            told = hint(f"{row.what}: p50 {number(_median(row))} ms, {number(row.throughput_hz)} answers a second")
            shade = f"{0.15 + 0.6 * _median(row) / longest:.2f}"
            box = {"x": left + wide * index + 1, "y": y + 1, "width": wide - 2, "height": tall - 2}
            parts.append(element("rect", told, **box, fill_opacity=shade, class_="fill s0"))
            parts.append(label(left + wide * (index + 0.5), y + 19, f"{number(_median(row))} ms", "middle"))
            table.append((row.name, number(_median(row)), number(row.throughput_hz)))
    text = "A step is one answer for each stream, after so many new frames of each. The darker, the longer."
    title = "Precision, hop and streams"
    picture = svg.chart("matrix", top + tall * len(lines) + 8, title, text, parts)
    return Figure(title, text, picture, ("", "p50 ms", "answers a second"), tuple(table))


def cold_start(found: ColdStart) -> Figure:
    """What a new process pays before its first answer: medians, one after the other."""
    stages = (
        ("process", found.process_ms),
        ("import", found.import_ms),
        ("load", found.load_ms),
        ("first answer", found.first_ms),
        ("warm answer", found.warm_ms),
    )
    height = TOP + 30.0 * len(stages) + BOTTOM
    x = svg.linear([sum(float(np.median(ms)) for _, ms in stages)], LEFT - 40, WIDTH - RIGHT, zero=True)
    parts, table, done = svg.x_axis(x, height - BOTTOM, "ms since the process was started", TOP), [], 0.0
    for place, (name, values) in enumerate(stages):
        middle, y = float(np.median(values)), TOP + 30.0 * place + 13
        parts.append(label(x.start, y, f"{name}: {number(middle)} ms"))
        parts.append(
            element("rect", x=x(done), y=y + 3, width=max(x(done + middle) - x(done), 0.7), height=10,
                    class_=f"fill s{place % 6}")
        )  # fmt: skip
        done += middle
        table.append((name, number(min(values)), number(middle), number(max(values)), str(len(values))))
    text = "Medians over new processes, each stage after the one before; a warm answer stands at the end to compare."
    title = "Cold start"
    picture = svg.chart("cold", height, title, text, parts)
    return Figure(title, text, picture, ("", "min ms", "median ms", "max ms", "processes"), tuple(table))


def idle_gaps(gaps: Sequence[IdleGap]) -> Figure:
    """The first answer after a pause."""
    height = TOP + 30.0 * len(gaps) + BOTTOM
    middles = [float(np.median(gap.latency_ms)) for gap in gaps]
    x = svg.linear([max(gap.latency_ms) for gap in gaps], LEFT - 40, WIDTH - RIGHT, zero=True)
    parts, table = svg.x_axis(x, height - BOTTOM, "ms of the first answer: bar median, mark longest", TOP), []
    for place, (gap, middle) in enumerate(zip(gaps, middles, strict=True)):
        y = TOP + 30.0 * place + 13
        ratio = "" if gap.ratio is None else f", {gap.ratio:.2f} x back to back"
        parts.append(label(x.start, y, f"after {number(gap.gap_s)} s: {number(middle)} ms{ratio}"))
        parts.append(
            element("rect", x=x.start, y=y + 3, width=max(x(middle) - x.start, 0.7), height=10, class_="fill s0")
        )
        longest = x(max(gap.latency_ms))
        parts.append(element("line", x1=longest, x2=longest, y1=y + 1, y2=y + 15, class_="mark"))
        shown = "" if gap.ratio is None else f"{gap.ratio:.3f}"
        table.append(
            (f"{number(gap.gap_s)} s", number(middle), number(max(gap.latency_ms)), shown, str(len(gap.latency_ms)))
        )
    text = "Clocks fall asleep and caches are given away while nothing is asked."
    title = "The first answer after a pause"
    picture = svg.chart("idle", height, title, text, parts)
    return Figure(title, text, picture, ("pause", "median ms", "max ms", "over back to back", "times"), tuple(table))
