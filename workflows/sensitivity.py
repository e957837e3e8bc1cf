"""INT8 without the layer groups that it harms, excluded until the budget holds."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..bundle import Bundle, require_changeable
from ..bundle.files import dump_json, write_atomic
from ..calibration.quantize import QuantizeConfig
from ..errors import BadInputError
from .quantize import Calibration, load_models, prepare, quantize_bundle

if TYPE_CHECKING:
    from ..calibration.sensitivity import Sensitivity
    from ..model.data.clips import ClipSource, Progress
    from .quantize import Prepared

SENSITIVITY_CLIPS = 128
FEWEST_CLIPS = 28


def quantize_sensitively(
    path: str | os.PathLike[str],
    calibration: Calibration,
    out: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
) -> tuple[Bundle, Sensitivity]:
    """Measures each group, excludes until the budget holds, and adds INT8 to the rest.

    The clips are of the training split, but none that INT8 is calibrated on: the test split is the gate's.

    Args:
        path: the bundle, with FP32 and FP16.
        calibration: clips and method; what its `exclude` names stays excluded.
        out: folder for `sensitivity.json` and `sensitivity.svg`.
        progress: called with (stage, done, total).

    Raises:
        BadInputError: too few clips are left beside the calibration's.
        VerificationError: FP16 alone does not keep the budget.
        MachineError: the bundle may not be written.
    """
    from ..calibration.choose import turns
    from ..model.data.datasets import clips_for

    bundle = Bundle(path)
    require_changeable(bundle)
    chosen = calibration.choose(bundle.sampling, bundle.image_size, progress)
    source = clips_for(str(calibration.data), "train", calibration.fold, bundle.image_size, bundle.labels)
    order = turns(
        [source.label(i) for i in range(len(source))], calibration.clips + SENSITIVITY_CLIPS, calibration.seed
    )
    held_out = order[calibration.clips :]
    if len(held_out) < FEWEST_CLIPS:
        raise BadInputError(
            f"{len(held_out)} clips are left beside {len(chosen.clips)} for calibration; {FEWEST_CLIPS} are needed.",
            next="give a larger data set, or lower --calibration-clips",
        )
    prepared = prepare(
        load_models(bundle), chosen.clips, calibration.config, equalise=calibration.equalise, progress=progress
    )
    found = measure_sensitivity(prepared, chosen.clips, calibration.config, source, held_out, bundle, progress)
    folder = Path(out)
    write_atomic(folder / "sensitivity.json", dump_json(found.to_json()))
    write_atomic(folder / "sensitivity.svg", sensitivity_svg(found).encode())
    exclude = (*calibration.config.exclude, *found.excluded)
    config = replace(calibration.config, exclude=tuple(dict.fromkeys(exclude)))
    return quantize_bundle(path, chosen, replace(calibration, config=config), progress), found


def measure_sensitivity(
    prepared: Prepared,
    calibrated_on: npt.NDArray[np.uint8],
    config: QuantizeConfig,
    source: ClipSource,
    held_out: list[int],
    bundle: Bundle,
    progress: Progress | None = None,
) -> Sensitivity:
    """Sensitivity of the clip graph; see `calibration.sensitivity.sensitivity`.

    Args:
        prepared: graphs and ranges.
        calibrated_on: uint8 `[N, T, S, S, 3]`, which they were prepared with.
        config: method and placement; what it excludes is not measured.
        source: labelled clips.
        held_out: which of them.
        bundle: names the sampling.
        progress: called with (stage, done, total).
    """
    from ..bundle.onnx_graph import infer_onnx
    from ..calibration.compensate import compensate
    from ..calibration.gate import BUDGETS
    from ..calibration.placement import groups
    from ..calibration.quantize import quantize_graph
    from ..calibration.sensitivity import sensitivity
    from ..clips import centre_indices
    from ..export.parity import RoundingClip
    from ..export.reference import Reference

    (fp32, fp16), ranges = prepared.models["clip"], prepared.ranges
    steps = compensate(fp32, fp16, Reference(fp32).side_by_side, ranges, config, calibrated_on, progress)
    clips = np.stack([source.frames(i, centre_indices(source.count(i), bundle.sampling)) for i in held_out])
    labels = np.array([source.label(i) for i in held_out], np.int64)
    by_node = infer_onnx(fp32).macs_by_node
    macs = {
        name: sum(by_node.get(node, 0) for node in nodes)
        for name, nodes in groups(fp32).items()
        if name not in config.exclude
    }

    def answers(excluded: tuple[str, ...]) -> npt.NDArray[np.float32]:
        less = replace(config, exclude=(*config.exclude, *excluded))
        return RoundingClip(quantize_graph(fp32, fp16, ranges, less, steps)).answers(clips)

    return sensitivity(
        answers,
        RoundingClip(fp32).answers(clips),
        labels,
        macs,
        sum(by_node.values()),
        BUDGETS["int8"],
        progress,
    )


def sensitivity_svg(found: Sensitivity) -> str:
    """The groups' harm as bars, SVG."""
    from .pictures import bars_svg

    rows = [(row.group, row.harm, row.group in found.excluded) for row in found.groups]
    title = f"Harm of each group alone in INT8 (RMS of logits / deviation between clips), {found.clips} clips"
    return bars_svg(title, rows, marked="red: left in FP16")
