"""Decoding of image and video files."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...clips import Clip, resize
from ...errors import BadInputError, RefusedError, needing
from .clips import Box, Indices

SUFFIXES = (".jpg", ".jpeg", ".png")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm")
MAX_BYTES = 16 << 20  # of an image
MAX_FRAMES = 20_000  # of a video: a clip, not a film
_MAX_SIDE = 4096


def open_image(data: bytes, shown: str) -> Image.Image:
    """Decodes one image, at its full size.

    Pillow decodes here and in the torch-free runtime: two JPEG decoders may differ by a grey level, and so does
    libjpeg's own shrinking while it decodes (`draft`), which is why neither is used to save time.

    Returns:
        Mode RGB.

    Raises:
        BadInputError: not an image, a damaged one, or one of absurd size.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if max(image.size) > _MAX_SIDE:
                raise BadInputError(f"{shown} has {image.size[0]} x {image.size[1]} pixels; that is no face crop.")
            if image.mode != "RGB":
                return image.convert("RGB")
            image.load()  # now, so that a damaged file is met here
            return image
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInputError(
            f"{shown} is not an image that can be decoded: {error}.", cause="a truncated copy or download"
        ) from error


# -------------------------------------------------------------------------------------------------------------- video
def count_frames(root: Path, place: str) -> int:
    """Number of frames that can be decoded, by counting.

    What a container declares is often wrong.

    Raises:
        BadInputError: missing, no video, or without frames.
        RefusedError: a link or another kind of file.
    """
    count = 0
    with _opened(root, place) as capture:
        while count < MAX_FRAMES and capture.grab():
            count += 1
    if not count:
        raise BadInputError(f"{root / place} holds no frame that can be decoded.", cause="a truncated copy")
    return count


def read_frames(root: Path, place: str, indices: Indices, size: int, box: Box | None = None) -> Clip:
    """Frames of a video, uint8 `[k, S, S, 3]`, RGB.

    Args:
        root: the data set's folder.
        place: of the file below it.
        indices: ascending, each once.
        size: S.
        box: the part of each picture; None takes the whole.

    Raises:
        BadInputError: the video ends early.
        RefusedError: a link or another kind of file.
    """
    wanted = {int(index): place_ for place_, index in enumerate(indices)}
    pixels = np.empty((len(wanted), size, size, 3), np.uint8)
    filled = 0
    with _opened(root, place) as capture:
        for number in range(max(wanted) + 1):
            if not capture.grab():
                break
            if number in wanted:
                good, frame = capture.retrieve()
                if not good:
                    break
                if box is not None:
                    left, top, right, bottom = box.pixels(frame.shape[1], frame.shape[0])
                    frame = frame[top:bottom, left:right]
                pixels[wanted[number]] = resize(np.ascontiguousarray(frame[:, :, ::-1]), size)
                filled += 1
    if filled < len(wanted):
        raise BadInputError(f"{root / place} ends before frame {max(wanted)}.", cause="a truncated copy")
    return pixels


@contextlib.contextmanager
def _opened(root: Path, place: str) -> Iterator[Any]:
    """An OpenCV capture of a video, released at the end of the block."""
    with needing("cv2", "train", "Reading video clips"):
        import cv2
    path = root / place
    try:
        kind = os.lstat(path).st_mode
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror}.") from error
    if not stat.S_ISREG(kind):
        raise RefusedError(f"{path} is not a regular file.", cause="a link, pipe or folder in its place")
    capture: Any = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise BadInputError(f"{path} is not a video that can be decoded.", cause="another format, or truncated")
        yield capture
    finally:
        capture.release()
