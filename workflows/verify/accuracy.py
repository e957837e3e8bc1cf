"""The accuracy gate on held-out clips: FP16 and INT8 against FP32.

The rounding reference answers, and each backend for itself.

Several bundles, one of each fold, are judged as one: their answers are pooled before anything is counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...bundle import MIXED, Bundle, require_changeable
from ...errors import UsageError, command
from ..held_out import require_judge
from .backends import Runtimes, clip_answers, open_backends, pair_answers
from .record import AccuracyReport, record_accuracy

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ...calibration.gate import Budget, Evaluate, HeldOut
    from ...calibration.paired import PairedComparison
    from ...model.data.clips import ClipSource, Progress

    Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class JudgedClips:
    """A bundle and the clips that judge it.

    Attributes:
        bundle: with FP16, INT8 or both beside FP32.
        source: labelled clips that the model was not trained on.
        indices: which of them.
    """

    bundle: Bundle
    source: ClipSource
    indices: Sequence[int]


def judge_on_data(
    path: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    fold: int = 1,
    budget_points: float | None = None,
    write: bool = True,
    progress: Progress | None = None,
) -> AccuracyReport:
    """Runs the accuracy gate on the test split of one fold of a data set.

    Args:
        path: the bundle.
        data: the data set's folder.
        fold: 1 to 5.
        budget_points: of UAR, for every precision; None: 0.5 for FP16, 1 for INT8.
        write: record the verdicts in the manifest; `load(precision="verdict")` follows them.
        progress: called with (stage, done, total).

    Raises:
        UsageError: the bundle has nothing but FP32, or was trained or calibrated on these clips.
        BadInputError: the data set cannot be read.
        MachineError: the manifest may not be written.
    """
    from ...model.data.datasets import clips_for

    bundle = Bundle(path)
    if write:
        require_changeable(bundle)
    words = ["logoformer", "verify", bundle.path.name, "--accuracy", "--data", Path(data).name, "--fold", str(fold)]
    if budget_points is not None:
        words += ["--budget", f"{budget_points:g}"]
    source = clips_for(data, "test", fold, bundle.image_size, bundle.labels)
    require_judge(bundle, data, fold, source, progress)
    report = judge_accuracy(
        bundle,
        source,
        range(len(source)),
        named=f"{Path(data).name}, fold {fold}, test split",
        reproduce=command(*words),
        budget_points=budget_points,
        progress=progress,
    )
    if write:
        record_accuracy(bundle, report)
    return report


def judge_accuracy(
    bundle: Bundle,
    source: ClipSource,
    indices: Sequence[int],
    *,
    named: str,
    reproduce: str,
    budget_points: float | None = None,
    progress: Progress | None = None,
) -> AccuracyReport:
    """Runs the accuracy gate on any clip source, by the reference and by each backend.

    Nothing is written.

    Args:
        bundle: with FP16, INT8 or both beside FP32.
        source: labelled clips that the model was not trained on.
        indices: which of them.
        named: what to call the source.
        reproduce: the command that gives this report again.
        budget_points: see `judge_on_data`.
        progress: called with (stage, done, total).
    """
    judged = [JudgedClips(bundle, source, indices)]
    return judge_together(judged, named=named, reproduce=reproduce, budget_points=budget_points, progress=progress)


def judge_together(
    judged: Sequence[JudgedClips],
    *,
    named: str,
    reproduce: str,
    budget_points: float | None = None,
    progress: Progress | None = None,
) -> AccuracyReport:
    """Runs the accuracy gate on several bundles as one, each on clips of its own.

    Nothing is written.

    Args:
        judged: bundles of the same classes, sampling and precisions.
        named: what to call the clips.
        reproduce: the command that gives this report again.
        budget_points: see `judge_on_data`.
        progress: called with (stage, done, total).
    """
    from ...calibration.gate import ACCEPT, BUDGETS, judge_precision
    from ...calibration.paired import compare_answers
    from ...export.reference import NAME

    first = judged[0].bundle
    others, labels = other_precisions(first), first.labels
    budgets: dict[str, Budget] = dict(BUDGETS)
    if budget_points is not None:
        budgets = {name: replace(budget, drop=budget_points / 100) for name, budget in budgets.items()}
    evaluators: dict[tuple[str, str], str] = {}

    def by_all(bundle: Bundle, opened: Runtimes) -> dict[str, Evaluate]:
        evaluators.update({key: runtime.backend for key, runtime in opened.items()})
        own = {f"{name} on {backend}": clip_answers(runtime) for (backend, name), runtime in opened.items()}
        return {**{name: clip_evaluator(bundle, name) for name in ("fp32", *others)}, **own}

    found = _answers(judged, by_all, others, progress)

    def judge(answers: Floats, name: str) -> dict[str, Any]:
        result = compare_answers(found.answers["fp32"], answers, found.labels, found.ids)
        given = judge_precision(result, budgets[name], name, _excluded(judged, name), labels)
        if found.copies:
            copies = (
                f"{found.copies} more clips have pixels and class of one of these: they are copies and do not count"
            )
            given = replace(given, reason=f"{given.reason}; {copies}")
        limits = {"budget_points": 100 * budgets[name].drop, "least_agreement": budgets[name].agreement}
        return {**asdict(given), **limits, **_figures(result, labels)}

    rows = {name: judge(found.answers[name], name) for name in others}
    whole = rows.get("int8", {})
    if whole and not whole["verdict"].startswith(ACCEPT) and _fp16_stands(judged, rows):
        whole.update(_per_graph(judged, found, budgets["int8"], whole, progress))
    backends = [
        {"precision": name, "backend": backend, "evaluator": evaluator,
         **judge(found.answers[f"{name} on {backend}"], name)}
        for (backend, name), evaluator in evaluators.items()
    ]  # fmt: skip
    if chosen := dict(whole.get("graphs", {})):
        after = _answers(judged, lambda _, opened: _mixture_answers(opened, chosen), others, progress).answers
        backends += [
            {"precision": MIXED, "backend": backend, "evaluator": evaluators[backend, "int8"],
             **judge(answers, "int8"), "graphs": chosen}
            for backend, answers in after.items()
        ]  # fmt: skip
    counts = {label: int((found.labels == index).sum()) for index, label in enumerate(labels)}
    return AccuracyReport(
        bundle=str(first.path),
        evaluator=NAME,
        source={"name": named, "clips": len(found.ids), "per_class": counts, "sha256": found.sha256}
        | ({"copies": found.copies} if found.copies else {}),
        command=reproduce,
        uar=rows[others[0]]["uar_before"],
        war=rows[others[0]]["war_before"],
        precisions=rows,
        backends=tuple(backends),
        together=tuple(str(one.bundle.path) for one in judged) if len(judged) > 1 else (),
    )


def _answers(
    judged: Sequence[JudgedClips],
    evaluators: Callable[[Bundle, Runtimes], Mapping[str, Evaluate]],
    precisions: Sequence[str],
    progress: Progress | None,
) -> HeldOut:
    """Answers of each bundle to its own clips, joined; one bundle is open at a time."""
    from ...calibration.gate import answer, joined

    parts = []
    for one in judged:
        with open_backends(one.bundle, precisions) as opened:
            given = evaluators(one.bundle, opened)
            parts.append(answer(given, one.source, one.bundle.sampling, one.indices, progress))
    return joined(parts)


def _excluded(judged: Sequence[JudgedClips], precision: str) -> list[str]:
    """Groups of layers that were left in FP16 in any of the bundles."""
    return sorted({group for one in judged for group in one.bundle.precisions[precision].get("excluded", ())})


def _mixture_answers(opened: Runtimes, graphs: Mapping[str, str]) -> dict[str, Evaluate]:
    """The streaming pair of a mixture, by backend."""
    backends = dict.fromkeys(backend for backend, _ in opened)
    return {b: pair_answers(opened[b, graphs["frame"]], opened[b, graphs["temporal"]]) for b in backends}


def _fp16_stands(judged: Sequence[JudgedClips], rows: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether FP16 is accepted, by this gate or, where it has too few clips, by the export."""
    from ...calibration.gate import ACCEPT, INSUFFICIENT

    given = rows.get("fp16", {}).get("verdict")
    exported = all(one.bundle.precisions["fp16"].get("verdict") == ACCEPT for one in judged)
    return given == ACCEPT or (given == INSUFFICIENT and exported)


def _per_graph(
    judged: Sequence[JudgedClips],
    before: HeldOut,
    budget: Budget,
    row: Mapping[str, Any],
    progress: Progress | None,
) -> dict[str, Any]:
    """Judges INT8 in one graph of the pair and FP16 in the other, on the same clips.

    Returns:
        What changes in the row of INT8: nothing, or the mixed verdict, the precision of each graph, and the figures.
    """
    from ...calibration.gate import ACCEPT, MIXED, WITH_EXCLUSIONS, can_prove, judge_precision
    from ...calibration.paired import compare_answers

    first = judged[0].bundle
    if not can_prove([int((before.labels == label).sum()) for label in range(len(first.labels))], budget.drop):
        return {}
    # Of two that both hold, the one that saves more.
    graphs = sorted(("frame", "temporal"), key=lambda name: -first.graph(name, "int8").macs.get("int8", 0))
    pairs = {name: {"clip": "fp16", "frame": "fp16", "temporal": "fp16", name: "int8"} for name in graphs}

    def by_pairs(bundle: Bundle, _: Runtimes) -> dict[str, Evaluate]:
        return {name: pair_evaluator(bundle, p["frame"], p["temporal"]) for name, p in pairs.items()}

    after = _answers(judged, by_pairs, (), progress).answers
    for name, pair in pairs.items():
        result = compare_answers(before.answers["fp32"], after[name], before.labels, before.ids)
        alone = judge_precision(result, budget, "int8", _excluded(judged, "int8"), first.labels)
        if alone.verdict in (ACCEPT, WITH_EXCLUSIONS):
            reason = f"{name} alone in INT8: {alone.reason}. All of INT8: {row['verdict']}, {row['reason']}"
            return {**_figures(result, first.labels), "verdict": MIXED, "reason": reason, "graphs": pair}
    return {}


def other_precisions(bundle: Bundle) -> list[str]:
    """The precisions beside FP32.

    Raises:
        UsageError: there are none.
    """
    others: list[str] = [name for name in ("fp16", "int8") if name in bundle.precisions]
    if not others:
        raise UsageError(
            f"{bundle.path} has no precision but fp32: there is nothing to compare.",
            next=command("logoformer", "export", "CHECKPOINT", "-o", bundle.path),
        )
    return others


def _figures(result: PairedComparison, labels: Sequence[str]) -> dict[str, Any]:
    """As JSON values, the worst clips with the names of the classes."""
    figures = asdict(result)
    for clip in figures["worst"]:
        clip["after"] = labels[clip["after"]] if clip["after"] >= 0 else "not finite"
        clip["label"], clip["before"] = labels[clip["label"]], labels[clip["before"]]
    return figures


def clip_evaluator(bundle: Bundle, precision: str) -> Evaluate:
    """The bundle's own clip graph by the rounding reference: clips to probabilities."""
    from ...export.entries import read_model
    from ...export.parity import RoundingClip

    return RoundingClip(read_model(bundle, "clip", precision)).answers


def pair_evaluator(bundle: Bundle, frame: str, temporal: str) -> Evaluate:
    """The bundle's own `frame` and `temporal`, each in its precision, by the rounding reference."""
    from ...export.entries import read_model
    from ...export.parity import RoundingPair

    models = read_model(bundle, "frame", frame), read_model(bundle, "temporal", temporal)
    return RoundingPair(*models, bundle.stream).answers
