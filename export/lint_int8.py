"""Lint of quantized graphs: the policy of `calibration/placement.py`, checked on the result.

A finding here is a graph that builds and answers, yet is slower, less exact or less INT8 than it says: builders accept
Q/DQ anywhere and fall back without a word.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from ..bundle.onnx_graph import PRODUCTS, OnnxGraph, OnnxNode, infer_onnx

RULES = {
    "LF011": "a quantized tensor is read by DequantizeLinear alone, and a dequantized one by Conv, MatMul, Gemm or a "
    "residual sum alone: builders move what is elsewhere, or fail (TensorRT 10.16 on Orin)",
    "LF012": "no LayerNormalization reads a dequantized tensor",
    "LF013": "no residual sum reads a dequantized tensor, but for the shortcut of a convolution block whose input is "
    "quantized anyway",
    "LF014": "of an attention both products are INT8 or neither, at head size 16, 32 or 64 and at most 512 queries and "
    "keys: else it is not fused",
    "LF015": "what is not INT8 is FP16, but for nodes that the range scan keeps in FP32",
    "LF016": "the classifier is not quantized",
    "LF017": "every scale is a constant, finite and at least 2^-20: below, FP16 has fewer than five bits",
    "LF018": "the scale of an activation has no dimension, that of a weight one entry for each output channel: a "
    "vector of one entry makes convolutions fall back to FP16",
    "LF019": "a product has both operands quantized or neither: with one it runs in FP16",
    "LF020": "quantization is symmetric: every zero point is INT8 and 0",
}

SCALE_FLOOR = 2.0**-20
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
HEAD_SIZES = (16, 32, 64)
MAX_SEQUENCE = 512
_COMPUTES = {
    "Add", "Conv", "Div", "Gelu", "Gemm", "LayerNormalization", "MatMul", "MaxPool", "Mul", "ReduceMean", "ReduceSum",
    "Relu", "Softmax", "Sub",
}  # fmt: skip

Found = tuple[str, str, str]  # rule, where, what


def lint_int8(model: onnx.ModelProto, kept_fp32: Collection[str] = ()) -> Iterator[Found]:
    """Findings of the rules above; none for a graph without Q/DQ.

    Args:
        model: checked by the other rules.
        kept_fp32: nodes that the range scan keeps in FP32.
    """
    constants = {item.name: item for item in model.graph.initializer}
    if not any(node.op_type in _QUANTIZERS for node in model.graph.node):
        return
    graph = infer_onnx(model)
    for node in graph.nodes:
        if node.op in _QUANTIZERS:
            yield from _neighbours(node, graph)
            yield from _scales(node, graph, constants)
    for node in graph.nodes:
        yield from _readers_of_dequantized(node, graph)
        yield from _remainder(node, graph, kept_fp32)
    yield from _attentions(graph)


def _neighbours(node: OnnxNode, graph: OnnxGraph) -> Iterator[Found]:
    name = node.outputs[0]
    allowed = {"DequantizeLinear"} if node.op == "QuantizeLinear" else {*PRODUCTS, "Add", "LayerNormalization"}
    for reader in graph.readers.get(name, []):
        if reader.op not in allowed:  # Add and LayerNormalization have rules of their own
            yield "LF011", node.name, f"{reader.op} {reader.name} reads {name}"
    if name in graph.outputs:
        yield "LF011", node.name, f"{name} is an output of the graph"
    if node.op == "DequantizeLinear":
        source = graph.maker.get(node.inputs[0])
        if (source is None or source.op != "QuantizeLinear") and node.inputs[0] not in graph.weights:
            yield "LF011", node.name, f"its input {node.inputs[0]} is neither quantized here nor stored"


def _scales(node: OnnxNode, graph: OnnxGraph, constants: Mapping[str, onnx.TensorProto]) -> Iterator[Found]:
    scale = constants.get(node.inputs[1])
    if scale is None:
        yield "LF017", node.name, f"the scale {node.inputs[1]} is computed"
        return
    values = numpy_helper.to_array(scale).astype(np.float64)
    if not np.isfinite(values).all() or values.min() < SCALE_FLOOR:
        yield "LF017", node.name, f"the smallest scale is {values.min():.3g}"
    axis = _weight_axis(node, graph)
    if axis is None and values.shape != ():
        yield "LF018", node.name, f"the scale of an activation has the shape {list(values.shape)}"
    elif axis is not None and values.shape != (channels := graph.tensors[node.inputs[0]].shape[axis],):
        yield "LF018", node.name, f"{list(values.shape)} scales for {channels} output channels"
    zero = constants.get(node.inputs[2]) if len(node.inputs) > 2 else None
    if zero is None or zero.data_type != TensorProto.INT8 or numpy_helper.to_array(zero).any():
        yield "LF020", node.name, "the zero point is missing, not INT8, or not 0"


def _weight_axis(quantizer: OnnxNode, graph: OnnxGraph) -> int | None:
    """Axis of the output channels of the weight that a Q or DQ serves; None for an activation."""
    name = quantizer.inputs[0]
    while name in graph.maker and graph.maker[name].op == "QuantizeLinear":
        name = graph.maker[name].inputs[0]
    if name not in graph.weights:
        return None
    reader = quantizer
    while reader.op in _QUANTIZERS and graph.readers.get(reader.outputs[0]):
        reader = graph.readers[reader.outputs[0]][0]
    last = len(graph.tensors[name].shape) - 1
    return 0 if reader.op == "Conv" or reader.flags.get("transB") else last


def _readers_of_dequantized(node: OnnxNode, graph: OnnxGraph) -> Iterator[Found]:
    read = [graph.dequantized(name) for name in node.inputs]
    if node.op in PRODUCTS and read[0] != read[1]:
        yield "LF019", node.name, f"operand {int(read[0])} is not quantized"
    if not any(read):
        return
    if node.op == "Gemm":
        yield "LF016", node.name, "reads a dequantized tensor"
    if node.op == "LayerNormalization":
        yield "LF012", node.name, f"reads {node.inputs[read.index(True)]}"
    if node.op == "Add" and not _is_shortcut(node, graph):
        yield "LF013", node.name, f"reads {node.inputs[read.index(True)]}"


def _is_shortcut(node: OnnxNode, graph: OnnxGraph) -> bool:
    """One operand from a convolution, the other dequantized and a convolution's input too."""
    for slot in (0, 1):
        other = graph.maker.get(node.inputs[1 - slot])
        by_conv = other is not None and other.op == "Conv"
        shared = any(reader.op == "Conv" for reader in graph.readers[node.inputs[slot]])
        if graph.dequantized(node.inputs[slot]) and by_conv and shared:
            return True
    return False


def _remainder(node: OnnxNode, graph: OnnxGraph, kept_fp32: Collection[str]) -> Iterator[Found]:
    wide = graph.tensors[node.outputs[0]].kind == TensorProto.FLOAT
    if wide and node.op in _COMPUTES and node.name not in kept_fp32:
        yield "LF015", node.name, f"{node.op} computes in FP32"


def _attentions(graph: OnnxGraph) -> Iterator[Found]:
    for softmax in graph.nodes:
        first = graph.maker.get(softmax.inputs[0]) if softmax.op == "Softmax" else None
        if first is None or first.op != "MatMul":
            continue
        weights = softmax.outputs[0]
        second = next((n for n in graph.nodes if n.op == "MatMul" and n.inputs[0] in _after(weights, graph)), None)
        products = [node for node in (first, second) if node is not None]
        quantized = [all(graph.dequantized(name) for name in node.inputs[:2]) for node in products]
        if not any(quantized):
            continue
        head = graph.tensors[first.inputs[0]].shape[-1]
        scores = graph.tensors[first.outputs[0]].shape[-2:]
        if not all(quantized) or head not in HEAD_SIZES or max(scores) > MAX_SEQUENCE:
            counts = f"head size {head}, {scores[0]} queries, {scores[1]} keys"
            yield "LF014", softmax.name, f"{sum(quantized)} of {len(products)} products are INT8; {counts}"


def _after(name: str, graph: OnnxGraph) -> set[str]:
    """A tensor and its dequantized twin."""
    names = {name}
    for reader in graph.readers.get(name, []):
        if reader.op == "QuantizeLinear":
            names |= {out for back in graph.readers.get(reader.outputs[0], []) for out in back.outputs}
    return names
