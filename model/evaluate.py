"""Scores: UAR and WAR, the two figures of this field.

UAR (unweighted average recall) is the mean of the classes' recalls, WAR (weighted average recall) the share of all
clips that is right. DFEW has 18 times as many neutral clips as disgusted ones: the two differ widely.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..clips import Sampling
from ..errors import UsageError, one_of
from .data import ORDERS, ClipSource, Progress, batches, centre_pick, check_source, in_order
from .logoformer import LogoFormer, to_tensor

Predict = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.floating[Any]]]  # [B, T, S, S, 3] -> scores [B, C]
_BATCH = 32


@dataclass(frozen=True)
class Metrics:
    """What a model scored.

    Attributes:
        uar: mean recall of the classes that occur, 0..1.
        war: share of clips that are right, 0..1.
        recalls: of each class; None where no clip has it.
        confusion: counts, true class by row, answer by column.
        clips: how many were looked at.
    """

    uar: float
    war: float
    recalls: tuple[float | None, ...]
    confusion: tuple[tuple[int, ...], ...]
    clips: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def metrics(confusion: npt.NDArray[np.int64]) -> Metrics:
    """Figures of a confusion matrix `[C, C]`, true class by row."""
    uar, war = uar_war(confusion)
    recalls = tuple(float(row[c] / row.sum()) if row.sum() else None for c, row in enumerate(confusion))
    return Metrics(uar, war, recalls, tuple(tuple(int(n) for n in row) for row in confusion), int(confusion.sum()))


def uar_war(confusion: npt.NDArray[np.int64]) -> tuple[float, float]:
    """UAR and WAR of a confusion matrix `[C, C]`, true class by row; at least one clip."""
    right, total = np.diag(confusion), confusion.sum(1)
    return float(np.mean(right[total > 0] / total[total > 0])), float(right.sum() / total.sum())


def score(
    predict: Predict,
    source: ClipSource,
    sampling: Sampling,
    *,
    order: str = "forward",
    seed: int = 0,
    progress: Progress | None = None,
) -> Metrics:
    """Scores anything that answers clips: a torch model, a graph, an engine.

    Args:
        predict: clips uint8 `[B, T, S, S, 3]` -> scores `[B, C]`, the largest is the answer.
        source: the clips.
        sampling: which frames of each.
        order: 'forward', 'reversed' or 'shuffled': how the frames are handed over.
        seed: of the shuffling.
        progress: called with (stage, clips done, clips).

    Raises:
        UsageError: an unknown order.
    """
    if order not in ORDERS:
        raise UsageError(f"Unknown order {order!r}.", next=f"choose from {one_of(ORDERS)}")
    confusion = np.zeros((len(source.labels), len(source.labels)), np.int64)
    done = 0
    for clips, labels in batches(source, in_order(len(source), _BATCH), centre_pick(sampling, order, seed)):
        np.add.at(confusion, (labels, np.argmax(predict(clips), 1)), 1)
        done += len(labels)
        if progress:
            progress("evaluate", done, len(source))
    return metrics(confusion)


def evaluate(
    model: LogoFormer,
    source: ClipSource,
    *,
    order: str = "forward",
    seed: int = 0,
    progress: Progress | None = None,
) -> Metrics:
    """Scores a torch model, in evaluation mode, on centre-sampled clips.

    Args:
        model: left in the mode it was in.
        source: clips of the model's size and classes.
        order: 'forward', 'reversed' or 'shuffled'.
        seed: of the shuffling.
        progress: called with (stage, clips done, clips).

    Raises:
        BadInputError: the clips do not fit the model.
        UsageError: an unknown order.
    """
    check_source(source, model.config.labels, model.config.image_size)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()

    def predict(clips: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            logits: npt.NDArray[np.float32] = model(to_tensor(clips).to(device)).cpu().numpy()
        return logits

    try:
        return score(predict, source, model.config.sampling, order=order, seed=seed, progress=progress)
    finally:
        model.train(was_training)
