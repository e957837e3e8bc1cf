"""The reader of ONNX bytes: what `onnx` itself says of the same graph, and products counted by hand."""

from __future__ import annotations

import pytest
from logoformer.bundle import Bundle
from logoformer.bundle.onnx_graph import TYPES, infer_onnx, read_onnx

onnx = pytest.importorskip("onnx")
from onnx import shape_inference  # noqa: E402


def test_macs_by_hand(small_onnx, small_macs):
    """The network's tensors are not annotated: their shapes are inferred."""
    for precision in ("fp32", "fp16"):
        graph = infer_onnx(onnx.load_from_string(small_onnx(precision)))
        assert graph.macs_by_node == small_macs
        assert graph.macs_by_precision == {precision: sum(small_macs.values())}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", ["clip", "frame", "temporal"])
def test_an_exported_graph_says_of_itself_what_inference_finds(int8_bundle, name, precision):
    bundle = Bundle(int8_bundle)
    data = bundle.read_graph(bundle.graph(name, precision))
    read, inferred = read_onnx(data, name), infer_onnx(onnx.load_from_string(data))
    assert (read.nodes, read.inputs, read.outputs) == (inferred.nodes, inferred.inputs, inferred.outputs)
    assert read.tensors.items() >= {name: inferred.tensors[name] for name in read.tensors}.items()
    assert read.macs_by_node == inferred.macs_by_node
    assert read.macs_by_precision == inferred.macs_by_precision == bundle.graph(name, precision).macs


def test_tensors_are_those_of_the_onnx_package(untrained_bundle):
    bundle = Bundle(untrained_bundle)
    model = onnx.load_from_string(bundle.read_graph(bundle.graph("temporal", "fp16")))
    theirs = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    found = infer_onnx(model)
    for value in [*theirs.input, *theirs.output, *theirs.value_info]:
        tensor = value.type.tensor_type
        assert found.tensors[value.name].kind == tensor.elem_type
        assert found.tensors[value.name].shape == tuple(axis.dim_value for axis in tensor.shape.dim)
    for item in theirs.initializer:
        assert found.tensors[item.name].shape == tuple(item.dims)
        assert TYPES[item.data_type][0] in ("fp16", "fp32", "int64")
    assert found.weights == {item.name for item in theirs.initializer}
