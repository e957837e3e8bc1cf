"""Clips that are video files, such as MAFW's."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np

from ...clips import Clip, resize
from ...errors import BadInputError, RefusedError, missing_package
from .clips import Box, Indices

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm")
MAX_FRAMES = 20_000  # a clip, not a film


def count_frames(root: Path, place: str) -> int:
    """Frames that can be decoded; what a container declares is often wrong, so they are counted.

    Raises:
        BadInputError: missing, no video, or without frames.
        RefusedError: a link or another kind of file.
    """
    count = 0
    with _Opened(root, place) as capture:
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
    with _Opened(root, place) as capture:
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


class _Opened:
    """A capture that is released; `with _Opened(...) as capture`."""

    def __init__(self, root: Path, place: str) -> None:
        try:
            import cv2
        except ImportError as error:
            raise missing_package("cv2", "train", "Reading video clips") from error
        path = root / place
        try:
            kind = os.lstat(path).st_mode
        except OSError as error:
            raise BadInputError(f"{path} cannot be read: {error.strerror}.") from error
        if not stat.S_ISREG(kind):
            raise RefusedError(f"{path} is not a regular file.", cause="a link, pipe or folder in its place")
        self._capture: Any = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            self._capture.release()
            raise BadInputError(f"{path} is not a video that can be decoded.", cause="another format, or truncated")

    def __enter__(self) -> Any:
        return self._capture

    def __exit__(self, *exception: object) -> None:
        self._capture.release()
