"""TensorRT's log and progress as plain Python values.

The classes that TensorRT calls must derive from classes of the very module in use, so they are made on demand.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from ...errors import printable

_log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]  # stage, done, total

KEPT_LINES = 400
LINE_LIMIT = 2000  # characters
_COMPLAINTS = ("INTERNAL_ERROR", "ERROR", "WARNING")
# RTX says the first once a process, at its highest severity, when the parser is used; nothing is wrong. The second
# comes when a runtime of ours is open too: only messages without an owner go to its log then, a build's own do not.
_NOISE = re.compile(r"Thread context has not been set! Using global|.*logger passed into createInfer\w+ differs")


class BuildLog:
    """The last lines that TensorRT logged, errors and warnings apart from the rest.

    Chatter cannot push errors and warnings out. Every message also goes to the package's log: VERBOSE as DEBUG, all
    others as INFO, since errors and warnings are reported from here.

    Args:
        catch: called with every VERBOSE message; None drops them.
    """

    def __init__(self, catch: Callable[[str], None] | None = None) -> None:
        self._complaints: deque[tuple[str, str]] = deque(maxlen=KEPT_LINES)
        self._chatter: deque[str] = deque(maxlen=KEPT_LINES)
        self._catch = catch

    def add(self, severity: str, message: str) -> None:
        """Add a message of one or more lines; `severity` is TensorRT's name, such as 'WARNING'."""
        level = logging.DEBUG if severity == "VERBOSE" else logging.INFO
        if _log.isEnabledFor(level):
            _log.log(level, "TensorRT %s: %s", severity, printable(message, LINE_LIMIT))
        if severity in _COMPLAINTS:
            if not _NOISE.match(message):
                self._complaints.extend((severity, line[:LINE_LIMIT]) for line in message.split("\n"))
        elif severity == "INFO":
            self._chatter.extend(line[:LINE_LIMIT] for line in message.split("\n"))
        elif self._catch is not None:
            self._catch(message)

    @property
    def complaints(self) -> tuple[str, ...]:
        """Errors and warnings as 'severity: text', oldest first."""
        return tuple(f"{severity.lower()}: {line}" for severity, line in self._complaints)

    @property
    def errors(self) -> tuple[str, ...]:
        """Errors alone, as 'severity: text', oldest first."""
        return tuple(f"{severity.lower()}: {line}" for severity, line in self._complaints if severity != "WARNING")

    @property
    def chatter(self) -> tuple[str, ...]:
        """The last INFO lines."""
        return tuple(self._chatter)


_routes = threading.local()
_latest: list[BuildLog] = []  # at most one: takes what TensorRT says in threads of its own


def write_to(log: BuildLog) -> None:
    """Let TensorRT's messages of this thread go to `log`, until another one is named.

    Messages of TensorRT's own threads go to the log that was named last.
    """
    _routes.log = log
    _latest[:] = [log]


def make_logger(module: Any) -> Any:
    """The one `ILogger` of a TensorRT module, never freed, which writes where `write_to` says.

    TensorRT takes the first logger that it sees for the whole process: all its objects must use that one, and it must
    outlive them (`NvInferRuntime.h`, ILogger).
    """
    kept = vars(module).get("_logoformer_logger")
    if kept is not None:
        return kept

    class Logger(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            with contextlib.suppress(Exception):  # an exception must not reach TensorRT's C++ frames
                log = getattr(_routes, "log", None) or _latest[0]
                log.add(severity.name, message)

    vars(module)["_logoformer_logger"] = logger = Logger()
    return logger


class ProgressRelay:
    """Pass TensorRT's phases to a callback, and the callback's exceptions to the caller.

    Args:
        progress: called with (phase, steps done, steps).
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._steps: dict[str, int] = {}
        self.error: BaseException | None = None

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """A phase begins."""
        self._steps[phase_name] = num_steps
        self._tell(phase_name, 0)

    def step_complete(self, phase_name: str, step: int) -> bool:
        """A step is done; False asks TensorRT to stop."""
        self._tell(phase_name, step + 1)
        return self.error is None

    def phase_finish(self, phase_name: str) -> None:
        """A phase ends."""
        self._tell(phase_name, self._steps.pop(phase_name, 1))

    def _tell(self, phase: str, done: int) -> None:
        if self.error is not None:
            return
        try:
            self._progress(phase, done, self._steps.get(phase, max(done, 1)))
        except BaseException as error:  # Ctrl-C too: carried round TensorRT's C++ frames, raised by the caller
            self.error = error


def make_monitor(module: Any, progress: Progress) -> ProgressRelay | None:
    """A relay that is an `IProgressMonitor` of this module, or None where it has none."""
    if not hasattr(module, "IProgressMonitor"):
        return None

    class Monitor(ProgressRelay, module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            ProgressRelay.__init__(self, progress)

    return Monitor()


class OverallProgress:
    """The share of a build that is done: a number from 0 to 1 that never falls.

    Phases lie inside each other: 'Building engine' has a few steps, and in one of them 'Timing tactics' has a thousand.

    >>> overall = OverallProgress()
    >>> [overall("build", 0, 2), overall("time", 5, 10), overall("build", 1, 2), overall("build", 2, 2)]
    [0.0, 0.25, 0.5, 1.0]
    """

    def __init__(self) -> None:
        self._open: list[tuple[str, int, int]] = []  # phase, done, total; each inside the one before
        self._share = 0.0

    def __call__(self, phase: str, done: int, total: int) -> float:
        """Takes a step of a phase; returns the share of the whole that is done."""
        names = [name for name, _, _ in self._open]
        if phase in names:
            del self._open[names.index(phase) :]
        while self._open and self._open[-1][1] >= self._open[-1][2]:  # ended: the new one is its sibling
            self._open.pop()
        self._open.append((phase, done, max(total, 1)))
        inner = 0.0
        for _, finished, steps in reversed(self._open):
            inner = min((finished + inner) / steps, 1.0)
        self._share = max(self._share, inner)
        return self._share
