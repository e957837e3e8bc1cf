"""Multiply-accumulates of an ONNX graph, by the precision of their operands."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx
from onnx import TensorProto, helper, shape_inference

_PRECISION = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.INT8: "int8"}


def tensor_types(model: onnx.ModelProto) -> dict[str, tuple[int, tuple[int, ...]]]:
    """(element type, static shape) of every tensor, by ONNX's own shape inference.

    Raises:
        onnx.shape_inference.InferenceError: the graph contradicts itself.
    """
    inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    types = {item.name: (item.data_type, tuple(item.dims)) for item in inferred.initializer}
    for value in [*inferred.input, *inferred.output, *inferred.value_info]:
        tensor = value.type.tensor_type
        types[value.name] = (tensor.elem_type, tuple(axis.dim_value for axis in tensor.shape.dim))
    return types


def macs_by_precision(model: onnx.ModelProto) -> dict[str, int]:
    """Counts Conv, MatMul and Gemm. An operand that comes straight from a DequantizeLinear counts as INT8.

    Returns:
        Counts by 'fp32', 'fp16', 'int8'; a precision without any is left out.
    """
    types = tensor_types(model)
    producer = {name: node for node in model.graph.node for name in node.output}
    nodes = {node.name: node for node in model.graph.node}
    counts: dict[str, int] = {}
    for name, macs in macs_by_node(model).items():
        operands = list(nodes[name].input)[:2]
        quantized = all(x in producer and producer[x].op_type == "DequantizeLinear" for x in operands)
        precision = "int8" if quantized else _PRECISION[types[operands[0]][0]]
        counts[precision] = counts.get(precision, 0) + macs
    return counts


def macs_by_node(model: onnx.ModelProto) -> dict[str, int]:
    """Multiply-accumulates of each Conv, MatMul and Gemm, by the node's name."""
    types = tensor_types(model)
    counts = {}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "MatMul", "Gemm"):
            continue
        if node.op_type == "Conv":
            inner = math.prod(types[node.input[1]][1][1:])  # [out, in / groups, k, k]
        else:
            left = types[node.input[0]][1]
            transposed = any(a.name == "transA" and helper.get_attribute_value(a) for a in node.attribute)
            inner = left[0] if transposed else left[-1]
        counts[node.name] = math.prod(types[node.output[0]][1]) * inner
    return counts


PROMISED = 0.95  # of a graph's multiply-accumulates


def promised_share(macs: Mapping[str, int], precision: str) -> float:
    """The share of multiply-accumulates that a graph promises to hold in its precision once compiled.

    `PROMISED`, or what its own types give where that is less: nodes that the range scan keeps in FP32, or groups that
    were excluded from INT8, are no broken promise.

    Args:
        macs: of `macs_by_precision`.
        precision: which one.
    """
    return min(PROMISED, math.floor(1000 * macs.get(precision, 0) / max(sum(macs.values()), 1)) / 1000)
