"""Parity of a trained model on many clips: what the bar promises, measured."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from logoformer.bundle import Bundle
from logoformer.clips import window_order
from logoformer.engine import load
from logoformer.engine.golden import golden_answers
from logoformer.export import parity as par
from logoformer.export.reference import Reference
from logoformer.model.checkpoint import load_checkpoint
from logoformer.model.synthetic.recordings import synthetic_clips

pytestmark = pytest.mark.slow
CLIPS = 504  # 72 of each class


def test_five_hundred_clips(trained_checkpoint: Path, tiny_bundle: Path):
    model, _ = load_checkpoint(trained_checkpoint)
    bundle = Bundle(tiny_bundle)
    clips, labels, _ = synthetic_clips(CLIPS, bundle.sampling, bundle.image_size, seed=11)
    truth = par.torch_answers(model, clips, batch=32)

    with load(bundle, precision="fp32") as engine:
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
