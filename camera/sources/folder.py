"""A folder of numbered images as a source of frames; needs Pillow only."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ...bundle.files import natural_order, read_regular
from ...clips import Frame
from ...errors import BadInputError
from .contract import FrameSource, TimedFrame

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
MAX_IMAGE_BYTES = 64 << 20
MAX_IMAGE_PIXELS = 40_000_000  # a little more than 8K; a small file can declare far more (a decompression bomb)


class FrameFolder(FrameSource):
    """Images of one folder in natural order (`2.jpg` before `10.jpg`), evenly spaced in time.

    Args:
        path: an existing folder; its sub-folders and hidden files are not looked at.
        fps: frames per second.

    Raises:
        BadInputError: it holds no image, or may not be listed.
    """

    color = "rgb"

    def __init__(self, path: Path, fps: float) -> None:
        try:
            entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
        except OSError as error:
            raise BadInputError(f"{path} cannot be listed: {error.strerror}.") from error
        self.path: Path | None = path
        self.fps = fps
        self._names = sorted((e.name for e in entries if e.suffix.lower() in SUFFIXES), key=natural_order)
        if not self._names:
            inner = sorted(entry.name for entry in entries if entry.is_dir())
            raise BadInputError(
                f"The folder {path} holds no image ({', '.join(SUFFIXES)}).",
                next=f"name one folder of frames, for example {path / inner[0]}"
                if inner
                else "name a folder of frames or a video",
            )
        self.count: int | None = len(self._names)

    def __iter__(self) -> Iterator[TimedFrame]:
        for index, name in enumerate(self._names):
            yield TimedFrame(self._read(name), self.color, index / self.fps, index)

    def close(self) -> None:
        """Nothing is held open between two images."""

    def _read(self, name: str) -> Frame:
        data = read_regular(str(self.path), name, MAX_IMAGE_BYTES)
        shown = f"{self.path}/{name}"
        try:
            image = Image.open(io.BytesIO(data))
            if image.width * image.height > MAX_IMAGE_PIXELS:
                raise BadInputError(f"{shown} has {image.width} x {image.height} pixels; {MAX_IMAGE_PIXELS} are read.")
            if image.mode.startswith(("I", "F")):
                raise BadInputError(f"{shown} has more than 8 bits per channel (mode {image.mode}).")
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except BadInputError:
            raise
        # Pillow's decoders raise many types: OSError, SyntaxError, ValueError, struct.error...
        except Exception as error:
            raise BadInputError(
                f"{shown} is not an image that can be decoded: {error}.",
                cause="a copy that was cut off, or another kind of file under an image's name",
                next="copy it again or take it out of the folder",
            ) from error
