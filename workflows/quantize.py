"""Add INT8 to a bundle: choose clips, take ranges, quantize, check and file the graphs.

Reads a data set (`model/`), calibrates (`calibration/`), and has the result linted and compared (`export/`). Accuracy
is judged by `verify.py`: until then the verdict is `insufficient clips`, and nothing loads INT8 unasked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..benchmarks.sensors.machine import installed_versions
from ..bundle import GRAPHS, MIXED, Bundle, BundleWriter, require_changeable
from ..bundle.verdicts import without_verdicts
from ..calibration.quantize import AUTO, QuantizeConfig
from ..clips import Sampling
from ..errors import BadInputError, UsageError, command

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

    from ..calibration.choose import ChosenClips
    from ..calibration.equalise import Factors
    from ..calibration.quantize import Ranges, Steps
    from ..model.data.clips import Progress

    Models = dict[str, tuple[onnx.ModelProto, onnx.ModelProto]]  # by graph: FP32, FP16


@dataclass(frozen=True)
class Calibration:
    """Which clips INT8 is calibrated on, and how.

    Attributes:
        data: folder of a data set, whose training split is used.
        fold: 1 to 5.
        clips: how many.
        seed: of their choice.
        few: accept a small set.
        config: how to quantize.
        equalise: move scales of channels from activations into weights first; see `calibration/equalise.py`. False
            leaves them, for comparison.
        compensate: round weights so that their errors cancel; see `calibration/compensate.py`. False rounds each to the
            nearest step, for comparison.
    """

    data: str | os.PathLike[str] | None
    fold: int = 1
    clips: int = 128
    seed: int = 0
    few: bool = False
    config: QuantizeConfig = field(default_factory=lambda: QuantizeConfig(AUTO))
    equalise: bool = True
    compensate: bool = True

    @property
    def source(self) -> str:
        """How the record names it: no path of this machine."""
        name = Path(self.data or "").resolve().name
        return f"{name}, fold {self.fold}, training split, seed {self.seed}"

    def choose(self, sampling: Sampling, image_size: int, progress: Progress | None = None) -> ChosenClips:
        """Reads the clips, of the frames that the sampling takes.

        Raises:
            UsageError: no data set was named.
            BadInputError: the set cannot stand for the camera; see `calibration.choose.check_set`.
        """
        from ..calibration.choose import check_set, choose
        from ..model.data.datasets import open_clips
        from ..model.data.listing import Reading

        if self.data is None:
            raise UsageError(
                "INT8 needs clips to calibrate on; ranges of random data mean nothing.",
                next="name a data set: --calibration DIR with export, --data DIR with quantize",
            )
        source = open_clips(self.data, "train", self.fold, Reading(image_size))
        chosen = choose(source, sampling, self.clips, self.seed, progress)
        check_set(chosen, few=self.few)
        return chosen


def quantize(path: str | os.PathLike[str], calibration: Calibration, progress: Progress | None = None) -> Bundle:
    """Chooses the clips and adds INT8 to a bundle; see `quantize_bundle`."""
    bundle = Bundle(path)
    require_changeable(bundle)
    chosen = calibration.choose(bundle.sampling, bundle.image_size, progress)
    return quantize_bundle(path, chosen, calibration, progress)


def quantize_bundle(
    path: str | os.PathLike[str],
    chosen: ChosenClips,
    calibration: Calibration,
    progress: Progress | None = None,
) -> Bundle:
    """Adds INT8 graphs to a bundle, or replaces those it has.

    Args:
        path: the bundle, with FP32 and FP16 graphs.
        chosen: the calibration clips.
        calibration: that they were chosen by.
        progress: called with (stage, done, total).

    Returns:
        The bundle, opened again.

    Raises:
        UsageError: a group to exclude that does not exist.
        BadInputError: FP16 graphs are missing, or the clips do not fit the bundle.
        VerificationError: a quantized graph breaks a lint rule. Nothing was written.
        MachineError: the bundle may not be written, another process changed it meanwhile, or a package is missing.
    """
    from ..calibration.choose import calibration_record
    from ..calibration.compensate import compensate, compensation_record
    from ..calibration.placement import check_exclude, groups
    from ..export.reference import Reference
    from .alignment import compare_alignment

    config = calibration.config
    bundle = Bundle(path)
    models = load_models(bundle)
    if chosen.clips.shape[1:] != (bundle.frames, bundle.image_size, bundle.image_size, 3):
        raise BadInputError(
            f"The clips are {list(chosen.clips.shape)}; {bundle.path} takes {bundle.frames} frames of "
            f"{bundle.image_size} x {bundle.image_size}.",
            next="choose them with the sampling and the size of this bundle",
        )
    check_exclude(config.exclude, groups(models["clip"][0]))
    prepared = prepare(models, chosen.clips, config, equalise=calibration.equalise, progress=progress)
    models, ranges = prepared.models, prepared.ranges
    m = bundle.manifest
    tools = ("onnx", "onnxruntime", "onnxruntime-gpu", "numpy")
    written = calibration_record(
        chosen, ranges, config,
        source=calibration.source, labels=bundle.labels, preprocessing=m["preprocessing"], sampling=bundle.sampling,
        tools=installed_versions(tools),
    )  # fmt: skip
    written["alignment_distance"] = compare_alignment(bundle, chosen.clips, calibration.source)
    if prepared.methods:
        written["methods"] = prepared.methods
    if prepared.moved:
        written["equalisation"] = {name: factor.tolist() for name, factor in prepared.moved.items()}
    steps = None
    if calibration.compensate:
        clip = models["clip"]
        steps = compensate(*clip, Reference(clip[0]).side_by_side, ranges, config, chosen.clips, progress)
        written["compensation"] = compensation_record(steps, len(chosen.clips))
    return file_int8(bundle, models, ranges, config, written, steps=steps, progress=progress)


@dataclass(frozen=True)
class Prepared:
    """What is quantized, and in which steps.

    Attributes:
        models: FP32 and FP16 of every graph, their scales moved.
        ranges: of the activations.
        methods: by part, where the ranges' method was chosen.
        moved: what each channel was divided by.
    """

    models: Models
    ranges: Ranges
    methods: dict[str, str]
    moved: Factors


def prepare(
    models: Models,
    clips: npt.NDArray[np.uint8],
    config: QuantizeConfig,
    *,
    equalise: bool = True,
    progress: Progress | None = None,
) -> Prepared:
    """Moves scales and takes ranges, by the calibration clips.

    Args:
        models: as exported.
        clips: uint8 `[N, T, S, S, 3]`.
        config: how.
        equalise: see `Calibration`.
        progress: called with (stage, done, total).
    """
    from ..calibration.powers import fit_powers

    moved = moved_scales(models["clip"][0], clips, progress) if equalise else {}
    fp32 = equalised(models, moved)["clip"][0]
    ranges, methods = ranges_of(fp32, clips, config, progress)
    moved, ranges = fit_powers(fp32, moved, ranges, config, move=equalise)
    return Prepared(equalised(models, moved), ranges, methods, moved)


def ranges_of(
    clip: onnx.ModelProto, clips: npt.NDArray[np.uint8], config: QuantizeConfig, progress: Progress | None = None
) -> tuple[Ranges, dict[str, str]]:
    """The ranges by the configuration's method, and the method of each part where it was chosen."""
    from ..calibration.collect import collect_ranges, observe
    from ..calibration.ranges import choose_ranges
    from ..export.reference import Reference

    if config.method != AUTO:
        return collect_ranges(clip, clips, config, progress), {}
    seen = observe(clip, clips, progress=progress)
    return choose_ranges(clip, Reference(clip).side_by_side, seen, config, clips, progress)


def moved_scales(clip: onnx.ModelProto, clips: npt.NDArray[np.uint8], progress: Progress | None = None) -> Factors:
    """What each channel is divided by; see `calibration.equalise.choose_factors`."""
    from ..calibration.collect import observe_channels
    from ..calibration.equalise import CLIPS, choose_factors

    return choose_factors(clip, observe_channels(clip, clips[:CLIPS], progress))


def equalised(models: Models, moved: Factors) -> Models:
    """All graphs with the scales moved; as they are without any."""
    from ..calibration.equalise import equalise

    if not moved:
        return models
    clip = models["clip"][0]
    return {name: (equalise(fp32, moved, clip), equalise(fp16, moved, clip)) for name, (fp32, fp16) in models.items()}


def file_int8(
    bundle: Bundle,
    models: Models,
    ranges: Ranges,
    config: QuantizeConfig,
    written: Mapping[str, Any],
    *,
    steps: Mapping[str, Steps] | None = None,
    progress: Progress | None = None,
    **fields: Any,
) -> Bundle:
    """Quantizes the graphs, has them linted and compared, and writes them into the bundle.

    Args:
        bundle: opened for reading.
        models: by graph, FP32 and FP16.
        ranges: of the activations.
        config: how to quantize.
        written: the calibration record.
        steps: by node, what its weight is rounded to; None: the nearest step.
        progress: called with (stage, done, total).
        fields: more of the manifest's entry of INT8.

    Raises:
        VerificationError: a quantized graph breaks a lint rule. Nothing was written.
        MachineError: the bundle was changed by another process meanwhile.
    """
    from ..calibration.quantize import quantize_graph
    from ..export.entries import add_models
    from ..export.lint import require_clean

    quantized = {name: quantize_graph(*pair, ranges, config, steps) for name, pair in models.items()}
    kept = bundle.precisions["fp16"].get("kept_fp32", {})
    for name, model in quantized.items():
        require_clean(model, f"The graph {name} in int8", {item["node"] for item in kept.get(name, [])})
    writer = BundleWriter(bundle.path)
    m = bundle.manifest
    note = progress or (lambda *_: None)
    entries, promised = add_models(writer, {"int8": quantized}, note)
    note("write", len(quantized), len(quantized))
    precision = {
        **_judge(bundle, quantized, note),
        "kept_fp32": kept,
        "excluded": list(config.exclude),
        "promised_share": promised["int8"],
        "calibration": writer.add_calibration(written),
        **fields,
    }
    return writer.commit(
        {
            **without_verdicts(m, "int8", MIXED),
            "graphs": [*(entry for entry in m["graphs"] if entry["precision"] != "int8"), *entries],
            "precisions": {**m["precisions"], "int8": precision},
        },
        replacing=bundle,
    )


def load_models(bundle: Bundle) -> Models:
    """FP32 and FP16 of every graph.

    Raises:
        BadInputError: the bundle has no FP16 graphs.
    """
    from ..export.entries import read_fp32_twin, read_model

    if "fp16" not in bundle.precisions:
        raise BadInputError(
            f"{bundle.path} has no FP16 graphs; what INT8 leaves out is FP16.",
            next=command("logoformer", "export", "CHECKPOINT", "-o", bundle.path),
        )
    return {name: (read_fp32_twin(bundle, name), read_model(bundle, name, "fp16")) for name in GRAPHS}


def _judge(bundle: Bundle, models: Mapping[str, onnx.ModelProto], note: Progress) -> dict[str, Any]:
    """INT8 against PyTorch on the golden clips, which are too few to accept anything."""
    from ..calibration.gate import INSUFFICIENT
    from ..export.parity import rounding_parity

    golden = bundle.golden()
    clip, pair = rounding_parity(
        models, golden.clips, golden.probabilities, bundle.stream, lambda done: note("parity int8", done, 2)
    )
    worst = max(clip.share, pair.share)
    return {
        "verdict": INSUFFICIENT,
        "reason": f"no accuracy gate has judged it; on {len(golden.clips)} golden clips it differs from PyTorch by "
        f"{worst:.1%} of the deviation between clips",
        "parity": {"clip": clip.to_json(), "pair": pair.to_json()},
    }
