"""The accuracy gate over all folds of a data set: five bundles, each on its own clips.

One fold of DFEW has 29 test clips of its smallest class, too few to prove a loss of one point; its five folds together
have 145. A score of DFEW is pooled over the folds as well.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...bundle import Bundle, require_changeable
from ...errors import BadInputError, UsageError, command, one_of
from ..held_out import own_fold, require_judge, trained_on
from .accuracy import JudgedClips, judge_together, other_precisions
from .record import AccuracyReport, record_together

if TYPE_CHECKING:
    from ...model.data.clips import Progress


def judge_on_folds(
    paths: Sequence[str | os.PathLike[str]],
    data: str | os.PathLike[str],
    *,
    budget_points: float | None = None,
    write: bool = True,
    progress: Progress | None = None,
) -> AccuracyReport:
    """Runs the accuracy gate on the test splits of all folds together.

    Each fold's answers are those of its own bundle.

    Args:
        paths: one bundle of each fold. A bundle that says which fold it was trained on is taken for that one; the
            others are taken in the order of the folds that are left.
        data: the data set's folder.
        budget_points: see `judge_on_data`.
        write: record the verdicts in all manifests, or in none.
        progress: called with (stage, done, total).

    Raises:
        UsageError: a fold without a bundle or with two, bundles that differ in more than their training, or one that
            was trained or calibrated on the clips that are to judge it.
        BadInputError: the data set cannot be read, or a clip is in the test splits of two folds.
        MachineError: a manifest may not be written, or was changed meanwhile.
    """
    from ...model.data.datasets import clips_for

    bundles = bundles_by_fold([Bundle(path) for path in paths], data)
    require_alike(list(bundles.values()))
    if write:
        require_changeable(*bundles.values())
    judged = []
    for fold, bundle in bundles.items():
        source = clips_for(data, "test", fold, bundle.image_size, bundle.labels)
        require_judge(bundle, data, fold, source, progress)
        judged.append(JudgedClips(bundle, source, range(len(source))))
    names = Counter(one.source.clip_id(i) for one in judged for i in one.indices)
    if twice := [name for name, times in names.items() if times > 1]:
        raise BadInputError(
            f"{len(twice)} clips of {data} are in the test splits of several folds: {one_of(twice[:4])}.",
            cause="folds that overlap: such clips would count twice",
            next=command("logoformer", "data-check", "--data", data),
        )
    first, *others = (bundle.path.name for bundle in bundles.values())
    budget = ["--budget", f"{budget_points:g}"] if budget_points is not None else []
    report = judge_together(
        judged,
        named=f"{Path(data).name}, folds {', '.join(map(str, bundles))}, test splits",
        reproduce=command(
            "logoformer", "verify", first, *others, "--accuracy", "--data", Path(data).name, "--fold", "all", *budget
        ),
        budget_points=budget_points,
        progress=progress,
    )
    if write:
        record_together(bundles, report)
    return report


def bundles_by_fold(bundles: Sequence[Bundle], data: str | os.PathLike[str]) -> dict[int, Bundle]:
    """The bundle of each fold; see `judge_on_folds`.

    Raises:
        UsageError: a data set without folds, or the bundles are not one of each fold.
    """
    from ...model.data.datasets import find_layout, folds_of

    folds = folds_of(data, layout := find_layout(data))
    if len(folds) == 1:
        raise UsageError(
            f"{data} ({layout}) has one split and no folds to pool.",
            next=command("logoformer", "verify", bundles[0].path, "--accuracy", "--data", data),
        )
    places = Counter(os.path.realpath(bundle.path) for bundle in bundles)
    if repeated := [path for path, times in places.items() if times > 1]:
        raise UsageError(f"{repeated[0]} is named twice; each fold has a bundle of its own.", next=_wanted(data))
    known = [own_fold(trained_on(bundle), data) for bundle in bundles]
    left = iter([fold for fold in folds if fold not in known])
    given = [fold if fold is not None else next(left, 0) for fold in known]
    told = [f"{bundle.path} fold {fold}" for bundle, fold in zip(bundles, given, strict=True) if fold]
    if sorted(given) != list(folds):
        missing = [str(fold) for fold in folds if fold not in given]
        raise UsageError(
            f"--fold all takes {len(folds)} bundles, one of each fold; {len(bundles)} are named"
            + (f", none of fold {', '.join(missing)}." if missing else "."),
            cause="of these: " + "; ".join(told),
            next=_wanted(data),
        )
    return dict(sorted(zip(given, bundles, strict=True), key=lambda pair: pair[0]))


def require_alike(bundles: Sequence[Bundle]) -> None:
    """Refuse bundles that differ in more than their training fold, or not even in that.

    Raises:
        UsageError: says in what, and which.
    """
    first, *others = bundles
    weights = Counter(bundle.graph("clip", "fp32").sha256 for bundle in bundles)
    if max(weights.values()) > 1:
        same = [str(b.path) for b in bundles if weights[b.graph("clip", "fp32").sha256] > 1]
        raise UsageError(
            f"{one_of(same)} hold the same weights: a model that is judged on one fold has learned from the others.",
            cause="copies of one bundle in the place of five trainings",
            next=command("logoformer", "export", "CHECKPOINT", "-o", same[-1]),
        )
    wanted = _made(first)
    for other in others:
        found = _made(other)
        if different := [name for name, value in wanted.items() if found[name] != value]:
            raise UsageError(
                f"{other.path} differs from {first.path} in {one_of(different)}: the answers of two kinds of model "
                "are not one experiment.",
                cause="bundles that were exported or quantized with other options",
                next=command("logoformer", "inspect", other.path),
            )


def _made(bundle: Bundle) -> dict[str, Any]:
    """What bundles of one experiment share."""
    others = other_precisions(bundle)
    m = bundle.manifest
    record = bundle.calibration() if "int8" in others else {}
    return {
        "precisions": others,
        "classes": bundle.labels,
        "network": m.get("model"),
        "preprocessing": m["preprocessing"],
        "sampling": bundle.sampling,
        "settings of INT8": record.get("quantize"),
        "layers left in FP16": {name: bundle.precisions[name].get("excluded") for name in others},
    }


def _wanted(data: str | os.PathLike[str]) -> str:
    named = [f"fold-{fold}.bundle" for fold in range(2, 6)]
    return command("logoformer", "verify", "fold-1.bundle", *named, "--accuracy", "--data", data, "--fold", "all")
