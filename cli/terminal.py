"""The progress line, and the lines of `run` on a terminal."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from ..errors import printable


class Bar:
    """A progress line on standard error: on a terminal only, and after the first second.

    Pass it as `progress`: it is called with (stage, done, total). Figures given to `note` replace the bar.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._on = self._stream.isatty() and not quiet
        self._began = time.monotonic()
        self._stage, self._stage_began, self._drawn, self._width = "", self._began, 0.0, 0
        self._stage_done, self._note = 0, ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._stage:
            # Steps done before (a resumed training) say nothing about the pace.
            self._stage, self._stage_began, self._stage_done, self._note = stage, now, done, ""
        due = now - self._drawn > 0.1 or done == total
        if not self._on or now - self._began < 1.0 or not due:
            return
        self._drawn = now
        left = ""
        if total and 0 < done < total and now - self._stage_began > 2.0:
            pace = (now - self._stage_began) / max(1, done - self._stage_done)
            left = f"  {_duration(pace * (total - done))} left"
        count = f"{done}/{total}" if total else str(done)
        filled = round(20 * done / total) if total else 0
        drawn = "" if self._note else f" [{'#' * filled}{'.' * (20 - filled)}]"
        name = f"{printable(stage):.24}" if self._note else f"{printable(stage):<24.24}"
        text = f"{name}{drawn} {count}{left}{self._note}"
        text = text[: shutil.get_terminal_size().columns - 1]
        self._stream.write("\r" + text.ljust(self._width))
        self._stream.flush()
        self._width = len(text)

    def note(self, text: str) -> None:
        """Shows a few figures with the count until the next stage."""
        self._note = f"  {printable(text)}"

    def clear(self) -> None:
        """Removes the line."""
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
            self._width = 0


def answer_lines(labels: Sequence[str]) -> Callable[[Mapping[str, Any]], None]:
    """Gives an `on_result` for `camera.run.run` that prints time, label and probability.

    Args:
        labels: the C class names, for the width of the column.
    """
    width = max(len(printable(label)) for label in labels)

    def write(line: Mapping[str, Any]) -> None:
        label, share = printable(line["label"]), line["probabilities"][line["label"]]
        note = "  (fewer frames than a full span)" if line.get("partial") else ""
        print(f"{line['time_s']:6.2f} s  {label:<{width}}  {share:.2f}{note}", flush=True)

    return write


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
