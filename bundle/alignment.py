"""Alignment: where eyes and mouth lie in a crop, and the warp that puts them there.

A model answers for faces that lie in the picture as they did in training. What was measured there (or a stated default)
is the `alignment` of a bundle's manifest; `export` writes it, and every crop that a camera gives is cut by `align`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..clips import Frame
from ..errors import BadInputError

Floats = npt.NDArray[np.float64]

LEARNED, DEFAULT = "learned", "default"
USED = ("left_eye", "right_eye", "mouth")  # nose and mouth corners move with an expression, or differ by convention
SHRINK = 1.5  # a face that is larger than this many crops is shrunk by an area filter before it is turned


@dataclass(frozen=True)
class Alignment:
    """Where a crop shows both eyes and the middle of the mouth.

    Positions are (x, y) in shares of the crop's side; 'left' is the left of the picture.

    Attributes:
        left_eye, right_eye, mouth: the targets.
        origin: 'learned' from training crops, or 'default'.
        crops: how many crops taught it; 0 for a default.
        source: of what the crops were, for the record.
    """

    left_eye: tuple[float, float]
    right_eye: tuple[float, float]
    mouth: tuple[float, float]
    origin: str = DEFAULT
    crops: int = 0
    source: str = ""

    def __post_init__(self) -> None:
        places = np.array([self.left_eye, self.right_eye, self.mouth], np.float64)
        eyes_y = (self.left_eye[1] + self.right_eye[1]) / 2
        if (
            places.shape != (3, 2)
            or not np.isfinite(places).all()
            or places.min() < 0
            or places.max() > 1
            or self.right_eye[0] - self.left_eye[0] < 0.02
            or self.mouth[1] - eyes_y < 0.02
        ):
            raise ValueError(f"{self} is no face: eyes side by side, the mouth below, all inside the crop")
        if self.origin not in (LEARNED, DEFAULT) or (self.origin == LEARNED) != (self.crops > 0):
            raise ValueError(f"an alignment is learned from crops or a default, not {self.origin!r} of {self.crops}")

    @property
    def calibrated(self) -> bool:
        """Whether crops taught it; people are shown 'uncalibrated' where not."""
        return self.origin == LEARNED

    def to_json(self) -> dict[str, Any]:
        """The manifest's `alignment`."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Alignment:
        """Read the manifest's `alignment`.

        Raises:
            KeyError, TypeError, ValueError: a field is missing, of another type, or no face.
        """
        places = {}
        for name in USED:
            x, y = data[name]
            if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (x, y)):
                raise TypeError(f"{name} is no pair of numbers")
            places[name] = (float(x), float(y))
        origin, crops, source = data["origin"], data.get("crops", 0), data.get("source", "")
        if not isinstance(origin, str) or not isinstance(source, str) or type(crops) is not int:
            raise TypeError("origin and source are texts, crops is a number")
        return cls(**places, origin=origin, crops=crops, source=source)


# Eyes and the middle between the mouth's corners in ArcFace's crops of 112 pixels, in shares of the side; the positions
# that most face crops of today have.
STANDARD = Alignment((0.3419, 0.4616), (0.6565, 0.4598), (0.5002, 0.8240), DEFAULT, 0, "ArcFace's crops of 112 pixels")


def learned(places: Floats, source: str) -> Alignment:
    """The alignment that crops show: the median position of each point.

    Args:
        places: `[n, 3, 2]`: left eye, right eye and mouth of n crops, in shares of the side.
        source: what the crops are.

    Raises:
        BadInputError: the medians are no face.
    """
    middle = np.median(places, axis=0).round(4)
    left, right, mouth = ((float(x), float(y)) for x, y in middle)
    try:
        return Alignment(left, right, mouth, LEARNED, len(places), source)
    except ValueError as error:
        raise BadInputError(
            f"The eyes and mouths that were found in {source} are at {middle.tolist()}: no upright face.",
            cause="crops that are turned by 90 degrees, or no crops of faces",
        ) from error


def similarity(source: Floats, target: Floats) -> Floats:
    """The rotation, scaling and shift that bring points onto others best, in least squares.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (PAMI 13, 1991).

    Args:
        source: `[n, 2]`, n at least 2.
        target: `[n, 2]`.

    Returns:
        `[2, 3]`: `target ~ source @ m[:, :2].T + m[:, 2]`.

    Raises:
        BadInputError: the source is one point, or a number is not finite.
    """
    if not (np.isfinite(source).all() and np.isfinite(target).all()) or np.ptp(source, axis=0).max() < 1e-6:
        raise BadInputError(
            f"No similarity maps {np.asarray(source).tolist()} onto {np.asarray(target).tolist()}.",
            cause="eyes and mouth at one place: a detection that is no face",
        )
    from_middle, to_middle = source.mean(axis=0), target.mean(axis=0)
    a, b = source - from_middle, target - to_middle
    # In the plane that is one complex factor: b ~ factor * a, in least squares.
    cosine, sine = (a * b).sum(), (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()
    linear = np.array([[cosine, -sine], [sine, cosine]]) / (a**2).sum()
    return np.column_stack([linear, to_middle - linear @ from_middle])


def align(frame: Frame, points: Mapping[str, tuple[float, float]], alignment: Alignment, size: int) -> Frame:
    """Cuts a face out of a frame so that eyes and mouth come to lie where they were in training.

    Args:
        frame: uint8 `[H, W, 3]`; any order of the channels.
        points: (x, y) in pixels of the frame of at least `USED`; the middle of the first pixel is at (0.5, 0.5).
        alignment: of the bundle.
        size: S, side of the crop.

    Returns:
        uint8 `[S, S, 3]`; what lies outside the frame is black.

    Raises:
        BadInputError: eyes and mouth are one point, or those of no face.
    """
    source = np.array([points[name] for name in USED], np.float64)
    target = np.array([getattr(alignment, name) for name in USED], np.float64) * size
    to_crop = similarity(source, target)
    factor = 1 / max(math.hypot(*to_crop[:, 0]), 1e-9)  # frame pixels in one of the crop
    if factor > max(frame.shape):
        raise BadInputError("Eyes and mouth are those of no face.", cause="a detection that is mirrored, or huge")
    to_frame = _inverse(to_crop)
    corners = np.array([(0, 0), (size, 0), (size, size), (0, size)], np.float64) @ to_frame[:, :2].T + to_frame[:, 2]
    part, origin = _cut(frame, corners, math.ceil(2 * max(1.0, factor)))
    if part is None:
        return np.zeros((size, size, 3), np.uint8)
    to_frame[:, 2] -= origin
    if factor > SHRINK:
        # What follows reads four neighbours of each place; of a large face it would leave most pixels out.
        w, h = (max(1, round(n / factor)) for n in part.size)
        to_frame = to_frame * np.array([[w / part.width], [h / part.height]])
        part = part.resize((w, part.height), Image.Resampling.BOX).resize((w, h), Image.Resampling.BOX)
    rows = tuple(float(value) for value in to_frame.ravel())
    crop = part.transform((size, size), Image.Transform.AFFINE, rows, Image.Resampling.BILINEAR)
    return np.asarray(crop)


def _inverse(m: Floats) -> Floats:
    linear = np.linalg.inv(m[:, :2])
    return np.column_stack([linear, -linear @ m[:, 2]])


def _cut(frame: Frame, corners: Floats, border: int) -> tuple[Image.Image | None, Floats]:
    """The part of a frame around four points, and where it begins: less to copy, less to shrink."""
    height, width = frame.shape[:2]
    low = np.clip(np.floor(corners.min(axis=0)) - border, 0, (width, height)).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)) + border, 0, (width, height)).astype(int)
    if (high <= low).any():
        return None, np.zeros(2)
    cut = frame[low[1] : high[1], low[0] : high[0]]
    return Image.fromarray(np.ascontiguousarray(cut)), low.astype(np.float64)
