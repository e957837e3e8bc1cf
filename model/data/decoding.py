"""Frames of a data set's videos, decoded by `media/` as `run` decodes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...clips import Clip, resize
from ...errors import BadInputError, command
from ...media.reader import VideoReader
from ...media.video import open_video
from .clips import Box, Indices

MAX_FRAMES = 20_000  # of a video: a clip, not a film
_FPS = 25.0  # of a video that declares no rate; only its damage is judged by it


def count_frames(root: Path, place: str) -> int:
    """Number of frames of a video, by decoding all of them.

    What a container declares is often wrong.

    Raises:
        BadInputError: missing, no video, without frames, cut off, damaged inside, or a film.
        RefusedError: a link or another kind of file.
    """
    count = 0
    with _opened(root, place) as reader:
        for _ in reader:
            count += 1
            if count > MAX_FRAMES:
                raise BadInputError(
                    f"{root / place} has more than {MAX_FRAMES} frames; that is no clip of one expression.",
                    cause="a whole film among the clips",
                    next=command("ffmpeg", "-i", root / place, "-ss", "0", "-t", "3", "clip.mp4"),
                )
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
    wanted = {int(index): number for number, index in enumerate(indices)}
    pixels = np.empty((len(wanted), size, size, 3), np.uint8)
    filled, last = 0, max(wanted)
    with _opened(root, place) as reader:
        for decoded in reader:
            if decoded.index in wanted:
                frame = decoded.rgb()
                if box is not None:
                    left, top, right, bottom = box.pixels(frame.shape[1], frame.shape[0])
                    frame = frame[top:bottom, left:right]
                pixels[wanted[decoded.index]] = resize(np.ascontiguousarray(frame), size)
                filled += 1
            if decoded.index >= last:
                break
    if filled < len(wanted):
        raise BadInputError(f"{root / place} ends before frame {last}.", cause="it was replaced while it was read")
    return pixels


def _opened(root: Path, place: str) -> VideoReader:
    return open_video(root / place, _FPS, follow_links=False, extra="train")
