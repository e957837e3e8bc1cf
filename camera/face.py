"""The face in a frame: the whole or the centre, as the user says; nothing is detected."""

from __future__ import annotations

from dataclasses import dataclass

from ..clips import Frame, centre_square
from ..errors import UsageError, one_of

FACES = ("whole", "center")


@dataclass(frozen=True, eq=False)
class Face:
    """A face inside a frame.

    Attributes:
        pixels: uint8 `[h, w, 3]`, a view into the frame.
        box: left, top, width, height in pixels of the frame.
    """

    pixels: Frame
    box: tuple[int, int, int, int]


def check_face(mode: str) -> str:
    """Check that a mode is one of `FACES`.

    Raises:
        UsageError: anything else.
    """
    if mode not in FACES:
        raise UsageError(f"Unknown face {mode!r}.", next=f"give --face one of {one_of(FACES)}")
    return mode


def find_face(frame: Frame, mode: str) -> Face:
    """Crop the face of one frame.

    Args:
        frame: uint8 `[H, W, 3]`.
        mode: 'whole' for footage that was cropped to a face before; 'center' for the largest centred square.

    Returns:
        The face; nothing is copied.

    Raises:
        UsageError: unknown mode.
    """
    height, width = frame.shape[:2]
    if check_face(mode) == "whole":
        return Face(frame, (0, 0, width, height))
    pixels = centre_square(frame)
    side = pixels.shape[0]
    return Face(pixels, ((width - side) // 2, (height - side) // 2, side, side))
