"""Video files as sources."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...errors import printable
from ...media.video import open_video
from .contract import FrameSource, TimedFrame


class VideoFile(FrameSource):
    """A video file, decoded once from front to back, every frame.

    Args:
        path: a regular file, or a link to one.
        fps: the rate to assume where the container carries neither times nor a rate.

    Raises:
        BadInputError: not readable, not a video, or without a single frame. While iterating: the file is cut off or
            damaged; everything that could be decoded was delivered before.
        MachineError: neither PyAV nor OpenCV is installed.
    """

    color = "rgb"

    def __init__(self, path: Path, fps: float) -> None:
        self._reader = open_video(path, fps)
        self.path: Path | None = path
        self.fps, self.count, self.name = self._reader.fps, self._reader.count, printable(path)

    def __iter__(self) -> Iterator[TimedFrame]:
        for decoded in self._reader:
            yield TimedFrame(decoded.rgb(), self.color, decoded.time_s, decoded.index)

    def close(self) -> None:
        self._reader.close()
