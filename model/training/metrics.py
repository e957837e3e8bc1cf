"""Scores: UAR and WAR, the two figures of this field, with intervals.

UAR (unweighted average recall) is the mean of the classes' recalls, WAR (weighted average recall) the share of all
clips that is right. DFEW has 18 times as many neutral clips as disgusted ones: the two differ widely. Needs no torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Z_95 = (
    2.0  # of 1.96; the rest pays for the approximation: tests/model/training/test_metrics.py simulates what it covers
)

Counts = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Metrics:
    """Scores of a model.

    Attributes:
        uar: mean recall of the classes that occur, 0..1.
        war: share of clips that are right, 0..1.
        recalls: of each class; None where no clip has it.
        confusion: counts, true class by row, answer by column.
        clips: how many were looked at.
        uar_interval, war_interval: 95 % intervals over clips; they know nothing of other seeds or people.
    """

    uar: float
    war: float
    recalls: tuple[float | None, ...]
    confusion: tuple[tuple[int, ...], ...]
    clips: int
    uar_interval: tuple[float, float]
    war_interval: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def metrics(confusion: npt.NDArray[np.int64]) -> Metrics:
    """Figures of a confusion matrix: counts `[C, C]`, true class by row; at least one clip."""
    uar, war = uar_war(confusion)
    recalls = tuple(float(row[c] / row.sum()) if row.sum() else None for c, row in enumerate(confusion))
    seen = confusion.sum(1) > 0
    intervals = _intervals(np.diag(confusion)[seen], confusion.sum(1)[seen])
    counts = tuple(tuple(int(n) for n in row) for row in confusion)
    return Metrics(uar, war, recalls, counts, int(confusion.sum()), *intervals)


def uar_war(confusion: npt.NDArray[np.int64]) -> tuple[float, float]:
    """UAR and WAR of a confusion matrix `[C, C]`, true class by row; at least one clip."""
    right, total = np.diag(confusion), confusion.sum(1)
    return float(np.mean(right[total > 0] / total[total > 0])), float(right.sum() / total.sum())


def spread(features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    """Spread of classes: mean distance to a class's centre over that between centres.

    Smaller is more compact. Distances are Euclidean on features scaled to unit length, because a network may change the
    length of all its features for nothing.

    Args:
        features: `[N, d]`.
        labels: int64 `[N]`; at least two classes.
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    present = np.unique(labels)
    centres = np.stack([unit[labels == c].mean(0) for c in present])  # [C, d]
    inside = np.mean(
        [np.linalg.norm(unit[labels == c] - m, axis=1).mean() for c, m in zip(present, centres, strict=True)]
    )
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=2)[np.triu_indices(len(present), 1)].mean()
    return float(inside / apart)


def _intervals(right: Counts, total: Counts) -> tuple[tuple[float, float], tuple[float, float]]:
    """Intervals of UAR and WAR.

    Each class's recall is a share of its own clips, with Wilson's limits (Journal of the American Statistical
    Association 22, 1927, 209-212). The distances of the limits from the recalls add up as variances do (Newcombe,
    Statistics in Medicine 17, 1998, 873-890; Zou and Donner, Statistics in Medicine 27, 2008, 1693-1702). WAR is a
    share of all clips. A bootstrap of 29 clips of a class cannot know how unsure that class's recall is, least of all
    where all its answers are wrong.

    Args:
        right: `[C]`, clips of each class that are right.
        total: `[C]`, clips of each class, at least 1.
    """
    recalls = right / total
    low, high = _wilson(right, total)
    down, up = (float(np.sqrt(np.square(limits - recalls).sum())) / len(total) for limits in (low, high))
    uar = float(recalls.mean())
    war_low, war_high = _wilson(right.sum(), total.sum())
    return (max(0.0, uar - down), min(1.0, uar + up)), (float(war_low), float(war_high))


def _wilson(right: Counts, total: Counts) -> tuple[Shares, Shares]:
    """Limits of the shares `right / total`."""
    share = right / total
    centre = (share + Z_95**2 / (2 * total)) / (1 + Z_95**2 / total)
    reach = Z_95 * np.sqrt(share * (1 - share) / total + Z_95**2 / (4 * total**2)) / (1 + Z_95**2 / total)
    return np.maximum(centre - reach, 0.0), np.minimum(centre + reach, 1.0)
