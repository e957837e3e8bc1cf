"""SVG elements, scales, axes, bars, figures; every text of a report is escaped here.

Colours are those of Okabe and Ito, told apart with any colour vision.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...errors import printable

WIDTH = 400  # of a chart, in its own units; a card is about as wide in CSS pixels, so letters keep their size
LETTER = 6.2  # width of one, on the wide side
MAX_ATTRIBUTE = 1 << 20  # characters: a path is one attribute
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 34  # margins for axes

# Of a picture by itself too: its root element carries the class `chart`.
DRAWING = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1b1f24; --soft: #57606a; --line: #d8dee4;
  --good: #00694c; --bad: #a63d00;
  --c0: #0072b2; --c1: #b86e00; --c2: #00805d; --c3: #b0578d; --c4: #c04f00; --c5: #2f8fc4; }
@media (prefers-color-scheme: dark) {
  :root { --page: #0f1318; --card: #181e25; --ink: #e6edf3; --soft: #9aa7b4; --line: #313a44;
    --good: #45c79b; --bad: #ff9d5c;
    --c0: #4aa8e0; --c1: #e69f00; --c2: #2fc39a; --c3: #e08fbe; --c4: #f0813f; --c5: #8fd0f5; } }
.chart text { fill: var(--ink); font: 11px system-ui, sans-serif; }
.chart .tick { fill: var(--soft); font-size: 10px; }
.chart .strong { font-weight: 600; }
.grid { stroke: var(--line); stroke-width: 1; }
.line { fill: none; stroke: currentColor; stroke-width: 1.8; }
.dots { stroke-width: 3; stroke-linecap: round; }
.cdf { fill: none; stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 4 3; }
.mark { stroke: var(--ink); stroke-width: 1.5; }
.fill { fill: currentColor; } .dim { opacity: .45; }
.s0 { color: var(--c0); } .s1 { color: var(--c1); } .s2 { color: var(--c2); }
.s3 { color: var(--c3); } .s4 { color: var(--c4); } .s5 { color: var(--c5); }
"""


def escape(text: object, limit: int = 2000) -> str:
    """Escaped text for content and quoted attributes; control characters become visible."""
    return html.escape(printable(str(text), limit), quote=True)


def element(tag: str, content: str | Iterable[str] | None = None, **attributes: object) -> str:
    """One element of markup, its attributes escaped; `class_` is `class`, `a_b` is `a-b`."""
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_short(value), MAX_ATTRIBUTE)}"'
        for name, value in attributes.items()
        if value is not None
    )
    if content is None:
        return f"<{tag}{given}/>"
    return f"<{tag}{given}>{content if isinstance(content, str) else ''.join(content)}</{tag}>"


def _short(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def label(x: float, y: float, text: object, anchor: str = "start", class_: str = "label") -> str:
    """A text, cut off at the picture's edge; the whole of it is its tooltip."""
    shown = printable(str(text), 2000)
    left = {"start": WIDTH - x, "end": x, "middle": 2 * min(x, WIDTH - x)}[anchor]
    most = max(int(left / LETTER), 2)
    content = html.escape(shown, quote=True)
    if len(shown) > most:
        content = hint(shown) + html.escape(shown[: most - 1] + "…", quote=True)
    return element("text", content, x=x, y=y, text_anchor=anchor, class_=class_)


def hint(text: object) -> str:
    """A tooltip; nothing for an empty text."""
    return element("title", escape(text)) if text else ""


# --------------------------------------------------------------------------------------------------------------- scales
@dataclass(frozen=True)
class Scale:
    """From values to places.

    Attributes:
        low, high: of the values.
        start, end: of the places.
        log: whether places follow the logarithm; then low is above 0.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self._of(self.low), self._of(self.high)
        share = (self._of(max(value, self.low)) - low) / (high - low) if high > low else 0.5
        return self.start + min(share, 1.0) * (self.end - self.start)

    def _of(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def ticks(self, about: int = 5) -> list[float]:
        """Round values to write at the axis."""
        if not self.log:
            return round_ticks(self.low, self.high, about)
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        step = max(1, math.ceil((last - first) / 5))
        return [10.0**power for power in range(first, last + 1, step)]


def round_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within the range."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def linear(values: Iterable[float], start: float, end: float, *, zero: bool = False) -> Scale:
    """A scale over the values, from 0 if asked."""
    known = list(values) or [0.0]
    low, high = (min(0.0, *known) if zero else min(known)), max(known)
    if high <= low:
        pad = abs(low) * 0.05 or 1.0
        low, high = (low if zero else low - pad), high + pad
    return Scale(low, high, start, end)


def logarithmic(values: Iterable[float], start: float, end: float) -> Scale:
    """A logarithmic scale over the positive values, widened to whole powers of ten."""
    known = [value for value in values if value > 0] or [1.0]
    low, high = 10.0 ** math.floor(math.log10(0.99 * min(known))), 10.0 ** math.ceil(math.log10(max(known)))
    return Scale(low, high if high > low else low * 10, start, end, log=True)


def number(value: float) -> str:
    """A short figure for an axis or a table."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e5 or size < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.4g}"


# ----------------------------------------------------------------------------------------------------------------- axes
def x_axis(scale: Scale, y: float, title: str, top: float) -> list[str]:
    """Ticks, grid lines up to `top` and a title below `y`."""
    parts = []
    for value in scale.ticks():
        x = scale(value)
        parts.append(element("line", x1=x, x2=x, y1=top, y2=y, class_="grid"))
        anchor = "start" if x < 2 * LETTER else "end" if x > WIDTH - 2 * LETTER else "middle"
        parts.append(label(x, y + 13, number(value), anchor, "tick"))
    return [*parts, label((scale.start + scale.end) / 2, y + 28, title, "middle")]


def y_axis(scale: Scale, title: str, about: int = 5) -> list[str]:
    """Ticks at the left margin, grid lines to the right one, and a title above the axis."""
    parts = []
    for value in scale.ticks(about):
        y = scale(value)
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(label(LEFT - 4, y + 3.5, number(value), "end", "tick"))
    return [*parts, label(2, min(scale.start, scale.end) - 5, title)]


def path(points: Sequence[tuple[float, float]], class_: str) -> str:
    """A line through points."""
    return element("path", d="M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=class_) if points else ""


def legend(names: Sequence[str]) -> tuple[list[str], float]:
    """Coloured squares with names, wrapped to the chart's width, and where they end."""
    parts: list[str] = []
    x, y = float(LEFT), TOP + 4.0
    for index, name in enumerate(names):
        width = 16 + LETTER * len(name)
        if x > LEFT and x + width > WIDTH:
            x, y = float(LEFT), y + 15
        parts.append(element("rect", x=x, y=y - 8, width=9, height=9, class_=f"fill s{index % 6}"))
        parts.append(label(x + 13, y, name, class_="tick"))
        x += width + 8
    return parts, y + 15 if names else TOP


# -------------------------------------------------------------------------------------------------------------- figures
@dataclass(frozen=True)
class Figure:
    """A picture with its table.

    Attributes:
        key: unique in the page.
        title: what it is.
        text: what it shows, in a sentence or two.
        height: in the chart's own units; its width is `WIDTH`.
        parts: markup.
        head, rows: of the table; the first column names the row.
    """

    key: str
    title: str
    text: str
    height: float
    parts: Sequence[str]
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def picture(self) -> str:
        """The whole picture as markup, with a name and a description for those who do not see it."""
        name, description = f"{self.key}-t", f"{self.key}-d"
        told = [element("title", escape(self.title), id=name), element("desc", escape(self.text), id=description)]
        return element(
            "svg",
            [*told, *self.parts],
            viewBox=f"0 0 {WIDTH} {self.height:g}",
            role="img",
            aria_labelledby=f"{name} {description}",
            class_="chart",
        )


# ----------------------------------------------------------------------------------------------------------------- bars
@dataclass(frozen=True)
class ChartBar:
    """One line of a bar chart.

    Attributes:
        name: above the bar; empty: it belongs to the name above.
        pieces: (begin, end, colour, hint) one after the other; an empty hint is not drawn.
        mark: a second value and its hint, None without one.
        strong: whether the name stands out.
    """

    name: str
    pieces: tuple[tuple[float, float, int, str], ...]
    mark: tuple[float, str] | None = None
    strong: bool = False


def bar_chart(
    key: str, title: str, text: str, bars: Sequence[ChartBar], axis: str, head: Sequence[str],
    rows: Sequence[Sequence[str]], colours: Sequence[str] = (), log: bool = False,
) -> Figure:  # fmt: skip
    """Horizontal bars with a legend, names above the bars and marks beside them.

    Args:
        key: unique in the page.
        title: what it is.
        text: what it shows, in a sentence or two.
        bars: from top to bottom.
        axis: title of the axis, with its unit.
        head: of the table.
        rows: of the table.
        colours: what they mean, in their order; empty: no legend.
        log: whether the axis is logarithmic.
    """
    names, top = legend(colours)
    height = top + sum(15 * bool(bar.name) + 16 for bar in bars) + BOTTOM
    values = [end for bar in bars for _, end, _, _ in bar.pieces] + [bar.mark[0] for bar in bars if bar.mark]
    start, end = LEFT - 40, WIDTH - RIGHT
    x = logarithmic(values, start, end) if log else linear(values, start, end, zero=True)
    parts = [*names, *x_axis(x, height - BOTTOM, axis, top)]
    y = top
    for bar in bars:
        if bar.name:
            y += 15
            parts.append(label(start, y - 2, bar.name, class_="label strong" if bar.strong else "label"))
        for low, high, colour, told in bar.pieces:
            shape = {"x": x(low), "y": y + 1, "width": max(x(high) - x(low), 0.7), "height": 12}
            parts.append(element("rect", hint(told), **shape, class_=f"fill s{colour % 6}"))
        if bar.mark is not None:
            place, told = x(bar.mark[0]), bar.mark[1]
            ends = {"x1": place, "x2": place, "y1": y - 1, "y2": y + 15}
            parts.append(element("line", hint(told), **ends, class_="mark"))
        y += 16
    return Figure(key, title, text, height, parts, head, rows)
