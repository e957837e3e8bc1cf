"""How figures stand in lines of text."""

from __future__ import annotations

from collections.abc import Sequence


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns, one line a row; rows may have different lengths."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows), default=0))]
    return ["  ".join(cell.ljust(widths[i]) for i, cell in enumerate(row)).rstrip() for row in rows]


def ms(value: float) -> str:
    """Three decimals for short times, two for long ones."""
    return f"{value:.3f}" if value < 10 else f"{value:.2f}"
