"""INT8 that does not keep its budget at once: which groups to leave out, and fine-tuning.

`quantize --sensitivity` measures every group and excludes until the budget holds; `train --qat` trains the network
while it is quantized. Both end in INT8 graphs of the same placement policy, filed by `int8.file_int8`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..bundle import Bundle
from ..bundle.files import dump_json, write_atomic
from ..calibration.quantize import QuantizeConfig
from ..errors import BadInputError, command
from .quantize import Calibration, compensate_weights, file_int8, load_models, quantize_bundle, smooth_factors, smoothed

if TYPE_CHECKING:
    from ..calibration.gate import Budget
    from ..calibration.qat import QatConfig
    from ..calibration.sensitivity import Sensitivity
    from ..model.data.clips import ClipSource
    from .quantize import Models

Progress = Callable[[str, int, int], None]
SENSITIVITY_CLIPS = 128
FEWEST_CLIPS = 28
HELD_BACK = 63  # clips of the training split at most, to choose the step by


# --------------------------------------------------------------------------------------------------------- sensitivity
def quantize_sensitively(
    path: str | os.PathLike[str],
    calibration: Calibration,
    out: str | os.PathLike[str],
    *,
    clips: int = SENSITIVITY_CLIPS,
    progress: Progress | None = None,
) -> tuple[Bundle, Sensitivity]:
    """Measures each group, excludes until the budget holds, and adds INT8 so.

    The clips are of the training split, but none that INT8 is calibrated on: the test split is the gate's.

    Args:
        path: the bundle, with FP32 and FP16.
        calibration: clips and method; what its `exclude` names stays excluded.
        out: folder for `sensitivity.json` and `sensitivity.svg`.
        clips: to measure on.
        progress: called with (stage, done, total).

    Raises:
        BadInputError: too few clips are left beside the calibration's.
        VerificationError: FP16 alone does not keep the budget.
    """
    from ..calibration.choose import turns
    from ..calibration.gate import BUDGETS
    from ..model.data.datasets import clips_for

    bundle = Bundle(path)
    chosen = calibration.choose(bundle.sampling, bundle.image_size, progress)
    source = clips_for(str(calibration.data), "train", calibration.fold, bundle.image_size, bundle.labels)
    order = turns([source.label(i) for i in range(len(source))], calibration.clips + clips, calibration.seed)
    held_out = order[calibration.clips :]
    if len(held_out) < FEWEST_CLIPS:
        raise BadInputError(
            f"{len(held_out)} clips are left beside {len(chosen.clips)} for calibration; {FEWEST_CLIPS} are needed.",
            next="give a larger data set, or lower --calibration-clips",
        )
    models = load_models(bundle)
    if calibration.smooth:
        models = smoothed(models, smooth_factors(models["clip"][0], chosen.clips))
    found = measure(models, chosen.clips, calibration.config, source, held_out, bundle, BUDGETS["int8"], progress)
    folder = Path(out)
    write_atomic(folder / "sensitivity.json", dump_json(found.to_json()))
    write_atomic(folder / "sensitivity.svg", picture(found).encode())
    exclude = (*calibration.config.exclude, *found.excluded)
    config = replace(calibration.config, exclude=tuple(dict.fromkeys(exclude)))
    return quantize_bundle(path, chosen, replace(calibration, config=config), progress), found


def measure(
    models: Models,
    calibrated_on: npt.NDArray[np.uint8],
    config: QuantizeConfig,
    source: ClipSource,
    held_out: list[int],
    bundle: Bundle,
    budget: Budget,
    progress: Progress | None = None,
) -> Sensitivity:
    """Sensitivity of the clip graph; see `calibration.sensitivity.sensitivity`.

    Args:
        models: by graph, FP32 and FP16.
        calibrated_on: uint8 `[N, T, S, S, 3]`.
        config: method and placement; what it excludes is not measured.
        source: labelled clips.
        held_out: which of them.
        bundle: names the sampling.
        budget: what INT8 may cost.
        progress: called with (stage, done, total).
    """
    from ..bundle.onnx_graph import infer_onnx
    from ..calibration.collect import collect_ranges
    from ..calibration.placement import groups
    from ..calibration.quantize import quantize_graph
    from ..calibration.sensitivity import sensitivity
    from ..clips import centre_indices
    from ..export.parity import RoundingClip

    fp32, fp16 = models["clip"]
    ranges = collect_ranges(fp32, calibrated_on, config, progress)
    steps = compensate_weights(models["clip"], ranges, config, calibrated_on, progress)
    clips = np.stack([source.frames(i, centre_indices(source.count(i), bundle.sampling)) for i in held_out])
    labels = np.array([source.label(i) for i in held_out], np.int64)
    by_node = infer_onnx(fp32).macs_by_node
    macs = {
        name: sum(by_node.get(node, 0) for node in nodes)
        for name, nodes in groups(fp32).items()
        if name not in config.exclude
    }
    return sensitivity(
        lambda excluded: quantize_graph(
            fp32, fp16, ranges, replace(config, exclude=(*config.exclude, *excluded)), steps
        ),
        lambda graph: RoundingClip(graph).answers(clips),
        RoundingClip(fp32).answers(clips),
        labels,
        macs,
        sum(by_node.values()),
        budget,
        progress,
    )


def picture(found: Sensitivity) -> str:
    """The groups' harm as bars, SVG."""
    from .chart import bars

    rows = [(row.group, row.harm, row.group in found.excluded) for row in found.groups]
    title = f"Harm of each group alone in INT8 (RMS of logits / deviation between clips), {found.clips} clips"
    return bars(title, rows, marked="red: left in FP16")


# ----------------------------------------------------------------------------------------------------------------- QAT
def fine_tune_on(
    path: str | os.PathLike[str],
    data: str | os.PathLike[str],
    config: QatConfig,
    *,
    fold: int = 1,
    progress: Progress | None = None,
) -> tuple[Bundle, dict[str, Any]]:
    """Fine-tunes a bundle's INT8 graphs on the training split of one fold; FP32 and FP16 stay as they are.

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
    """
    from ..model.data.clips import CachedClips
    from ..model.data.datasets import clips_for

    bundle = Bundle(path)
    source = CachedClips(clips_for(data, "train", fold, bundle.image_size, bundle.labels))
    return fine_tune_bundle(bundle, source, config, f"{Path(data).name}, fold {fold}, training split", progress)


def fine_tune_bundle(
    bundle: Bundle, source: ClipSource, config: QatConfig, named: str, progress: Progress | None = None
) -> tuple[Bundle, dict[str, Any]]:
    """The same on any clip source; `named` is what the manifest calls it."""
    from ..calibration.choose import turns
    from ..calibration.qat import augmented, fine_tune, fine_tuning_record
    from ..calibration.quantize import Ranges
    from ..calibration.smooth import with_weights
    from ..clips import centre_indices, random_indices
    from ..export.reference import Reference

    if "int8" not in bundle.precisions:
        raise BadInputError(
            f"{bundle.path} has no INT8 graphs to fine-tune.",
            next=command("logoformer", "quantize", bundle.path, "--data", "DIR"),
        )
    written = bundle.calibration()
    q = written["quantize"]
    placement = QuantizeConfig(q["method"], tuple(q["exclude"]), q["attention"], q["fold_weights"])
    smoothing = {norm: np.asarray(factor, np.float32) for norm, factor in written.get("smoothing", {}).items()}
    models = smoothed(load_models(bundle), smoothing)

    def read(index: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        return source.frames(index, random_indices(source.count(index), bundle.sampling, rng))

    fp32 = models["clip"][0]
    began = Ranges(written["ranges"], q["method"], written["count"])
    apart = turns([source.label(i) for i in range(len(source))], min(HELD_BACK, len(source) // 4), config.seed)
    held_back = np.stack([source.frames(i, centre_indices(source.count(i), bundle.sampling)) for i in apart])
    learned = sorted(set(range(len(source))) - set(apart))
    if len(learned) < config.batch:
        raise BadInputError(
            f"{len(learned)} clips are left to learn from beside {len(apart)} that are held back.",
            next="give a larger data set",
        )
    batches = augmented(lambda place, rng: read(learned[place], rng), len(learned), config)
    tuned = fine_tune(fp32, Reference(fp32), began, placement, batches, held_back, config, progress)
    done = fine_tuning_record(config, tuned, named)
    models = {n: (with_weights(a, tuned.weights), with_weights(b, tuned.weights)) for n, (a, b) in models.items()}
    written = {**written, "ranges": dict(tuned.ranges.amax), "qat": done}
    written.pop("compensation", None)  # trained weights are rounded as they were in training: to the nearest step
    return file_int8(bundle, models, tuned.ranges, placement, written, progress=progress, qat=done), done
