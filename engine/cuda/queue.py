"""The stream that all sessions of a runtime share, and how far the device has come in it.

One stream keeps the order of everything: an upload, the engine that reads it, the copy of its tokens into the ring and
the engine that reads the ring need no events between them, and the host waits only where it reads an answer or writes
into memory that may still be read. For these there are marks: events, numbered in the order of their recording. After a
wait for one, all earlier ones are known to be past, and are not asked about.
"""

from __future__ import annotations

import contextlib

from .layer import Cuda, CudaError

WAITS = ("auto", "spin", "block")
PRIORITIES = ("normal", "high")


class Mark:
    """A place in the queue; recorded again and again.

    Attributes:
        event: of the device.
        number: of its last recording; 0 before the first.
    """

    __slots__ = ("event", "number")

    def __init__(self, event: int) -> None:
        self.event, self.number = event, 0


class Lease:
    """Memory of the host that the device may still be reading.

    Attributes:
        mark: behind the work that reads it; None while nothing was recorded behind it.
        number: of the recording that is meant; -1 when nothing reads the memory.
    """

    __slots__ = ("mark", "number")

    def __init__(self) -> None:
        self.mark: Mark | None = None
        self.number = -1


class Queue:
    """The stream of one runtime, open while a session holds it.

    Args:
        cuda: the device.
        wait: 'block' lets the thread sleep until the device is done, 'spin' asks again and again and answers some tens
            of microseconds sooner for one busy core; 'auto' leaves it to the driver, which on a Jetson decides by the
            power mode.
        priority: 'high' lets its kernels go before those that wait in other streams of this process, such as a
            detector's.

    Attributes:
        stream: of the device; 0 while no session is open.
    """

    def __init__(self, cuda: Cuda, wait: str = "auto", priority: str = "normal") -> None:
        self.wait_mode, self.priority = wait, priority
        self.stream = 0
        self._cuda = cuda
        self._holders = self._number = self._past = 0
        self._open: list[Lease] = []  # of work behind which nothing was recorded yet

    def hold(self) -> int:
        """The stream, which lives until `release`; made for the first session."""
        if not self._holders:
            self.stream = self._cuda.stream(first=self.priority == "high")
        self._holders += 1
        return self.stream

    def release(self) -> None:
        """Gives the stream back; the last session frees it."""
        self._holders -= 1
        if not self._holders:
            stream, self.stream = self.stream, 0
            with contextlib.suppress(CudaError):  # a device that is lost takes nothing back
                self._cuda.free_stream(stream)

    def mark(self) -> Mark:
        """A new mark; `free_event` frees its event."""
        return Mark(self._cuda.event(blocking=self.wait_mode == "block"))

    def record(self, mark: Mark) -> None:
        """Puts a mark behind all that was enqueued so far."""
        self._cuda.record(mark.event, self.stream)
        self._number += 1
        mark.number = self._number
        for lease in self._open:
            lease.mark, lease.number = mark, self._number
        self._open.clear()

    def lend(self, lease: Lease) -> None:
        """Work that reads this memory was enqueued; the next mark stands behind it."""
        lease.mark, lease.number = None, 0
        self._open.append(lease)

    def is_free(self, lease: Lease) -> bool:
        """Whether the memory is known to be no longer read, without asking the device."""
        return lease.number < 0 or (lease.mark is not None and lease.number <= self._past)

    def reclaim(self, lease: Lease, mark: Mark) -> None:
        """Waits, if it must, until the memory may be written; `mark` is for what has none."""
        if lease.number < 0:
            return
        if lease.mark is None:
            self.record(mark)  # closes this lease too
        found = lease.mark
        if found is not None and lease.number > self._past:
            if self._cuda.query(found.event):
                self._past = max(self._past, found.number)
            else:
                self.wait(found)
        lease.number = -1

    def wait(self, mark: Mark) -> None:
        """Waits until the device has come past a mark."""
        if mark.number <= self._past:
            return
        if self.wait_mode == "spin":
            while not self._cuda.query(mark.event):
                pass
        else:
            self._cuda.await_event(mark.event)
        self._past = max(self._past, mark.number)

    def synchronize(self) -> None:
        """Waits for all that was enqueued."""
        self._cuda.synchronize(self.stream)
        self._past = self._number
        for lease in self._open:
            lease.number = -1
        self._open.clear()
