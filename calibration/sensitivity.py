"""Sensitivity of layer groups to INT8, and the groups to exclude.

One group at a time is quantized and everything else is FP16: what the answers lose is that group's doing. The harm is
the root mean square difference of the logits, as a share of their deviation between clips; it needs no labels and tells
more on a hundred clips than their few changed answers. Then groups are excluded, the most harmful first, until the
budget holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import VerificationError
from .gate import Budget
from .paired import Z_95, PairedComparison, compare_answers

if TYPE_CHECKING:
    from ..model.data.clips import Progress

Answers = npt.NDArray[np.float32]  # [N, C]
RMS_LIMIT = 0.10  # of the deviation between clips; beyond, a change of answers is a matter of luck


@dataclass(frozen=True)
class GroupHarm:
    """One group alone in INT8.

    Attributes:
        group: its name.
        harm: root mean square logit difference over the deviation between clips.
        agreement: share of clips with FP32's answer.
        macs: multiply-accumulates that become INT8.
        share: of the graph's.
        measured_with: groups that had to be quantized with it; their own harm is taken off (in squares).
    """

    group: str
    harm: float
    agreement: float
    macs: int
    share: float
    measured_with: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One step of the exclusion.

    Attributes:
        excluded: groups in FP16.
        harm, agreement, drop: of all others in INT8.
        int8_share: of the multiply-accumulates.
        holds: whether the budget holds.
    """

    excluded: tuple[str, ...]
    harm: float | None
    agreement: float
    drop: float
    int8_share: float
    holds: bool


@dataclass(frozen=True)
class Sensitivity:
    """Harm of every group, and the steps of the exclusion.

    Attributes:
        groups: the most harmful first.
        steps: from nothing excluded to the first that holds.
        clips: how many were answered.
    """

    groups: tuple[GroupHarm, ...]
    steps: tuple[Step, ...]
    clips: int

    @property
    def excluded(self) -> tuple[str, ...]:
        """What the last step leaves in FP16."""
        return self.steps[-1].excluded

    def to_json(self) -> dict[str, Any]:
        groups = [{**asdict(row), "harm": row.harm if math.isfinite(row.harm) else None} for row in self.groups]
        return {**asdict(self), "groups": groups}


def sensitivity(
    answers: Callable[[tuple[str, ...]], Answers],
    truth: Answers,
    labels: npt.NDArray[np.int64],
    macs: Mapping[str, int],
    total_macs: int,
    budget: Budget,
    progress: Progress | None = None,
) -> Sensitivity:
    """Measures every group, then excludes.

    Args:
        answers: probabilities for the held-out clips of the clip graph in INT8 but for the groups named.
        truth: FP32's, float32 `[N, C]`.
        labels: int64 `[N]`.
        macs: multiply-accumulates of each group, in graph order.
        total_macs: of the whole graph.
        budget: what INT8 may cost.
        progress: called with (stage, done, total).

    Raises:
        VerificationError: the budget does not hold even with everything excluded.
    """
    note = progress or (lambda *_: None)
    ids = [str(index) for index in range(len(labels))]

    def against(excluded: tuple[str, ...]) -> PairedComparison:
        return compare_answers(truth, answers(excluded), labels, ids)

    rows: dict[str, GroupHarm] = {}
    ordered = sorted(macs, key=lambda name: name.endswith(".bmm"))  # their companions first
    for done, group in enumerate(ordered):
        note("one group at a time", done, len(ordered))
        beside = companions(group, macs)
        found = against(tuple(name for name in macs if name not in (group, *beside)))
        harm = _harm(found)
        rest = math.fsum(rows[name].harm ** 2 for name in beside)
        rows[group] = GroupHarm(
            group,
            math.sqrt(max(harm**2 - rest, 0.0)) if math.isfinite(harm) else harm,
            found.agreement,
            macs[group],
            macs[group] / total_macs,
            beside,
        )
    ranked = tuple(sorted(rows.values(), key=lambda row: -row.harm))
    steps: list[Step] = []
    for count in range(len(ranked) + 1):
        note("exclude groups", count, len(ranked))
        excluded = tuple(row.group for row in ranked[:count])
        found = against(excluded)
        kept = math.fsum(value for name, value in macs.items() if name not in excluded) / total_macs
        steps.append(Step(excluded, found.rms_share, found.agreement, found.drop, kept, holds(found, budget)))
        if steps[-1].holds:
            return Sensitivity(ranked, tuple(steps), len(labels))
    raise VerificationError(
        "With every group excluded the graph is FP16, and it still does not keep the budget.",
        cause="FP16 itself differs from FP32",
        next="look at the fp16 verdict of the bundle",
    )


def companions(group: str, known: Mapping[str, object]) -> tuple[str, ...]:
    """Groups that are quantized with a group.

    The products of an attention only with its projections, see `placement`.

    >>> companions("block0.local.bmm", {"block0.local.qkv": 1, "block0.local.out": 1, "block0.local.bmm": 1})
    ('block0.local.qkv', 'block0.local.out')
    """
    stem, _, part = group.rpartition(".")
    return tuple(name for name in (f"{stem}.qkv", f"{stem}.out") if name in known) if part == "bmm" else ()


def holds(found: PairedComparison, budget: Budget) -> bool:
    """Whether the budget may hold.

    The logits are close, and neither agreement nor drop is refuted (95 %, one-sided).

    A hundred clips cannot prove half a point: one clip is more than that. They can refute; the gate proves, on more.
    """
    reach = Z_95 * math.sqrt(found.agreement * (1.0 - found.agreement) / found.clips)
    return _harm(found) <= RMS_LIMIT and found.agreement + reach >= budget.agreement and found.floor <= budget.drop


def _harm(found: PairedComparison) -> float:
    return math.inf if found.rms_share is None else found.rms_share


def sensitivity_table(found: Sensitivity) -> list[Sequence[str]]:
    """Rows for `terminal.table`: a heading, then the groups."""
    rows: list[Sequence[str]] = [["group", "harm", "agree", "MACs in INT8", "excluded"]]
    for row in found.groups:
        out = "yes" if row.group in found.excluded else ""
        rows.append([row.group, f"{row.harm:.2%}", f"{row.agreement:.1%}", f"{row.share:.2%}", out])
    return rows
