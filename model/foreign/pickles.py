"""The operations of pickle protocols 0 to 5, none of which calls anything.

`pickletools` documents them. Those that only a running program can answer (extension registry, out-of-band buffers)
are refused. Bytes and operations are limited.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .inert import Name
from .machine import Call, Persistent, PickleError, PickleMachine, to_set

MAX_BYTES = 64 << 20
MAX_OPERATIONS = 2_000_000
MAX_INT_BYTES = 128  # and no longer in decimal digits than Python prints


@dataclass(frozen=True)
class Unpickled:
    """What a pickle holds.

    Attributes:
        value: plain values, `Inert` objects, and what `persistent` and `call` gave.
        end: the first byte behind it.
        names: every class and function that it names.
    """

    value: Any
    end: int
    names: tuple[Name, ...]


def unpickle(data: bytes, persistent: Persistent, call: Call, start: int = 0) -> Unpickled:
    """Reads one pickle and calls nothing that it names.

    Args:
        data: the bytes; reading begins at `start`.
        persistent: gives the value of a persistent id.
        call: gives what a call of a name with arguments makes, or an `Inert`.
        start: where the pickle begins.

    Raises:
        PickleError: damaged, too large, or with operations that need a running program.
    """
    machine = PickleMachine(data, persistent, call, start)
    for _ in range(MAX_OPERATIONS):
        if machine.at >= len(data):
            raise PickleError("it ends before its last operation")
        code = data[machine.at]
        machine.at += 1
        if code == _STOP:
            if len(machine.stack) != 1 or machine.marks:
                raise PickleError("it does not end with one value")
            return Unpickled(machine.stack[0], machine.at, tuple(machine.names))
        operation = _TABLE[code]
        if operation is None:
            raise PickleError(f"operation 0x{code:02x} at byte {machine.at - 1} is none that a file may hold")
        operation(machine)
    raise PickleError(f"more than {MAX_OPERATIONS} operations")


# ---------------------------------------------------------------------------------------------------------- operations
def _integer(m: PickleMachine, size: int) -> int:
    if not 0 <= size <= MAX_INT_BYTES:
        raise PickleError(f"an integer of {size} bytes")
    return int.from_bytes(m.take(size), "little", signed=True)


def _decimal(text: str) -> Any:
    if text in ("00", "01"):  # how protocol 0 writes False and True
        return text == "01"
    digits = text.removesuffix("L")
    if len(digits) > 2 * MAX_INT_BYTES or not digits.removeprefix("-").isdecimal():
        raise PickleError("an integer that is none")
    return int(digits)


def _place(m: PickleMachine) -> int:
    found = _decimal(m.line())
    if type(found) is bool:
        return int(found)
    return int(found)


def _real(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise PickleError("a number that is none") from error


def _quoted(text: str) -> str:
    if len(text) < 2 or text[0] != text[-1] or text[0] not in "'\"":
        raise PickleError("a text without its quotes")
    try:
        return str(codecs.escape_decode(text[1:-1].encode())[0].decode("latin-1"))  # type: ignore[attr-defined]
    except ValueError as error:
        raise PickleError("a text with a wrong escape") from error


def _escaped(data: bytes) -> str:
    try:
        return data.decode("raw-unicode-escape")
    except ValueError as error:
        raise PickleError("a text with a wrong escape") from error


def _tuple(m: PickleMachine, size: int) -> None:
    items = [m.pop() for _ in range(size)]
    m.push(tuple(reversed(items)))


def _instance(m: PickleMachine) -> None:  # INST: class named in the operation, arguments behind the mark
    target = m.named(m.line(), m.line())
    m.make(target, tuple(m.pop_mark()))


def _object(m: PickleMachine) -> None:  # OBJ: class is the first behind the mark
    items = m.pop_mark()
    if not items:
        raise PickleError("it makes an object without a class")
    m.make(items[0], tuple(items[1:]))


def _reduce(m: PickleMachine) -> None:
    args = m.pop()
    m.make(m.pop(), args)


def _new_with_names(m: PickleMachine) -> None:
    keywords, args = m.pop(), m.pop()
    m.make(m.pop(), args if not keywords else (args, keywords))


def _stack_global(m: PickleMachine) -> None:
    name = m.pop()
    m.push(m.named(m.pop(), name))


def _global(m: PickleMachine) -> None:
    m.push(m.named(m.line(), m.line()))


def _dict_of(m: PickleMachine) -> None:
    items = m.pop_mark()
    m.push({})
    m.fill(items)


def _set_item(m: PickleMachine) -> None:
    value = m.pop()
    m.fill([m.pop(), value])


def _pop_any(m: PickleMachine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.pop_mark()


def _protocol(m: PickleMachine) -> None:
    version = m.number("B")
    if version > 5:
        raise PickleError(f"pickle protocol {version}, which nobody has defined")


def _frame(m: PickleMachine) -> None:
    if m.number("<Q") > len(m.data) - m.at:
        raise PickleError("a frame longer than the file")


_STOP = ord(".")
_OPERATIONS: dict[str, Callable[[PickleMachine], object]] = {
    "(": lambda m: m.mark(),
    "0": _pop_any,
    "1": lambda m: m.pop_mark(),
    "2": lambda m: m.push(m.top()),
    "F": lambda m: m.push(_real(m.line())),
    "I": lambda m: m.push(_decimal(m.line())),
    "J": lambda m: m.push(m.number("<i")),
    "K": lambda m: m.push(m.number("B")),
    "L": lambda m: m.push(_decimal(m.line())),
    "M": lambda m: m.push(m.number("<H")),
    "N": lambda m: m.push(None),
    "P": lambda m: m.push(m.persistent(m.line())),
    "Q": lambda m: m.push(m.persistent(m.pop())),
    "R": _reduce,
    "S": lambda m: m.push(_quoted(m.line())),
    "T": lambda m: m.push(m.take(m.number("<i")).decode("latin-1")),
    "U": lambda m: m.push(m.take(m.number("B")).decode("latin-1")),
    "V": lambda m: m.push(_escaped(m.raw_line())),
    "X": lambda m: m.push(m.text(m.take(m.number("<I")))),
    "a": lambda m: m.extend([m.pop()]),
    "b": lambda m: m.build(),
    "c": _global,
    "d": _dict_of,
    "}": lambda m: m.push({}),
    "e": lambda m: m.extend(m.pop_mark()),
    "g": lambda m: m.get(_place(m)),
    "h": lambda m: m.get(m.number("B")),
    "i": _instance,
    "j": lambda m: m.get(m.number("<I")),
    "l": lambda m: m.push(m.pop_mark()),
    "]": lambda m: m.push([]),
    "o": _object,
    "p": lambda m: m.put(_place(m)),
    "q": lambda m: m.put(m.number("B")),
    "r": lambda m: m.put(m.number("<I")),
    "s": _set_item,
    "t": lambda m: m.push(tuple(m.pop_mark())),
    ")": lambda m: m.push(()),
    "u": lambda m: m.fill(m.pop_mark()),
    "G": lambda m: m.push(m.number(">d")),
    "\x80": _protocol,
    "\x81": _reduce,
    "\x85": lambda m: _tuple(m, 1),
    "\x86": lambda m: _tuple(m, 2),
    "\x87": lambda m: _tuple(m, 3),
    "\x88": lambda m: m.push(True),
    "\x89": lambda m: m.push(False),
    "\x8a": lambda m: m.push(_integer(m, m.number("B"))),
    "\x8b": lambda m: m.push(_integer(m, m.number("<i"))),
    "B": lambda m: m.push(m.take(m.number("<I"))),
    "C": lambda m: m.push(m.take(m.number("B"))),
    "\x8c": lambda m: m.push(m.text(m.take(m.number("B")))),
    "\x8d": lambda m: m.push(m.text(m.take(m.number("<Q")))),
    "\x8e": lambda m: m.push(m.take(m.number("<Q"))),
    "\x8f": lambda m: m.push(set()),
    "\x90": lambda m: m.add(m.pop_mark()),
    "\x91": lambda m: m.push(frozenset(to_set(m.pop_mark()))),
    "\x92": _new_with_names,
    "\x93": _stack_global,
    "\x94": lambda m: m.put(len(m.memo)),
    "\x95": _frame,
    "\x96": lambda m: m.push(m.take(m.number("<Q"))),
}
_TABLE = tuple(_OPERATIONS.get(chr(code)) for code in range(256))
