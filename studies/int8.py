"""`python -m logoformer.studies.int8 CHECKPOINT`: costs of FP16 and INT8, remedies.

Writes `benchmarks/results/int8.json`, one entry for each experiment. CHECKPOINT is the trained `tiny` that `logoformer
demo -o demo` leaves in `demo/checkpoint`; the other networks are made here. Faces are synthetic and of people that no
training saw.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..calibration.choose import ChosenClips, choose, turns
from ..calibration.paired import PairedComparison, compare_answers
from ..calibration.placement import groups
from ..calibration.qat import QatConfig
from ..calibration.quantize import AUTO, QuantizeConfig
from ..calibration.sensitivity import Sensitivity
from ..cli.terminal import Bar
from ..export.exporter import ExportConfig, RealClips, export_bundle
from ..model.checkpoint import load_checkpoint
from ..model.networks.configs import PRESETS
from ..model.networks.network import Network
from ..model.synthetic.recordings import SyntheticClips, synthetic_clips
from ..workflows.fine_tune import fine_tune_bundle
from ..workflows.init import initialise
from ..workflows.quantize import Calibration, load_models, prepare, quantize_bundle
from ..workflows.sensitivity import measure_sensitivity
from ..workflows.verify import clip_evaluator, judge_accuracy
from .results import FOLDER, measured, read_results, write_results

RESULTS = FOLDER / "int8.json"
CALIBRATION_SEED, HELD_OUT_SEED = 5, 7
CALIBRATION_PEOPLE = range(3_000_000, 3_000_020)
HELD_OUT_PEOPLE = range(4_000_000, 4_000_572)  # 7 clips of each: 4004
LEARNING_PEOPLE = range(5_000_000, 5_000_080)
OUTLIER = 200.0


def plant_outlier(model: Network, block: int, factor: float = OUTLIER) -> Network:
    """Scales one LayerNorm channel before an FFN, and the FFN's weight column by the inverse.

    FP32 answers stay. The channel is the one with the largest gain.
    """
    import torch

    planted = copy.deepcopy(model)
    part: Any = planted.get_submodule(f"blocks.{block}")
    with torch.no_grad():
        channel = int(part.norm_ffn.weight.abs().argmax())
        part.norm_ffn.weight[channel] *= factor
        part.norm_ffn.bias[channel] *= factor
        part.ffn.fc1.weight[:, channel] /= factor
    return planted


def export_on_faces(model: Network, out: Path) -> Bundle:
    """FP32 and FP16, judged on synthetic faces."""
    c = model.config
    drawn, _, _ = synthetic_clips(16, c.sampling, c.image_size, CALIBRATION_SEED)
    return export_bundle(model, out, RealClips(drawn, "synthetic faces", synthetic=True), ExportConfig())


def quantize_on_faces(
    bundle: Bundle, method: str = AUTO, clips: int = 128, exclude: tuple[str, ...] = (), **fields: Any
) -> Bundle:
    """Adds INT8, calibrated on people of their own; `fields` are more of `Calibration`."""
    calibration = Calibration("synthetic", clips=clips, config=QuantizeConfig(method, exclude), **fields)
    return quantize_bundle(bundle.path, calibration_clips(bundle, clips), calibration)


def make_bundle(model: Network, out: Path, method: str = AUTO, clips: int = 128, **fields: Any) -> Bundle:
    """Exports a model and quantizes it on synthetic faces; `fields` are more of `Calibration`."""
    return quantize_on_faces(export_on_faces(model, out), method, clips, **fields)


def calibration_clips(bundle: Bundle, clips: int) -> ChosenClips:
    """Clips of the people that INT8 is calibrated on."""
    people = SyntheticClips(CALIBRATION_SEED, CALIBRATION_PEOPLE, 7, bundle.image_size)
    return choose(people, bundle.sampling, clips, seed=0)


def held_out(bundle: Bundle, seed: int = HELD_OUT_SEED) -> SyntheticClips:
    """Clips of people that no training and no calibration saw."""
    return SyntheticClips(seed, HELD_OUT_PEOPLE, 7, bundle.image_size)


def compared(bundle: Bundle, precision: str, count: int, seed: int = HELD_OUT_SEED) -> PairedComparison:
    """A precision's answers against FP32's on `count` held-out clips; the classes take turns."""
    chosen = choose(held_out(bundle, seed), bundle.sampling, count, seed=0)
    before, after = (clip_evaluator(bundle, name)(chosen.clips) for name in ("fp32", precision))
    return compare_answers(before, after, np.array(chosen.labels, np.int64), list(chosen.ids))


def shares(found: PairedComparison) -> dict[str, Any]:
    """The committed figures of a comparison: those that need no label."""
    return {name: getattr(found, name) for name in ("clips", "agreement", "rms_share", "p99_share", "max_share")}


def harm_by_group(bundle: Bundle, config: QuantizeConfig, clips: int, picked: list[int], bar: Bar) -> Sensitivity:
    """Sensitivity on further held-out clips, calibrated on `clips`."""
    others = held_out(bundle, HELD_OUT_SEED + 1)
    learned = calibration_clips(bundle, clips).clips
    prepared = prepare(load_models(bundle), learned, config, equalise=False)
    return measure_sensitivity(prepared, learned, config, others, picked, bundle, bar)


# --------------------------------------------------------------------------------------------------------- experiments
def accuracy(model: Network, folder: Path, bar: Bar) -> dict[str, Any]:
    """The gate on 4004 held-out clips of a trained `tiny`."""
    bundle = make_bundle(model, folder / "trained.bundle")
    source = held_out(bundle)
    report = judge_accuracy(
        bundle, source, range(len(source)), named="synthetic faces, held-out people", reproduce="", progress=bar
    )
    keep = ("verdict", "reason", "uar", "war", "drop", "bound", "agreement", "lost", "gained", "mcnemar_p",
            "rms_share", "p99_share", "max_share")  # fmt: skip
    return {
        "source": dict(report.source),
        "evaluator": report.evaluator,
        "fp32": {"uar": report.uar, "war": report.war},
        **{name: {key: row[key] for key in keep} for name, row in report.precisions.items()},
    }


def base(folder: Path, method: str, count: int = 21) -> dict[str, Any]:
    """Logit differences of an untrained `base`, with compensation and without."""
    bundle = make_bundle(initialise(PRESETS["base"]), folder / "base.bundle", method, 64)
    found = {precision: shares(compared(bundle, precision, count)) for precision in ("fp16", "int8")}
    plain = quantize_on_faces(bundle, method, 64, compensate=False)
    return {
        "method": method,
        "int8_macs": int8_macs(bundle),
        **found,
        "int8_nearest_step": shares(compared(plain, "int8", count)),
    }


def base_with_exclusions(
    bundle: Bundle, method: str, bar: Bar, largest: float = 0.25, count: int = 21
) -> dict[str, Any]:
    """The same without the most harmful stages of the trunk.

    Stages are excluded until two sets of clips keep the largest difference.

    All groups behind the trunk together cost 6 % (root mean square), so they are not measured one by one.
    """
    others = held_out(bundle)  # labels do not depend on the seed
    picked = turns([others.label(index) for index in range(len(others))], 14, 0)
    behind = tuple(name for name in groups(load_models(bundle)["clip"][0]) if not name.startswith("trunk."))
    found = harm_by_group(bundle, QuantizeConfig(method, behind), 64, picked, bar)
    steps: list[dict[str, Any]] = []
    ranked = tuple(row.group for row in found.groups)
    for excluded in (ranked[:some] for some in range(len(found.excluded), len(ranked) + 1)):
        bundle = quantize_on_faces(bundle, method, 64, excluded)
        tried = []
        for seed in (HELD_OUT_SEED + 1, HELD_OUT_SEED):
            tried.append(shares(compared(bundle, "int8", count, seed)))
            if (tried[-1]["max_share"] or 1.0) > largest:
                break
        steps.append({"excluded": list(excluded), "sets": tried})
        if len(tried) == 2 and tried[-1]["max_share"] <= largest:
            break
    return {
        "method": method,
        "sensitivity": [{"group": row.group, "harm": row.harm, "share": row.share} for row in found.groups],
        "excluded": list(bundle.precisions["int8"]["excluded"]),
        "int8_macs": int8_macs(bundle),
        "steps": steps,
        "int8": steps[-1]["sets"][-1],
    }


def int8_macs(bundle: Bundle) -> dict[str, dict[str, int]]:
    """Multiply-accumulates by precision of each INT8 graph."""
    return {g.graph: dict(g.macs) for g in bundle.graphs if g.precision == "int8"}


def outlier(model: Network, folder: Path, bar: Bar, count: int = 252) -> dict[str, Any]:
    """Plants the outlier, finds it by sensitivity, removes it by exclusion and by moving scales."""
    before = make_bundle(model, folder / "whole.bundle")
    bundle = make_bundle(plant_outlier(model, 0), folder / "outlier.bundle", equalise=False)
    broken = compared(bundle, "int8", count)
    found = harm_by_group(bundle, QuantizeConfig(), 128, list(range(126)), bar)
    excluded = compared(quantize_on_faces(bundle, exclude=found.excluded, equalise=False), "int8", count)
    moved = compared(quantize_on_faces(bundle), "int8", count)
    return {
        "planted": f"block 0, factor {OUTLIER:g}",
        "before": shares(compared(before, "int8", count)),
        "broken": shares(broken),
        "sensitivity": [{"group": row.group, "harm": row.harm, "macs": row.macs} for row in found.groups],
        "excluded": list(found.excluded),
        "after_exclusion": shares(excluded),
        "after_smoothing": shares(moved),
    }


def fine_tuned(model: Network, folder: Path, bar: Bar, count: int = 504) -> dict[str, Any]:
    """Fine-tunes the INT8 graphs of the outlier model without exclusion or migration."""
    bundle = make_bundle(plant_outlier(model, 0), folder / "qat.bundle", equalise=False)
    lost = compared(bundle, "int8", count)
    source = SyntheticClips(HELD_OUT_SEED + 2, LEARNING_PEOPLE, 14, bundle.image_size)
    bundle, done = fine_tune_bundle(bundle, source, QatConfig(steps=100), "synthetic faces", bar)
    mended = compared(bundle, "int8", count)
    return {
        "fine_tuning": done,
        "before": shares(lost),
        "after": shares(mended),
        "recovered": (mended.agreement - lost.agreement) / (1.0 - lost.agreement),
    }


def sections(checkpoint: str, folder: Path, bar: Bar) -> dict[str, Callable[[], dict[str, Any]]]:
    """The experiments by name."""
    untrained = initialise(PRESETS["tiny"])

    def trained() -> Network:
        return load_checkpoint(checkpoint)[0]

    return {
        "accuracy_tiny": lambda: accuracy(trained(), folder, bar),
        "outlier_trained_tiny": lambda: outlier(trained(), folder, bar),
        "outlier_untrained_tiny": lambda: outlier(untrained, folder, bar),
        "qat_outlier_untrained_tiny": lambda: fine_tuned(untrained, folder, bar),
        "base": lambda: base(folder, "mse"),
        "base_with_exclusions": lambda: base_with_exclusions(
            export_on_faces(initialise(PRESETS["base"]), folder / "base-less.bundle"), "mse", bar
        ),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the named experiments, all by default, and writes each result as it comes."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        print("usage: python -m logoformer.studies.int8 CHECKPOINT [EXPERIMENT ...]", file=sys.stderr)
        return 2
    bar = Bar()
    seeds = {"calibration": CALIBRATION_SEED, "held_out": HELD_OUT_SEED, "qat": QatConfig().seed}
    with tempfile.TemporaryDirectory() as name:
        known = sections(words[0], Path(name), bar)
        for asked in words[1:] or known:
            result = known[asked]()
            bar.clear()
            command = f"python -m logoformer.studies.int8 demo/checkpoint {asked}"
            write_results(RESULTS, read_results(RESULTS) | {asked: measured(command, seeds=seeds, **result)})
            print(f"{asked}: written to {RESULTS}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
