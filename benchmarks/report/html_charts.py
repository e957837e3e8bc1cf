"""The report's pictures: how latencies are spread, how they went over time, where they went, and against whom.

Every picture comes with the table of what it shows, for those who cannot see it and for those who want the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import html_svg as svg
from .html_svg import BOTTOM, LEFT, RIGHT, TOP, WIDTH, element, hint, label, number
from .records import Comparison, Row, Series

BINS = 40
MAX_POINTS = 1500  # of one series in a picture; the JSON holds all


@dataclass(frozen=True)
class Figure:
    """A picture with its table.

    Attributes:
        title: what it is.
        text: what it shows, in a sentence or two.
        picture: markup.
        head, rows: of the table; the first column names the row.
    """

    title: str
    text: str
    picture: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


# ------------------------------------------------------------------------------------------------------------ histogram
def histogram(row: Row, key: str, colour: int) -> Figure:
    """One row's latencies as a histogram, with the share that was at most so slow."""
    values = np.sort(row.rounds().reshape(-1))
    height = 190.0
    x = svg.linear(values.tolist(), LEFT, WIDTH - RIGHT)
    counts, edges = np.histogram(values, bins=min(BINS, max(8, len(values) // 4)), range=(x.low, x.high))
    y = svg.linear([float(counts.max())], height - BOTTOM, TOP + 12, zero=True)
    share = svg.Scale(0.0, 1.0, height - BOTTOM, TOP + 12)
    parts = [*svg.x_axis(x, height - BOTTOM, "latency, ms", TOP + 12), *svg.y_axis(y, LEFT, WIDTH - RIGHT, "answers")]
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        if count:
            left, right = x(float(low)), x(float(high))
            bar = hint(f"{count} answers from {number(float(low))} to {number(float(high))} ms")
            parts.append(
                element(
                    "rect", bar, x=left, y=y(float(count)), width=max(right - left - 0.6, 0.6),
                    height=height - BOTTOM - y(float(count)), class_=f"fill s{colour % 6}",
                )
            )  # fmt: skip
    parts.append(svg.path([(x(float(v)), share((i + 1) / len(values))) for i, v in _thinned(values)], "cdf"))
    for found in row.summary.percentiles:
        place = x(found.value_ms)
        parts.append(
            element("line", hint(f"p{found.percentile:g} {number(found.value_ms)} ms"), x1=place, x2=place,
                    y1=TOP + 12, y2=height - BOTTOM, class_="mark dim")
        )  # fmt: skip
        parts.append(label(place + 2, TOP + 8, f"p{found.percentile:g}", class_="tick"))
    s = row.summary
    text = (
        f"{s.n} answers. Bars: how many took so long. Dashed: the share that took at most so long (right edge: all). "
        f"Mean {number(s.mean_ms)} ms, coefficient of variation {100 * s.cov:.1f} %."
    )
    rows = [(f"p{p.percentile:g}", number(p.value_ms), number(p.upper_ms)) for p in s.percentiles]
    rows += [(f"p{p:g}", f"needs n={n}", "") for p, n in s.withheld]
    rows += [("min", number(s.min_ms), ""), ("mean", number(s.mean_ms), ""), ("max", number(s.max_ms), "")]
    title = f"Latencies of {row.name}"
    picture = svg.chart(key, height, title, text, parts)
    return Figure(title, text, picture, ("", "ms", "at most, at 99 % confidence"), tuple(rows))


def _thinned(values: np.ndarray) -> list[tuple[int, float]]:
    """At most `MAX_POINTS` of a sorted series, with their indices; first and last stay."""
    chosen = np.unique(np.linspace(0, len(values) - 1, min(len(values), MAX_POINTS)).astype(int))
    return [(int(i), float(values[i])) for i in chosen]


# ----------------------------------------------------------------------------------------------------------------- time
def over_time(rows: Sequence[Row], series: Sequence[Series]) -> Figure:
    """Latencies by the moment they began, above what the sensors said at that moment."""
    panels = [(kind, found) for kind in ("temperature", "clock", "power") if (found := _of_kind(series, kind))]
    names = [row.name for row in rows]
    top = TOP + svg.legend_height(names) + 14
    tall, small, gap = 130.0, 60.0, 32.0
    height = top + tall + len(panels) * (small + gap) + BOTTOM
    moments = [t for row in rows for block in row.at_s for t in block] + [t for one in series for t in one.t_s]
    x = svg.linear(moments, LEFT, WIDTH - RIGHT)
    bottom = height - BOTTOM
    y = svg.linear([ms for row in rows for block in row.latency_ms for ms in block], top + tall, top, zero=True)
    parts = [*svg.legend(names, TOP + 4), *svg.x_axis(x, bottom, "seconds of the run", top)]
    parts += svg.y_axis(y, LEFT, WIDTH - RIGHT, "latency, ms")
    for index, row in enumerate(rows):
        points = [pair for at, ms in zip(row.at_s, row.latency_ms, strict=True) for pair in zip(at, ms, strict=True)]
        step = max(1, len(points) * len(rows) // MAX_POINTS)
        dots = "".join(f"M{x(t):.1f},{y(ms):.1f}h.01" for t, ms in points[::step])
        parts.append(element("path", d=dots or "M0,0", class_=f"line dots s{index % 6}"))
    table = [(row.name, *_spread([ms for block in row.latency_ms for ms in block]), "ms") for row in rows]
    for place, (kind, found) in enumerate(panels):
        low = top + tall + (place + 1) * (small + gap)
        scale = svg.linear([v for one in found for v in one.value], low, low - small)
        parts += svg.y_axis(
            scale, LEFT, WIDTH - RIGHT, f"{kind}, {found[0].unit}: " + ", ".join(o.name for o in found), 3
        )
        for index, one in enumerate(found):
            points = [(x(t), scale(v)) for t, v in zip(one.t_s, one.value, strict=True)]
            parts.append(svg.path(points[:: max(1, len(points) // MAX_POINTS)], f"line s{index % 6}"))
    table += [(one.name, *_spread(one.value), one.unit) for _, found in panels for one in found]
    text = "Each dot is one answer, at the moment it began. " + (
        "Below: what the sensors said meanwhile."
        if panels
        else "No sensor of temperature, clock or power could be read on this machine."
    )
    title = "Latency over time"
    picture = svg.chart("time", height, title, text, parts)
    return Figure(title, text, picture, ("", "min", "median", "max", "unit"), tuple(table))


def _of_kind(series: Sequence[Series], kind: str) -> list[Series]:
    """At most six of a kind, those that move most first: the others are in the JSON."""
    found = [one for one in series if one.kind == kind and len(one.value) > 1]
    return sorted(found, key=lambda one: min(one.value) - max(one.value))[:6]


def _spread(values: Sequence[float]) -> tuple[str, str, str]:
    if not values:
        return ("", "", "")
    return number(min(values)), number(float(np.median(values))), number(max(values))


# ------------------------------------------------------------------------------------------------------------ waterfall
def waterfall(rows: Sequence[Row]) -> Figure:
    """Where the time of an answer goes, stage after stage."""
    staged = [row for row in rows if row.stages_p50_ms]
    names = list(dict.fromkeys(name for row in staged for name, _ in row.stages_p50_ms))
    top = TOP + svg.legend_height(names) + 4
    height = top + 36.0 * len(staged) + BOTTOM
    longest = [sum(ms for _, ms in row.stages_p50_ms) for row in staged]
    x = svg.linear(longest, LEFT, WIDTH - RIGHT, zero=True)
    parts = [*svg.legend(names, TOP + 4), *svg.x_axis(x, height - BOTTOM, "ms, medians, one after the other", top)]
    table = []
    for index, row in enumerate(staged):
        y, done = top + 36.0 * index + 16, 0.0
        total = longest[index]
        parts.append(label(LEFT, y - 4, f"{row.name} ({row.precision}): {number(total)} ms"))
        for name, ms in row.stages_p50_ms:
            share = 100 * ms / total if total else 0.0
            parts.append(
                element("rect", hint(f"{name}: {number(ms)} ms, {share:.0f} %"), x=x(done), y=y,
                        width=max(x(done + ms) - x(done), 0.7), height=14, class_=f"fill s{names.index(name) % 6}")
            )  # fmt: skip
            table.append((f"{row.name} ({row.precision}): {name}", number(ms), f"{share:.1f} %"))
            done += ms
    text = "Medians of each stage, from the frame in host memory to the answer in host memory."
    title = "Where the time goes"
    picture = svg.chart("stages", height, title, text, parts)
    return Figure(title, text, picture, ("", "p50 ms", "of the sum"), tuple(table))


# --------------------------------------------------------------------------------------------------------- side by side
def side_by_side(rows: Sequence[Row], comparisons: Sequence[Comparison], ours: Sequence[str]) -> Figure:
    """Everyone of the interleaved run: p50 as a bar, p90 as a mark."""
    shown = sorted(rows, key=lambda row: _p50(row))
    height = TOP + 34.0 * len(shown) + BOTTOM
    x = svg.linear([_p90(row) for row in shown], LEFT - 40, WIDTH - RIGHT, zero=True)
    parts = svg.x_axis(x, height - BOTTOM, "ms an answer: bar p50, mark p90", TOP)
    for index, row in enumerate(shown):
        y = TOP + 34.0 * index + 14
        mine = row.name in ours
        parts.append(
            label(LEFT - 40, y - 2, f"{row.name} ({row.precision}, {row.device}) {number(_p50(row))} ms",
                  class_="label strong" if mine else "label")
        )  # fmt: skip
        parts.append(
            element("rect", hint(row.what), x=x(0.0), y=y + 1, width=max(x(_p50(row)) - x(0.0), 0.7), height=12,
                    class_=f"fill s{0 if mine else 1}")
        )  # fmt: skip
        parts.append(element("line", x1=x(_p90(row)), x2=x(_p90(row)), y1=y - 1, y2=y + 15, class_="mark"))
    table = [
        (
            f"{c.numerator} / {c.denominator}",
            f"{c.ratio.value:.3f}",
            f"{c.ratio.low:.3f} to {c.ratio.high:.3f}",
            "" if c.noise is None else f"±{100 * c.noise:.1f} %",
        )
        for c in comparisons
    ]
    text = (
        "One interleaved run: the same clips, the same threads, rounds in an order drawn anew. Blue is this project. "
        "The table: medians over medians with the interval at 99 %, beside the noise of one program against itself."
    )
    title = "Side by side"
    picture = svg.chart("side", height, title, text, parts)
    return Figure(title, text, picture, ("", "ratio", "interval", "noise (A/A)"), tuple(table))


def _p50(row: Row) -> float:
    found = row.summary.at(50.0)
    return found.value_ms if found else row.summary.mean_ms


def _p90(row: Row) -> float:
    found = row.summary.at(90.0)
    return found.value_ms if found else row.summary.max_ms
