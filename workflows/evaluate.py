"""Score checkpoints on the test splits that they were not trained on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .held_out import require_unseen, without_marks

if TYPE_CHECKING:
    from ..model.data.clips import Progress
    from ..model.training.evaluate import Predictions


@dataclass(frozen=True)
class Evaluation:
    """Answers of checkpoints, with everything needed to repeat them.

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
    views: int | None = None,
    short: str = "former",
    max_damaged: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Answers of a checkpoint on one fold's test split, or of several on a fold each.

    Args:
        checkpoints: folder or `.pt`; several are those of fold 1, 2, ..., and their answers are pooled.
        data: the data set's folder.
        fold: 1 to 5, of a single checkpoint; None takes the one whose test split it has not seen, as it says itself.
        order: of the frames: 'forward', 'reversed' or 'shuffled'.
        views: clips taken of each recording; None takes those of the model's own rule.
        short: see `model.data.listing.Reading`.
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
        require_unseen(Path(checkpoint).name, trained_on, data, here, source)
        answers.append(evaluate(model, numbered_as(source, c.labels), order=order, views=views, progress=progress))
        parts.append(
            {
                "checkpoint": Path(checkpoint).name, "sha256": provenance["sha256"], "fold": here,
                "selected": extra.get("selected"), "recipe": extra.get("recipe"), "trunk": extra.get("trunk"),
                "trained_on": without_marks(trained_on) or None, "clips": len(source),
                "list_sha256": source.fingerprint, "dropped": list(source.dropped),
                "damaged": sorted(os.path.relpath(name, data) for name in source.damaged),
            }
        )  # fmt: skip
    return Evaluation(pool(answers), tuple(parts))


def write_evaluation(
    evaluation: Evaluation,
    out: str | os.PathLike[str],
    call: Mapping[str, Any],
    *,
    plane: tuple[str | os.PathLike[str], str | os.PathLike[str], str, int] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Writes `result.json`, `confusion.svg`, and with `plane` `features.svg`.

    Args:
        evaluation: of `evaluate_on`.
        out: the folder; files of an older evaluation there are replaced.
        call: the call, as JSON values: with it and the files' hashes everything can be repeated.
        plane: (the first checkpoint, data set, `short`, `max_damaged`) whose features are to be drawn by t-SNE.
        progress: called with (stage, done, total).

    Raises:
        MachineError: matplotlib or scikit-learn is missing, or the disk is full.
    """
    import numpy as np

    from ..benchmarks.sensors.machine import read_machine
    from ..bundle.files import dump_json, write_atomic
    from .pictures import confusion_svg, plane_svg, tsne

    folder, answers = Path(out), evaluation.answers
    result: dict[str, Any] = {
        "call": dict(call),
        "parts": list(evaluation.parts),
        "machine": asdict(read_machine()),
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
        from ..model.training.metrics import spread

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
