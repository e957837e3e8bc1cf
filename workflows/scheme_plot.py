"""The picture of `inspect --complexity`: costs against T and S, both axes logarithmic, as one SVG file.

On such axes a power is a straight line and its exponent the slope. The file holds no script and loads nothing; it
follows the reader's choice of light or dark. Several schemes cost the same, so lines differ in their dashes too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..benchmarks.report import svg
from ..benchmarks.report.svg import BOTTOM, DRAWING, LEFT, RIGHT, WIDTH, Scale, element, label, number
from ..model.networks.config import ATTENTIONS
from .scheme_costs import Cost, SchemeCosts

_HEIGHT, _TOP, _HEAD, _GAP = 200, 24, 58, 10
_DASHES = {"logo": "", "joint": "", "space": "", "divided": "9 5", "mixing": "5 5", "lgi": "2 4"}
_ORDER = ("joint", "space", "mixing", "logo", "divided", "lgi")  # drawn one over the other, dashes over full lines
_PANELS: tuple[tuple[str, Callable[[Cost], float]], ...] = (
    ("attention products, G MACs", lambda r: r.attention_macs / 1e9),
    ("attention products, CPU ms", lambda r: r.attention_ms),
    ("whole model, one clip, G MACs", lambda r: r.clip_macs / 1e9),
    ("whole model, one clip, CPU ms", lambda r: r.clip_ms),
)


@dataclass(frozen=True)
class _Marked(Scale):
    """A logarithmic scale with ticks of its own."""

    marks: tuple[float, ...] = ()

    def ticks(self, about: int = 5) -> list[float]:
        return list(self.marks)


def plot(costs: SchemeCosts) -> str:
    """Draws the picture: attention products above, the whole model below; against T on the left, S on the right.

    Returns:
        SVG, UTF-8.
    """
    columns = (
        (f"T, frames of {costs.tokens_per_frame} tokens", costs.against_frames, lambda r: float(r.frames)),
        (f"S, tokens a frame, {costs.frames} frames", costs.against_tokens, lambda r: float(r.tokens_per_frame)),
    )  # fmt: skip
    width, height = 2 * WIDTH + 3 * _GAP, _HEAD + len(_PANELS) * (_HEIGHT + _GAP)
    parts = [element("rect", width="100%", height="100%", class_="card")]
    parts.append(label(_GAP, 20, f"Six attention schemes in {costs.preset}", class_="strong"))
    parts += _legend()
    for row, (title, value) in enumerate(_PANELS):
        for column, (axis, against, place) in enumerate(columns):
            lines = {s: [(place(r), value(r)) for r in against(s)] for s in _ORDER}
            moved = f"translate({_GAP + column * (WIDTH + _GAP)} {_HEAD + row * (_HEIGHT + _GAP)})"
            parts.append(element("g", _panel(title, axis, lines), transform=moved))
    told = "Lines of multiply-accumulates and of measured CPU time for each scheme. The tables hold the figures."
    names = [element("title", "What attention schemes cost against T and S"), element("desc", told)]
    styles = (
        DRAWING
        + ".card { fill: var(--card); } .thick { stroke-width: 2.6; }\n"
        + "".join(f".{name} {{ stroke-dasharray: {dashes}; }}\n" for name, dashes in _DASHES.items() if dashes)
    )
    return (
        element(
            "svg", [*names, element("style", styles), *parts], xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {width} {height}", role="img", class_="chart",
        )
        + "\n"
    )  # fmt: skip


def _legend() -> list[str]:
    parts = []
    for index, scheme in enumerate(ATTENTIONS):
        x = _GAP + 4 + 105.0 * index
        parts.append(svg.path([(x, 38.0), (x + 34, 38.0)], _line(scheme)))
        parts.append(element("text", svg.escape(scheme), x=x + 40, y=42))
    return parts


def _line(scheme: str) -> str:
    return f"line s{ATTENTIONS.index(scheme)} {scheme}" + (" thick" if scheme == "logo" else "")


def _panel(title: str, axis: str, lines: dict[str, list[tuple[float, float]]]) -> list[str]:
    """One pair of axes."""
    xs = sorted({x for line in lines.values() for x, _ in line})
    ys = [y for line in lines.values() for _, y in line]
    bottom = _HEIGHT - BOTTOM
    along = Scale(xs[0], xs[-1], LEFT + 12, WIDTH - RIGHT - 8, True)
    x = _Marked(along.low, along.high, along.start, along.end, True, _apart(xs, along))
    low, high = min(ys) / 1.15, max(ys) * 1.15
    y = _Marked(low, high, bottom, _TOP, True, tuple(_ticks(low, high)))
    parts = [*svg.x_axis(x, bottom, axis, _TOP), *svg.y_axis(y, LEFT, WIDTH - RIGHT, title)]
    for scheme, line in lines.items():
        placed = [(x(a), y(b)) for a, b in line]
        parts.append(svg.path(placed, _line(scheme)))
        hints = [svg.hint(f"{scheme}: {number(a)}, {number(b)}") for a, b in line]
        parts += [
            element("circle", told, cx=a, cy=b, r=2.4, class_=f"fill s{ATTENTIONS.index(scheme)}")
            for (a, b), told in zip(placed, hints, strict=True)
        ]
    return parts


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten; fewer where the range is wide."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors: Sequence[int] = (1, 2, 5) if high / low < 100 else (1, 3) if high / low < 3000 else (1,)
    return [tick for power in powers for factor in factors if low <= (tick := factor * 10.0**power) <= high]


def _apart(values: Sequence[float], place: Scale) -> tuple[float, ...]:
    """Those values whose figures would not touch the one before."""
    kept: list[float] = []
    for value in values:
        if not kept or place(value) - place(kept[-1]) >= 4 * svg.LETTER:
            kept.append(value)
    return tuple(kept)
