"""FP16: what the range scan protects, and an overflow that is planted and found."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from logoformer.bundle import StreamSpec
from logoformer.bundle.onnx_graph import infer_onnx
from logoformer.clips import window_order
from logoformer.engine.golden import distance
from logoformer.export.graphs import build_graph, example_inputs
from logoformer.export.parity import RoundingClip, RoundingPair, ort_runner, pair_feed, torch_answers
from logoformer.export.precision import (
    FP16_MAX,
    MARGIN,
    Protected,
    ScannedRanges,
    channels,
    narrow_rows,
    not_finite,
    protect,
    scan,
    to_fp16,
)
from logoformer.export.reference import Reference
from logoformer.export.trace import to_bytes, trace
from logoformer.model.networks.configs import PRESETS
from logoformer.model.networks.logoformer.model import LogoFormer
from logoformer.model.synthetic.recordings import synthetic_clips
from logoformer.workflows.init import initialise

TINY = PRESETS["tiny"]


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    return synthetic_clips(7, TINY.sampling, TINY.image_size, seed=3)[0]


def with_planted_overflow(factor: float = 3e5, lift: float = 6.0) -> LogoFormer:
    """One FFN's hidden layer is scaled far past FP16, its second layer by the inverse: FP32 answers stay.

    The hidden values pass through GELU, so only a channel that GELU leaves alone may be scaled: its bias is raised
    until the channel is linear.
    """
    model = initialise(TINY)
    ffn = model.blocks[0].ffn
    with torch.no_grad():
        ffn.fc1.bias[0] += lift
        ffn.fc1.weight[0] *= factor
        ffn.fc1.bias[0] *= factor
        ffn.fc2.weight[:, 0] /= factor
    return model


def convert(model: LogoFormer, clips: np.ndarray, protected: list[Protected] | None) -> onnx.ModelProto:
    graph = trace(build_graph("clip", model), example_inputs("clip", TINY, 20), "probabilities")
    if protected is None:
        protected = protect(graph, scan(graph, [{"clip": clip[None]} for clip in clips]))
    return to_fp16(graph, {"clip": clips[:1]}, protected)


def answers(graph: onnx.ModelProto, clips: np.ndarray) -> np.ndarray:
    reference = Reference(graph)
    return np.concatenate([reference.run({"clip": clip[None]})["probabilities"] for clip in clips])


def test_planted_overflow_is_found_protected_and_harmless(clips: np.ndarray):
    model = with_planted_overflow()
    truth = torch_answers(model, clips)
    graph = trace(build_graph("clip", model), example_inputs("clip", TINY, 20), "probabilities")
    found = protect(graph, scan(graph, [{"clip": clip[None]} for clip in clips]))
    named = {item.node: item.reason for item in found}
    assert "temporal.blocks.0.ffn.fc1/Add" in named and "temporal.blocks.0.ffn.act/Gelu" in named
    assert "reaches" in named["temporal.blocks.0.ffn.act/Gelu"]

    unprotected = answers(convert(model, clips, []), clips)
    assert not np.isfinite(unprotected).all() or distance(unprotected, truth)[0] > 0.5, "the plant must do harm"

    share, agreement = distance(answers(convert(model, clips, None), clips), truth)
    assert share < 0.05 and agreement == 1.0


def test_an_overflow_that_onnx_runtime_hides_is_found_all_the_same(clips: np.ndarray):
    """Every weight fits into FP16; only the sum of product and bias does not, and ONNX Runtime hands it on in FP32."""
    model = with_planted_overflow(factor=1.6e4, lift=4.0)
    truth = torch_answers(model, clips)
    feeds = [{"clip": clip[None]} for clip in clips]
    bare = convert(model, clips, [])
    session = onnxruntime.InferenceSession(to_bytes(bare), providers=["CPUExecutionProvider"])
    hidden = np.concatenate([session.run(None, feed)[0] for feed in feeds])
    assert distance(hidden, truth)[1] == 1.0, "ONNX Runtime answers as if nothing were wrong"
    assert not np.isfinite(RoundingClip(bare).answers(clips)).all(), "a device would not"
    found = not_finite(bare, feeds)
    assert found and found[0].startswith("temporal.blocks.0.ffn.fc1/"), found[:3]
    kept = convert(model, clips, None)
    assert not_finite(kept, feeds) == []
    share, agreement = distance(RoundingClip(kept).answers(clips), truth)
    assert share < 0.05 and agreement == 1.0


def test_fp16_holds_the_work_and_keeps_the_interface(clips: np.ndarray):
    graph = convert(initialise(TINY), clips, None)
    macs = infer_onnx(graph).macs_by_precision
    assert set(macs) == {"fp16"}, macs
    assert [value.type.tensor_type.elem_type for value in graph.graph.input] == [onnx.TensorProto.UINT8]
    assert [value.type.tensor_type.elem_type for value in graph.graph.output] == [onnx.TensorProto.FLOAT]
    assert graph.graph.node[0].op_type == "Cast" and to_bytes(graph) == to_bytes(convert(initialise(TINY), clips, None))


def test_each_rule_protects_and_gives_its_reason(clips: np.ndarray):
    graph = trace(build_graph("clip", initialise(TINY)), example_inputs("clip", TINY, 20), "probabilities")
    calm = {name: 1.0 for node in graph.graph.node for name in node.output}
    norm = next(node for node in graph.graph.node if node.op_type == "LayerNormalization")
    softmax = next(node for node in graph.graph.node if node.op_type == "Softmax")
    conv = next(node for node in graph.graph.node if node.op_type == "Conv")

    def protected(largest: dict[str, float], squares: dict[str, float]) -> set[str]:
        return {item.node for item in protect(graph, ScannedRanges({**calm, **largest}, squares))}

    always = {"temporal/Softmax"}
    assert protected({}, {}) == always
    limit = MARGIN * FP16_MAX
    readers = {node.name for node in graph.graph.node if conv.output[0] in node.input}
    assert protected({conv.output[0]: limit * 1.01}, {}) == always | {conv.name} | readers
    assert protected({conv.output[0]: limit * 0.99}, {}) == always
    assert protected({}, {norm.input[0]: limit * 1.01}) == always | {norm.name}
    assert protected({softmax.input[0]: 129.0}, {}) == always | {softmax.name}


def test_the_scan_reads_what_a_clip_makes_of_each_tensor(clips: np.ndarray):
    graph = trace(build_graph("frame", initialise(TINY)), example_inputs("frame", TINY, 20), "tokens")
    dark, bright = (np.full((1, 64, 64, 3), value, np.uint8) for value in (0, 255))
    one, both = scan(graph, [{"frame": dark}]), scan(graph, [{"frame": dark}, {"frame": bright}])
    assert one.largest["Cast"] == 0.0 and both.largest["Cast"] == 255.0
    assert all(both.largest[name] >= value for name, value in one.largest.items())


def test_channels_are_the_last_axis_over_all_clips(clips: np.ndarray):
    graph = trace(build_graph("clip", initialise(TINY)), example_inputs("clip", TINY, 20), "probabilities")
    feeds = [{"clip": clip[None]} for clip in clips]
    name = "temporal.blocks.0.norm_ffn/LayerNormalization"
    wanted = np.zeros(TINY.embed_dim, np.float32)
    reference = Reference(graph)
    for feed in feeds:
        seen = {}
        reference.run(feed, lambda tensor, value, seen=seen: seen.update({tensor: value}))
        wanted = np.maximum(wanted, seen[name].abs().reshape(-1, TINY.embed_dim).amax(0).numpy())
    found = channels(graph, feeds, [name])
    assert set(found) == {name}
    np.testing.assert_allclose(found[name], wanted, rtol=1e-5)


@pytest.mark.parametrize("wide", [None, "frame", "temporal"])
def test_rows_pass_in_fp16_where_both_graphs_have_them_so(clips: np.ndarray, wide: str | None):
    """Answers stay to the bit; where a node that stays FP32 writes or reads the rows, both graphs stay as they are."""
    model = initialise(TINY)
    stream = StreamSpec(20, 1, TINY.frames, TINY.grid, TINY.token_window, TINY.token_dim)
    graphs = {
        "frame": trace(build_graph("frame", model), example_inputs("frame", TINY, 20), "tokens"),
        "temporal": trace(build_graph("temporal", model), example_inputs("temporal", TINY, 20), "probabilities"),
    }
    order = window_order(stream.frames, stream.grid, stream.window)
    feeds = {
        "frame": {"frame": clips[0, :1]},
        "temporal": pair_feed(ort_runner("frame", graphs["frame"]), clips[0], stream.rows, order),
    }
    touching = {
        "frame": next(node.name for node in reversed(graphs["frame"].graph.node)),
        "temporal": next(node.name for node in graphs["temporal"].graph.node if node.op_type != "Gather"),
    }
    made = {
        name: to_fp16(graph, feeds[name], [Protected(touching[name], "a test")] if name == wide else [])
        for name, graph in graphs.items()
    }
    wanted = RoundingPair(made["frame"], made["temporal"], stream).answers(clips)
    held = {name: graph.SerializeToString() for name, graph in made.items()}
    assert narrow_rows(made["frame"], made["temporal"]) == (wide is None)
    np.testing.assert_array_equal(RoundingPair(made["frame"], made["temporal"], stream).answers(clips), wanted)
    if wide is not None:
        assert {name: graph.SerializeToString() for name, graph in made.items()} == held
        return
    for graph, name in (("frame", "tokens"), ("temporal", "ring")):
        onnx.checker.check_model(made[graph], full_check=True)
        assert infer_onnx(made[graph]).tensors[name].kind == onnx.TensorProto.FLOAT16
    assert not [node for node in made["temporal"].graph.node if node.op_type == "Cast" and "Gather" in node.input]
