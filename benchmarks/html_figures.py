"""More pictures of the report: the computed floors of devices, accuracy beside latency, the matrix."""

from __future__ import annotations

from collections.abc import Sequence

from . import html_svg as svg
from .accuracy import Accuracy
from .html_charts import Figure
from .html_svg import BOTTOM, LEFT, RIGHT, TOP, WIDTH, element, hint, label, number
from .records import Row
from .roofline_report import ANSWERS, Roofline


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
