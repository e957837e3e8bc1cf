"""Ctrl-C at each moment of a call, as CPython handles signals: when a function begins, and after one written in C."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

TESTS = str(Path(__file__).parents[1])
LOST = ("<genexpr>", "_remove")  # of a generator that is dropped early, and of weakref: what they raise is dropped


def interrupted(work: Callable[[], object]) -> Iterator[int]:
    """Calls `work` again and again, interrupted one moment later each time, until it ends undisturbed.

    Yields the number of the moment, after each call. Code of tests is not interrupted.
    """
    for moment in range(1, 100_000):
        left = moment

        def count(frame: FrameType, event: str, about: Any) -> None:
            nonlocal left
            code = frame.f_code
            if event in ("call", "c_return") and TESTS not in code.co_filename and code.co_name not in LOST:
                left -= 1
                if left == 0:
                    sys.setprofile(None)
                    raise KeyboardInterrupt

        sys.setprofile(count)
        try:
            work()
        except (KeyboardInterrupt, RuntimeError):  # a Condition between releasing and waiting says the latter
            pass
        finally:
            sys.setprofile(None)
        if left > 0:
            return
        yield moment


def within(call: Callable[[], object], seconds: float = 20) -> bool:
    """Whether a call on another thread ends."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()
