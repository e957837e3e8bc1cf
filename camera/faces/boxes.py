"""Boxes of faces: overlap, suppression and blending."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def overlap(a: Floats, b: Floats) -> Floats:
    """Intersection over union of every pair: `[n, 4]`, `[m, 4]` -> `[n, m]`.

    A box is left, top, right, bottom; one without area overlaps nothing.
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    common = _area(np.minimum(a[:, None, 2:], b[None, :, 2:]) - low)
    area_a, area_b = _area(a[:, 2:] - a[:, :2]), _area(b[:, 2:] - b[:, :2])
    shares: Floats = common / np.maximum(area_a[:, None] + area_b[None] - common, 1e-9)
    return shares


def _area(sides: Floats) -> Floats:
    """Of widths and heights `[..., 2]`; 0 where one is negative."""
    sides = np.maximum(sides, 0.0)
    area: Floats = sides[..., 0] * sides[..., 1]
    return area


def group_boxes(boxes: Floats, scores: Floats, least: float) -> list[npt.NDArray[np.int64]]:
    """Groups of boxes that stand for one face each.

    Args:
        boxes: `[n, 4]`.
        scores: `[n]`.
        least: a box that overlaps the first of a group by more than this belongs to the group.

    Returns:
        Indices; every box is in one group, whose surest box comes first. The surest group comes first.
    """
    order = np.argsort(-scores, kind="stable")
    found = []
    while order.size > 1:
        same = overlap(boxes[order[:1]], boxes[order])[0] > least
        same[0] = True  # a box without area does not overlap itself
        found.append(order[same])
        order = order[~same]
    return [*found, order] if order.size else found


def weighted_mean(rows: Floats, scores: Floats) -> Floats:
    """Mean of rows by score, as MediaPipe blends boxes: `[n, k]`, `[n]` -> `[k]`."""
    weights = scores / scores.sum()
    mean: Floats = weights @ rows
    return mean
