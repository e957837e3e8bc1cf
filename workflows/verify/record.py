"""Verdicts of the accuracy gate: what a report holds, and how bundles keep it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...bundle import MIXED, Bundle, replace_manifest, replace_manifests
from ...bundle.pooled import POOLED, backend_kind, pooled_folds, verdicts_of
from ...bundle.verdicts import with_verdicts, without_verdicts
from ...engine.verify import machine_named


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
        backends: the same of each backend's own answers, against the same FP32: one row a backend and precision.
        together: paths of all bundles that were judged as one, in the order of their folds; empty for one alone.
    """

    bundle: str
    evaluator: str
    source: Mapping[str, Any]
    command: str
    uar: float
    war: float
    precisions: Mapping[str, Mapping[str, Any]]
    backends: tuple[Mapping[str, Any], ...] = ()
    together: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def record_accuracy(bundle: Bundle, report: AccuracyReport) -> Bundle:
    """Writes the verdicts into the manifest: the reference's, and each backend's.

    Where there are too few clips to say more, FP16 that the export's parity accepted stays accepted, and so does what
    stands by the clips of all folds. INT8 without such a verdict does not.

    Raises:
        MachineError: it may not be written.
    """
    return replace_manifest(bundle, _with_accuracy(bundle, report))


def record_together(bundles: Mapping[int, Bundle], report: AccuracyReport) -> list[Bundle]:
    """Writes pooled verdicts into the manifests of all bundles, bound to the indexes of all.

    Two rounds: what stood there before is withdrawn from every bundle before any gets the new one. Whenever this ends,
    no bundle says what another one contradicts.

    Args:
        bundles: by fold.
        report: of all together.

    Raises:
        MachineError: one may not be written, or was changed meanwhile.
    """
    paths = {fold: bundle.path for fold, bundle in bundles.items()}
    manifests = {fold: bundle.manifest for fold, bundle in bundles.items()}
    withdrawn, judged = [], []
    for fold, bundle in bundles.items():
        withdrawn.append(_withdrawn(bundle.manifest, report))
        judged.append(_with_accuracy(bundle, report, pooled_folds(paths, manifests, fold)))
    return replace_manifests(list(bundles.values()), withdrawn, judged)


def _with_accuracy(bundle: Bundle, report: AccuracyReport, pooled: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """A manifest with the verdicts; `pooled` is the field of those that several bundles share."""
    from ...calibration.gate import INSUFFICIENT

    shared: dict[str, Any] = {
        "evaluator": report.evaluator, "source": dict(report.source), "command": report.command
    }  # fmt: skip
    own = {POOLED: list(pooled)} if pooled else {}
    before = verdicts_of(bundle.manifest)

    def says_less(kind: str, row: Mapping[str, Any]) -> bool:
        """A fold's few clips, against a verdict by those of all folds that stands."""
        stands = POOLED in before.get(kind, {}) and kind not in bundle.void
        return not pooled and stands and row["verdict"] == INSUFFICIENT

    precisions = {name: dict(entry) for name, entry in bundle.precisions.items()}
    precisions["fp32"]["accuracy"] = {**shared, "uar": report.uar, "war": report.war}
    for name, row in report.precisions.items():
        if says_less(name, row):
            continue
        precisions[name]["accuracy"] = {**shared, **row}
        if _is_written(name, row):
            _clear(precisions[name])
            precisions[name].update(verdict=row["verdict"], reason=row["reason"], accuracy={**shared, **row}, **own)
            if "graphs" in row:
                precisions[name]["graphs"] = dict(row["graphs"])
    another = bundle.mixture and precisions["int8"].get("graphs") != bundle.mixture
    manifest = without_verdicts(bundle.manifest, MIXED) if another else bundle.manifest
    rows = [
        {**shared, **row, **own}
        for row in report.backends
        if _is_written(row["precision"], row) and not says_less(backend_kind(row["backend"], row["precision"]), row)
    ]
    return {**with_verdicts(manifest, machine_named(), accuracy=rows), "precisions": precisions}


def _withdrawn(manifest: Mapping[str, Any], report: AccuracyReport) -> dict[str, Any]:
    """A manifest without the verdicts that the report will replace."""
    from ...calibration.gate import INSUFFICIENT

    gone = [name for name, row in report.precisions.items() if _is_written(name, row)]
    precisions = {name: dict(entry) for name, entry in manifest["precisions"].items()}
    for name in gone:
        _clear(precisions[name])
        reason = f"its verdict was withdrawn to be pooled over several bundles; if this stays, run: {report.command}"
        precisions[name].update(verdict=INSUFFICIENT, reason=reason)
    found = {**manifest, "precisions": precisions}
    noted = dict(found.get("verification", {}))
    if "accuracy" in noted:
        noted["accuracy"] = [row for row in noted["accuracy"] if row["precision"] not in (*gone, MIXED)]
        found["verification"] = noted
    return found


def _is_written(precision: str, row: Mapping[str, Any]) -> bool:
    """FP16 that the export accepted stays so where there are too few clips to say more."""
    from ...calibration.gate import INSUFFICIENT

    return precision != "fp16" or bool(row["verdict"] != INSUFFICIENT)


def _clear(entry: dict[str, Any]) -> None:
    for name in ("accuracy", "graphs", POOLED):
        entry.pop(name, None)


def accuracy_rows(report: AccuracyReport) -> list[list[str]]:
    """The table: a heading, FP32, each precision by the reference, then by each backend."""
    rows = [["precision", "by", "UAR", "WAR", "drop at most", "agree", "lost", "gained", "McNemar p", "verdict"]]
    rows.append(["fp32", "reference", f"{report.uar:.4f}", f"{report.war:.4f}", "", "", "", "", "", ""])
    judged = [(name, "reference", row) for name, row in report.precisions.items()]
    for name, by, r in [*judged, *((str(r["precision"]), str(r["evaluator"]), r) for r in report.backends)]:
        rows.append(
            [name, by, f"{r['uar']:.4f}", f"{r['war']:.4f}", f"{100 * r['bound']:.2f} points", f"{r['agreement']:.2%}",
             str(r["lost"]), str(r["gained"]), f"{r['mcnemar_p']:.3g}", str(r["verdict"])]
        )  # fmt: skip
    return rows
