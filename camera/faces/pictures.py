"""Parts of a frame in the size that a network reads, by Pillow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ...clips import Frame
from .contract import Corners

_GAP = 1.2  # Pillow halves a picture by plain means first while more than this is left to shrink


@dataclass(frozen=True)
class View:
    """A frame, or a part of one, inside the square or rectangle that a network reads.

    Attributes:
        pixels: uint8 `[h, w, 3]`, RGB: the part of the input that shows the frame.
        left, top: where they begin in the input.
        scale: input pixels of one frame pixel.
        origin: frame coordinates of the input's corner (0, 0).
    """

    pixels: Frame
    left: int
    top: int
    scale: float
    origin: tuple[float, float]


def fitted(rgb: Frame, width: int, height: int) -> View:
    """A whole frame inside `width` x `height`, in the middle, its proportions kept."""
    rows, columns = rgb.shape[:2]
    scale = min(width / columns, height / rows)
    w, h = max(1, round(columns * scale)), max(1, round(rows * scale))
    left, top = (width - w) // 2, (height - h) // 2
    pixels = _resized(rgb, (0.0, 0.0, columns, rows), w, h)
    return View(pixels, left, top, scale, (-left / scale, -top / scale))


def square_part(rgb: Frame, box: Corners, size: int) -> View | None:
    """The part of a frame inside a square, resized to `size`.

    Args:
        rgb: uint8 `[H, W, 3]`; any order of the channels, a view too.
        box: a square; may reach over the frame's edge.
        size: side of the input.

    Returns:
        The view; None where less than two pixels of the input show the frame.
    """
    rows, columns = rgb.shape[:2]
    scale = size / (box[2] - box[0])
    # Whole input pixels that lie inside the frame; what they show is asked for to a fraction of a frame pixel.
    left, top = (max(0, math.ceil(-edge * scale - 1e-6)) for edge in box[:2])
    right = min(size, math.floor((columns - box[0]) * scale + 1e-6))
    bottom = min(size, math.floor((rows - box[1]) * scale + 1e-6))
    if right - left < 2 or bottom - top < 2:
        return None
    part = (
        max(0.0, box[0] + left / scale),
        max(0.0, box[1] + top / scale),
        min(float(columns), box[0] + right / scale),
        min(float(rows), box[1] + bottom / scale),
    )
    return View(_resized(rgb, part, right - left, bottom - top), left, top, scale, (box[0], box[1]))


def square_around(box: Corners, grow: float) -> Corners:
    """A square about the middle of a box, `grow` times its longer side."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half = max(box[2] - box[0], box[3] - box[1], 1.0) * grow / 2
    return x - half, y - half, x + half, y + half


def _resized(rgb: Frame, part: Corners, width: int, height: int) -> Frame:
    """Cuts whole pixels first, so that no more of the frame than needed is copied."""
    x, y = math.floor(part[0]), math.floor(part[1])
    cut = rgb[y : math.ceil(part[3]), x : math.ceil(part[2])]
    inner = (
        part[0] - x,
        part[1] - y,
        min(part[2] - x, float(cut.shape[1])),
        min(part[3] - y, float(cut.shape[0])),
    )
    # A view that reverses the channels is copied three bytes at a go; what is resized is small, and is reversed then.
    reversed_ = cut.strides[2] < 0
    image = Image.fromarray(np.ascontiguousarray(cut[..., ::-1] if reversed_ else cut))
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, inner, _GAP))
    return pixels[..., ::-1] if reversed_ else pixels
