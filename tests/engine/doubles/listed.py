"""Modules and classes that offer exactly the names of a list, and nothing else.

The lists are generated from the real packages (`tests/engine/apis`). A name outside a list raises AttributeError, as it
does there. A name on the list that no double acts out raises `NotActed`, which is no AttributeError: `hasattr` and
`getattr(..., default)` see a name that exists.
"""

from __future__ import annotations

import enum
import functools
import json
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

APIS = Path(__file__).parents[1] / "apis"
_ALWAYS = ("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__")


class NotActed(Exception):
    """The real package has this name; the double does not act it out."""


@functools.cache
def read_list(name: str) -> dict[str, Any]:
    return json.loads((APIS / f"{name}.json").read_text())


class ListedModule(types.ModuleType):
    """A module with the names of `names`; what is not set raises `NotActed`, what is not listed AttributeError."""

    def __init__(self, name: str, names: set[str]) -> None:
        super().__init__(name)
        self.__dict__["_names"] = names

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self.__dict__["_names"]:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        raise NotActed(f"{self.__name__}.{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name not in self.__dict__["_names"]:
            raise AttributeError(f"the real {self.__name__} has no {name!r}: a double must not either")
        super().__setattr__(name, value)


def make_enum(name: str, members: dict[str, int]) -> type[enum.IntEnum]:
    return enum.IntEnum(name, members)  # type: ignore[return-value]


# ------------------------------------------------------------------------------------------------- pybind11 shapes
def make_class(name: str, listed: dict[str, Any], acting: type | None, bases: tuple[type, ...], module: Any) -> type:
    """A class with exactly the listed members, acted out by the class `acting` where that has them."""
    body: dict[str, Any] = {}
    for attribute, value in vars(acting).items() if acting else ():
        private = attribute.startswith("_") and attribute not in listed["methods"] and attribute not in _ALWAYS
        if private:
            body[attribute] = value
    for method, signature in listed["methods"].items():
        act = vars(acting).get(method) if acting else None
        if method == "__init__" and act is None:
            continue
        body[method] = _checked(f"{name}.{method}", signature, act, module) if act else _absent(f"{name}.{method}")
    settable = {item[:-1] for item in listed["properties"] if item.endswith("=")}
    for item in listed["properties"]:
        attribute = item.rstrip("=")
        act = vars(acting).get(attribute) if acting else None
        body[attribute] = act if act is not None else _plain(name, attribute, attribute in settable)
    for nested, inside in listed.get("classes", {}).items():
        body[nested] = make_enum(nested, inside["enum"])
        body |= {member: value for member, value in body[nested].__members__.items() if member in body}
    known = set(body)

    def set_attribute(self: Any, attribute: str, value: Any) -> None:
        if not attribute.startswith("_") and type(self).__dict__.get("_listed", False):
            allowed = any(attribute in vars(cls).get("_settable", ()) for cls in type(self).__mro__)
            if not allowed:
                raise AttributeError(f"{name!r} object has no attribute {attribute!r} that can be set")
        object.__setattr__(self, attribute, value)

    body |= {"_settable": settable, "_listed": True, "_known": known, "__setattr__": set_attribute}
    return type(name, bases or (object,), body)


def _plain(owner: str, name: str, settable: bool) -> property:
    """A property that keeps what it is given."""

    def get(self: Any) -> Any:
        if f"_value_{name}" not in self.__dict__:
            raise NotActed(f"{owner}.{name}")
        return self.__dict__[f"_value_{name}"]

    def put(self: Any, value: Any) -> None:
        self.__dict__[f"_value_{name}"] = value

    return property(get, put if settable else None)


def _absent(name: str) -> Callable[..., Any]:
    def method(self: Any, *arguments: Any, **named: Any) -> Any:
        raise NotActed(name)

    return method


def _checked(name: str, signature: str | list[str], act: Any, module: Any) -> Callable[..., Any]:
    lines = [signature] if isinstance(signature, str) else signature
    if not lines:  # an ordinary Python function in the real package too
        return act
    overloads = [parameters(line) for line in lines]

    @functools.wraps(act)
    def method(self: Any, *arguments: Any, **named: Any) -> Any:
        if not any(_fits(overload[1:], arguments, named, module) for overload in overloads):
            given = ", ".join(type(value).__name__ for value in (*arguments, *named.values()))
            raise TypeError(f"{name}(): incompatible function arguments: ({given}); supported: {'; '.join(lines)}")
        return act(self, *arguments, **named)

    return method


@functools.cache
def parameters(signature: str) -> tuple[tuple[str, str, bool], ...]:
    """(name, type, has a default) of every parameter of a signature line."""
    inside = signature[1 : signature.rindex(") -> ")]
    parts = re.split(r",\s*(?=\w+:)", re.sub(r"<[^>]*>", "<>", inside)) if inside else []
    found = []
    for part in parts:
        name, _, kind = part.partition(":")
        kind, default, _ = kind.partition("=")
        found.append((name.strip(), kind.strip(), bool(default)))
    return tuple(found)


def _fits(
    wanted: tuple[tuple[str, str, bool], ...], arguments: tuple[Any, ...], named: dict[str, Any], module: Any
) -> bool:
    if len(arguments) > len(wanted) or set(named) - {name for name, _, _ in wanted}:
        return False
    given = {name: value for (name, _, _), value in zip(wanted, arguments, strict=False)}
    if set(given) & set(named):
        return False
    given |= named
    return all(_is(given[name], kind, module) if name in given else default for name, kind, default in wanted)


def _is(value: Any, kind: str, module: Any) -> bool:
    kind = kind.split("::")[-1]
    simple: dict[str, Callable[[Any], bool]] = {
        "int": lambda v: type(v) is int,
        "typing.SupportsInt": lambda v: hasattr(v, "__int__") and not isinstance(v, str),
        "float": lambda v: isinstance(v, (int, float)),
        "str": lambda v: isinstance(v, str),
        "bool": lambda v: isinstance(v, bool),
        "buffer": lambda v: isinstance(v, (bytes, bytearray, memoryview)),
        "typing_extensions.Buffer": lambda v: isinstance(v, (bytes, bytearray, memoryview)),
    }
    if kind in simple:
        return simple[kind](value)
    cls = vars(module).get(kind)
    return isinstance(value, cls) or value is None if isinstance(cls, type) else True
