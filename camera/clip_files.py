"""A video file or a folder of frames, read as one clip."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..clips import Clip, Frame, Sampling, centre_indices, to_input
from ..errors import BadInputError, command
from .sources.folder import FrameFolder
from .sources.open import open_source

MAX_FRAMES = 2000  # of a recording that may still be one clip; what is longer is a stream


def read_clip(path: str | os.PathLike[str], sampling: Sampling, size: int) -> Clip:
    """Reads a recording of one expression: frames picked over its whole length, as in training.

    Args:
        path: a video file (needs the extra `camera`), or a folder of numbered images.
        sampling: which frames are picked, see `clips.centre_indices`.
        size: S, side of the network's frames.

    Returns:
        uint8 `[T, S, S, 3]`, RGB.

    Raises:
        BadInputError: nothing is there, it cannot be decoded, or it is too long to be one clip.
        MachineError: OpenCV is not installed.
    """
    frames: dict[int, Clip] = {}

    def add(index: int, pixels: Frame, color: str) -> None:
        frames[index] = np.empty((size, size, 3), np.uint8)
        to_input(pixels, size, color, frames[index])

    # An absolute path: a file that is called 0 is a file here, not the first camera.
    with open_source(Path(path).absolute(), sampling.fps) as source:
        if isinstance(source, FrameFolder):  # only those that are looked at are decoded: a quarter, of DFEW's clips
            count = _require_short(path, source.count or 0)
            for index in np.unique(centre_indices(count, sampling)).tolist():
                add(index, source.frame(index), source.color)
        else:
            count = 0
            for timed in source:
                count = _require_short(path, count + 1)
                add(count - 1, timed.frame, timed.color)
    return np.stack([frames[index] for index in centre_indices(count, sampling).tolist()])


def _require_short(path: str | os.PathLike[str], count: int) -> int:
    if count > MAX_FRAMES:
        raise BadInputError(
            f"{path} has more than {MAX_FRAMES} frames; that is no clip of one expression.",
            cause="a recording with several expressions, one after the other",
            next=command("logoformer", "run", "BUNDLE", path) + ", or runtime.stream(...)",
        )
    return count
