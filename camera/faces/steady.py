"""Points of a face over time, without the jitter of single detections.

A model of clips is trained on crops in which the head moves slowly. Were each frame aligned by its own detection, the
crop would tremble with the detector, and an opening jaw, which moves the middle of the mouth, would be taken for a
smaller face. So the arrangement of the points follows slowly, and their middle at once: the crop stays on the face.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from .boxes import Floats
from .contract import POINTS, Detection, Point

SETTLE_S = 0.7  # in which the arrangement follows a change to two thirds
MOST = 0.2  # eye distances: no point is moved farther from where it was detected
_MIDDLE = [POINTS.index(name) for name in ("left_eye", "right_eye", "mouth")]


class SteadyPoints:
    """Steadies the points of each face.

    Args:
        settle_s: time in which the arrangement of the points follows a change to two thirds.
        most: eye distances that a point may be moved.
    """

    def __init__(self, settle_s: float = SETTLE_S, most: float = MOST) -> None:
        self.settle_s, self.most = settle_s, most
        self._kept: dict[int, tuple[Floats, float]] = {}  # by id: the arrangement about its middle, and when

    def follow(self, face: int, found: Detection, time_s: float, fresh: bool) -> Mapping[str, Point]:
        """The points of a face, steadied.

        Args:
            face: its id.
            found: the detection; each of `POINTS`.
            time_s: later than the last one's.
            fresh: this may be another face than before.
        """
        points = np.array([found.points[name] for name in POINTS])  # [4, 2]
        middle = points[_MIDDLE].mean(axis=0)
        arrangement = points - middle
        if face in self._kept and not fresh:
            before, then_s = self._kept[face]
            share = -np.expm1(-(time_s - then_s) / self.settle_s)
            moved = (1 - share) * (before - arrangement)  # [4, 2], away from where they were detected
            most = self.most * float(np.linalg.norm(points[1] - points[0]))
            farthest = float(np.linalg.norm(moved, axis=1).max())
            arrangement = arrangement + moved * min(1.0, most / max(farthest, 1e-9))
        self._kept[face] = (arrangement, time_s)
        return {name: (float(x), float(y)) for name, (x, y) in zip(POINTS, arrangement + middle, strict=True)}

    def forget(self, faces: Iterable[int]) -> None:
        """Forgets faces that are gone."""
        for face in faces:
            self._kept.pop(face, None)
