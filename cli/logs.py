"""The library's log and Python's warnings, on standard error for as long as a verb runs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import printable
from .terminal import Bar

LINE_LIMIT = 4000  # characters


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Removes the progress line before each log line."""

    def __init__(self, bar: Bar) -> None:
        super().__init__()  # standard error
        self._bar = bar

    def emit(self, record: logging.LogRecord) -> None:
        self._bar.clear()
        super().emit(record)


class _Formatter(logging.Formatter):
    """`level name: message`; what a terminal would obey is escaped."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(f"{record.levelname.lower()} {record.name}: {record.getMessage()}", LINE_LIMIT)


@contextmanager
def logging_to_stderr(bar: Bar, verbose: int, quiet: bool) -> Iterator[None]:
    """Shows what the package logs and what warns, from a level on: WARNING, or as asked.

    Args:
        bar: its line gives way to log lines.
        verbose: 1 for INFO, more for DEBUG.
        quiet: errors only.
    """
    logger = logging.getLogger(__name__.partition(".")[0])
    handler = _Handler(bar)
    handler.setFormatter(_Formatter())
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
