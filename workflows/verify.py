"""Comparison of FP16 and INT8 with FP32: verdicts on held-out clips, and layer by layer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bundle import MIXED, Bundle, replace_manifest
from ..errors import UsageError, command
from .quantize import unverified

if TYPE_CHECKING:
    from ..calibration.gate import Budget, Evaluate, HeldOut
    from ..calibration.paired import PairedComparison
    from ..export.layers import LayerReport
    from ..model.data.clips import ClipSource, Progress


@dataclass(frozen=True)
class AccuracyReport:
    """Verdicts of the accuracy gate.

    Attributes:
        bundle: its path.
        evaluator: who computed the answers.
        source: where the clips come from, their count and the hash of their pixels.
        command: what reproduces it.
        uar, war: of FP32.
        precisions: by name: verdict, reason, budget, and the comparison with FP32.
    """

    bundle: str
    evaluator: str
    source: Mapping[str, Any]
    command: str
    uar: float
    war: float
    precisions: Mapping[str, Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


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
        budget_points: of UAR, for every precision; None: 0.2 for FP16, 0.5 for INT8.
        write: record the verdicts in the manifest; `load(precision="verdict")` follows them.
        progress: called with (stage, done, total).

    Raises:
        UsageError: the bundle has nothing but FP32.
        BadInputError: the data set cannot be read.
        MachineError: the manifest may not be written.
    """
    from ..model.data.datasets import clips_for

    bundle = Bundle(path)
    words = ["logoformer", "verify", bundle.path.name, "--accuracy", "--data", Path(data).name, "--fold", str(fold)]
    if budget_points is not None:
        words += ["--budget", f"{budget_points:g}"]
    source = clips_for(data, "test", fold, bundle.image_size, bundle.labels)
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
    """Runs the accuracy gate on any clip source; nothing is written.

    Args:
        bundle: with FP16, INT8 or both beside FP32.
        source: labelled clips that the model was not trained on.
        indices: which of them.
        named: what to call the source.
        reproduce: the command that gives this report again.
        budget_points: see `judge_on_data`.
        progress: called with (stage, done, total).
    """
    from ..calibration.gate import ACCEPT, BUDGETS, answer, judge_precision
    from ..calibration.paired import compare_answers
    from ..export.reference import NAME

    others = other_precisions(bundle)
    budgets: dict[str, Budget] = dict(BUDGETS)
    if budget_points is not None:
        budgets = {name: replace(budget, drop=budget_points / 100) for name, budget in budgets.items()}
    evaluators = {name: clip_evaluator(bundle, name) for name in ("fp32", *others)}
    found = answer(evaluators, source, bundle.sampling, indices, progress)
    rows: dict[str, dict[str, Any]] = {}
    for name in others:
        result = compare_answers(found.answers["fp32"], found.answers[name], found.labels, found.ids)
        judgement = judge_precision(result, budgets[name], name, bundle.precisions[name].get("excluded", ()))
        rows[name] = {
            **asdict(judgement),
            "budget_points": 100 * budgets[name].drop,
            "least_agreement": budgets[name].agreement,
            **_figures(result, bundle.labels),
        }
    if "int8" in rows and not rows["int8"]["verdict"].startswith(ACCEPT) and _fp16_stands(bundle, rows):
        rows["int8"].update(_per_graph(bundle, source, indices, found, budgets["int8"], rows["int8"], progress))
    first = rows[others[0]]
    counts = {label: int((found.labels == index).sum()) for index, label in enumerate(bundle.labels)}
    return AccuracyReport(
        bundle=str(bundle.path),
        evaluator=NAME,
        source={"name": named, "clips": len(found.ids), "per_class": counts, "sha256": found.sha256},
        command=reproduce,
        uar=first["uar_before"],
        war=first["war_before"],
        precisions=rows,
    )


def _fp16_stands(bundle: Bundle, rows: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether FP16 is accepted, by this gate or, where it has too few clips, by the export."""
    from ..calibration.gate import ACCEPT, INSUFFICIENT

    given = rows.get("fp16", {}).get("verdict")
    return given == ACCEPT or (given == INSUFFICIENT and bundle.precisions["fp16"].get("verdict") == ACCEPT)


def _per_graph(
    bundle: Bundle,
    source: ClipSource,
    indices: Sequence[int],
    before: HeldOut,
    budget: Budget,
    row: Mapping[str, Any],
    progress: Progress | None,
) -> dict[str, Any]:
    """Judges INT8 in one graph of the pair and FP16 in the other, on the same clips.

    Returns:
        What changes in the row of INT8: nothing, or the mixed verdict, the precision of each graph, and the figures.
    """
    from ..calibration.gate import ACCEPT, MIXED, WITH_EXCLUSIONS, answer, clips_needed, judge_precision
    from ..calibration.paired import compare_answers

    if len(before.ids) < clips_needed(budget.drop):
        return {}
    # Of two that both hold, the one that saves more.
    graphs = sorted(("frame", "temporal"), key=lambda name: -bundle.graph(name, "int8").macs.get("int8", 0))
    pairs = {name: {"clip": "fp16", "frame": "fp16", "temporal": "fp16", name: "int8"} for name in graphs}
    evaluators = {name: pair_evaluator(bundle, p["frame"], p["temporal"]) for name, p in pairs.items()}
    after = answer(evaluators, source, bundle.sampling, indices, progress).answers
    excluded = bundle.precisions["int8"].get("excluded", ())
    for name, pair in pairs.items():
        result = compare_answers(before.answers["fp32"], after[name], before.labels, before.ids)
        alone = judge_precision(result, budget, "int8", excluded)
        if alone.verdict in (ACCEPT, WITH_EXCLUSIONS):
            reason = f"{name} alone in INT8: {alone.reason}. All of INT8: {row['verdict']}, {row['reason']}"
            return {**_figures(result, bundle.labels), "verdict": MIXED, "reason": reason, "graphs": pair}
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
    from ..export.entries import read_model
    from ..export.parity import RoundingClip

    return RoundingClip(read_model(bundle, "clip", precision)).answers


def pair_evaluator(bundle: Bundle, frame: str, temporal: str) -> Evaluate:
    """The bundle's own `frame` and `temporal`, each in its precision, by the rounding reference."""
    from ..export.entries import read_model
    from ..export.parity import RoundingPair

    models = read_model(bundle, "frame", frame), read_model(bundle, "temporal", temporal)
    return RoundingPair(*models, bundle.stream).answers


def record_accuracy(bundle: Bundle, report: AccuracyReport) -> Bundle:
    """Writes the verdicts into the manifest.

    FP16 that the export's parity accepted stays accepted where there are too few clips to say more; INT8 does not.

    Raises:
        MachineError: it may not be written.
    """
    from ..calibration.gate import INSUFFICIENT

    shared = {"evaluator": report.evaluator, "source": dict(report.source), "command": report.command}
    precisions = {name: dict(entry) for name, entry in bundle.precisions.items()}
    precisions["fp32"]["accuracy"] = {**shared, "uar": report.uar, "war": report.war}
    for name, row in report.precisions.items():
        precisions[name]["accuracy"] = {**shared, **row}
        if name == "int8" or row["verdict"] != INSUFFICIENT:
            precisions[name].update(verdict=row["verdict"], reason=row["reason"])
            precisions[name].pop("graphs", None)
            if "graphs" in row:
                precisions[name]["graphs"] = dict(row["graphs"])
    another = bundle.mixture and precisions["int8"].get("graphs") != bundle.mixture
    manifest = unverified(bundle.manifest, MIXED) if another else bundle.manifest
    return replace_manifest(bundle, {**manifest, "precisions": precisions})


def accuracy_rows(report: AccuracyReport) -> list[list[str]]:
    """The table: a heading, FP32, then each precision."""
    rows = [["precision", "UAR", "WAR", "drop at most", "agree", "lost", "gained", "McNemar p", "verdict"]]
    rows.append(["fp32", f"{report.uar:.4f}", f"{report.war:.4f}", "", "", "", "", "", ""])
    for name, r in report.precisions.items():
        rows.append(
            [name, f"{r['uar']:.4f}", f"{r['war']:.4f}", f"{100 * r['bound']:.2f} points", f"{r['agreement']:.2%}",
             str(r["lost"]), str(r["gained"]), f"{r['mcnemar_p']:.3g}", str(r["verdict"])]
        )  # fmt: skip
    return rows


# --------------------------------------------------------------------------------------------------------------- layers
def explain_layers(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    clips: int = 2,
    progress: Progress | None = None,
) -> list[LayerReport]:
    """Compares every layer of the clip graph in FP16 and INT8 with FP32, on golden clips.

    Args:
        path: the bundle.
        out: folder for `layers.<precision>.json` and `.svg`.
        clips: golden clips that are run.
        progress: called with (stage, done, total).

    Raises:
        UsageError: the bundle has nothing but FP32.
        MachineError: Polygraphy is not installed.
    """
    from ..bundle.files import dump_json, write_atomic
    from ..export.entries import read_model
    from ..export.layers import compare_layers
    from .pictures import bars_svg

    note = progress or (lambda *_: None)
    bundle = Bundle(path)
    feeds = [{"clip": clip[None]} for clip in bundle.golden().clips[:clips]]
    others = other_precisions(bundle)
    fp32 = read_model(bundle, "clip", "fp32")
    reports = []
    for done, precision in enumerate(others):
        note("compare layers", done, len(others))
        report = compare_layers("clip", precision, fp32, read_model(bundle, "clip", precision), feeds)
        reports.append(report)
        title = f"clip in {precision}: relative error of each layer against FP32, {report.clips} clips"
        rows = [(item.layer, item.error, item.error > report.threshold) for item in report.layers]
        picture = bars_svg(title, rows, marked=f"red: above {report.threshold:.0%}")
        write_atomic(Path(out) / f"layers.{precision}.json", dump_json(report.to_json()))
        write_atomic(Path(out) / f"layers.{precision}.svg", picture.encode())
    note("compare layers", len(others), len(others))
    return reports
