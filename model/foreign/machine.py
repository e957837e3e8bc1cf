"""Stack, memo and objects of a pickle machine that cannot call anything.

Python's unpickler calls what a pickle names. This one has no way to: a name becomes `inert.Name`, a call becomes
`inert.Inert`. Names, memo, nesting and the work of all calls are limited.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

from .inert import Inert, Name, StoredTensor

MAX_MEMO = 1_000_000
MAX_MARKS = 1_000
MAX_LINE = 64 << 10
MAX_NAME = 500
MAX_NAMES = 10_000
MAX_KEY = 16
MAX_OTHER_KEYS = 5_000  # keys that are no texts: their hashes can be chosen so that all collide
MAX_LISTED_KEYS = 500  # of those, in one list that a call makes a dictionary or a set of
MAX_WORK = 4_000_000  # values that calls were given: one list may be given to many

Persistent = Callable[[Any], Any]
Call = Callable[[Name, tuple[Any, ...]], Any]
_SCALARS = (str, int, float, bool, bytes, type(None), Inert, Name)


class PickleError(ValueError):
    """The bytes are no pickle that this machine reads; the text says why."""


class PickleMachine:
    """One reading of one pickle.

    Args:
        data: the bytes; reading begins at `start`.
        persistent: gives the value of a persistent id.
        call: gives what a call of a name with arguments makes, or an `Inert`.
    """

    def __init__(self, data: bytes, persistent: Persistent, call: Call, start: int = 0) -> None:
        self.data = data
        self.at = start
        self.persistent = persistent
        self.call = call
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.names: dict[Name, None] = {}
        self.work = 0
        self.other_keys = 0

    # -------------------------------------------------------------------------------------------------------- reading
    def take(self, count: int) -> bytes:
        end = self.at + count
        if count < 0 or end > len(self.data):
            raise PickleError(f"{count} bytes are announced at byte {self.at}, more than there are")
        found = self.data[self.at : end]
        self.at = end
        return found

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        return self.text(self.raw_line())

    def raw_line(self) -> bytes:
        end = self.data.find(b"\n", self.at, self.at + MAX_LINE)
        if end < 0:
            raise PickleError(f"the text at byte {self.at} has no end")
        found = self.data[self.at : end]
        self.at = end + 1
        return found

    def text(self, data: bytes) -> str:
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise PickleError(f"a text before byte {self.at} is not UTF-8") from error

    # ---------------------------------------------------------------------------------------------------------- stack
    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise PickleError("it takes a value where none is")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack:
            raise PickleError("it takes a value where none is")
        return self.stack[-1]

    def mark(self) -> None:
        if len(self.marks) >= MAX_MARKS:
            raise PickleError(f"nested deeper than {MAX_MARKS} levels")
        self.marks.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            raise PickleError("it ends a group that never began")
        found = self.stack
        self.stack = self.marks.pop()
        return found

    # ----------------------------------------------------------------------------------------------------------- memo
    def put(self, place: int) -> None:
        if len(self.memo) >= MAX_MEMO or place < 0:
            raise PickleError(f"more than {MAX_MEMO} values are remembered")
        self.memo[place] = self.top()

    def get(self, place: int) -> None:
        if place not in self.memo:
            raise PickleError(f"value {place} is asked for and was never remembered")
        self.push(self.memo[place])

    # -------------------------------------------------------------------------------------------------------- objects
    def named(self, module: object, name: object) -> Name:
        if type(module) is not str or type(name) is not str:
            raise PickleError("a class is named by something that is no text")
        if len(module) > MAX_NAME or len(name) > MAX_NAME or len(self.names) >= MAX_NAMES:
            raise PickleError("it names too many classes, or one with too long a name")
        found = Name(module, name)
        self.names[found] = None
        return found

    def make(self, target: object, args: object) -> None:
        if not isinstance(target, Name):
            raise PickleError(f"it calls a {type(target).__name__}")
        if type(args) is not tuple:
            raise PickleError(f"it calls {target} with a {type(args).__name__}")
        self.work += 1 + len(args)
        if self.work <= MAX_WORK:
            self.work += sum(len(arg) for arg in args if isinstance(arg, (list, tuple)))
        if self.work > MAX_WORK:
            raise PickleError(f"its calls are given more than {MAX_WORK} values")
        self.push(self.call(target, args))

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, Inert):
            target.state = state
        elif not isinstance(target, (dict, StoredTensor)):  # those carry metadata, which nobody needs
            raise PickleError(f"it changes a {type(target).__name__}")

    def extend(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, Inert):
            target.items += items
        elif type(target) is list:
            target += items
        else:
            raise PickleError(f"it appends to a {type(target).__name__}")

    def fill(self, items: list[Any]) -> None:
        target = self.top()
        if len(items) % 2:
            raise PickleError("a key has no value")
        pairs = list(zip(items[::2], items[1::2], strict=True))
        if isinstance(target, Inert):
            target.items += pairs
        elif type(target) is dict:
            for key, value in pairs:
                self.count_key(key)
                target[_key(key)] = value
        else:
            raise PickleError(f"it sets an item of a {type(target).__name__}")

    def count_key(self, key: object) -> None:
        if type(key) is not str:
            self.other_keys += 1
            if self.other_keys > MAX_OTHER_KEYS:
                raise PickleError(f"more than {MAX_OTHER_KEYS} keys that are no texts")

    def add(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, Inert):
            target.items += items
        elif type(target) is set:
            for item in items:
                self.count_key(item)
                target.add(_key(item))
        else:
            raise PickleError(f"it adds to a {type(target).__name__}")


def _key(value: Any) -> Any:
    """A value that may be a key; no nested tuple: Python hashes it without a limit on its depth."""
    if isinstance(value, _SCALARS):
        return value
    if type(value) is tuple and len(value) <= MAX_KEY and all(isinstance(part, _SCALARS) for part in value):
        return value
    raise PickleError(f"a {type(value).__name__} is used as a key")


def to_dict(pairs: Any) -> dict[Any, Any]:
    """A dictionary from a list of pairs, as `OrderedDict` takes them.

    Raises:
        PickleError: it is none.
    """
    if not isinstance(pairs, (list, tuple)) or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
        raise PickleError("a dictionary is made from something else than pairs")
    _few_other_keys(key for key, _ in pairs)
    return {_key(key): value for key, value in pairs}


def to_set(items: Any) -> set[Any]:
    """A set from a list.

    Raises:
        PickleError: it is none.
    """
    if not isinstance(items, (list, tuple)):
        raise PickleError(f"a set is made from a {type(items).__name__}")
    _few_other_keys(items)
    return {_key(item) for item in items}


def _few_other_keys(keys: Iterable[object]) -> None:
    if sum(type(key) is not str for key in keys) > MAX_LISTED_KEYS:
        raise PickleError(f"more than {MAX_LISTED_KEYS} keys that are no texts")
