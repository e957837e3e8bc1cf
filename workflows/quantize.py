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
from ..bundle import GRAPHS, MIXED, Bundle, BundleWriter
from ..calibration.quantize import QuantizeConfig
from ..clips import Sampling
from ..errors import BadInputError, UsageError, command

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

    from ..calibration.choose import ChosenClips
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
        smooth: move outlier channels from activations into weights first; see `calibration/smooth.py`.
        compensate: round weights so that their errors cancel; see `calibration/compensate.py`. False rounds each to the
            nearest step, for comparison.
    """

    data: str | os.PathLike[str] | None
    fold: int = 1
    clips: int = 128
    seed: int = 0
    few: bool = False
    config: QuantizeConfig = field(default_factory=QuantizeConfig)
    smooth: bool = False
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
        MachineError: the bundle was changed by another process meanwhile, or a package is missing.
    """
    from ..calibration.choose import calibration_record
    from ..calibration.collect import collect_ranges
    from ..calibration.compensate import compensate, compensation_record
    from ..calibration.placement import check_exclude, groups
    from ..export.reference import Reference

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
    smoothing = smooth_factors(models["clip"][0], chosen.clips) if calibration.smooth else {}
    models = smoothed(models, smoothing)
    ranges = collect_ranges(models["clip"][0], chosen.clips, config, progress)
    m = bundle.manifest
    tools = ("onnx", "onnxruntime", "onnxruntime-gpu", "numpy")
    written = calibration_record(
        chosen, ranges, config,
        source=calibration.source, labels=bundle.labels, preprocessing=m["preprocessing"], sampling=bundle.sampling,
        tools=installed_versions(tools),
    )  # fmt: skip
    if smoothing:
        written["smoothing"] = {norm: [float(value) for value in factor] for norm, factor in smoothing.items()}
    steps = None
    if calibration.compensate:
        clip = models["clip"]
        steps = compensate(*clip, Reference(clip[0]).side_by_side, ranges, config, chosen.clips, progress)
        written["compensation"] = compensation_record(steps, len(chosen.clips))
    return file_int8(bundle, models, ranges, config, written, steps=steps, progress=progress)


def smooth_factors(clip: onnx.ModelProto, clips: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
    """Divisors of the channels of each norm with outliers; see `calibration.smooth.factors`."""
    from ..calibration.smooth import factors, norms
    from ..export.precision import channels

    tensors = [norm.outputs[0] for norm, _ in norms(clip)]
    return factors(clip, channels(clip, [{"clip": one[None]} for one in clips], tensors))


def smoothed(models: Models, smoothing: Mapping[str, npt.NDArray[np.float32]]) -> Models:
    """All graphs with the scales moved; as they are without any."""
    from ..calibration.smooth import smooth

    if not smoothing:
        return models
    return {name: (smooth(fp32, smoothing), smooth(fp16, smoothing)) for name, (fp32, fp16) in models.items()}


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
            **unverified(m, "int8", MIXED),
            "graphs": [*(entry for entry in m["graphs"] if entry["precision"] != "int8"), *entries],
            "precisions": {**m["precisions"], "int8": precision},
        },
        replacing=bundle,
    )


def unverified(manifest: Mapping[str, Any], *precisions: str) -> dict[str, Any]:
    """A manifest without the rows of `verify` that speak of graphs which are replaced."""
    found = dict(manifest)
    if "rows" in found.get("verification", {}):
        rows = [row for row in found["verification"]["rows"] if row["precision"] not in precisions]
        found["verification"] = {**found["verification"], "rows": rows}
    return found


def load_models(bundle: Bundle) -> Models:
    """FP32 and FP16 of every graph."""
    from ..export.entries import read_model

    if "fp16" not in bundle.precisions:
        raise BadInputError(
            f"{bundle.path} has no FP16 graphs; what INT8 leaves out is FP16.",
            next=command("logoformer", "export", "CHECKPOINT", "-o", bundle.path),
        )
    return {name: (read_model(bundle, name, "fp32"), read_model(bundle, name, "fp16")) for name in GRAPHS}


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
