"""A folder of numbered images as a source of frames; needs Pillow only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...bundle.files import natural_order, read_regular
from ...clips import Frame
from ...errors import advising, printable
from ...media.stills import MAX_IMAGE_BYTES, decode_still, still_names
from .contract import FrameSource, TimedFrame


class FrameFolder(FrameSource):
    """Images of one folder in natural order (`2.jpg` before `10.jpg`), evenly spaced in time.

    Args:
        path: an existing folder; its sub-folders and hidden files are not looked at.
        fps: frames per second.

    Raises:
        BadInputError: it holds no image, holds a frame twice, or may not be listed.
    """

    color = "rgb"

    def __init__(self, path: Path, fps: float) -> None:
        self.path: Path | None = path
        self.fps, self.name = fps, printable(path)
        with advising(_inner(path)):
            self._names = still_names(path)
        self.count: int | None = len(self._names)

    def __iter__(self) -> Iterator[TimedFrame]:
        for index, name in enumerate(self._names):
            yield TimedFrame(self._read(name), self.color, index / self.fps, index)

    def frame(self, index: int) -> Frame:
        """One of the frames by its place, uint8 `[H, W, 3]`, RGB.

        Raises:
            BadInputError: it cannot be decoded.
        """
        return self._read(self._names[index])

    def close(self) -> None:
        """Nothing is held open between two images."""

    def _read(self, name: str) -> Frame:
        data = read_regular(str(self.path), name, MAX_IMAGE_BYTES)
        return np.asarray(decode_still(data, f"{self.path}/{name}"))


def _inner(path: Path) -> str:
    """Advice for a folder without a picture: a folder inside it, where there is one."""
    try:
        inner = sorted((entry.name for entry in path.iterdir() if entry.is_dir()), key=natural_order)
    except OSError:
        inner = []
    shown = [name for name in inner if not name.startswith(".")]
    if shown:
        return f"name one folder of frames, for example {path / shown[0]}"
    return "name a folder of frames or a video"
