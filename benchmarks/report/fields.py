"""Reads JSON back into frozen dataclasses, strictly: the declared types are the schema.

A field that is missing, unknown or of another type is an error. No default is filled in, so a report that lost a figure
cannot come back with one.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

_T = TypeVar("_T")


def read(kind: type[_T], data: Any) -> _T:
    """Builds a dataclass from what `dataclasses.asdict` made of one.

    Args:
        kind: a dataclass of texts, numbers, truth values, mappings by text, tuples, None, and other such dataclasses.
        data: parsed JSON.

    Raises:
        TypeError: a field is missing, unknown, or of another type.
        ValueError: the dataclass itself refuses the values.
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"{data!r:.80} is no {kind.__name__}")
    hints = _hints(typing.cast("Any", kind))
    if set(data) != set(hints):
        raise TypeError(f"{kind.__name__} lacks or adds fields: {sorted(set(data) ^ set(hints))!r:.200}")
    return kind(**{name: _value(hint, data[name], f"{kind.__name__}.{name}") for name, hint in hints.items()})


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _value(hint: Any, value: Any, place: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        (kind,) = (kind for kind in arguments if kind is not types.NoneType)
        return None if value is None else _value(kind, value, place)
    if dataclasses.is_dataclass(hint):
        return read(typing.cast("type[Any]", hint), value)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(value) != len(kinds):
            raise TypeError(f"{place} holds {len(value)} values, {len(kinds)} are expected")
        return tuple(_value(kind, item, place) for kind, item in zip(kinds, value, strict=True))
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {_value(str, key, place): _value(arguments[1], item, place) for key, item in value.items()}
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if isinstance(hint, type) and isinstance(value, hint) and isinstance(value, bool) == (hint is bool):
        return value
    raise TypeError(f"{place} is {value!r:.80}")
