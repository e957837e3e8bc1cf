"""Errors: what happened, the likely cause, the command to run next.

Every error a user can meet is one of the classes below. Its exit code is part of the command line's contract: a
supervisor (systemd, a shell script, CI) may rely on it.

    2 usage    3 bad input    4 refused artifact    5 verification failed    6 environment    7 device lost
"""

from __future__ import annotations

import contextlib
import math
import operator
import shlex
from collections.abc import Iterable, Iterator, Sequence
from numbers import Real

INSTALL_NEWER = "pip install --upgrade logoformer-VERSION-py3-none-any.whl"  # no index of packages has it

EXIT_OK = 0
EXIT_USAGE = 2
EXIT_BAD_INPUT = 3
EXIT_REFUSED = 4
EXIT_VERIFICATION = 5
EXIT_ENVIRONMENT = 6
EXIT_DEVICE_LOST = 7


def printable(text: object, limit: int = 2000) -> str:
    r"""Escape control characters, so that a hostile file name cannot forge a line.

    Args:
        text: anything; `str()` is taken.
        limit: characters kept; what is cut is counted.

    Returns:
        The text with every control, format and unassigned character as a `\x..` or `\u....` escape.
    """
    raw = str(text)
    kept = "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode("ascii") for ch in raw[:limit])
    return kept if len(raw) <= limit else f"{kept}... ({len(raw) - limit} more characters)"


def command(*words: object) -> str:
    """Joins words into one line that can be pasted into a shell.

    >>> command("logoformer", "verify", "my face.bundle")
    "logoformer verify 'my face.bundle'"
    """
    return printable(" ".join(_quoted(str(word)) for word in words))


def _quoted(word: str) -> str:
    r"""Quote a word for a shell; bytes of a file name that are no UTF-8 as `$'\xff'`."""
    if not any("\udc80" <= ch <= "\udcff" for ch in word):
        return shlex.quote(word)
    escaped = {"\\": "\\\\", "'": "\\'"}
    shown = (escaped.get(ch, ch if not "\udc80" <= ch <= "\udcff" else f"\\x{ord(ch) - 0xDC00:02x}") for ch in word)
    return f"$'{''.join(shown)}'"


class LogoformerError(Exception):
    """The base of every error that a user can meet.

    Args:
        what: what happened, with the names and both numbers involved.
        cause: the likely cause, when one is known.
        next: the command to run next, or the change to make.
        log: captured lines of another program (TensorRT's log), oldest first.
    """

    exit_code = 1

    def __init__(self, what: str, *, cause: str = "", next: str = "", log: Sequence[str] = ()) -> None:
        super().__init__(what)
        self.what = what
        self.cause = cause
        self.next = next
        self.log = tuple(log)

    def __str__(self) -> str:
        parts = [printable(self.what)]
        if self.cause:
            parts.append(f"Likely cause: {printable(self.cause)}")
        if self.next:
            parts.append(f"Next: {printable(self.next)}")
        parts += [f"  | {printable(line)}" for line in self.log]
        return "\n".join(parts)

    @property
    def line(self) -> str:
        """The same on one line, for a log or a warning."""
        return str(self).replace("\n", " ")

    def to_json(self) -> dict[str, object]:
        """The same, for `--json`."""
        return {
            "error": type(self).__name__,
            "what": self.what,
            "cause": self.cause,
            "next": self.next,
            "log": list(self.log),
            "exit_code": self.exit_code,
        }


class UsageError(LogoformerError):
    """The call itself is wrong: a missing or contradictory argument."""

    exit_code = EXIT_USAGE


class BadInputError(LogoformerError):
    """A clip, video, checkpoint or data set of the wrong shape or content."""

    exit_code = EXIT_BAD_INPUT


class RefusedError(LogoformerError):
    """An artifact refused before use: changed, foreign, too new, or carrying code."""

    exit_code = EXIT_REFUSED


class VerificationError(LogoformerError):
    """An answer is not what was promised: parity, precision or accuracy outside its bound."""

    exit_code = EXIT_VERIFICATION


class MachineError(LogoformerError):
    """This machine lacks something: a package, a device, disk space."""

    exit_code = EXIT_ENVIRONMENT


class DeviceLostError(LogoformerError):
    """The device gave a sticky error; only a new process can use it again."""

    exit_code = EXIT_DEVICE_LOST


@contextlib.contextmanager
def advising(next: str) -> Iterator[None]:
    """Gives errors from inside the block their next step, where they have none of their own.

    What reads a file knows what is wrong with it; only the caller knows what the file is and how to get a new one.
    """
    try:
        yield
    except LogoformerError as error:
        error.next = error.next or next
        raise


def missing_package(module: str, extra: str, purpose: str) -> MachineError:
    """The error for an optional package that is not installed.

    `extra` is the one of pyproject that brings it, `purpose` the start of the sentence.
    """
    return MachineError(
        f"{purpose} needs the Python package {module}, which is not installed here.",
        next=f"pip install 'logoformer[{extra}]'",
    )


@contextlib.contextmanager
def needing(module: str, extra: str, purpose: str) -> Iterator[None]:
    """Imports inside the block that fail are a `missing_package`."""
    try:
        yield
    except ImportError as error:
        raise missing_package(module, extra, purpose) from error


def whole_number(value: object, name: str, least: int = 1) -> int:
    """Accept a whole number of any integer type, numpy's too; nothing is rounded.

    Raises:
        UsageError: another type, or below `least`.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least:
        raise UsageError(
            f"{name} is {value!r}; a whole number of at least {least} is expected.",
            next=f"give a whole number from {least} on",
        )
    return number


def seconds_above_zero(value: object, name: str, most: float = math.inf) -> float:
    """Accept a number of seconds of any real type, above 0.

    Raises:
        UsageError: another type, not above 0, above `most`, or no number at all (NaN).
    """
    shown = "a number that no float holds"
    try:
        number = float(value) if isinstance(value, Real) else math.nan
        shown = repr(value)
    except OverflowError:
        number = math.nan
    if not 0 < number <= most:
        limit = "" if math.isinf(most) else f" and at most {most:g}"
        raise UsageError(f"{name} is {shown}; a number of seconds, more than 0{limit}, is expected.")
    return number


def one_of(names: Iterable[object]) -> str:
    """Lists what would have been accepted, for a message.

    >>> one_of(["a", "b"])
    "'a', 'b'"
    """
    return ", ".join(repr(str(name)) for name in names)
