"""Faces of a frame, cut out as the model will see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ...clips import Frame, centre_square
from ...errors import UsageError, one_of
from ..answers.contract import FaceCrop
from ..sources.contract import TimedFrame

MODES = ("detect", "whole", "center")


@dataclass(frozen=True)
class CutFaces:
    """The faces of one frame.

    Attributes:
        faces: usable faces, cut out.
        gone: ids given up since the frame before.
        skipped: faces that are not usable, by reason.
    """

    faces: tuple[FaceCrop, ...]
    gone: tuple[int, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)


class FaceCutter(Protocol):
    """Finds and cuts the faces of the frames of one source, in order."""

    def cut(self, timed: TimedFrame) -> CutFaces:
        """The faces of the next frame."""


class GivenFace:
    """Takes the frame itself, or the square in its middle, as the face.

    Args:
        mode: 'whole' or 'center'.
    """

    def __init__(self, mode: str) -> None:
        self._mode = mode

    def cut(self, timed: TimedFrame) -> CutFaces:
        pixels, box = given_face(timed.frame, self._mode)
        left, top, width, height = box
        return CutFaces((FaceCrop(0, (left, top, left + width, top + height), 1.0, pixels),))


def given_face(frame: Frame, mode: str) -> tuple[Frame, tuple[int, int, int, int]]:
    """The face where nothing is detected.

    Args:
        frame: uint8 `[H, W, 3]`.
        mode: 'whole' for the frame, 'center' for the largest centred square.

    Returns:
        The pixels as a view, and left, top, width, height in the frame.
    """
    height, width = frame.shape[:2]
    if mode == "whole":
        return frame, (0, 0, width, height)
    pixels = centre_square(frame)
    side = pixels.shape[0]
    return pixels, ((width - side) // 2, (height - side) // 2, side, side)


def check_face_mode(mode: str) -> str:
    """Check that a mode is one of `MODES`.

    Raises:
        UsageError: anything else.
    """
    if mode not in MODES:
        raise UsageError(f"Unknown face {mode!r}.", next=f"give --face one of {one_of(MODES)}")
    return mode
