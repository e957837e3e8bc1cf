"""Comparison of FP16 and INT8 with FP32, layer by layer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ...bundle import Bundle
from .accuracy import other_precisions

if TYPE_CHECKING:
    from ...export.layers import LayerReport
    from ...model.data.clips import Progress


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
    from ...bundle.files import dump_json, write_atomic
    from ...export.entries import read_fp32_twin, read_model
    from ...export.layers import compare_layers
    from ..pictures import bars_svg

    note = progress or (lambda *_: None)
    bundle = Bundle(path)
    feeds = [{"clip": clip[None]} for clip in bundle.golden().clips[:clips]]
    others = other_precisions(bundle)
    fp32 = read_fp32_twin(bundle, "clip")
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
