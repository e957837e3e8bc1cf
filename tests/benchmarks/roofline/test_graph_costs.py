"""What a graph must compute and move: against the manifest, against torch's own counter, and by hand."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.benchmarks.roofline.graph_costs import graph_cost
from logoformer.bundle import Bundle
from logoformer.errors import RefusedError
from onnx import TensorProto, helper, numpy_helper

F32, F16 = 4, 2


def costs(bundle, graph, precision):
    return graph_cost(Bundle(bundle).read_graph(Bundle(bundle).graph(graph, precision)), graph)


@pytest.fixture(scope="module")
def tiny(untrained_bundle):
    return Bundle(untrained_bundle)


# ------------------------------------------------------------------------------------------------- multiply-accumulates
def test_macs_are_those_of_the_manifest(tiny):
    for entry in tiny.graphs:
        assert graph_cost(tiny.read_graph(entry), entry.file).macs_by_precision == dict(entry.macs)


@pytest.mark.xdist_group("base_bundle")
@pytest.mark.parametrize(
    ("name", "bundle"),
    [
        ("tiny", "untrained_bundle"),
        pytest.param("base", "base_bundle", marks=pytest.mark.slow),
        pytest.param("wide", "wide_bundle", marks=pytest.mark.slow),
    ],
)
def test_macs_are_half_of_what_torch_counts(name, bundle, request):
    import torch
    from logoformer.export.graphs import GRAPHS, build_graph, example_inputs
    from logoformer.model.networks.configs import preset
    from logoformer.model.networks.logoformer.model import LogoFormer
    from torch.utils.flop_counter import FlopCounterMode

    exported, config = Bundle(request.getfixturevalue(bundle)), preset(name)
    model = LogoFormer(config).eval()
    for graph in GRAPHS:
        module, inputs = build_graph(graph, model), example_inputs(graph, config, exported.stream.slots)
        with FlopCounterMode(display=False) as counter, torch.enable_grad():  # without grad mode it counts nothing
            module(*inputs.values())
        counted = sum(costs(exported.path, graph, "fp32").macs_by_precision.values())
        assert counted == pytest.approx(counter.get_total_flops() / 2, rel=0.01)
        assert counted > 0


# -------------------------------------------------------------------------------------------------------- bytes by hand
def test_bytes_of_the_first_convolution_by_hand(tiny):
    """`tiny`: 64 x 64 x 3 in, 16 kernels of 5 x 5 x 3 at stride 2, so 32 x 32 x 16 out."""
    (conv,) = [
        node
        for node in costs(tiny.path, "frame", "fp32").nodes
        if "conv1/Conv" in node.name and "layer" not in node.name
    ]
    pixels, weights, bias, out = 3 * 64 * 64, 16 * 3 * 5 * 5, 16, 16 * 32 * 32
    assert conv.bytes == F32 * (pixels + weights + bias + out)
    assert conv.macs == out * 3 * 5 * 5
    (half,) = [
        node
        for node in costs(tiny.path, "frame", "fp16").nodes
        if "conv1/Conv" in node.name and "layer" not in node.name
    ]
    assert (half.bytes, half.macs, half.precision) == (conv.bytes // 2, conv.macs, "fp16")


def test_bytes_of_a_projection_by_hand(tiny):
    """`tiny`: 8 frames of 4 x 4 tokens of 64 channels: x [128, 64] times Wq [64, 64]."""
    found = costs(tiny.path, "temporal", "fp32").nodes
    (query,) = [node for node in found if node.name == "temporal.blocks.0.local_attention.q/MatMul"]
    assert query.bytes == F32 * (128 * 64 + 64 * 64 + 128 * 64)
    assert query.macs == 128 * 64 * 64


def test_what_any_schedule_must_move_by_hand(tiny):
    cost = costs(tiny.path, "temporal", "fp32")
    stored = onnx.load_from_string(tiny.read_graph(tiny.graph("temporal", "fp32"))).graph.initializer
    assert cost.weight_bytes == sum(numpy_helper.to_array(init).nbytes for init in stored)
    # Of the ring, 128 rows of 64 channels are gathered, however many it has; `order` is read whole.
    assert cost.input_bytes == F32 * 128 * 64 + 4 * 128
    assert cost.output_bytes == F32 * 7
    assert cost.compulsory_bytes == cost.weight_bytes + cost.input_bytes + cost.output_bytes
    frame = costs(tiny.path, "frame", "fp32")
    assert (frame.input_bytes, frame.output_bytes) == (64 * 64 * 3, F32 * 16 * 64)


def test_a_view_moves_nothing(tiny):
    nodes = costs(tiny.path, "clip", "fp32").nodes
    assert {node.bytes for node in nodes if node.role in ("Reshape", "Unsqueeze")} == {0}
    assert all(node.bytes > 0 for node in nodes if node.role in ("Conv", "Add", "Transpose", "Softmax"))


def test_quantized_products_count_as_int8():
    """x -> Q -> DQ -> MatMul <- DQ <- int8 weights."""
    scale, zero = np.float32(0.1), np.int8(0)
    constants = {"s": np.array(scale), "z": np.array(zero), "w": np.ones((8, 4), np.int8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"]),
        helper.make_node("MatMul", ["xd", "wd"], ["y"], name="m"),
    ]
    value = helper.make_tensor_value_info  # the tensors between are not annotated: Q/DQ keep the shape
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, [2, 8])], [value("y", TensorProto.FLOAT, [2, 4])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    cost = graph_cost(helper.make_model(graph).SerializeToString(), "quantized")
    assert cost.macs_by_precision == {"int8": 2 * 4 * 8}
    assert cost.nodes[-1].bytes == 2 * 8 + 8 * 4 + F32 * 2 * 4  # both operands as INT8
    assert [node.bytes for node in cost.nodes if node.role == "DequantizeLinear"] == [0, 0]
    assert cost.nodes[0].bytes == F32 * 2 * 8 + 2 * 8 + F32 + 1  # x, its INT8 form, scale and zero point


# --------------------------------------------------------------------------------------------------------------- faults
def test_a_graph_without_shapes_is_refused():
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    graph = helper.make_graph(nodes, "g", [value("x", 1, [2])], [value("y", 1, [2])])
    with pytest.raises(RefusedError, match="static shape of h"):
        graph_cost(helper.make_model(graph).SerializeToString(), "bare")
    open_ended = helper.make_graph(nodes[:1], "g", [value("x", 1, ["n"])], [value("h", 1, [2])])
    with pytest.raises(RefusedError, match="static shape of x"):
        graph_cost(helper.make_model(open_ended).SerializeToString(), "open")


@settings(max_examples=80, deadline=None)
@given(place=st.floats(0, 1), byte=st.integers(0, 255), data=st.data())
def test_damaged_bytes_are_refused_or_counted_but_never_crash(damageable, place, byte, data):
    broken = bytearray(damageable)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[int(place * (len(broken) - 1))] = byte
    try:
        cost = graph_cost(bytes(broken), "damaged")
    except RefusedError:
        return
    assert cost.compulsory_bytes >= 0


@pytest.fixture(scope="module")
def damageable(toy):
    return toy.read_graph(toy.graph("clip", "fp32"))


def test_it_needs_no_onnx_package(untrained_bundle):
    code = """
import sys
sys.modules["onnx"] = sys.modules["torch"] = None
from logoformer.bundle import Bundle
from logoformer.benchmarks.roofline.graph_costs import graph_cost
bundle = Bundle(sys.argv[1])
for entry in bundle.graphs:
    assert graph_cost(bundle.read_graph(entry), entry.file).macs_by_precision == dict(entry.macs)
"""
    subprocess.run([sys.executable, "-c", code, untrained_bundle], check=True)
