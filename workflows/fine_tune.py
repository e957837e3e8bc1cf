"""Fine-tune a bundle's INT8 graphs: quantization-aware training, filed as new INT8 graphs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..bundle import Bundle, require_changeable
from ..calibration.quantize import QuantizeConfig
from ..errors import BadInputError, command
from .held_out import MARKS, clip_marks, without_marks
from .quantize import equalised, file_int8, load_models

if TYPE_CHECKING:
    from ..calibration.qat import QatConfig
    from ..model.data.clips import ClipSource, Progress

HELD_BACK = 63  # clips of the training split at most, to choose the step by


def fine_tune_on(
    path: str | os.PathLike[str],
    data: str | os.PathLike[str],
    config: QatConfig,
    *,
    fold: int = 1,
    progress: Progress | None = None,
) -> tuple[Bundle, dict[str, Any]]:
    """Fine-tunes a bundle's INT8 graphs on one fold's training split; FP32 and FP16 stay.

    Args:
        path: the bundle, with INT8.
        data: the data set's folder.
        config: how.
        fold: 1 to 5.
        progress: called with (stage, done, total).

    Returns:
        The bundle, opened again, and what the manifest says of the fine-tuning.

    Raises:
        BadInputError: no INT8 in the bundle, too few clips, or the loss is no longer finite.
        MachineError: the bundle may not be written.
    """
    from ..model.data.clips import CachedClips
    from ..model.data.datasets import clips_for, open_listing

    bundle = Bundle(path)
    require_changeable(bundle)
    source = CachedClips(clips_for(data, "train", fold, bundle.image_size, bundle.labels))
    named = f"{Path(data).name}, fold {fold}, training split"
    listing = open_listing(data, "train", fold)
    reading = {"fold": fold, "train_list": listing.fingerprint(), MARKS: clip_marks(source)}
    return fine_tune_bundle(bundle, source, config, named, progress, reading)


def fine_tune_bundle(
    bundle: Bundle,
    source: ClipSource,
    config: QatConfig,
    named: str,
    progress: Progress | None = None,
    reading: Mapping[str, Any] | None = None,
) -> tuple[Bundle, dict[str, Any]]:
    """The same on any clip source.

    A bundle whose INT8 no step surpasses stays as it is: step 0 is kept.
    `named` is what the manifest calls it; `reading` says its fold, the fingerprint of its list and marks of its clips.

    Raises:
        BadInputError: no INT8 or no FP16 in the bundle, too few clips, or the loss is no longer finite.
        VerificationError: a quantized graph breaks a lint rule. Nothing was written.
        MachineError: the bundle may not be written, or another process changed it meanwhile.
    """
    from ..calibration.choose import turns
    from ..calibration.equalise import with_weights
    from ..calibration.qat import augmented, divergence, fine_tune, fine_tuning_record
    from ..clips import centre_indices, random_indices
    from ..export.entries import read_model
    from ..export.parity import RoundingClip
    from ..export.reference import Reference

    if "int8" not in bundle.precisions:
        raise BadInputError(
            f"{bundle.path} has no INT8 graphs to fine-tune.",
            next=command("logoformer", "quantize", bundle.path, "--data", "DIR"),
        )
    written = bundle.calibration()
    q = written["quantize"]
    placement = QuantizeConfig(q["method"], tuple(q["exclude"]), q["attention"], q["fold_weights"])
    moved = written.get("equalisation", written.get("smoothing", {}))  # bundles of 0.1 smoothed norms alone
    models = equalised(load_models(bundle), {name: np.asarray(factor, np.float32) for name, factor in moved.items()})

    def read(index: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        return source.frames(index, random_indices(source.count(index), bundle.sampling, rng))

    fp32 = models["clip"][0]
    apart = turns([source.label(i) for i in range(len(source))], min(HELD_BACK, len(source) // 4), config.seed)
    held_back = np.stack([source.frames(i, centre_indices(source.count(i), bundle.sampling)) for i in apart])
    learned = sorted(set(range(len(source))) - set(apart))
    if len(learned) < config.batch:
        raise BadInputError(
            f"{len(learned)} clips are left to learn from beside {len(apart)} that are held back.",
            next="give a larger data set",
        )
    batches = augmented(lambda place, rng: read(learned[place], rng), len(learned), config)
    tuned = fine_tune(fp32, Reference(fp32), written["ranges"], placement, batches, held_back, config, progress)
    # What the bundle has was rounded so that errors cancel, which training knows nothing of.
    exact, given = (RoundingClip(model).answers(held_back) for model in (fp32, read_model(bundle, "clip", "int8")))
    before = divergence(given, exact)
    done = {**fine_tuning_record(config, tuned, named), "divergence_before": before, **without_marks(reading or {})}
    if not tuned.kept_step or tuned.after >= before:
        return bundle, {**done, "kept_step": 0, "divergence_after": before}
    models = {n: (with_weights(a, tuned.weights), with_weights(b, tuned.weights)) for n, (a, b) in models.items()}
    written = {**written, "ranges": dict(tuned.ranges), "qat": {**done, **(reading or {})}}
    written.pop("compensation", None)  # trained weights are rounded as they were in training: to the nearest step
    return file_int8(bundle, models, tuned.ranges, placement, written, progress=progress, qat=done), done
