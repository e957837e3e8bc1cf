"""Contract of every source of frames: a file, a folder or a camera."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ...clips import Frame


@dataclass(frozen=True, eq=False)
class TimedFrame:
    """One frame and its time.

    Attributes:
        frame: uint8 `[H, W, 3]`.
        color: the order of its channels, 'rgb' or 'bgr'.
        time_s: seconds since the source's own zero, strictly ascending from frame to frame.
        index: its place in the source, from 0.
    """

    frame: Frame
    color: str
    time_s: float
    index: int


class FrameSource(AbstractContextManager["FrameSource"]):
    """Frames in the order of their times, to be iterated once, inside a `with` block.

    Iterating raises a `LogoformerError` where the source breaks; every frame before the break was delivered.

    Attributes:
        color: the channel order of all its frames.
        fps: frames per second, as declared; the times of the frames decide, not this.
        count: frames to expect, or None where nobody knows (a camera, a container without an index).
        path: the file or folder that is read, or None.
    """

    color: str
    fps: float
    count: int | None
    path: Path | None

    @abstractmethod
    def __iter__(self) -> Iterator[TimedFrame]: ...

    @abstractmethod
    def close(self) -> None:
        """Gives back the device or the file. A second call does nothing."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
