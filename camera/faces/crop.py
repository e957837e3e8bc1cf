"""The crop of a face that the model reads."""

from __future__ import annotations

import math

import numpy as np

from ...bundle.alignment import Alignment, align
from ...clips import Frame, resize
from .contract import Corners
from .finder import TrackedFace
from .pictures import square_around

MARGIN = 1.4  # side of the square around a face in boxes of the detector, where a bundle has no alignment


def face_crop(frame: Frame, face: TrackedFace, alignment: Alignment | None, size: int, margin: float = MARGIN) -> Frame:
    """The picture of a face as the model reads it.

    Args:
        frame: uint8 `[H, W, 3]`.
        face: found in it.
        alignment: of the bundle; None cuts an upright square around the box instead.
        size: S, side of the crop.
        margin: side of that square, in boxes.

    Returns:
        uint8 `[S, S, 3]`, channels as those of the frame.
    """
    if alignment is not None:
        return align(frame, face.points, alignment, size)
    return resize(_square(frame, square_around(face.box, margin)), size)


def _square(frame: Frame, box: Corners) -> Frame:
    """Whole pixels of a square; what lies outside the frame is black."""
    side = max(1, round(box[2] - box[0]))
    left, top = math.floor(box[0]), math.floor(box[1])
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    if (x0, y0, x1, y1) == (left, top, left + side, top + side):
        return frame[y0:y1, x0:x1]
    square = np.zeros((side, side, 3), np.uint8)
    if x1 > x0 and y1 > y0:
        square[y0 - top : y1 - top, x0 - left : x1 - left] = frame[y0:y1, x0:x1]
    return square
