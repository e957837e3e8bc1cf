"""Contract of every source of frames: a file, a folder or a live camera."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ...clips import Frame

CONNECTING, LIVE, LOST, ENDED = "connecting", "live", "lost", "ended"


@dataclass(frozen=True, eq=False)
class TimedFrame:
    """One frame and its time.

    Attributes:
        frame: uint8 `[H, W, 3]`.
        color: the order of its channels, 'rgb' or 'bgr'.
        time_s: seconds since the source's own zero, strictly ascending from frame to frame, also across epochs.
        index: its place in the source, from 0. A live source leaves out the numbers of frames that it dropped.
        epoch: one more after each reconnect or change of the picture's size; no clip may hold frames of two.
        captured_s: `time.monotonic()` at its arrival, of a live source; None of a recording.
    """

    frame: Frame
    color: str
    time_s: float
    index: int
    epoch: int = 0
    captured_s: float | None = None


@dataclass(frozen=True)
class SourceStatus:
    """State of a live source.

    Attributes:
        state: 'connecting', 'live', 'lost' or 'ended'.
        reason: why it is not live, in words; "" while it is.
        epoch: of the newest frame.
        frames: frames that arrived.
        dropped: of them, those that a newer one replaced before anybody took them, and damaged ones.
        reconnects: connections after the first that delivered a frame.
        size: width, height of the newest frame; None before the first.
        age_s: since the newest frame arrived; None before the first.
    """

    state: str
    reason: str
    epoch: int
    frames: int
    dropped: int
    reconnects: int
    size: tuple[int, int] | None
    age_s: float | None


class FrameSource(AbstractContextManager["FrameSource"]):
    """Frames in the order of their times, to be iterated once, inside a `with` block.

    Iterating raises a `LogoformerError` where the source breaks; every frame before the break was delivered.

    Attributes:
        color: the channel order of all its frames.
        fps: frames per second, as declared; the times of the frames decide, not this.
        count: frames to expect, or None where nobody knows (a camera, a container without an index).
        path: the file or folder that is read, or None.
        live: whether frames come as they happen; such a source also has `status`, and gives the newest frame only.
        name: what it is, safe to show: without the password of a URL.
    """

    color: str
    fps: float
    count: int | None
    path: Path | None
    live: bool = False
    name: str

    @abstractmethod
    def __iter__(self) -> Iterator[TimedFrame]: ...

    @abstractmethod
    def close(self) -> None:
        """Gives back the device or the file, from any thread. A second call does nothing."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
