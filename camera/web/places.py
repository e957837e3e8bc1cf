"""The places for connections of the page's server, and the deadline for a request's head."""

from __future__ import annotations

import io
import logging
import socket
import threading
import time
from typing import Any

_log = logging.getLogger(__name__)


class Places:
    """Who is connected, and who of them has not said yet what it wants.

    A connection waits from its first moment, and again after each answer, until the head of a request is there. Where
    all places are taken, the one that has waited longest is ended for the sake of a new one: clients that send a byte
    now and then take the page away from nobody.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[socket.socket, threading.Thread | None] = {}
        self._waiting: dict[socket.socket, None] = {}  # the longest first
        self._ended: set[socket.socket] = set()  # shut, and still to be left by their threads

    def __len__(self) -> int:
        return len(self._open)

    @property
    def waiting(self) -> int:
        """How many have not said what they want."""
        return len(self._waiting)

    def take(self, request: socket.socket, most: int) -> bool:
        """Whether a new connection has got a place; it waits from now on."""
        oldest = None
        with self._lock:
            if len(self._open) - len(self._ended) >= most:
                oldest = next(iter(self._waiting), None)
                if oldest is None or len(self._ended) >= most:
                    return False
                del self._waiting[oldest]
                self._ended.add(oldest)
                shut(oldest)  # under the lock, so that it is not closed meanwhile, and its number given to another
            self._open[request] = None
            self._waiting[request] = None
        if oldest is not None:
            _log.info("a client that had not said what it wants was ended for a new one")
        return True

    def run(self, request: socket.socket, thread: threading.Thread) -> None:
        """Notes the thread of a connection."""
        with self._lock:
            if request in self._open:
                self._open[request] = thread

    def wait(self, request: socket.socket) -> None:
        """Notes that a connection is to send the head of a request."""
        with self._lock:
            if request in self._open and request not in self._ended:
                self._waiting.pop(request, None)
                self._waiting[request] = None

    def heard(self, request: socket.socket) -> None:
        """Notes that the head is there."""
        with self._lock:
            self._waiting.pop(request, None)

    def leave(self, request: socket.socket) -> None:
        """Gives a place back, before the connection is closed."""
        with self._lock:
            self._open.pop(request, None)
            self._waiting.pop(request, None)
            self._ended.discard(request)

    def connections(self) -> dict[socket.socket, threading.Thread | None]:
        """The connections and their threads."""
        with self._lock:
            return dict(self._open)


class HeadReader(io.RawIOBase):
    """Reads a connection until a deadline for the whole head of a request.

    A timeout alone begins anew with each byte.

    Attributes:
        until_s: of `time.monotonic`.
    """

    def __init__(self, connection: socket.socket, timeout_s: float) -> None:
        super().__init__()
        self._connection, self._timeout_s = connection, timeout_s
        self.until_s = time.monotonic()

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """At most so many bytes, or `TimeoutError` once the deadline is over."""
        left_s = self.until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the head of the request took too long")
        self._connection.settimeout(min(left_s, self._timeout_s))
        try:
            return self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(self._timeout_s)


def shut(request: socket.socket) -> None:
    """Ends a connection in both directions, so that its thread's read or write comes back."""
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        _log.debug("a client was gone already: %s", error)
