"""The graphs of every family, in each of their forms: the model's answers, the rules, the counts, the kernel plans."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from logoformer.bundle.onnx_graph import infer_onnx
from logoformer.clips import Sampling, window_order
from logoformer.engine.builder.proof import xray
from logoformer.export.forms import form_entry, form_of
from logoformer.export.graphs import ABSORBED, GRAPHS, build_graph, example_inputs
from logoformer.export.lint import lint
from logoformer.export.precision import Protected, to_fp16, widened
from logoformer.export.reference import Reference
from logoformer.export.trace import to_bytes, trace
from logoformer.model.networks.configs import PRESETS, complexity
from logoformer.model.networks.contract import NetworkConfig
from logoformer.model.networks.families import untrained
from logoformer.model.networks.network import Network, to_tensor

TINY, FORMER, MAE = PRESETS["tiny"], PRESETS["former-dfer-tiny"], PRESETS["mae-dfer-tiny"]
CASES = {
    "logoformer": TINY,
    "logoformer-biased": replace(TINY, qkv_bias=True, mean=(0.4, 0.4, 0.4)),
    "logoformer-mixing-biased": replace(TINY, qkv_bias=True, attention="mixing"),
    "former-dfer": FORMER,
    "former-dfer-mean": replace(FORMER, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), spatial_depth=2),
    "mae-dfer": MAE,
    "mae-dfer-columns-are-cut": replace(MAE, region=(4, 4, 2)),
    "mae-dfer-reads-local": replace(MAE, read="local"),
    "mae-dfer-reads-all": replace(MAE, read="all", tubelet=1, region=(2, 2, 2)),
    "mae-dfer-uneven-ffn": replace(
        MAE, ffn_dim=96, depth=1, sampling=Sampling.strided(12, 1), tubelet=3, region=(2, 2, 2)
    ),
}  # fmt: skip


FORMS = [(name, form) for name, config in CASES.items() for form in (False, True)[: 1 + (config.family in ABSORBED)]]


@cache
def noisy(config: NetworkConfig) -> Network:
    """A model in which no parameter or statistic has the value it is initialised with."""
    model = untrained(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer += 0.1 * torch.randn(buffer.shape, generator=generator)
            if name.endswith("running_var"):
                buffer *= 1 + torch.rand(buffer.shape, generator=generator)
    return model


@pytest.mark.parametrize(("name", "absorbed"), FORMS)
@torch.no_grad()
def test_clip_and_pair_equal_the_model(name: str, absorbed: bool):
    config = CASES[name]
    model = noisy(config)
    shape = (2, config.frames, config.image_size, config.image_size, 3)
    clips = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    wanted = torch.softmax(model(to_tensor(clips)), -1)
    assert (wanted[0] - wanted[1]).abs().max() > 1e-4
    graphs = {graph: build_graph(graph, model, absorbed=absorbed) for graph in GRAPHS}
    clip = torch.cat([graphs["clip"](torch.from_numpy(one[None])) for one in clips])
    torch.testing.assert_close(clip, wanted, rtol=1e-4, atol=1e-6)
    rows = torch.cat([graphs["frame"](torch.from_numpy(image[None]))[0] for image in clips[0]])
    # The ring holds the frames backwards and with a hole: `order` alone says where each stands.
    per_frame, slots = config.tokens_per_frame, np.arange(config.frames)[::-1] + 1
    ring = torch.full(((config.frames + 2) * per_frame, config.token_dim), 1e3)
    for slot, image in zip(slots, rows.split(per_frame), strict=True):
        ring[slot * per_frame : (slot + 1) * per_frame] = image
    natural = window_order(config.frames, config.grid, config.token_window)
    order = slots[natural // per_frame] * per_frame + natural % per_frame
    pair = graphs["temporal"](ring, torch.from_numpy(order.astype(np.int32)))
    torch.testing.assert_close(pair, wanted[:1], rtol=1e-4, atol=1e-6)


@cache
def traced(graph: str, config: NetworkConfig, *, absorbed: bool = False) -> onnx.ModelProto:
    module = build_graph(graph, noisy(config), absorbed=absorbed)
    return trace(module, example_inputs(graph, config, 20), "tokens" if graph == "frame" else "probabilities")


def feed_of(graph: str, config: NetworkConfig) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    feed = {name: value.numpy() for name, value in example_inputs(graph, config, 20).items()}
    for name, value in feed.items():
        if value.dtype == np.uint8:
            feed[name] = rng.integers(0, 256, value.shape, dtype=np.uint8)
        elif value.dtype == np.int32:
            feed[name] = window_order(config.frames, config.grid, config.token_window).astype(np.int32)
        else:
            feed[name] = rng.standard_normal(value.shape).astype(np.float32)
    return feed


@pytest.mark.parametrize(("name", "absorbed"), [("former-dfer", False), ("mae-dfer", False), ("mae-dfer", True)])
def test_traced_graphs_are_clean_equal_and_run_in_the_reference(name: str, absorbed: bool):
    config = CASES[name]
    model = noisy(config)
    for graph in GRAPHS:
        made = traced(graph, config, absorbed=absorbed)
        onnx.checker.check_model(made, full_check=True)
        assert lint(made) == [], graph
        feed = feed_of(graph, config)
        with torch.no_grad():
            wanted = build_graph(graph, model, absorbed=absorbed)(*map(torch.from_numpy, feed.values())).numpy()
        found = next(iter(Reference(made).run(feed).values()))
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
        assert b".py" not in to_bytes(made) and b"torch" not in to_bytes(made)


@pytest.mark.parametrize("config", [FORMER, MAE], ids=["former-dfer", "mae-dfer"])
def test_the_counted_graphs_are_the_formulas(config: NetworkConfig):
    counts = complexity(config)
    found = {graph: sum(infer_onnx(traced(graph, config)).macs_by_precision.values()) for graph in GRAPHS}
    assert found == {
        "clip": counts.clip_macs_exported, "frame": counts.frame_macs, "temporal": counts.temporal_macs_exported
    }  # fmt: skip


def absorption_saves(config: NetworkConfig) -> int:
    """Multiply-accumulates, counted by hand; n local tokens, w regions, rows of both, d channels, h heads."""
    n, w, d, h = config.tokens, config.regions, config.embed_dim, config.heads
    rows = n + w
    # The interaction: Q and out of n, K and V of w, two products; then K, V, what moved to them, three products.
    interaction = 2 * (n + w) * d**2 + 2 * n * w * d
    absorbed = 4 * w * d**2 + w * d + rows * d * h * w + rows * d * (h * w + w)
    # The last local attention, one query a region: K and V of all rows; then what moved to the queries, per head.
    last = 2 * rows * d**2 + 2 * rows * d
    single = 2 * w * d**2 + 2 * rows * h * d
    return (config.depth - 1) * (interaction - absorbed) + last - single


def test_absorption_saves_what_is_counted_by_hand():
    plain, absorbed = (
        sum(infer_onnx(traced("clip", MAE, absorbed=form)).macs_by_precision.values()) for form in (False, True)
    )
    assert plain - absorbed == absorption_saves(MAE)
    full = PRESETS["mae-dfer"]
    assert 41.0e9 < complexity(full).clip_macs_exported - absorption_saves(full) <= 41.5e9


def test_a_precision_has_one_form_and_the_manifest_says_why():
    assert form_of(MAE, "fp32").absorbed and not form_of(MAE, "fp16").absorbed and not form_of(MAE, "int8").absorbed
    assert form_entry(MAE, "fp32")["form"]["name"] == "absorbed" and "CPU" in form_entry(MAE, "fp32")["form"]["reason"]
    for config in (TINY, FORMER):
        assert form_entry(config, "fp32") == {} and not form_of(config, "fp32").absorbed


def test_the_twin_of_an_fp16_graph_is_that_graph_in_fp32():
    graph = "temporal"
    made = traced(graph, MAE)
    feed = feed_of(graph, MAE)
    last = [node.name for node in made.graph.node if node.op_type == "Softmax"][-1:]
    half = to_fp16(made, feed, [Protected(name, "the answer") for name in last])
    twin = widened(half)
    onnx.checker.check_model(twin, full_check=True)
    assert {item.data_type for item in twin.graph.initializer} <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    assert {n.name for n in twin.graph.node} >= {n.name for n in made.graph.node} - {"Cast"}
    output = made.graph.output[0].name
    np.testing.assert_allclose(Reference(twin).run(feed)[output], Reference(made).run(feed)[output], rtol=0, atol=2e-3)


# ------------------------------------------------------------------------------------------------------- kernel plans
def plan_of(graph: str, config: NetworkConfig, **more: bool) -> dict:
    """The plan of TensorRT-RTX for the FP16 graph on sm86, with the answer's softmax in FP32."""
    made = traced(graph, config, **more)
    last = [node.name for node in made.graph.node if node.op_type == "Softmax"][-1:] if graph != "frame" else []
    half = to_fp16(made, feed_of(graph, config), [Protected(name, "the answer") for name in last])
    summary = xray(to_bytes(half), "sm86").summary()
    assert summary["macs_by_precision"].keys() == {"fp16"} and not summary["sync"] and not summary["unread_lines"]
    return summary


@pytest.mark.parametrize(("graph", "kernels", "fused", "movement"), [("frame", 31, 1, 0), ("temporal", 23, 3, 0)])
def test_former_dfers_plan(rtx: object, graph: str, kernels: int, fused: int, movement: int):
    found = plan_of(graph, PRESETS["former-dfer"])
    assert found["kernels"] <= kernels
    assert (found["fused_attentions"], found["movement"]) == (fused, movement)


@pytest.mark.parametrize("graph", ["clip", "temporal"])
def test_mae_dfers_plan_in_two_blocks(rtx: object, graph: str):
    """A block of the sixteen, and the last one; `test_full_size.py` counts all."""
    found = plan_of(graph, replace(PRESETS["mae-dfer"], depth=2))
    assert found["kernels"] <= 41  # 20 and 21
    assert (found["fused_attentions"], found["movement"]) == (5, 0)


def test_biases_of_q_k_and_v_keep_logoformers_plan(rtx: object):
    base = replace(PRESETS["base"], depth=2)
    plain, biased = plan_of("temporal", base), plan_of("temporal", replace(base, qkv_bias=True))
    for found in (plain, biased):
        assert (found["fused_attentions"], found["movement"]) == (4, 0)
    assert biased["kernels"] - plain["kernels"] <= 4  # one for each attention: the bias of Q behind the transpose
