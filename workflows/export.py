"""Export a checkpoint to a bundle: which clips give the ranges, parity and golden answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..export.exporter import ExportConfig
    from ..model.data.clips import Progress
    from .quantize import Calibration


def export_checkpoint(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str] | None,
    config: ExportConfig,
    *,
    data: str | os.PathLike[str] | None = None,
    fold: int = 1,
    clips: int = 32,
    seed: int = 0,
    share_clips: bool = False,
    align_from: str | os.PathLike[str] | None = None,
    calibration: Calibration | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Exports a checkpoint, and quantizes it where a calibration is given.

    Ranges, parity and golden answers are taken on synthetic faces unless a data set is given.

    Args:
        checkpoint: folder or `.pt`.
        out: the bundle; None puts it beside the checkpoint.
        config: what to export.
        data: a data set, whose training split stands for the camera.
        fold: 1 to 5.
        clips: how many.
        seed: of their choice.
        share_clips: store clips of `data` in the bundle.
        align_from: the crops that the model was trained on, which show where eyes and mouth have to lie; None: `data`.
            Without either the bundle's alignment is a stated default.
        calibration: adds INT8; None leaves it out. A set that is refused is refused before anything is exported.
        progress: called with (stage, done, total).
    """
    from ..bundle.writer import require_bundle_place

    named = Path(checkpoint) if Path(checkpoint).name not in ("", "..") else Path(checkpoint).resolve()
    target = f"{named}".removesuffix(".pt") + ".bundle" if out is None else out
    require_bundle_place(target)
    from ..export.exporter import RealClips, export_bundle
    from ..model.checkpoint import load_checkpoint
    from .alignment import alignment_for

    model, provenance = load_checkpoint(checkpoint)
    c = model.config
    calibrating = calibration.choose(c.sampling, c.image_size, progress) if calibration is not None else None
    if data is None:
        from ..model.synthetic.recordings import synthetic_clips

        drawn, _, _ = synthetic_clips(clips, c.sampling, c.image_size, seed)
        real = RealClips(drawn, f"synthetic faces, seed {seed}", synthetic=True)
    else:
        from ..calibration.choose import choose
        from ..model.data.datasets import open_clips
        from ..model.data.listing import Reading

        chosen = choose(open_clips(data, "train", fold, Reading(c.image_size)), c.sampling, clips, seed, progress)
        real = RealClips(chosen.clips, f"{Path(data).name}, fold {fold}, training split, seed {seed}", synthetic=False)
    alignment = alignment_for(data, align_from, fold, seed=seed, progress=progress)
    bundle = export_bundle(
        model,
        target,
        real,
        config,
        alignment=alignment,
        provenance=provenance,
        share_clips=share_clips,
        progress=progress,
    )
    if calibration is None or calibrating is None:
        return bundle
    from .quantize import quantize_bundle

    return quantize_bundle(bundle.path, calibrating, calibration, progress)


def export_summary(bundle: Bundle) -> dict[str, Any]:
    """Digest, verdicts and graphs of an exported bundle, as JSON values."""
    return {
        "bundle": str(bundle.path),
        "digest": bundle.manifest["digest"],
        "alignment": bundle.manifest.get("alignment"),
        "precisions": {name: {"verdict": p["verdict"], "reason": p["reason"]} for name, p in bundle.precisions.items()},
        "graphs": [{"file": g.file, "size": g.size, "macs": dict(g.macs)} for g in bundle.graphs],
    }
