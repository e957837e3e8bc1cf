"""All six attention schemes export: the same answers, no lint, every attention fused in TensorRT's FP16 plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from logoformer.bundle.onnx_graph import infer_onnx
from logoformer.clips import Sampling, window_order
from logoformer.engine.builder.proof import xray
from logoformer.export.graphs import build_graph, example_inputs
from logoformer.export.lint import lint
from logoformer.export.precision import to_fp16
from logoformer.export.reference import Reference
from logoformer.export.trace import to_bytes, trace
from logoformer.model.networks.configs import complexity, preset
from logoformer.model.networks.logoformer.complexity import attention_macs
from logoformer.model.networks.logoformer.config import ATTENTIONS, LogoFormerConfig
from logoformer.model.networks.logoformer.model import LogoFormer
from logoformer.model.networks.network import to_tensor
from logoformer.workflows.init import initialise

FUSED = {"logo": 4, "joint": 2, "space": 2, "divided": 4, "mixing": 2, "lgi": 5}  # of two blocks; lgi's last has two


def noisy(config: LogoFormerConfig) -> LogoFormer:
    model = initialise(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def traced(config: LogoFormerConfig):
    torch.manual_seed(0)
    inputs = example_inputs("temporal", config, config.frames + 2)
    return trace(build_graph("temporal", LogoFormer(config).eval()), inputs, "probabilities"), inputs


@pytest.mark.parametrize(("side", "window"), [(64, (2, 2, 4)), (16, (4, 1, 1))], ids=["frames of 16", "frames of one"])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_the_pair_and_the_clip_graph_equal_the_model(attention: str, side: int, window: tuple[int, int, int]):
    config = replace(preset("tiny"), attention=attention, image_size=side, window=window)
    model = noisy(config)
    shape = (2, config.frames, config.image_size, config.image_size, 3)
    clips = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    with torch.no_grad():
        wanted = torch.softmax(model(to_tensor(clips)), -1)
        clip = torch.cat([build_graph("clip", model)(torch.from_numpy(c[None])) for c in clips])
        torch.testing.assert_close(clip, wanted, rtol=1e-4, atol=1e-6)
        frame, temporal = build_graph("frame", model), build_graph("temporal", model)
        tokens = torch.cat([frame(torch.from_numpy(image[None]))[0] for image in clips[0]])  # [T*h*w, d]
        order = torch.from_numpy(window_order(config.frames, config.grid, config.token_window))
        torch.testing.assert_close(temporal(tokens, order), wanted[:1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_attention_products_of_the_traced_graph_equal_the_closed_form(attention: str):
    """Three T and three S: every MatMul of two computed tensors is one of QK^T and weights V."""
    for frames, size in [(4, 32), (8, 64), (16, 128)]:
        config = replace(
            preset("tiny"), attention=attention, depth=2, image_size=size, window=(2, 2, 2),
            sampling=Sampling(frames, 1, span_s=4.0),
        )  # fmt: skip
        graph, _ = traced(config)
        assert lint(graph) == []
        types = infer_onnx(graph).tensors
        weights = {item.name for item in graph.graph.initializer}
        products = 0
        for node in graph.graph.node:
            if node.op_type == "MatMul" and not weights & set(node.input):
                out, left = types[node.output[0]].shape, types[node.input[0]].shape
                products += int(np.prod(out)) * left[-1]
        assert products == attention_macs(config) + attention_macs(config, last=True)
        assert infer_onnx(graph).macs_by_precision["fp32"] == pytest.approx(
            complexity(config).temporal_macs_exported, rel=0.01
        )


@pytest.mark.slow
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_base_builds_for_two_gpus_with_every_attention_fused(attention: str, rtx: object):
    config = replace(preset("base"), attention=attention, depth=2)  # two of its four blocks, which have the same shapes
    graph, inputs = traced(config)
    feed = {name: value.numpy() for name, value in inputs.items()}
    feed["ring"] = np.random.default_rng(0).standard_normal(feed["ring"].shape).astype(np.float32)
    feed["order"] = np.arange(config.tokens, dtype=np.int32)
    data = to_bytes(to_fp16(graph, feed, []))
    for sm in ("sm86", "sm120"):
        plan = xray(data, sm, shown=attention).summary()
        assert plan["fused_attentions"] == FUSED[attention], sm
        assert plan["macs_by_precision"].keys() == {"fp16"}


@pytest.mark.parametrize("attention", [a for a in ATTENTIONS if a != "logo"])
def test_fp32_graphs_run_in_the_reference(attention: str):
    config = replace(preset("tiny"), attention=attention)
    graph, inputs = traced(config)
    feed = {name: value.numpy() for name, value in inputs.items()}
    feed["order"] = np.arange(config.tokens, dtype=np.int32)
    answer = Reference(graph).run(feed)["probabilities"]
    assert answer.shape == (1, 7) and answer.sum() == pytest.approx(1.0, abs=1e-5)
