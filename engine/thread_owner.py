"""Thread ownership of a runtime: one thread calls it, and it closes only between two calls.

A session is one context, one stream and one set of buffers. Two threads in it would mix their frames without any
error, so the second thread is refused by name, and the error says what works instead: `runtime.worker()`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import NoReturn

from ..errors import DeviceLostError, UsageError


def refuse_forked(pid: int) -> None:
    """Refuse a call in a forked child, which has none of the threads and devices of its parent.

    Args:
        pid: of the process in which the runtime was opened.

    Raises:
        UsageError: this is another process.
    """
    if os.getpid() != pid:
        raise UsageError(
            f"This runtime was opened by the process {pid}; the process {os.getpid()} was forked from it.",
            cause="threads and CUDA contexts do not pass through fork(), so its calls would wait for ever",
            next="logoformer.load(...) in each process, after the fork; or start processes with "
            "multiprocessing.get_context('spawn')",
        )


class ThreadOwner:
    """Lets one thread use a runtime's sessions, and refuses all others.

    A call is `with owner.lock(), owner:`. The first thread that asks for the lock becomes the owner. Any thread may
    close: `close` waits for the running call, and later calls are refused. After a lost device, every call raises that
    error again and the device is not called.

    The lock is entered by `with` itself, not by a method of this class: Python handles no signal between taking a lock
    that is written in C and the body. A handler that raises there, as that of Ctrl-C does, would leave it taken, and
    `close` would wait for ever.

    Args:
        free: frees the sessions, if any are left; called while no call runs.

    Attributes:
        closed: whether `close` was called.
    """

    def __init__(self, free: Callable[[], None]) -> None:
        self._free = free
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._giving = threading.Lock()
        self._owner: int | None = None
        self._owner_name = ""
        self._by_worker = False
        self._running = False
        self._lost: DeviceLostError | None = None
        self.closed = False

    def lock(self) -> threading.Lock:
        """Checks what `check` does; gives the lock to hold during the call.

        Raises:
            UsageError, DeviceLostError: as `check`.
        """
        self.check()
        return self._lock

    def __enter__(self) -> None:
        if self.closed:  # while this thread waited for the lock
            self._refuse_closed()
        self._running = True

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._running = False
        if isinstance(error, DeviceLostError):
            self._lost = error
        if self.closed:  # by this very thread, from a signal handler
            self._free()

    def check(self) -> None:
        """Refuses what a call refuses, and makes this thread the owner if there is none.

        Raises:
            UsageError: closed, another thread owns it, or this process was forked from the one that opened it.
            DeviceLostError: as an earlier call did.
        """
        refuse_forked(self._pid)
        here = threading.get_ident()
        if self._owner != here:
            with self._giving:  # of two threads that ask at once, one is first
                if self._owner is not None:
                    self._refuse_foreign()
                self.give(here, threading.current_thread().name)
        if self.closed:
            self._refuse_closed()
        if self._lost is not None:
            raise DeviceLostError(self._lost.what, cause=self._lost.cause, next=self._lost.next, log=self._lost.log)

    def give(self, owner: int | None, name: str = "", *, worker: bool = False) -> None:
        """Makes another thread the owner, or with None the next one that asks.

        Args:
            owner: its identifier.
            name: shown to people.
            worker: whether it is a `runtime.worker()`.
        """
        self._owner, self._owner_name, self._by_worker = owner, name, worker

    def close(self) -> None:
        """Refuses further calls, waits for the running one, and frees the sessions once.

        In a forked child nothing is freed: the sessions' threads do not exist there, and to free is to wait for them.
        """
        self.closed = True
        if os.getpid() != self._pid:
            return
        if self._running and self._owner == threading.get_ident() and self._lock.locked():
            return  # from inside the call itself, which frees at its end
        with self._lock:
            self._free()

    def _refuse_closed(self) -> NoReturn:
        raise UsageError("This runtime is closed.", next="logoformer.load(...) opens a new one")

    def _refuse_foreign(self) -> NoReturn:
        here = threading.current_thread().name
        if self._by_worker:
            raise UsageError(
                f"This runtime belongs to its worker; the thread {here!r} called it directly.",
                next="worker.submit(stream, frame, time_s), which any thread may call",
            )
        raise UsageError(
            f"This runtime is used by the thread {self._owner_name!r}; the thread {here!r} called it too.",
            cause="a callback (appsink, ROS, a web handler) runs on a thread of its own",
            next="worker = runtime.worker(), then worker.submit(stream, frame, time_s) from any thread",
        )
