"""What takes the place of the classes and functions that a foreign pickle names.

Nothing that a pickle names is imported or called. A name is a `Name`; what the pickle would have made with it is an
`Inert`, which keeps what it was given. Tensors are a `StoredTensor`: where their values lie, not the values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

# {name of torch's storage class: (dtype, bytes of one value)}
STORAGES = {
    "DoubleStorage": ("float64", 8),
    "FloatStorage": ("float32", 4),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
    "ComplexFloatStorage": ("complex64", 8),
    "ComplexDoubleStorage": ("complex128", 16),
    "QInt8Storage": ("qint8", 1),
    "QUInt8Storage": ("quint8", 1),
    "QInt32Storage": ("qint32", 4),
    "QUInt4x2Storage": ("quint4x2", 1),
    "QUInt2x4Storage": ("quint2x4", 1),
    "UntypedStorage": ("bytes", 1),
}
READABLE = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")


@dataclass(frozen=True)
class Name:
    """The name of a class or function, as the pickle gives it."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Inert:
    """What a class or function would have made; it does nothing.

    Attributes:
        name: of the class or function.
        args: what it would have been called with.
        state: what would have been set on it; an attribute dictionary for most classes.
        items: what would have been added to it, values or (key, value).
    """

    name: Name
    args: Any = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)

    def attributes(self) -> dict[str, Any]:
        """Its attributes by name, as a plain class keeps them; empty where it has none."""
        state = self.state
        if isinstance(state, tuple) and len(state) == 2:  # (attributes, slots)
            state = {**(state[0] or {}), **(state[1] or {})} if all(_dict_or_none(part) for part in state) else None
        return {key: value for key, value in state.items() if isinstance(key, str)} if isinstance(state, dict) else {}


def _dict_or_none(value: object) -> bool:
    return value is None or isinstance(value, dict)


@dataclass(frozen=True, eq=False)
class StoredBytes:
    """A tensor's storage: which bytes of the file it is.

    Attributes:
        key: its name in the file.
        dtype: of its values; 'bytes' where only the tensor says.
        count: values that it holds.
    """

    key: str
    dtype: str
    count: int


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor's shape and place; its values are read on demand.

    Attributes:
        kind: 'dense', or what it is that cannot be read: 'sparse', 'quantized', 'meta', 'nested', 'wrapped'.
        dtype: 'float32' and so on; '' where the kind has none.
        shape: sizes.
        stride: values between neighbours along each axis.
        offset: of the first value inside the storage, in values.
        storage: None where it has none.
    """

    kind: str
    dtype: str = ""
    shape: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    offset: int = 0
    storage: StoredBytes | None = None

    @property
    def readable(self) -> bool:
        """Whether its values can be read."""
        return self.kind == "dense" and self.dtype in READABLE

    @property
    def shown(self) -> str:
        """Kind or dtype, for a message."""
        return self.dtype if self.kind == "dense" else self.kind

    @property
    def count(self) -> int:
        """Values."""
        product = 1
        for size in self.shape:
            product *= size
        return product


def walk(root: Any, most_levels: int) -> Iterator[tuple[Any, int]]:
    """Every container and object below a value, once each, with its level; without recursion.

    Raises:
        ValueError: deeper than `most_levels`.
    """
    seen: set[int] = set()
    waiting: list[tuple[Any, int]] = [(root, 0)]
    while waiting:
        value, level = waiting.pop()
        if not isinstance(value, (dict, list, tuple, set, frozenset, Inert)) or id(value) in seen:
            continue
        if level > most_levels:
            raise ValueError(f"nested deeper than {most_levels} levels")
        seen.add(id(value))
        yield value, level
        if isinstance(value, dict):
            inside = [*value.keys(), *value.values()]
        elif isinstance(value, Inert):
            inside = [value.args, value.state, value.items]
        else:
            inside = list(value)
        waiting += [(item, level + 1) for item in inside]
