"""Train a preset on one fold of a data set."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..model.data.clips import Progress
    from ..model.training.log import LogOptions
    from ..model.training.recipe import TrainConfig
    from ..model.training.train import Start, TrainResult


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
        short: see `model.data.listing.Reading`.
        max_damaged: see there.
        logs: where figures go while it runs, beside the log.
        progress: called with (stage, done, total).
    """
    from ..model.checkpoint import check_replaceable
    from ..model.data.clips import CachedClips
    from ..model.data.datasets import open_clips
    from ..model.data.listing import Reading
    from ..model.networks.configs import preset
    from ..model.training.log import check_log
    from ..model.training.train import train
    from .held_out import MARKS, clip_marks, without_marks

    check_replaceable(out)  # before the data are read
    check_log(out)
    model = preset(preset_name, attention)
    reading = Reading(model.image_size, short, model.frames, max_damaged)
    learning = open_clips(data, "train", fold, reading)
    held_out = open_clips(data, "test", fold, reading)
    model = replace(model, labels=learning.labels)

    def read() -> dict[str, Any]:
        return {
            "data": Path(data).name, "fold": fold, "short": short, "max_damaged": max_damaged,
            "train_clips": len(learning), "test_clips": len(held_out),
            "train_list": learning.fingerprint, "test_list": held_out.fingerprint,
            "dropped": [len(learning.dropped), len(held_out.dropped)],
            "damaged": sorted({os.path.relpath(name, data) for one in (learning, held_out) for name in one.damaged}),
            MARKS: clip_marks(learning),
        }  # fmt: skip

    done = train(
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
    return replace(done, reading=without_marks(done.reading or {}))
