"""Contract of every face detector: boxes, scores and four named points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ...clips import Frame

Corners = tuple[float, float, float, float]  # left, top, right, bottom
Point = tuple[float, float]  # x, y

# Every detector gives these. 'left' is the left of the picture, not of the person; 'mouth' is its centre.
POINTS = ("left_eye", "right_eye", "nose", "mouth")


@dataclass(frozen=True)
class Detection:
    """One face that a detector found.

    Attributes:
        box: left, top, right, bottom in pixels of the frame; may reach over its edge.
        score: how sure the detector is, 0..1.
        points: each of `POINTS` in pixels of the frame.
    """

    box: Corners
    score: float
    points: Mapping[str, Point]

    @property
    def centre(self) -> Point:
        """Middle of the box."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2

    @property
    def width(self) -> float:
        """Width of the box, pixels."""
        return self.box[2] - self.box[0]


class Detector(Protocol):
    """What finds the faces of a whole frame."""

    def detect(self, rgb: Frame) -> list[Detection]:
        """Every face of a frame, uint8 `[H, W, 3]`, RGB; the surest first."""


@runtime_checkable
class Refiner(Protocol):
    """What finds a face again whose box is known roughly, at little cost."""

    def refine(self, rgb: Frame, box: Corners) -> Detection | None:
        """The face near a box; None where there is none."""
