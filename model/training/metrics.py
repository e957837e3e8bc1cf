"""Scores: UAR and WAR, the two figures of this field, with intervals.

UAR (unweighted average recall) is the mean of the classes' recalls, WAR (weighted average recall) the share of all
clips that is right. DFEW has 18 times as many neutral clips as disgusted ones: the two differ widely. Needs no torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Metrics:
    """Scores of a model.

    Attributes:
        uar: mean recall of the classes that occur, 0..1.
        war: share of clips that are right, 0..1.
        recalls: of each class; None where no clip has it.
        confusion: counts, true class by row, answer by column.
        clips: how many were looked at.
        uar_interval, war_interval: 95 % bootstrap intervals over clips; they know nothing of other seeds or people.
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
    intervals = _bootstrap(confusion)
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


def _bootstrap(confusion: npt.NDArray[np.int64]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Percentile intervals of UAR and WAR over clips drawn with replacement.

    Drawing N clips with replacement and counting them is one multinomial draw over the cells of the matrix.
    """
    classes, clips = len(confusion), int(confusion.sum())
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(clips, (confusion / clips).ravel(), RESAMPLES).reshape(-1, classes, classes)
    right, total = np.diagonal(drawn, axis1=1, axis2=2), drawn.sum(2)  # [R, C]
    seen = total > 0
    uar = np.where(seen, right / np.maximum(total, 1), 0.0).sum(1) / seen.sum(1)
    war = right.sum(1) / clips
    tails = (50 * (1 - CONFIDENCE), 100 - 50 * (1 - CONFIDENCE))

    def interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
        low, high = np.percentile(values, tails)
        return float(low), float(high)

    return interval(uar), interval(war)
