"""The axis of several faces in every family's graphs and forms: the single graph's answers and kernels."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from logoformer.bundle.onnx_graph import infer_onnx
from logoformer.clips import Sampling
from logoformer.engine.builder.proof import xray
from logoformer.export.batch_axis import with_batch_axis
from logoformer.export.graphs import ABSORBED, build_graph, example_inputs
from logoformer.export.lint import lint
from logoformer.export.parity import ort_runner
from logoformer.export.precision import Protected, to_fp16
from logoformer.export.trace import to_bytes, trace
from logoformer.model.networks.configs import PRESETS
from logoformer.model.networks.contract import NetworkConfig
from logoformer.model.networks.families import untrained
from logoformer.model.networks.logoformer.config import ATTENTIONS

TINY, FORMER, MAE = PRESETS["tiny"], PRESETS["former-dfer-tiny"], PRESETS["mae-dfer-tiny"]
CASES = {
    **{attention: replace(TINY, attention=attention, qkv_bias=attention == "mixing") for attention in ATTENTIONS},
    "former-dfer": FORMER,
    "mae-dfer": MAE,
    "mae-dfer-reads-local": replace(MAE, read="local"),
    "mae-dfer-uneven-ffn": replace(
        MAE, ffn_dim=96, depth=1, sampling=Sampling.strided(12, 1), tubelet=3, region=(2, 2, 2)
    ),
}  # fmt: skip
FORMS = [(name, form) for name, config in CASES.items() for form in (False, True)[: 1 + (config.family in ABSORBED)]]
SLOTS = 3  # times the frames of a clip


@cache
def traced(config: NetworkConfig, absorbed: bool = False) -> onnx.ModelProto:
    """`temporal`, with no parameter at the value that it is initialised with."""
    model = untrained(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    inputs = example_inputs("temporal", config, SLOTS * config.frames)
    return trace(build_graph("temporal", model, absorbed=absorbed), inputs, "probabilities")


def feed_of(config: NetworkConfig, faces: int) -> dict[str, np.ndarray]:
    """A ring, and an order for each of some faces."""
    rng, rows = np.random.default_rng(2), SLOTS * config.frames * config.tokens_per_frame
    ring = rng.standard_normal((rows, config.token_dim)).astype(np.float32)
    order = rng.integers(0, rows, (faces, config.frames * config.tokens_per_frame), dtype=np.int32)
    return {"ring": ring, "order": order}


def halved(config: NetworkConfig, absorbed: bool = False) -> onnx.ModelProto:
    """The same in FP16, with the answer's softmax in FP32."""
    made, feed = traced(config, absorbed), feed_of(config, 1)
    last = [node.name for node in made.graph.node if node.op_type == "Softmax"][-1]
    return to_fp16(made, {**feed, "order": feed["order"][0]}, [Protected(last, "the answer")])


@pytest.mark.parametrize(("name", "absorbed"), FORMS)
def test_a_face_among_others_gets_what_it_gets_alone(name: str, absorbed: bool):
    """Bit for bit on ONNX Runtime, in FP32 and FP16.

    In FP16 its CPU kernels round where a node has a kernel for it: the mean of MAE-DFER's rows is reshaped, so it is
    rounded once more.
    """
    config = CASES[name]
    feed = feed_of(config, 4)
    narrow = [] if name == "divided" else [halved(config, absorbed)]  # ONNX Runtime 1.24 crashes on that one, alone too
    for model in (traced(config, absorbed), *narrow):
        alone = ort_runner("temporal", model)
        wanted = np.concatenate([alone({**feed, "order": order})["probabilities"] for order in feed["order"]])
        assert min(np.abs(wanted[i] - wanted[j]).max() for i in range(4) for j in range(i)) > 1e-5
        for batch in (2, 4):
            made = with_batch_axis(model, batch)
            assert lint(made) == []
            onnx.checker.check_model(made, full_check=True)
            counts = infer_onnx(model).macs_by_precision, infer_onnx(made).macs_by_precision
            assert counts[1] == {precision: batch * count for precision, count in counts[0].items()}
            found = ort_runner("temporal", made)({**feed, "order": feed["order"][:batch]})["probabilities"]
            if model is not traced(config, absorbed) and config.family == "mae-dfer":
                np.testing.assert_allclose(found, wanted[:batch], rtol=2e-3, atol=0)
            else:
                np.testing.assert_array_equal(found, wanted[:batch], err_msg=f"batch {batch}")


@pytest.mark.parametrize(("name", "more"), [("logo", 0), ("lgi", 3), ("former-dfer", 4), ("mae-dfer", 3)])
def test_four_faces_take_the_kernels_of_one_and_every_attention_is_fused(rtx: object, name: str, more: int):
    """As TensorRT-RTX compiles it for sm86; products of several rows are kernels of another kind."""
    single = halved(CASES[name])
    one, four = (xray(to_bytes(model), "sm86").summary() for model in (single, with_batch_axis(single, 4)))
    assert four["kernels"] <= one["kernels"] + more and four["movement"] <= one["movement"] + (name == "former-dfer")
    assert four["fused_attentions"] == one["fused_attentions"] > 0
    assert four["macs_by_precision"].keys() == {"fp16"}
