"""`python -m logoformer.studies.families`: published families at full size, without a GPU.

Parity of FP32 and FP16, the stream against its clip, INT8 by the accuracy gate, kernel plans of TensorRT-RTX and ratios
of CPU time, with random weights: what the weights are changes no size, plan or time. Names of parts and of families may
be given; what is not named stays as it was in `benchmarks/results/families.json`.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..benchmarks.load.closed import Candidate, LoadConfig, closed_loop
from ..benchmarks.statistics import ratio
from ..bundle import Bundle
from ..cli.terminal import Bar
from ..clips import pattern_ages
from ..engine.golden import centred_logits
from ..errors import MachineError
from .results import FOLDER, measured, read_results, write_results

if TYPE_CHECKING:
    import onnx

    from ..model.networks.contract import NetworkConfig

RESULTS = FOLDER / "families.json"
COMMAND = "python -m logoformer.studies.families"
WORK = Path("build/families")
FULL = ("former-dfer", "mae-dfer")
CLIPS = 8  # that parity is taken on; a clip of MAE-DFER is 47 G multiply-accumulates
CALIBRATION = {"former-dfer": 64, "mae-dfer": 16}
HELD_OUT = {"former-dfer": 84, "mae-dfer": 21}
RECORDING = 96  # frames of the stream's recording
ROUNDS = 21


def make_bundle_of(name: str, bar: Bar) -> Bundle:
    """The full-size bundle of a family with random weights, FP32 and FP16; made once."""
    from ..export.exporter import ExportConfig
    from ..workflows.export import export_checkpoint
    from ..workflows.init import init_checkpoint

    folder = WORK / f"{name}.bundle"
    if not folder.exists():
        checkpoint = init_checkpoint(name, WORK / name, progress=bar)
        export_checkpoint(checkpoint, folder, ExportConfig(faces=1), clips=CLIPS, progress=bar)
        shutil.rmtree(checkpoint)
    return Bundle(folder)


def parity(name: str, bar: Bar) -> dict[str, Any]:
    """Verdicts and distances of FP32 and FP16, and sizes."""
    bundle = make_bundle_of(name, bar)
    return {
        "precisions": {
            precision: {key: bundle.precisions[precision][key] for key in ("verdict", "reason", "parity", "form")
                        if key in bundle.precisions[precision]}
            for precision in ("fp32", "fp16")
        },
        "graphs": {
            f"{entry.graph} {entry.precision}": {"size": entry.size, "macs": dict(entry.macs)}
            for entry in bundle.graphs if entry.precision != "int8"
        },
        "complexity": bundle.manifest["model"]["complexity"],
    }  # fmt: skip


def stream(name: str, bar: Bar) -> dict[str, Any]:
    """The stream against the clip graph on the same frames of a synthetic recording, in FP32."""
    from ..engine.runtime import load
    from ..model.synthetic.recordings import SyntheticClips

    bundle = make_bundle_of(name, bar)
    sampling, size = bundle.sampling, bundle.image_size
    source = SyntheticClips(0, range(6_000_000, 6_000_002), 7, size)
    count = min(source.count(0), RECORDING)
    frames = np.concatenate([source.frames(index, np.arange(count)) for index in range(2)])[:RECORDING]
    ages = np.rint(pattern_ages(sampling) * sampling.fps).astype(int)
    pairs = []
    with load(bundle, backend="onnxruntime", precision="fp32", threads=1) as runtime:
        with runtime.stream(hop=5, color="rgb") as one:
            for number, frame in enumerate(frames):
                bar("stream", number, len(frames))
                result = one.push(frame, number / sampling.fps)
                if result is not None:
                    clip = runtime(frames[number - ages], color="rgb")
                    pairs.append((result.probabilities, clip.probabilities))
        golden = bundle.golden().probabilities
    streamed, clips = (np.stack(part) for part in zip(*pairs, strict=True))
    deviation = float(np.sqrt(centred_logits(golden).var(0).mean()))
    share = float(np.abs(centred_logits(streamed) - centred_logits(clips)).max()) / deviation
    return {"answers": len(pairs), "share_of_clip_deviation": share, "deviation_of": "the golden clips"}


def plans(name: str, bar: Bar) -> dict[str, Any]:
    """Kernel plans for sm86, also of the form that a precision does not take."""
    from ..engine.describe import proofs
    from ..model.networks.configs import PRESETS

    bundle = make_bundle_of(name, bar)
    found = {key: _plan(proof.plan.summary()) for key, proof in proofs(bundle.path, progress=bar).items()}
    if name == "mae-dfer":
        for graph in ("clip", "temporal"):
            bar("plan of the other form", 0, 2)
            found[f"{graph} fp16, absorbed"] = _other_form(PRESETS[name], graph, absorbed=True, half=True)
            found[f"{graph} fp32, fused"] = _other_form(PRESETS[name], graph, absorbed=False, half=False)
    return found


def biased_plans(bar: Bar) -> dict[str, Any]:
    """Plans of LOGO-Former `base` with biases of Q, K and V, as other people's code has them."""
    from ..model.networks.logoformer.config import LOGOFORMER_PRESETS

    base = LOGOFORMER_PRESETS["base"]
    found = {}
    for shown, config in (("without biases", base), ("with biases", replace(base, qkv_bias=True))):
        bar(f"plan of base {shown}", 0, 1)
        found[f"temporal fp16, {shown}"] = _other_form(config, "temporal", absorbed=False, half=True)
    return found


def _other_form(config: NetworkConfig, graph: str, *, absorbed: bool, half: bool) -> dict[str, Any]:
    from ..engine.builder.proof import xray
    from ..export.graphs import build_graph, example_inputs
    from ..export.precision import Protected, to_fp16
    from ..export.trace import to_bytes, trace
    from ..model.networks.families import untrained

    inputs = example_inputs(graph, config, 100)
    made = trace(build_graph(graph, untrained(config), absorbed=absorbed), inputs, "probabilities")
    if half:
        last = [node.name for node in made.graph.node if node.op_type == "Softmax"][-1]
        feed = {name: value.numpy() for name, value in inputs.items()}
        made = to_fp16(made, feed, [Protected(last, "the answer")])
    try:
        return _plan(xray(to_bytes(made), "sm86").summary())
    except MachineError as error:  # the compiler's own limit is a finding too
        return {"not_built": error.what}


def _plan(summary: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("sm", "compiler", "kernels", "sync", "fused_attentions", "movement", "bytes", "macs_by_precision")
    return {name: summary[name] for name in kept}


def cpu(name: str, bar: Bar) -> dict[str, Any]:
    """Ratios of CPU time in one interleaved run of ONNX Runtime, FP32, one thread."""
    from ..bundle import GraphEntry
    from ..engine.sessions.ort import open_session, runtime_name
    from ..export.entries import read_model, tensor_specs
    from ..export.trace import OPSET, to_bytes

    bundle = make_bundle_of(name, bar)
    clips = bundle.golden().clips

    def session(model: onnx.ModelProto, graph: str) -> Any:
        data, (inputs, outputs) = to_bytes(model), tensor_specs(model)
        entry = GraphEntry(graph, "fp32", 1, f"graphs/{graph}.onnx", "0" * 64, len(data), OPSET, inputs, outputs, {})
        return open_session(data, entry, {"threads": 1})

    def on_clips(model: onnx.ModelProto) -> Callable[[int], None]:
        opened = session(model, "clip")

        def step(index: int) -> None:
            np.copyto(opened.input("clip")[0], clips[index % len(clips)])
            opened.run()

        return step

    candidates = {"clip": on_clips(read_model(bundle, "clip", "fp32"))}
    if name == "mae-dfer":
        from ..export.graphs import build_graph, example_inputs
        from ..export.trace import trace
        from ..model.networks.configs import PRESETS
        from ..model.networks.families import untrained
        from ..model.networks.mae_dfer.model import MaeDfer
        from .plain_layout import plain_export

        model = untrained(PRESETS[name])
        if not isinstance(model, MaeDfer):
            raise TypeError(f"{name} is no MAE-DFER")
        candidates["plain"] = on_clips(plain_export(model))
        fused = trace(build_graph("clip", model), example_inputs("clip", model.config, 1), "probabilities")
        candidates["clip, fused"] = on_clips(fused)
        against = "plain"
    else:
        frame, temporal = (session(read_model(bundle, graph, "fp32"), graph) for graph in ("frame", "temporal"))
        temporal.input("order")[:] = np.arange(bundle.frames * bundle.stream.tokens_per_frame)

        def streamed(index: int) -> None:
            np.copyto(frame.input("frame")[0], clips[index % len(clips), 0])
            frame.run()
            temporal.take(frame, "tokens", "ring", index % bundle.stream.slots * bundle.stream.tokens_per_frame, 0)
            temporal.run()

        candidates["stream at hop 1"] = streamed
        against = "clip"
    load = LoadConfig(ROUNDS, block=1, settle=1, warmup=2)
    given = [Candidate(shown, step) for shown, step in candidates.items()]
    taken = closed_loop(given, load, clock=time.process_time_ns, progress=bar).latency_ms
    return {
        "runtime": runtime_name(),
        "threads": 1,
        "rounds": ROUNDS,
        "clock": "CPU time of the process",
        "against": against,
        "ratios": {shown: asdict(ratio(taken[shown], taken[against])) for shown in candidates if shown != against},
    }


def int8(name: str, bar: Bar) -> dict[str, Any]:
    """INT8 on synthetic faces, and the gate's verdict; random weights pass no gate."""
    from ..calibration.placement import groups, sites
    from ..calibration.quantize import QuantizeConfig
    from ..export.entries import read_fp32_twin
    from ..model.synthetic.recordings import SyntheticClips
    from ..workflows.quantize import Calibration, quantize_bundle
    from ..workflows.verify import judge_accuracy
    from .int8 import calibration_clips

    bundle = make_bundle_of(name, bar)
    count = CALIBRATION[name]
    calibration = Calibration("synthetic", clips=count, few=True, compensate=False, config=QuantizeConfig())
    bundle = quantize_bundle(bundle.path, calibration_clips(bundle, count), calibration, bar)
    source = SyntheticClips(0, range(7_000_000, 7_000_100), 7, bundle.image_size)
    report = judge_accuracy(
        bundle, source, range(HELD_OUT[name]), named="synthetic faces", reproduce=f"{COMMAND} int8", progress=bar
    )
    clip = read_fp32_twin(bundle, "clip")
    products = {node for site in sites(clip) for node in (site.node,)}
    left = sorted({
        node.name.split("/")[0] for node in clip.graph.node
        if node.op_type in ("MatMul", "Conv", "Gemm") and node.name not in products
    })  # fmt: skip
    row = report.precisions["int8"]
    return {
        "calibration_clips": count,
        "judged_on": HELD_OUT[name],
        "verdict": row["verdict"],
        "reason": row["reason"],
        "rms_share": row.get("rms_share"),
        "parity": bundle.precisions["int8"]["parity"],
        "macs": {graph: dict(bundle.graph(graph, "int8").macs) for graph in ("clip", "frame", "temporal")},
        "groups_in_int8": list(groups(clip)),
        "modules_left_in_fp16": left,
    }


PARTS: dict[str, Callable[[str, Bar], dict[str, Any]]] = {
    "parity": parity, "stream": stream, "plans": plans, "cpu": cpu, "int8": int8
}  # fmt: skip


def main(words: list[str] | None = None) -> int:
    """Measures what is named, or everything, and writes the file."""
    import torch

    torch.set_num_threads(1)
    given = sys.argv[1:] if words is None else words
    names = [name for name in FULL if name in given] or list(FULL)
    parts = [part for part in (*PARTS, "biases") if part in given] or [*PARTS, "biases"]
    bar = Bar()
    results = {**read_results(RESULTS), **measured(COMMAND)}
    WORK.mkdir(parents=True, exist_ok=True)
    for part in parts:
        for name in names if part in PARTS else ():
            results.setdefault(name, {})[part] = PARTS[part](name, bar)
            bar.clear()
            print(f"{name}: {part} {results[name][part]}", flush=True)
            write_results(RESULTS, results)
        if part == "biases":
            results["logoformer"] = {"plans": biased_plans(bar)}
            bar.clear()
            print(f"logoformer: {results['logoformer']}", flush=True)
            write_results(RESULTS, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
