"""Aligned columns of text, and times in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import printable


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns, one line a row; rows may have different lengths."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows), default=0))]
    return ["  ".join(cell.ljust(widths[i]) for i, cell in enumerate(row)).rstrip() for row in rows]


def ms(value: float) -> str:
    """Three decimals for short times, two for long ones."""
    return f"{value:.3f}" if value < 10 else f"{value:.2f}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns, the first row a heading.

    >>> print(table([["a", "b"], ["1", "22"]]))
    a  b
    -  --
    1  22
    """
    shown = [[printable(cell) for cell in row] for row in rows]
    rule = ["-" * max(map(len, column)) for column in zip(*shown, strict=True)]
    return "\n".join(columns([shown[0], rule, *shown[1:]]))
