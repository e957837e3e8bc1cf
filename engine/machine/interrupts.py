"""Signals that end a program, held back while C++ code calls Python code."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def holding_interrupts() -> Iterator[Callable[[], None]]:
    """Hold back SIGINT and SIGTERM; calling what it gives handles them, as the end does.

    TensorRT's bindings print and drop an exception that a handler raises inside a logger or a progress monitor: the
    program would go on as if nothing had come. Outside the main thread, and where a handler is not Python's, nothing
    is held back.
    """
    held: list[Callable[[], object]] = []

    def handle() -> None:
        while held:
            held.pop(0)()

    def hold(number: int, frame: FrameType | None) -> None:
        handler = before[number]
        held.append(lambda: handler(number, frame))

    before = {}
    if threading.current_thread() is threading.main_thread():
        found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        before = {int(number): handler for number, handler in found.items() if callable(handler)}
    try:
        for number in before:
            signal.signal(number, hold)
        yield handle
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        handle()
