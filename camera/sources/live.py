"""Live sources: capture thread, newest frame only, watchdog, reconnects.

A connection is a `Capture`: cheap to make, then opened and read on the capture thread. It may end, raise or hang; each
is a loss, whose reason is kept in words, and a new connection is tried. Whether frames still come is judged here, by
the age of the last one: a decoder's own time-outs are two to three times as long as they say, and one killed server
looks to it like the end of a file.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...clips import Frame
from ...errors import LogoformerError, MachineError
from ...media.clock import ArrivalClock
from .contract import CONNECTING, ENDED, LIVE, LOST, FrameSource, SourceStatus, TimedFrame


@dataclass(frozen=True)
class Arrived:
    """A frame as a capture hands it over.

    Attributes:
        rgb: gives the pixels, uint8 `[H, W, 3]`, RGB; called for frames that somebody takes.
        media_s: where the stream places it, in seconds from any zero; None where it cannot be trusted.
        size: width, height.
    """

    rgb: Callable[[], Frame]
    media_s: float | None
    size: tuple[int, int]


class Capture(ABC):
    """One connection to a camera.

    Attributes:
        fps: the declared rate; None where none is declared or it is not open yet.
    """

    fps: float | None = None

    @abstractmethod
    def open(self) -> None:
        """Connect; blocks for a bounded time.

        Raises:
            LogoformerError: why not, in words for the person at the camera.
        """

    @abstractmethod
    def read(self) -> Iterator[Arrived | None]:
        """Frames as they arrive, None for one that was damaged; ends where the stream ends.

        Raises:
            LogoformerError: why it broke.
        """

    def ended(self) -> LogoformerError:
        """Why `read` ended without an error."""
        return MachineError("The stream ended.", cause="the camera closed it")

    def abort(self) -> None:  # noqa: B027 - most connections end by their own time-out
        """Make `open` and `read` end soon; called from another thread."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back; called on the capture thread."""


@dataclass(frozen=True)
class LiveTiming:
    """Limits in time of a live source, in seconds.

    Attributes:
        stall_s: age of the last frame at which a connection counts as lost.
        first_s: from the beginning of a connection to its first frame.
        pause_s: before the first new attempt; doubles with each that fails.
        longest_pause_s: where it stops doubling.
        patience_s: a loss longer than this ends the source with its reason; infinity never does.
        join_s: how long `close` waits for the capture thread, which a hung camera may hold for its time-out.
    """

    stall_s: float = 2.0
    first_s: float = 10.0
    pause_s: float = 0.1
    longest_pause_s: float = 0.5
    patience_s: float = 30.0
    join_s: float = 5.0


class LiveSource(FrameSource):
    """A camera whose newest frame is given, and which is connected to again whenever it is lost.

    Args:
        make: makes one connection, not yet opened.
        name: safe to show.
        fps: the rate to state until the camera declares one.
        timing: limits.

    While iterating, `MachineError` or `BadInputError`: it was away for longer than the patience, or its pixels are of
    a kind that is not read.
    """

    color = "rgb"
    count: int | None = None
    path: Path | None = None
    live = True

    def __init__(self, make: Callable[[], Capture], name: str, fps: float, timing: LiveTiming | None = None) -> None:
        self.name, self.fps, self._make = name, fps, make
        self.timing = timing or LiveTiming()
        self._lock = threading.RLock()  # entered itself: see ThreadOwner on Ctrl-C between a lock and its body
        self._changed = threading.Condition(self._lock)
        self._clock = ArrivalClock()
        self._zero_s = time.monotonic()
        self._state, self._reason = CONNECTING, "connecting"
        self._error: LogoformerError | None = None  # of the newest loss
        self._since_s = self._zero_s  # beginning of this connection, or of the loss
        self._lost_s = self._zero_s  # when there was a frame last, for the patience
        self._arrived_s: float | None = None
        self._capture: Capture | None = None
        self._slot: tuple[Arrived, float, int, int, float] | None = None  # newest frame that nobody took
        self._epoch = -1
        self._frames = self._dropped = self._connections = self._attempts = 0
        self._size: tuple[int, int] | None = None
        self._closed = False
        self._threads = [
            threading.Thread(target=target, name=f"{role} {name}"[:60], daemon=True)
            for target, role in ((self._run, "capture"), (self._watch, "watchdog"))
        ]
        for thread in self._threads:
            thread.start()

    # ------------------------------------------------------------------------------------------------- for the caller
    def require(self) -> None:
        """Wait for the first frame or the first failure.

        Raises:
            LogoformerError: the first connection failed; the source is closed.
        """
        with self._lock:
            self._changed.wait_for(lambda: self._frames or self._error is not None or self._closed)
            error = None if self._frames else self._error
        if error is not None:
            self.close()
            raise error

    def status(self) -> SourceStatus:
        """The state now; from any thread."""
        with self._lock:
            age_s = None if self._arrived_s is None else time.monotonic() - self._arrived_s
            reason = "" if self._state == LIVE else self._reason
            return SourceStatus(
                state=self._state,
                reason=reason,
                epoch=max(self._epoch, 0),
                frames=self._frames,
                dropped=self._dropped,
                reconnects=max(self._connections - 1, 0),
                size=self._size,
                age_s=age_s,
            )

    def __iter__(self) -> Iterator[TimedFrame]:
        while True:
            with self._lock:
                self._changed.wait_for(lambda: self._slot is not None or self._closed or self._out_of_patience(), 0.25)
                if self._closed:
                    return
                if self._slot is None:
                    if self._out_of_patience():
                        raise self._given_up()
                    continue
                (arrived, time_s, index, epoch, captured_s), self._slot = self._slot, None
            yield TimedFrame(arrived.rgb(), self.color, time_s, index, epoch, captured_s)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._state, self._reason = ENDED, "closed"
            self._slot = None
            capture = self._capture
            self._changed.notify_all()
        if capture is not None:
            capture.abort()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(self.timing.join_s)

    # -------------------------------------------------------------------------------------------------------- threads
    def _run(self) -> None:
        pause_s = self.timing.pause_s
        while not self._closed:
            before = self._frames
            self._connect_once()
            if self._frames > before:
                pause_s = self.timing.pause_s
            with self._lock:
                self._changed.wait_for(lambda: self._closed, pause_s)
            pause_s = min(2 * pause_s, self.timing.longest_pause_s)

    def _connect_once(self) -> None:
        capture: Capture | None = None
        error: LogoformerError | None = None
        try:
            capture = self._make()
            if not self._begin(capture):
                return
            capture.open()
            first = True
            for arrived in capture.read():
                if not self._take(capture, arrived, first):
                    break
                first = first and arrived is None
            error = capture.ended()
        except LogoformerError as caught:
            error = caught
        except Exception as caught:  # a decoder's own; without this the thread would end and nobody would know
            error = MachineError(f"{self.name} could not be read: {type(caught).__name__}: {caught}.")
        finally:
            if error is not None:
                self._lose(capture, error)
            if capture is not None:
                capture.close()

    def _begin(self, capture: Capture) -> bool:
        """Note a new connection; False where the source was closed meanwhile."""
        with self._lock:
            if self._closed:
                return False
            self._capture, self._since_s = capture, time.monotonic()
            self._attempts += 1
            self._clock.reconnect()
        return True

    def _take(self, capture: Capture, arrived: Arrived | None, first: bool) -> bool:
        """File a frame; False where this connection is given up."""
        now_s = time.monotonic()
        with self._lock:
            if self._closed or self._capture is not capture:
                return False
            if arrived is None:
                self._dropped += 1
                return True
            if first:
                self._connections += 1
                self.fps = capture.fps or self.fps
            if first or arrived.size != self._size:
                # Frames of two connections never meet in a clip; nor do boxes of two picture sizes.
                self._epoch += 1
                self._size = arrived.size
            self._dropped += self._slot is not None
            time_s = self._clock.stamp(now_s - self._zero_s, arrived.media_s)
            self._slot = (arrived, time_s, self._frames, self._epoch, now_s)
            self._frames += 1
            self._arrived_s = self._lost_s = now_s
            self._state, self._reason, self._error = LIVE, "", None
            self._changed.notify_all()
        return True

    def _lose(self, capture: Capture | None, error: LogoformerError) -> None:
        """Note the loss of a connection, once: what the watchdog said first stays."""
        with self._lock:
            if self._closed or self._capture is not capture:
                return
            self._capture = None
            self._state, self._reason, self._error = LOST, error.what, error
            self._changed.notify_all()

    def _watch(self) -> None:
        """Give up connections that stall; what blocks inside one ends by its own time-out, later."""
        timing = self.timing
        with self._lock:
            while not self._closed:
                self._changed.wait_for(lambda: self._closed, min(0.1, timing.stall_s / 4))
                capture, now_s = self._capture, time.monotonic()
                if capture is None or self._closed:
                    continue
                live = self._state == LIVE
                began_s = self._arrived_s if live and self._arrived_s is not None else self._since_s
                limit_s = timing.stall_s if live else timing.first_s
                if now_s - began_s <= limit_s:
                    continue
                what = "has sent no frame" if live else "was connected to but sent no first frame"
                error = MachineError(
                    f"{self.name} {what} for {limit_s:g} s.",
                    cause="the camera hangs, its network is down, or its key frames are far apart",
                    next="look at the camera and its cable",
                )
                self._capture = None
                self._state, self._reason, self._error = LOST, error.what, error
                self._changed.notify_all()
                self._lock.release()
                try:
                    capture.abort()
                finally:
                    self._lock.acquire()

    def _out_of_patience(self) -> bool:
        return self._state != LIVE and time.monotonic() - self._lost_s > self.timing.patience_s

    def _given_up(self) -> LogoformerError:
        return self._error or MachineError(f"{self.name} sent no frame for {self.timing.patience_s:g} s.")
