"""A video file or a folder of frames, read as one clip."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..clips import Clip, Sampling, centre_indices, to_input
from ..errors import BadInputError, command
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
    frames: list[Clip] = []
    # An absolute path: a file that is called 0 is a file here, not the first camera.
    with open_source(Path(path).absolute(), sampling.fps) as source:
        for timed in source:
            if len(frames) == MAX_FRAMES:
                raise BadInputError(
                    f"{path} has more than {MAX_FRAMES} frames; that is no clip of one expression.",
                    cause="a recording with several expressions, one after the other",
                    next=command("logoformer", "run", "BUNDLE", path) + ", or runtime.stream(...)",
                )
            frame = np.empty((size, size, 3), np.uint8)
            to_input(timed.frame, size, timed.color, frame)
            frames.append(frame)
    return np.stack([frames[index] for index in centre_indices(len(frames), sampling)])
