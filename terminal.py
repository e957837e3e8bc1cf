"""What the verbs draw: one progress line, and plain tables."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from .errors import printable


class Bar:
    """A progress line on standard error; nothing at all when that is not a terminal, or for the first second.

    Pass it as `progress`: it is called with (stage, done, total).
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._on = self._stream.isatty() and not quiet
        self._began = time.monotonic()
        self._stage, self._stage_began, self._drawn, self._width = "", self._began, 0.0, 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._stage_began = stage, now
        due = now - self._drawn > 0.1 or done == total
        if not self._on or now - self._began < 1.0 or not due:
            return
        self._drawn = now
        left = ""
        if total and 0 < done < total and now - self._stage_began > 2.0:
            left = f"  {(now - self._stage_began) / done * (total - done):.0f} s left"
        count = f"{done}/{total}" if total else str(done)
        filled = round(20 * done / total) if total else 0
        text = f"{printable(stage):<24.24} [{'#' * filled}{'.' * (20 - filled)}] {count}{left}"
        text = text[: shutil.get_terminal_size().columns - 1]
        self._stream.write("\r" + text.ljust(self._width))
        self._stream.flush()
        self._width = len(text)

    def clear(self) -> None:
        """Removes the line."""
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
            self._width = 0


def table(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns, the first row a heading.

    >>> print(table([["a", "b"], ["1", "22"]]))
    a  b
    -  --
    1  22
    """
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in shown) for column in range(len(shown[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
