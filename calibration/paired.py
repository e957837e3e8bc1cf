"""Paired comparison of two precisions on the same clips, with confidence bounds.

Answers to the same clips are paired: nearly all are right or wrong together, and only the few on which the two differ
carry news. Comparing the two scores as if they came from different clips would need ten times as many.

Sources: the exact McNemar test is the binomial test on the discordant pairs (McNemar, Psychometrika 12, 1947). The
upper bound on the drop is that of `bounds.py`. The lower one is the adjusted Wald interval for matched proportions of
Agresti and Min (Statistics in Medicine 24, 2005, 729-740: half a clip is added to each cell of the 2 x 2 table), taken
in each class and combined as a stratified mean, because UAR is the mean of the classes' recalls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..engine.golden import centred_logits
from .bounds import drop_bound

Z_95 = 1.6448536269514722  # one-sided
WORST = 10


@dataclass(frozen=True)
class WorstClip:
    """One of the clips that suffered most.

    Attributes:
        clip: its name.
        label, before, after: true class, answer of the first, answer of the second.
        share: largest logit difference over the deviation between clips; None when an answer is not finite.
    """

    clip: str
    label: int
    before: int
    after: int
    share: float | None


@dataclass(frozen=True)
class PairedComparison:
    """Loss of the second set of answers against the first.

    Attributes:
        clips: N.
        uar_before, uar, war_before, war: scores of the two, 0..1.
        drop: `uar_before - uar`.
        bound: the drop is below it with 95 % confidence (one-sided).
        floor: the drop is above it with 95 % confidence (one-sided).
        class_clips: clips of each of the C classes; 0 for one that has none.
        by_chance: the first is no better than guessing: its UAR is not above 1 / C beyond doubt (95 %, one-sided).
        agreement: share of clips with the same answer.
        lost, gained: clips that only the first, or only the second, answers rightly.
        mcnemar_p: two-sided, exact: how probable so lopsided a split is if neither is better.
        rms_share, p99_share, max_share: logit difference over the deviation between clips: root mean square, 99th
            percentile and largest; None when an answer is not finite.
        finite: no NaN and no infinity.
        worst: the clips with the largest difference, those with another answer first.
    """

    clips: int
    uar_before: float
    uar: float
    war_before: float
    war: float
    drop: float
    bound: float
    floor: float
    class_clips: tuple[int, ...]
    by_chance: bool
    agreement: float
    lost: int
    gained: int
    mcnemar_p: float
    rms_share: float | None
    p99_share: float | None
    max_share: float | None
    finite: bool
    worst: tuple[WorstClip, ...]


def compare_answers(
    before: npt.NDArray[np.float32],
    after: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    ids: Sequence[str],
) -> PairedComparison:
    """Compares two sets of probabilities for the same clips.

    Args:
        before: float32 `[N, C]`, such as FP32's.
        after: float32 `[N, C]`, such as INT8's. Rows that are not finite count as wrong.
        labels: int64 `[N]`.
        ids: N names.
    """
    finite = np.asarray(np.isfinite(after).all(axis=1))
    first: npt.NDArray[np.int64] = np.argmax(before, 1)
    second: npt.NDArray[np.int64] = np.where(finite, np.argmax(np.nan_to_num(after), 1), -1)
    right, still = first == labels, second == labels
    differences = logit_differences(before, np.where(finite[:, None], after, 1.0))
    largest = np.where(finite, differences.max(1), np.inf)
    order = np.lexsort((np.arange(len(labels)), -largest, first == second))[:WORST]
    worst = tuple(
        WorstClip(ids[i], int(labels[i]), int(first[i]), int(second[i]), float(largest[i]) if finite[i] else None)
        for i in order
    )
    classes = before.shape[1]
    drop, bound, floor = drop_interval(right, still, labels, classes)
    lost, gained = int((right & ~still).sum()), int((still & ~right).sum())
    whole = bool(finite.all())
    return PairedComparison(
        clips=len(labels),
        uar_before=_uar(right, labels),
        uar=_uar(still, labels),
        war_before=float(right.mean()),
        war=float(still.mean()),
        drop=drop,
        bound=bound,
        floor=floor,
        class_clips=tuple(np.bincount(labels, minlength=classes).tolist()),
        by_chance=_by_chance(right, labels, classes),
        agreement=float((first == second).mean()),
        lost=lost,
        gained=gained,
        mcnemar_p=mcnemar(lost, gained),
        rms_share=float(np.sqrt(np.square(differences).mean())) if whole else None,
        p99_share=float(np.quantile(differences, 0.99)) if whole else None,
        max_share=float(differences.max()) if whole else None,
        finite=whole,
        worst=worst,
    )


def logit_differences(before: npt.NDArray[np.float32], after: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Absolute differences of centred logits, float64 `[N, C]`.

    They are shares of the first's deviation between clips.
    """
    wanted, given = centred_logits(before), centred_logits(after)
    deviation = float(np.sqrt(wanted.var(0).mean()))
    shares: npt.NDArray[np.float64] = np.abs(given - wanted) / max(deviation, 1e-30)
    return shares


def _uar(right: npt.NDArray[np.bool_], labels: npt.NDArray[np.int64]) -> float:
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def _by_chance(right: npt.NDArray[np.bool_], labels: npt.NDArray[np.int64], classes: int) -> bool:
    """Whether UAR is not above that of guessing beyond doubt.

    Each class has two clips more, as Agresti and Coull's interval for a proportion (American Statistician 52, 1998).
    """
    clips = np.array([int((labels == label).sum()) for label in np.unique(labels)])
    recall = (np.array([int(right[labels == label].sum()) for label in np.unique(labels)]) + 1) / (clips + 2)
    spread = math.sqrt(float((recall * (1 - recall) / (clips + 2)).sum())) / len(clips)
    return _uar(right, labels) <= 1 / classes + Z_95 * spread


def drop_interval(
    before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_], labels: npt.NDArray[np.int64], classes: int = 0
) -> tuple[float, float, float]:
    """The UAR drop with its one-sided 95 % bounds.

    A class without clips has no part in the drop that is seen, and nothing is known of it: the upper bound is 1.

    Args:
        before: bool `[N]`, whether each answer is right at first.
        after: bool `[N]`, whether it still is.
        labels: int64 `[N]`.
        classes: C, of the model; 0 where the labels are all there are.

    Returns:
        (drop, upper bound, lower bound). For the lower bound, with b clips lost and c gained among the n of a class,
        the class adds ``(b - c) / (n + 2)`` to the centre and
        ``(b + c + 1 - (b - c)**2 / (n + 2)) / (n + 2)**2`` to the variance.
    """
    every = np.bincount(labels, minlength=classes)
    seen = np.flatnonzero(every)
    clips = every[seen]
    lost = np.array([int((before & ~after & (labels == label)).sum()) for label in seen])
    gained = np.array([int((after & ~before & (labels == label)).sum()) for label in seen])
    net = lost - gained
    variance = ((lost + gained + 1 - net**2 / (clips + 2)) / (clips + 2) ** 2).sum()
    k = len(seen)
    floor = float((net / (clips + 2)).sum()) / k - Z_95 * math.sqrt(float(variance)) / k
    bound = drop_bound(lost, gained, clips) if k == len(every) else 1.0
    return float((net / clips).sum()) / k, bound, max(-1.0, floor)


def mcnemar(lost: int, gained: int) -> float:
    """The exact two-sided p value of McNemar's test.

    Twice the binomial tail of the smaller count at chance 1/2, at most 1.

    >>> mcnemar(0, 0), mcnemar(5, 0)
    (1.0, 0.0625)
    """
    n, k = lost + gained, min(lost, gained)
    tail = sum(math.comb(n, i) for i in range(k + 1))
    return float(min(1.0, 2 * tail / 2**n))
