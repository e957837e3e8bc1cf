"""One kind of picture: horizontal bars, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..errors import printable

_ROW, _LEFT, _WIDTH, _TOP = 18, 300, 420, 44


def bars(title: str, rows: Sequence[tuple[str, float, bool]], marked: str) -> str:
    """Draws one bar a row.

    Args:
        title: above.
        rows: (name, share, marked), from top to bottom; what is not finite fills the row.
        marked: what the second colour means.

    Returns:
        SVG, UTF-8, no script and no outside reference.
    """
    finite = [value for _, value, _ in rows if value < float("inf")]
    largest = max([*finite, 1e-12])
    height = _TOP + _ROW * len(rows) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 90}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="8" y="18" font-weight="bold">{escape(printable(title, 200))}</text>',
        f'<text x="8" y="34" fill="#c0392b">{escape(printable(marked, 200))}</text>',
    ]
    for index, (name, value, hit) in enumerate(rows):
        top = _TOP + _ROW * index
        known = value < float("inf")
        width = max(1.0, _WIDTH * (value / largest if known else 1.0))
        shown = f"{value:.2%}" if known else "not finite"
        colour = "#c0392b" if hit else "#34679a"
        parts += [
            f'<text x="{_LEFT - 6}" y="{top + 13}" text-anchor="end">{escape(printable(name, 60))}</text>',
            f'<rect x="{_LEFT}" y="{top + 2}" width="{width:.1f}" height="{_ROW - 5}" fill="{colour}"/>',
            f'<text x="{_LEFT + width + 5:.1f}" y="{top + 13}">{shown}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
