"""What a terminal shows of a verb: the progress line, log and warnings, lines of `run`."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from ..errors import printable

LOG_LINE_LIMIT = 4000  # characters


LOG_PERIOD_S = 30.0  # between two lines of progress where no terminal shows a bar


class Bar:
    """A progress line on standard error, after the first second.

    Where that is no terminal but a pipe or a file, a whole line every half minute.

    Pass it as `progress`: it is called with (stage, done, total). Figures given to `note` replace the bar.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._on, self._terminal = not quiet, self._stream.isatty()
        self._began = time.monotonic()
        self._stage, self._stage_began, self._drawn, self._width = "", self._began, 0.0, 0
        self._stage_done, self._note = 0, ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._stage:
            # Steps done before (a resumed training) say nothing about the pace.
            self._stage, self._stage_began, self._stage_done, self._note = stage, now, done, ""
        if self._terminal:
            due = now - self._began >= 1.0 and (now - self._drawn > 0.1 or done == total)
        else:
            due = now - max(self._began, self._drawn) >= LOG_PERIOD_S
        if not self._on or not due:
            return
        self._drawn = now
        left = ""
        if total and 0 < done < total and now - self._stage_began > 2.0:
            pace = (now - self._stage_began) / max(1, done - self._stage_done)
            left = f"  {_duration(pace * (total - done))} left"
        count = f"{done}/{total}" if total else str(done)
        if not self._terminal:
            with contextlib.suppress(OSError):  # whoever read it is gone: that ends no work
                print(f"{printable(stage)} {count}{left}{self._note}", file=self._stream, flush=True)
            return
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
    """Gives an `on_result` for `run_source` that prints time, label and probability."""
    width = max(len(printable(label)) for label in labels)

    def write(line: Mapping[str, Any]) -> None:
        label, share = printable(line["label"]), line["probabilities"][line["label"]]
        note = "  (fewer frames than a full span)" if line.get("partial") else ""
        print(f"{line['time_s']:6.2f} s  {label:<{width}}  {share:.2f}{note}", flush=True)

    return write


def change_line(event: Any, stream: TextIO | None = None) -> None:
    """Prints a line for a change of state of a watch, a `FaceEvent`."""
    who = "" if event.face is None else f"#{event.face}"
    what = event.kind
    if event.kind == "expression":
        what = event.state + (f"  (was {event.before})" if event.before else "")
    elif event.kind == "source":
        what = event.state
    reason = f": {event.reason}" if event.reason else ""
    moment = time.strftime("%H:%M:%S", time.localtime(event.at))
    print(f"{moment}  {printable(event.source)}  {who:>3}  {printable(what + reason)}", file=stream, flush=True)


def loss_line(event: Any) -> None:
    """Prints a line on standard error when a source is lost, and when it is back."""
    if event.kind == "source" and "lost" in (event.state, event.before):
        change_line(event, sys.stderr)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


# ---------------------------------------------------------------------------------------------------------------- log
class _Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Removes the progress line before each log line, and escapes what a terminal would obey."""

    def __init__(self, bar: Bar) -> None:
        super().__init__()  # standard error
        self._bar = bar

    def emit(self, record: logging.LogRecord) -> None:
        self._bar.clear()
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        return printable(f"{record.levelname.lower()} {record.name}: {record.getMessage()}", LOG_LINE_LIMIT)


@contextlib.contextmanager
def logging_to_stderr(bar: Bar, verbose: int, quiet: bool) -> Iterator[None]:
    """Shows what the package logs and what warns, from a level on: WARNING, or as asked.

    Args:
        bar: its line gives way to log lines.
        verbose: 1 for INFO, more for DEBUG.
        quiet: errors only.
    """
    logger = logging.getLogger(__name__.partition(".")[0])
    handler = _Handler(bar)
    before = logger.level
    logger.setLevel(logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)])
    logger.addHandler(handler)

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        logger.warning("%s: %s", category.__name__, message)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
