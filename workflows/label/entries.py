"""Entries of a journal or an output: what was answered of one recording, checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ...bundle.files import parse_json

_ENTRY = frozenset({"recording", "mark", "answers", "error"})


def _is_number(value: object) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _is_integer(value: object) -> bool:
    return type(value) is int


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


_OPTIONAL: dict[str, Callable[[object], bool]] = {
    "time_s": _is_number,
    "frame": _is_integer,
    "face": _is_integer,
    "box": _is_box,
    "partial": lambda value: type(value) is bool,
}


def parse_line(line: bytes, shown: str) -> Any:
    """The value that a line holds.

    Raises:
        RefusedError: it is not JSON, or is nested too deep.
    """
    return parse_json(line, shown, max_bytes=len(line))


def check_entry(value: object, labels: Sequence[str]) -> dict[str, Any]:
    """Accepts an entry as it is written: recording, mark, and answers or an error.

    Args:
        value: from a file.
        labels: classes, in the order of the probabilities.

    Raises:
        ValueError: something else.
    """
    if not isinstance(value, dict) or not _ENTRY.issuperset(value):
        raise ValueError("no entry of a recording")
    name, mark = value.get("recording"), value.get("mark")  # files of early versions hold no marks
    if not isinstance(name, str) or not name:
        raise ValueError("a recording without a name")
    if mark is not None and not (isinstance(mark, list) and all(map(_is_integer, mark))):
        raise ValueError("a mark that is none")
    if ("answers" in value) == ("error" in value):
        raise ValueError("answers and an error, or neither")
    if "error" in value:
        if not isinstance(value["error"], str):
            raise ValueError("an error that is no text")
    elif not isinstance(value["answers"], list) or not all(_is_answer(one, labels) for one in value["answers"]):
        raise ValueError("answers that are none")
    return value


def _is_answer(value: object, labels: Sequence[str]) -> bool:
    if not isinstance(value, dict):
        return False
    own = {name: one for name, one in value.items() if name not in ("label", "probabilities")}
    shares = value.get("probabilities")
    return (
        all(name in _OPTIONAL and _OPTIONAL[name](one) for name, one in own.items())
        and isinstance(shares, dict)
        and list(shares) == list(labels)
        and all(map(_is_number, shares.values()))
        and value.get("label") in labels
    )
