"""The accuracy gate: whether a precision may replace FP32.

The verdict rests on the bound, not on the measured drop: a drop of nothing on thirty clips proves nothing. Too few
clips of a class give `insufficient clips`, never `accept`.

The budgets are what a real data set can prove: half a point needs 102 clips of each class at least, and DFEW's five
test folds together have 145 of the smallest; one fold has 29 of it, which prove 1.5 points and no less.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..bundle.files import sha256
from ..clips import Sampling, centre_indices
from ..errors import UsageError, one_of
from .bounds import LEAST_DROP, clips_needed, least_bound
from .paired import PairedComparison

if TYPE_CHECKING:
    from ..model.data.clips import ClipSource, Progress

Evaluate = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]

ACCEPT, WITH_EXCLUSIONS, INSUFFICIENT = "accept", "accept with exclusions", "insufficient clips"
MIXED = "mixed (precision chosen per graph)"
_TOGETHER = 32


@dataclass(frozen=True)
class Budget:
    """What a precision may cost.

    Attributes:
        drop: of UAR, `LEAST_DROP`..1; the one-sided 95 % bound is held against it.
        agreement: least share of clips with FP32's answer.
    """

    drop: float
    agreement: float

    def __post_init__(self) -> None:
        if not (LEAST_DROP <= self.drop < 1 and 0 <= self.agreement <= 1):
            raise UsageError(
                f"A budget lies between {100 * LEAST_DROP:.4f} and 100 points; got {100 * self.drop:g}.",
                cause="points are hundredths of UAR, and no real number of clips proves less than that",
                next="give --budget in points, such as 0.5",
            )


BUDGETS = {"fp16": Budget(0.005, 0.99), "int8": Budget(0.01, 0.97)}
INSTEAD = {"fp16": "fp32", "int8": "FP16"}


@dataclass(frozen=True)
class Judgement:
    """A verdict and the sentence that explains it."""

    verdict: str
    reason: str


def can_prove(class_clips: Sequence[int], drop: float) -> bool:
    """Whether a precision that loses nothing on these clips would be accepted."""
    return least_bound(class_clips) <= drop


def judge_precision(
    found: PairedComparison, budget: Budget, precision: str, excluded: Sequence[str] = (), labels: Sequence[str] = ()
) -> Judgement:
    """Judge a precision by its answers.

    Args:
        found: the precision's answers against FP32's.
        budget: what it may cost.
        precision: 'fp16' or 'int8'.
        excluded: groups of layers that were left in FP16 to keep the budget.
        labels: C class names, to name the classes that have too few clips.
    """
    refuse = f"refuse: use {INSTEAD[precision]}"
    numbers = (
        f"UAR {100 * found.uar:.2f} against {100 * found.uar_before:.2f}; the drop is at most "
        f"{100 * found.bound:.2f} points (95 %), the budget is {100 * budget.drop:g}; agreement {found.agreement:.2%} "
        f"on {found.clips} clips"
    )
    if found.by_chance:
        numbers += (
            f"; FP32's own UAR is no better than guessing among {len(found.class_clips)} classes, so there is little "
            "to lose: the model is not trained, or the clips have the labels of another numbering"
        )
    if not found.finite:
        return Judgement(refuse, f"an answer is not finite; {numbers}")
    if found.floor > budget.drop:
        return Judgement(refuse, f"the drop is above the budget beyond doubt; {numbers}")
    if not can_prove(found.class_clips, budget.drop):
        fewest, least = clips_needed(found.class_clips, budget.drop), least_bound(found.class_clips)
        proves = "proves nothing; judge on more clips"
        if least < 1:
            proves = f"can prove {100 * least:.1f} points; judge on more clips, or give --budget"
        return Judgement(
            INSUFFICIENT,
            f"no answers to these clips can prove this budget: it needs {fewest} clips of every class, "
            f"{_smallest(found.class_clips, labels)}, which {proves}; {numbers}",
        )
    if found.agreement < budget.agreement:
        return Judgement(refuse, f"the agreement is below {budget.agreement:.0%}; {numbers}")
    if found.bound <= budget.drop:
        return Judgement(WITH_EXCLUSIONS if excluded else ACCEPT, numbers)
    if found.drop > budget.drop:
        return Judgement(refuse, f"the measured drop is {100 * found.drop:.2f} points; {numbers}")
    return Judgement(INSUFFICIENT, f"the measured drop keeps the budget, its bound does not; {numbers}")


def _smallest(clips: Sequence[int], labels: Sequence[str]) -> str:
    """The class with the fewest clips, or those without any, in words."""
    names = [labels[place] if labels else f"class {place}" for place, count in enumerate(clips) if count == min(clips)]
    if min(clips):
        return f"the smallest has {min(clips)}" + (f" ({one_of(names)})" if labels else "")
    return f"there are 0 of {one_of(names)}"


# -------------------------------------------------------------------------------------------------------------- answers
@dataclass(frozen=True)
class HeldOut:
    """Answers to held-out clips.

    Attributes:
        answers: by precision, float32 `[N, C]`.
        labels: int64 `[N]`.
        ids: names.
        sha256: of the pixels, in order, those of copies too.
        pixels: SHA-256 of each clip's.
        copies: clips that were left out, because they have the pixels and the class of one before: they prove nothing
            that it does not.
    """

    answers: Mapping[str, npt.NDArray[np.float32]]
    labels: npt.NDArray[np.int64]
    ids: tuple[str, ...]
    sha256: str
    pixels: tuple[str, ...]
    copies: int = 0


def answer(
    evaluators: Mapping[str, Evaluate],
    source: ClipSource,
    sampling: Sampling,
    indices: Sequence[int],
    progress: Progress | None = None,
) -> HeldOut:
    """Gives the same clips to every evaluator, a few at a time, copies once.

    Args:
        evaluators: by precision: clips uint8 `[B, T, S, S, 3]` -> probabilities float32 `[B, C]`.
        source: where the clips come from.
        sampling: the test pattern is read (no chance).
        indices: of the clips; at least one.
        progress: called with (stage, done, total).
    """
    parts: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in evaluators}
    digest = hashlib.sha256()
    known: dict[tuple[str, int], int] = {}
    for start in range(0, len(indices), _TOGETHER):
        some = indices[start : start + _TOGETHER]
        clips = np.stack([source.frames(i, centre_indices(source.count(i), sampling)) for i in some])
        digest.update(clips.tobytes())
        fresh = []
        for place, index in enumerate(some):
            key = sha256(clips[place].tobytes()), source.label(index)
            if known.setdefault(key, index) == index:
                fresh.append(place)
        for name, evaluate in evaluators.items() if fresh else ():
            parts[name].append(evaluate(clips[fresh]))
        if progress is not None:
            progress("held-out clips", start + len(some), len(indices))
    return HeldOut(
        {name: np.concatenate(found) for name, found in parts.items()},
        np.array([label for _, label in known], np.int64),
        tuple(source.clip_id(i) for i in known.values()),
        digest.hexdigest(),
        tuple(pixels for pixels, _ in known),
        len(indices) - len(known),
    )


def joined(parts: Sequence[HeldOut]) -> HeldOut:
    """Answers of several models, each to clips of its own, as if one had given them all.

    Copies count once.

    Args:
        parts: with the same evaluators; at least one.
    """
    if len(parts) == 1:
        return parts[0]
    labels = np.concatenate([part.labels for part in parts])
    pixels, ids = [sha for part in parts for sha in part.pixels], [name for part in parts for name in part.ids]
    first: dict[tuple[str, int], int] = {}
    for place, key in enumerate(zip(pixels, labels.tolist(), strict=True)):
        first.setdefault(key, place)
    kept = list(first.values())
    return HeldOut(
        {name: np.concatenate([part.answers[name] for part in parts])[kept] for name in parts[0].answers},
        labels[kept],
        tuple(ids[place] for place in kept),
        hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest(),
        tuple(pixels[place] for place in kept),
        sum(part.copies for part in parts) + len(ids) - len(kept),
    )
