"""Verbs that need more than one room: which clips go into which training, score or export."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LogoformerError, RefusedError, UsageError

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..export.exporter import ExportConfig
    from ..model.data.listing import ListedClips
    from ..model.training.evaluate import Predictions
    from ..model.training.log import LogOptions
    from ..model.training.recipe import TrainConfig
    from ..model.training.train import Start, TrainResult
    from .quantize import Calibration

Progress = Callable[[str, int, int], None]


def train_on(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    preset_name: str,
    config: TrainConfig,
    *,
    attention: str | None = None,
    fold: int = 1,
    start: Start | None = None,
    short: str = "former",
    max_damaged: int = 0,
    logs: LogOptions | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Trains a preset on one fold of a data set and scores it on the fold's test split.

    Args:
        data: the data set's folder.
        out: the checkpoint's folder.
        preset_name: of the architecture.
        config: the recipe.
        attention: of the blocks; None leaves the preset's.
        fold: 1 to 5.
        start: what it begins from.
        short: see `model.listing.Reading`.
        max_damaged: see there.
        logs: where figures go while it runs, beside the log.
        progress: called with (stage, done, total).
    """
    from ..model.data.clips import CachedClips
    from ..model.data.datasets import open_clips
    from ..model.data.listing import Reading
    from ..model.networks.config import preset
    from ..model.training.train import train

    model = preset(preset_name, attention)
    reading = Reading(model.image_size, short, model.frames, max_damaged)
    learning = open_clips(data, "train", fold, reading)
    held_out = open_clips(data, "test", fold, reading)
    model = model.with_labels(learning.labels)

    def read() -> dict[str, Any]:
        return {
            "data": Path(data).name, "fold": fold, "short": short, "max_damaged": max_damaged,
            "train_clips": len(learning), "test_clips": len(held_out),
            "train_list": learning.fingerprint, "test_list": held_out.fingerprint,
            "dropped": [len(learning.dropped), len(held_out.dropped)],
            "damaged": sorted({os.path.relpath(name, data) for one in (learning, held_out) for name in one.damaged}),
        }  # fmt: skip

    return train(
        config,
        model,
        CachedClips(learning),
        held_out,
        out,
        progress,
        start=start,
        logs=logs,
        reading=read,
    )


@dataclass(frozen=True)
class Evaluation:
    """What checkpoints answered, and what one must know to ask them again.

    Attributes:
        answers: on all clips.
        parts: of each checkpoint, as JSON values: hash of its weights, how they were chosen, recipe, what it was
            trained on, which fold was read, hash of that list, clips that were left out, frames that could not be read.
    """

    answers: Predictions
    parts: tuple[dict[str, Any], ...]


def evaluate_on(
    checkpoints: Sequence[str | os.PathLike[str]],
    data: str | os.PathLike[str],
    *,
    fold: int | None = None,
    order: str = "forward",
    views: int = 1,
    short: str = "former",
    max_damaged: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Answers of a checkpoint on the test split of one fold, or of five on the folds that each was not trained on.

    Args:
        checkpoints: folder or `.pt`; several are those of fold 1, 2, ..., and their answers are pooled.
        data: the data set's folder.
        fold: 1 to 5, of a single checkpoint; None takes the one whose test split it has not seen, as it says itself.
        order: of the frames: 'forward', 'reversed' or 'shuffled'.
        views: clips taken of each recording.
        short: see `model.listing.Reading`.
        max_damaged: see there.
        progress: called with (stage, done, total).

    Raises:
        RefusedError: a checkpoint was trained on clips that it is to be scored on.
        UsageError: several checkpoints and one fold.
    """
    from ..model.checkpoint import load_checkpoint
    from ..model.data.datasets import open_clips
    from ..model.data.listing import Reading, numbered_as
    from ..model.training.evaluate import evaluate, pool

    if fold is not None and len(checkpoints) > 1:
        raise UsageError(
            f"{len(checkpoints)} checkpoints are those of folds 1 to {len(checkpoints)}; --fold {fold} is for one.",
            next="leave --fold out",
        )
    answers, parts = [], []
    for number, checkpoint in enumerate(checkpoints, start=1):
        model, provenance = load_checkpoint(checkpoint)
        c, extra = model.config, provenance["extra"] if isinstance(provenance["extra"], dict) else {}
        trained_on = extra.get("reading")
        trained_on = trained_on if isinstance(trained_on, dict) else {}
        here = number if len(checkpoints) > 1 else fold or trained_on.get("fold") or 1
        source = open_clips(data, "test", here, Reading(c.image_size, short, c.frames, max_damaged))
        _not_seen_in_training(Path(checkpoint).name, trained_on, data, here, source)
        answers.append(evaluate(model, numbered_as(source, c.labels), order=order, views=views, progress=progress))
        parts.append(
            {
                "checkpoint": Path(checkpoint).name, "sha256": provenance["sha256"], "fold": here,
                "selected": extra.get("selected"), "recipe": extra.get("recipe"), "trunk": extra.get("trunk"),
                "trained_on": trained_on or None, "clips": len(source), "list_sha256": source.fingerprint,
                "dropped": list(source.dropped),
                "damaged": sorted(os.path.relpath(name, data) for name in source.damaged),
            }
        )  # fmt: skip
    return Evaluation(pool(answers), tuple(parts))


def _not_seen_in_training(
    shown: str, trained_on: Mapping[str, Any], data: str | os.PathLike[str], fold: int, source: ListedClips
) -> None:
    """Refuses a fold whose test clips the checkpoint learned from: such a score looks right and means nothing.

    Raises:
        RefusedError: the checkpoint's training list is one of this data set, and clips of the fold stand in it.
    """
    from ..model.data.datasets import open_listing

    own = trained_on.get("fold")
    if own is None or own == fold or not trained_on.get("train_list"):
        return
    try:
        learned = open_listing(data, "train", own)
    except LogoformerError:  # a data set without that fold is another one
        return
    if learned.fingerprint() != trained_on["train_list"]:
        return
    seen = {entry.name for entry in learned.entries}.intersection(source.clip_id(index) for index in range(len(source)))
    if seen:
        raise RefusedError(
            f"{shown} was trained on fold {own}; {len(seen)} of the {len(source)} test clips of fold {fold} are "
            "training clips of its own.",
            cause="checkpoints in another order than their folds, or --fold of another one",
            next=f"score it with --fold {own}; several in the order of their folds",
        )


def write_evaluation(
    evaluation: Evaluation,
    out: str | os.PathLike[str],
    call: Mapping[str, Any],
    *,
    plane: tuple[str | os.PathLike[str], str | os.PathLike[str], str, int] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Writes what an evaluation found: `result.json`, `confusion.svg`, and with `plane` `features.svg`.

    Args:
        evaluation: what was found.
        out: the folder; files of an older evaluation there are replaced.
        call: the call, as JSON values: with it and the files' hashes everything can be repeated.
        plane: (the first checkpoint, data set, `short`, `max_damaged`) whose features are to be drawn by t-SNE.
        progress: called with (stage, done, total).

    Raises:
        MachineError: scikit-learn is missing, or the disk is full.
    """
    import numpy as np

    from ..benchmarks.sensors.machine import read_machine
    from ..bundle.files import dump_json, write_atomic
    from ..model.training.pictures import confusion_svg, plane_svg, spread, tsne

    folder, answers = Path(out), evaluation.answers
    result: dict[str, Any] = {
        "call": dict(call),
        "parts": list(evaluation.parts),
        "machine": read_machine().to_json(),
        "classes": list(answers.classes),
        "metrics": answers.metrics().to_json(),
        "clips": [
            {
                "clip": name,
                "label": int(label),
                "answer": int(row.argmax()),
                "scores": [round(float(s), 6) for s in row],
            }
            for name, label, row in zip(answers.ids, answers.labels, answers.scores, strict=True)
        ],
    }
    if plane is not None:
        from ..model.checkpoint import load_checkpoint
        from ..model.data.datasets import open_clips
        from ..model.data.listing import Reading, numbered_as
        from ..model.training.evaluate import features_of

        model, _ = load_checkpoint(plane[0])
        first, c = evaluation.parts[0], model.config
        clips = open_clips(plane[1], "test", first["fold"], Reading(c.image_size, plane[2], c.frames, plane[3]))
        source = numbered_as(clips, c.labels)
        features = features_of(model, source, progress)
        labels = np.array([source.label(i) for i in range(len(source))], np.int64)
        result["features_of"] = {"checkpoint": first["checkpoint"], "fold": first["fold"]}
        result["feature_spread"] = spread(features, labels)
        write_atomic(folder / "features.svg", plane_svg(source.labels, labels, tsne(features)).encode())
    write_atomic(folder / "confusion.svg", confusion_svg(answers.classes, answers.confusion()).encode())
    write_atomic(folder / "result.json", dump_json(result))
    return folder / "result.json"


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
    calibration: Calibration | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Exports a checkpoint; ranges, parity and golden answers are taken on synthetic faces unless a data set is given.

    Args:
        checkpoint: folder or `.pt`.
        out: the bundle; None puts it beside the checkpoint.
        config: what to export.
        data: a data set, whose training split stands for the camera.
        fold: 1 to 5.
        clips: how many.
        seed: of their choice.
        share_clips: store clips of `data` in the bundle.
        calibration: adds INT8; None leaves it out. A set that is refused is refused before anything is exported.
        progress: called with (stage, done, total).
    """
    from ..export.exporter import RealClips, default_out, export_bundle
    from ..model.checkpoint import load_checkpoint

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
    target = default_out(checkpoint) if out is None else Path(out)
    bundle = export_bundle(
        model, target, real, config, provenance=provenance, share_clips=share_clips, progress=progress
    )
    if calibration is None or calibrating is None:
        return bundle
    from .quantize import quantize_bundle

    return quantize_bundle(bundle.path, calibrating, calibration, progress)


def export_summary(bundle: Bundle) -> dict[str, Any]:
    """What an export made, as JSON values."""
    return {
        "bundle": str(bundle.path),
        "digest": bundle.manifest["digest"],
        "precisions": {name: {"verdict": p["verdict"], "reason": p["reason"]} for name, p in bundle.precisions.items()},
        "graphs": [{"file": g.file, "size": g.size, "macs": dict(g.macs)} for g in bundle.graphs],
    }
