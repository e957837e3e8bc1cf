"""Evaluation: answers on a data set, clip by clip.

Every figure (`metrics.py`) is computed from `Predictions`: the names, classes and scores of all clips. Folds are pooled
by joining their predictions, which is how the published rows of this field are computed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...clips import Sampling
from ...errors import BadInputError, UsageError, one_of
from ..data.clips import (
    ORDERS,
    ClipSource,
    Pick,
    Progress,
    Subset,
    batches,
    centre_pick,
    check_source,
    in_order,
    random_pick,
    view_pick,
)
from ..networks.network import Network, to_tensor
from .distributed import World
from .metrics import Metrics, metrics

Predict = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.floating[Any]]]  # [B, T, S, S, 3] -> scores [B, C]
_BATCH = 32


@dataclass(frozen=True)
class Predictions:
    """Answers of one model on some clips.

    Attributes:
        classes: C names.
        ids: N names.
        labels: int64 `[N]`, the true classes.
        scores: float32 `[N, C]`, the largest is the answer.
    """

    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]

    def confusion(self) -> npt.NDArray[np.int64]:
        """Counts `[C, C]`, true class by row, answer by column."""
        counts = np.zeros((len(self.classes), len(self.classes)), np.int64)
        np.add.at(counts, (self.labels, self.scores.argmax(1)), 1)
        return counts

    def metrics(self) -> Metrics:
        """The figures, with intervals."""
        return metrics(self.confusion())


def pool(parts: Sequence[Predictions]) -> Predictions:
    """Joins the predictions of several folds.

    Raises:
        BadInputError: other classes, or a clip that is in two folds (it would be counted twice).
    """
    first = parts[0]
    if any(part.classes != first.classes for part in parts):
        raise BadInputError("The folds number their classes differently; their answers cannot be pooled.")
    ids = tuple(name for part in parts for name in part.ids)
    if len(set(ids)) != len(ids):
        twice = sorted({name for name in ids if ids.count(name) > 1})[:3]
        raise BadInputError(f"Clips are in two folds: {one_of(twice)}.", cause="the same fold was given twice")
    return Predictions(
        first.classes, ids, np.concatenate([p.labels for p in parts]), np.concatenate([p.scores for p in parts])
    )


def predict_all(
    predict: Predict,
    source: ClipSource,
    sampling: Sampling,
    *,
    order: str = "forward",
    views: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Predictions:
    """Answers of a torch model, a graph or a runtime on all clips.

    Args:
        predict: clips uint8 `[B, T, S, S, 3]` -> scores `[B, C]`.
        source: the clips.
        sampling: which frames of each.
        order: 'forward', 'reversed' or 'shuffled': how the frames are handed over.
        views: clips taken of each recording, whose scores are averaged: those of the sampling's own rule first, more by
            training's rule; None takes those of the rule.
        seed: of the shuffling and of the further views.
        progress: called with (stage, clips done, clips).

    Raises:
        UsageError: an unknown order, no view, or several views in another order than forward.
    """
    views = (sampling.views if order == "forward" else 1) if views is None else views
    if order not in ORDERS or views < 1:
        raise UsageError(
            f"Cannot evaluate order {order!r}, {views} views.", next=f"choose an order from {one_of(ORDERS)}"
        )
    if views > 1 and order != "forward":
        raise UsageError(f"Frames are handed over {order} with a single view; {views} were asked for.")
    picks: list[Pick] = [centre_pick(sampling, order, seed)]
    picks += [
        view_pick(sampling, view) if view < sampling.views else random_pick(sampling, seed, view)
        for view in range(1, views)
    ]
    scores = _answers(predict, source, picks, "evaluate", progress)
    count = range(len(source))
    return Predictions(
        tuple(source.labels),
        tuple(source.clip_id(index) for index in count),
        np.array([source.label(index) for index in count], np.int64),
        scores,
    )


def evaluate(
    model: Network,
    source: ClipSource,
    *,
    order: str = "forward",
    views: int | None = None,
    progress: Progress | None = None,
) -> Predictions:
    """Softmax probabilities of a torch model, in evaluation mode.

    Args:
        model: left in the mode it was in.
        source: clips of the model's size and classes.
        order: see `predict_all`.
        views: see there.
        progress: called with (stage, clips done, clips).

    Raises:
        BadInputError: the clips do not fit the model.
        UsageError: see `predict_all`.
    """
    with _evaluating(model, source, lambda clips: torch.softmax(model(clips), 1)) as predict:
        sampling = model.config.sampling
        return predict_all(predict, source, sampling, order=order, views=views, progress=progress)


def evaluate_together(model: Network, source: ClipSource, world: World, progress: Progress | None = None) -> Metrics:
    """Metrics over all processes, each of which evaluates its share of the clips.

    Counts are summed: no clip is padded or counted twice, whatever the number of clips and processes.
    """
    mine = Subset(source, range(world.rank, len(source), world.size))
    counts = np.zeros((len(source.labels), len(source.labels)), np.int64)
    if len(mine):
        counts = evaluate(model, mine, progress=progress).confusion()
    return metrics(world.sum(counts))


def features_of(model: Network, source: ClipSource, progress: Progress | None = None) -> npt.NDArray[np.float32]:
    """Features of each clip, as the classifier reads them: float32 `[N, d]`.

    Clips are centre-sampled, the model is in evaluation mode.

    Raises:
        BadInputError: the clips do not fit the model.
    """
    with _evaluating(model, source, model.features) as predict:
        return _answers(predict, source, [centre_pick(model.config.sampling)], "features", progress)


@contextlib.contextmanager
def _evaluating(model: Network, source: ClipSource, ask: Callable[[Tensor], Tensor]) -> Iterator[Predict]:
    """Gives a function of uint8 clips; inside the block the model is in evaluation mode."""
    check_source(source, model.config.labels, model.config.image_size)
    device = next(model.parameters()).device

    def predict(clips: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            answers: npt.NDArray[np.float32] = ask(to_tensor(clips).to(device)).cpu().numpy()
        return answers

    was_training = model.training
    model.eval()
    try:
        yield predict
    finally:
        model.train(was_training)


def _answers(
    predict: Predict, source: ClipSource, picks: Sequence[Pick], stage: str, progress: Progress | None
) -> npt.NDArray[np.float32]:
    """Answers for all clips in order, `[N, ...]`: the mean over the picks."""
    mean: npt.NDArray[np.float32] = np.zeros((), np.float32)
    done = 0
    for pick in picks:
        found = []
        for clips, _ in batches(source, in_order(len(source), _BATCH), pick):
            found.append(predict(clips))
            done += len(clips)
            if progress:
                progress(stage, done, len(picks) * len(source))
        mean = (mean + np.concatenate(found) / len(picks)).astype(np.float32)
    return mean
