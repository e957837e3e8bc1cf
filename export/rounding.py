"""Where a graph's results are rounded: declared types, and what stays inside an INT8 kernel."""

from __future__ import annotations

from collections import defaultdict

import onnx
import torch
from onnx import helper

_PRODUCTS = ("Conv", "MatMul")
# What a compiler puts into the kernel of the product before it, or of the quantizer behind it.
_FUSED = (
    "Add", "Cast", "Gelu", "Identity", "LayerNormalization", "MaxPool", "Mul", "Relu", "Reshape", "Slice", "Softmax",
    "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
_FLOATS = {onnx.TensorProto.FLOAT: torch.float32, onnx.TensorProto.FLOAT16: torch.float16}


def declared_types(model: onnx.ModelProto) -> dict[str, torch.dtype | None]:
    """The float type that the graph declares for each tensor; None for other types."""
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    kinds |= {item.name: item.data_type for item in model.graph.initializer}
    for node in model.graph.node:
        given = [kinds[name] for name in node.input if name]
        if node.op_type == "Cast":
            kind = helper.get_attribute_value(next(item for item in node.attribute if item.name == "to"))
        elif node.op_type == "QuantizeLinear":
            kind = onnx.TensorProto.INT8
        elif node.op_type == "DequantizeLinear":
            kind = given[1]  # the scale's type is the result's
        else:
            kind = next((kind for kind in given if kind in _FLOATS), given[0])
        kinds[node.output[0]] = kind
    return {name: _FLOATS.get(kind) for name, kind in kinds.items()}


def inside_int8_kernels(model: onnx.ModelProto, stored: set[str]) -> set[str]:
    """The tensors that no kernel stores in FP16.

    Those that reach nothing but quantizers through what is fused with them, and those that an INT8 product reads.

    Args:
        model: of any precision; without quantizers nothing is found.
        stored: constants and outputs of the graph.
    """
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    stored = set(stored)
    for node in model.graph.node:  # a weight behind its quantizer is a constant
        if stored.issuperset(node.input):
            stored.update(node.output)
    dequantized = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    inside: set[str] = set()
    for node in reversed(model.graph.node):
        name = node.output[0]
        if name in stored or not readers[name]:
            continue
        if all(
            reader.op_type == "QuantizeLinear"
            or (reader.op_type in _FUSED and reader.output[0] in inside)
            or (name in dequantized and reader.op_type in _PRODUCTS and dequantized.issuperset(reader.input[:2]))
            for reader in readers[name]
        ):
            inside.add(name)
    return inside
