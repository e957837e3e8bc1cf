"""`python -m logoformer.studies.trained.int8 FOLDER CHECKPOINT`: INT8 of trained networks.

`base` is trained in FOLDER (`training.py`) unless its checkpoint is there; CHECKPOINT is the demo's `tiny`. Both
are exported, quantized by `quantize`'s own defaults, compiled for the share of INT8, and judged on people that no
training and no calibration saw, by the answers of the backend that runs INT8 on a CPU. Writes
`benchmarks/results/trained-int8.json`, each section as it comes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...bundle import GRAPHS, Bundle
from ...cli.terminal import Bar
from ..int8 import calibration_clips, export_on_faces, held_out, quantize_on_faces
from ..results import FOLDER, measured, read_results, show_results, write_results

if TYPE_CHECKING:
    from ...model.data.clips import ClipSource
    from ...model.networks.network import Network

RESULTS = FOLDER / "trained-int8.json"
PAGE = Path("docs/benchmarks.md")
CLIPS = 2002  # of people in no training and no calibration; the classes take turns
CALIBRATED_ON = 128
BESIDE = 280  # clips that every backend and the reference answer: few give another share each time
SM = "sm86"

Floats = npt.NDArray[np.float32]


def judge(bundle: Bundle, bar: Bar, count: int = CLIPS) -> dict[str, Any]:
    """INT8's answers against FP32's: scores, the bound on the drop, differences of logits."""
    from ...calibration.choose import turns
    from ...calibration.paired import compare_answers

    source = held_out(bundle)
    picked = turns([source.label(index) for index in range(len(source))], count, 0)
    answers, names = answered(bundle, source, picked, bar)
    labels = np.array([source.label(index) for index in picked], np.int64)
    found = asdict(compare_answers(answers["fp32"], answers["int8"], labels, [source.clip_id(i) for i in picked]))
    found.pop("worst")
    return {"backends": names, **found}


def answered(
    bundle: Bundle, source: ClipSource, picked: list[int], bar: Bar
) -> tuple[dict[str, Floats], dict[str, str]]:
    """Probabilities `[N, C]` by precision, and the backends' names; each clip is drawn once.

    FP32 by the runtime's own ONNX Runtime, INT8 by OpenVINO as anybody calls it.
    """
    import openvino

    from ...clips import centre_indices
    from ...engine import load

    int8 = openvino_int8(bundle)
    exact, given = [], []
    with load(bundle, backend="onnxruntime", precision="fp32") as runtime:
        names = {"fp32": runtime.backend, "int8": f"openvino {openvino.__version__.split('-')[0]} CPU"}
        for done, index in enumerate(picked):
            bar("judge", done, len(picked))
            clip = source.frames(index, centre_indices(source.count(index), bundle.sampling))
            exact.append(runtime(clip, color="rgb").probabilities.copy())
            given.append(int8({"clip": clip[None]})["probabilities"][0].copy())
    return {"fp32": np.stack(exact), "int8": np.stack(given)}, names


def compiled(bundle: Bundle, bar: Bar) -> dict[str, Any]:
    """What TensorRT-RTX makes of the INT8 graphs: kernels, and MACs by precision."""
    from ...engine.describe import proofs

    found = {}
    for name, proof in proofs(bundle.path, precisions=["int8"], sm=SM, progress=bar).items():
        found[name.split()[0]] = {
            "int8_share": proof.share,
            "kernels": len(proof.plan.kernels),
            "macs": dict(proof.plan.macs_by_precision),
        }
    return {"sm": SM, **{graph: found[graph] for graph in GRAPHS}}


def between_backends(bundle: Bundle, bar: Bar, count: int = BESIDE) -> dict[str, Any]:
    """INT8's answers by the reference and by each backend, compared.

    RMS of logits from FP32, and from each other, as shares of FP32's deviation between clips.
    """
    import onnxruntime

    from ...calibration.choose import choose
    from ...engine import load
    from ...engine.golden import centred_logits
    from ...export.entries import read_model
    from ...export.parity import RoundingClip

    bar("beside each other", 0, 1)
    clips = choose(held_out(bundle), bundle.sampling, count).clips
    data = bundle.read_graph(bundle.graph("clip", "int8"))
    bare = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    int8 = openvino_int8(bundle)
    found = {
        "reference": RoundingClip(read_model(bundle, "clip", "int8")).answers(clips),
        "onnxruntime, default options": np.concatenate([bare.run(None, {"clip": clip[None]})[0] for clip in clips]),
        "openvino": np.concatenate([int8({"clip": clip[None]})["probabilities"] for clip in clips]),
    }
    for name, precision in (("fp32", "fp32"), ("onnxruntime, this runtime", "int8")):
        with load(bundle, backend="onnxruntime", precision=precision) as runtime:
            found[name] = np.stack([runtime(clip, color="rgb").probabilities for clip in clips])
    logits = {name: centred_logits(answers.astype(np.float32)) for name, answers in found.items()}
    deviation = float(np.sqrt(logits["fp32"].var(0).mean()))
    names = ("fp32", "reference", "onnxruntime, this runtime", "onnxruntime, default options", "openvino")
    apart = {
        f"{one} | {other}": float(np.sqrt(np.square(logits[one] - logits[other]).mean()) / deviation)
        for place, one in enumerate(names)
        for other in names[place + 1 :]
    }
    return {"clips": len(clips), "rms_share": apart}


def backends_apart(found: dict[str, Any]) -> float:
    """The most that INT8 on two backends is apart, as a share of the least that it is from FP32."""
    apart = found["backends"]["rms_share"]
    from_fp32 = [share for pair, share in apart.items() if pair.startswith("fp32 ")]
    return float(max(share for pair, share in apart.items() if not pair.startswith("fp32 ")) / min(from_fp32))


def openvino_int8(bundle: Bundle) -> Any:
    """The clip graph compiled by OpenVINO, as anybody calls it."""
    import openvino

    core = openvino.Core()
    model = core.read_model(bundle.path / bundle.graph("clip", "int8").file)
    return core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def int8_form(bundle: Bundle) -> dict[str, Any]:
    """The form of INT8 in a bundle's clip graph, by the graph and the calibration's record.

    A figure of another form says nothing about this one.
    """
    from onnx import numpy_helper

    from ...bundle.onnx_graph import TYPES, infer_onnx
    from ...calibration.quantize import is_power_of_two
    from ...export.entries import read_model

    model = read_model(bundle, "clip", "int8")
    graph, values = infer_onnx(model), {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    quantizers = [node for node in graph.nodes if node.op == "QuantizeLinear"]
    weights = [n for n in graph.nodes if n.op == "DequantizeLinear" and n.inputs[0] in values]
    mantissas = np.concatenate([np.frexp(values[node.inputs[1]].astype(np.float64).ravel())[0] for node in weights])
    record = bundle.calibration()

    by_output = {node.outputs[0]: node for node in graph.nodes if node.op == "DequantizeLinear"}
    of_maps = [values[by_output[node.inputs[0]].inputs[1]] for node in graph.nodes if node.op == "Conv"]

    def kinds(nodes: list[Any], slot: int) -> list[str]:
        return sorted({TYPES[graph.tensors[node.inputs[slot]].kind][0] for node in nodes})

    return {
        "quantized": kinds(quantizers, 0),
        "scales": kinds(quantizers, 1),
        "powers_of_two_in_the_trunk": all(is_power_of_two(float(scale)) for scale in of_maps),
        "weights": kinds(weights, 0),
        "weight_scales": kinds(weights, 1),
        "weight_scale_bits": next(bits for bits in range(1, 53) if not (mantissas * 2.0**bits % 1).any()),
        "method": record["quantize"]["method"],
        "excluded": record["quantize"]["exclude"],
        "scales_moved": bool(record.get("equalisation")),
        "compensation": {key: record["compensation"][key] for key in ("columns_together", "damping")},
    }


def section(model: Network, folder: Path, bar: Bar, count: int = CLIPS) -> dict[str, Any]:
    """Everything about one network, whose bundle the folder has or gets; INT8 is made anew."""
    path = folder / f"{model.config.preset}.bundle"
    exported = Bundle(path) if path.exists() else export_on_faces(model, path)
    began = time.perf_counter()
    bundle = quantize_on_faces(exported, clips=CALIBRATED_ON)
    quantize_s = time.perf_counter() - began
    return {
        "preset": model.config.preset,
        "form": int8_form(bundle),
        "calibration": {"clips": CALIBRATED_ON, "sha256": calibration_clips(bundle, CALIBRATED_ON).sha256},
        "quantize_s": quantize_s,
        "plan": compiled(bundle, bar),
        "judged": judge(bundle, bar, count),
        "backends": between_backends(bundle, bar),
    }


def trained_table(results: dict[str, Any]) -> str:
    """The table of docs/benchmarks.md."""
    head = ("network", "training", "UAR, FP32", "UAR, INT8", "drop at most (95 %)", "RMS", "99th percentile", "largest",
            "backends apart", "MACs in INT8")  # fmt: skip
    rows = [f"| {' | '.join(head)} |", f"|---|---|{'---:|' * 8}"]
    clips = set()
    for name in ("tiny", "base"):
        found = results[name]
        judged, stages = found["judged"], found.get("training", {})
        minutes = sum(stages[stage]["duration_s"] for stage in ("frames", "clips") if stages) / 60
        cells = (
            f"`{name}`", f"{minutes:.0f} minutes" if stages else "`make demo`",
            f"{judged['uar_before']:.3f}", f"{judged['uar']:.3f}", f"{100 * judged['bound']:.2f} points",
            *(f"{judged[key]:.1%}" for key in ("rms_share", "p99_share", "max_share")),
            f"{backends_apart(found):.2f}", f"{found['plan']['clip']['int8_share']:.1%}",
        )  # fmt: skip
        rows.append(f"| {' | '.join(cells)} |")
        clips.add(judged["clips"])
    return "\n".join(rows) + (
        f"\n\n{' and '.join(map(str, sorted(clips)))} clips of people that no training and no calibration saw. RMS, "
        "percentile and largest are\ndifferences of logits over their deviation between clips. INT8 by OpenVINO, "
        "FP32 by ONNX Runtime;\nMACs of `clip` as TensorRT-RTX compiles them. Backends apart: the most that INT8 is "
        "apart (RMS) on two of them,\nas a share of its distance from FP32: OpenVINO, ONNX Runtime by our options and "
        "by its own, the reference.\n"
        "`python -m logoformer.studies.trained.int8 build/trained demo/checkpoint`.\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the named sections, both by default."""
    words = list(sys.argv[1:] if argv is None else argv)
    if len(words) < 2:
        print("usage: python -m logoformer.studies.trained.int8 FOLDER CHECKPOINT [tiny] [base]", file=sys.stderr)
        return 2
    from ...model.checkpoint import load_checkpoint
    from .training import train_base

    bar, folder = Bar(), Path(words[0])

    def base() -> dict[str, Any]:
        there = (folder / "checkpoint").exists()
        model, provenance = load_checkpoint(train_base(folder, bar))
        trained = {**provenance["extra"]["short_training"], "sha256": provenance["sha256"], "reused": there}
        return {"training": trained, **section(model, folder, bar)}

    def tiny() -> dict[str, Any]:
        return section(load_checkpoint(words[1])[0], folder, bar)

    known: dict[str, Callable[[], dict[str, Any]]] = {"tiny": tiny, "base": base}
    for asked in words[2:] or known:
        result = known[asked]()
        bar.clear()
        command = f"python -m logoformer.studies.trained.int8 build/trained demo/checkpoint {asked}"
        write_results(RESULTS, read_results(RESULTS) | {asked: measured(command, **result)})
        print(f"{asked}: written to {RESULTS}", flush=True)
    results = read_results(RESULTS)
    if {"tiny", "base"} <= results.keys():
        show_results(PAGE, {"trained-int8": trained_table(results)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
