"""Parity of a trained model on many clips: what the bar promises, measured."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from logoformer.bundle import Bundle
from logoformer.clips import window_order
from logoformer.engine import load
from logoformer.engine.golden import golden_answers
from logoformer.export import parity as par
from logoformer.export.reference import Reference
from logoformer.model.checkpoint import load_checkpoint
from logoformer.model.synthetic.recordings import synthetic_clips
from logoformer.studies.int8 import quantize_on_faces

pytestmark = pytest.mark.slow
CLIPS = 504  # 72 of each class


def test_five_hundred_clips(trained_checkpoint: Path, tiny_bundle: Path):
    model, _ = load_checkpoint(trained_checkpoint)
    bundle = Bundle(tiny_bundle)
    clips, labels, _ = synthetic_clips(CLIPS, bundle.sampling, bundle.image_size, seed=11)
    truth = par.torch_answers(model, clips, batch=32)

    with load(bundle, backend="onnxruntime", precision="fp32") as engine:
        clip = np.stack([engine(one, color="rgb").probabilities for one in clips])
        _, pair = golden_answers(engine, type(bundle.golden())(clips, truth))
    fp32 = par.measure_parity(clip, truth, "onnxruntime", "torch")
    both = par.measure_parity(pair, clip, "pair", "clip")

    def reference(graph: str) -> par.Runner:
        return Reference(onnx.load_from_string(bundle.read_graph(bundle.graph(graph, "fp16")))).run

    order = window_order(bundle.frames, bundle.stream.grid, bundle.stream.window)
    half = par.measure_parity(par.answers_of_clip_graph(reference("clip"), clips), truth, "reference", "torch")
    half_pair = par.measure_parity(
        par.answers_of_graph_pair(reference("frame"), reference("temporal"), clips, bundle.stream.rows, order),
        truth,
        "reference",
        "torch",
    )
    accuracy = float((truth.argmax(1) == labels).mean())
    print(
        f"{CLIPS} clips, accuracy {accuracy:.3f}:",
        *(f"{p.share:.4%} {p.agreement:.2%};" for p in (fp32, both, half, half_pair)),
    )
    assert fp32.within(0.001, 1.0) and both.within(0.001, 1.0)
    assert half.within(0.05, 0.99) and half_pair.within(0.05, 0.99)


def test_int8_on_onnx_runtime_is_as_near_to_fp32_as_the_reference(tiny_bundle: Path, tmp_path: Path):
    """Through our runtime and through a session that knows nothing of us: its default options fuse Q/DQ."""
    copied = tmp_path / "face.bundle"
    shutil.copytree(tiny_bundle, copied)
    bundle = quantize_on_faces(Bundle(copied), clips=128)
    clips, _, _ = synthetic_clips(140, bundle.sampling, bundle.image_size, seed=13)
    data = {precision: bundle.read_graph(bundle.graph("clip", precision)) for precision in ("fp32", "int8")}

    def bare(precision: str) -> np.ndarray:
        session = ort.InferenceSession(data[precision], providers=["CPUExecutionProvider"])
        return np.concatenate([session.run(None, {"clip": clip[None]})[0] for clip in clips])

    def logits(probabilities: np.ndarray) -> np.ndarray:
        logs = np.log(np.maximum(probabilities.astype(np.float64), 1e-12))
        return logs - logs.mean(1, keepdims=True)

    truth = logits(bare("fp32"))
    with load(bundle, backend="onnxruntime", precision="int8") as runtime:
        ours = np.stack([runtime(clip, color="rgb").probabilities for clip in clips])
    answers = {
        "reference": par.RoundingClip(onnx.load_from_string(data["int8"])).answers(clips),
        "bare session": bare("int8"),
        "runtime": ours,
    }
    rms = {
        name: float(np.sqrt(np.mean((logits(given) - truth) ** 2)) / truth.std(0).mean())
        for name, given in answers.items()
    }
    print(rms)
    assert 0 < rms["reference"] < 0.1
    assert max(rms["bare session"], rms["runtime"]) <= 1.1 * rms["reference"]
    assert min(rms["bare session"], rms["runtime"]) >= 0.5 * rms["reference"]  # INT8 indeed: FP16 would be at 0.01
