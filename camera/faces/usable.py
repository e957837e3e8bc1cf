"""Whether a face can be read: large enough, sharp enough, and whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...clips import Frame
from ...errors import UsageError
from .contract import Detection
from .pictures import square_around, square_part

SMALL, CUT_OFF, BLURRED, CROSSING = "small", "cut_off", "blurred", "crossing"
REASONS = (CROSSING, SMALL, CUT_OFF, BLURRED)

_SIDE = 64  # sharpness is judged at one size: a large face may be blurred by more pixels
_LENGTH = 9  # of the mean that blurs again


@dataclass(frozen=True)
class Limits:
    """What a face needs to be read.

    Attributes:
        least_width: of its box, pixels.
        least_inside: share of its box that is inside the frame. Eyes and mouth always have to be.
        most_blur: of `blur`, 0 (sharp) to 1.
    """

    least_width: float = 40.0
    least_inside: float = 0.85
    most_blur: float = 0.65

    def __post_init__(self) -> None:
        if self.least_width < 0 or not 0 <= self.least_inside <= 1 or not 0 <= self.most_blur <= 1:
            raise UsageError(f"Limits need a width of at least 0, and shares of 0 to 1; got {self}.")


def reason_to_skip(rgb: Frame, face: Detection, limits: Limits) -> str | None:
    """One of `REASONS`, or None for a face that can be read; 'crossing' only a tracker knows."""
    if face.width < limits.least_width:
        return SMALL
    if _inside(face, rgb.shape) < limits.least_inside or not _points_inside(face.points, rgb.shape):
        return CUT_OFF
    if limits.most_blur < 1:
        view = square_part(rgb, square_around(face.box, 1.0), _SIDE)
        if view is not None and blur(view.pixels) > limits.most_blur:
            return BLURRED
    return None


def blur(pixels: Frame) -> float:
    """Blur of a picture, 0 (sharp) to 1, whatever its contrast.

    Blurring changes a sharp picture much and a blurred one little: the share of the differences between neighbouring
    pixels that survives a mean over some of them, in the direction where more survives. Crete et al., "The blur effect:
    perception and estimation with a new no-reference perceptual blur metric" (SPIE 2007).

    Args:
        pixels: uint8 `[H, W, 3]`.

    Returns:
        The share; 1 for a picture of one colour.
    """
    grey = pixels.astype(np.float32) @ np.full(3, 1 / 3, np.float32)
    return max(_survives(grey), _survives(grey.T))


def _survives(grey: npt.NDArray[np.float32]) -> float:
    """The share along the rows of a picture `[h, w]`."""
    half = _LENGTH // 2
    before = np.abs(np.diff(grey[:, half : grey.shape[1] - half], axis=1))  # where the mean is of whole length
    # One mean to the next: a pixel comes in, one goes out.
    after = np.abs(grey[:, _LENGTH:] - grey[:, :-_LENGTH]) / _LENGTH
    lost = np.maximum(before - after, 0.0)
    whole = float(before.sum(dtype=np.float64))
    return 1.0 - float(lost.sum(dtype=np.float64)) / whole if whole > 0 else 1.0


def _inside(face: Detection, shape: tuple[int, ...]) -> float:
    left, top, right, bottom = face.box
    wide = max(0.0, min(right, shape[1]) - max(left, 0.0))
    high = max(0.0, min(bottom, shape[0]) - max(top, 0.0))
    return wide * high / max((right - left) * (bottom - top), 1e-9)


def _points_inside(points: Mapping[str, tuple[float, float]], shape: tuple[int, ...]) -> bool:
    needed = (points[name] for name in ("left_eye", "right_eye", "mouth"))
    return all(0 <= x < shape[1] and 0 <= y < shape[0] for x, y in needed)
