"""An argument parser with suggestions, whose errors are JSON after `--json`."""

from __future__ import annotations

import argparse
import difflib
import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from ..errors import EXIT_USAGE, UsageError, command, one_of, printable


class CommandParser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` with suggestions; a wrong call ends with exit code 2."""

    _json = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        words = sys.argv[1:] if args is None else list(args)
        self._json = "--json" in words
        # Before argparse does it: a mistyped option would be reported as a required one that is missing.
        for word in words:
            if word == "--" or (self.verbs is not None and not word.startswith("-")):
                break
            self._check_option(word)
        return super().parse_known_args(words, namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, left = self.parse_known_args(args, namespace)
        if left:  # a verb's, whose own help says what it takes
            verbs, verb = self.verbs, str(getattr(found, "verb", ""))
            known = verbs.choices if verbs is not None else {}
            known.get(verb, self).error(f"unrecognized arguments: {' '.join(left)}")
        return found

    def _print_message(self, message: str, file: Any = None) -> None:
        if message:  # argparse passes over an error of the system, such as a full disk
            (file or sys.stderr).write(message)

    def error(self, message: str) -> NoReturn:
        error = UsageError(message, next=command(*self.prog.split(), "--help"))
        print(json.dumps(error.to_json()) if self._json else f"{self.prog}: error: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)

    @property
    def verbs(self) -> argparse._SubParsersAction[CommandParser] | None:
        """The action that holds the parsers of the verbs; the parser of one verb has none."""
        return next((action for action in self._actions if isinstance(action, argparse._SubParsersAction)), None)

    def _check_option(self, word: str) -> None:
        name = word.partition("=")[0]
        known = self._option_string_actions
        if not name.startswith("--") or " " in word or any(option.startswith(name) for option in known):
            return
        self.error(f"unknown option {name!r}.{did_you_mean(name, [option for option in known if option[:2] == '--'])}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        if action is self.verbs:
            raise argparse.ArgumentError(None, unknown("verb", value, action.choices))
        raise argparse.ArgumentError(action, unknown("value", value, action.choices))


def comma_list(names: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """The type of an option that takes some of `names`, with commas between."""

    def parse(text: str) -> tuple[str, ...]:
        words = tuple(word.strip() for word in text.split(",") if word.strip())
        for word in words:
            if word not in names:
                raise argparse.ArgumentTypeError(unknown("name", word, names))
        return words

    return parse


def whole_between(least: int, most: int) -> Callable[[str], int]:
    """The type of an option that takes a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{text:.40} is no whole number from {least} to {most}")
        return number

    return parse


def real_between(least: float, most: float) -> Callable[[str], float]:
    """The type of an option that takes a number from `least` to `most`."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{text:.40} is no number from {least:g} to {most:g}")
        return number

    return parse


def unknown(what: str, value: object, known: Iterable[object]) -> str:
    """The message for a name that is not among those known."""
    names = [str(name) for name in known]
    return f"unknown {what} {str(value)!r}.{did_you_mean(str(value), names)} Choose from {one_of(names)}."


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The closest known name as a question to append; empty where none is close."""
    close = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {printable(close[0])!r}?" if close else ""
