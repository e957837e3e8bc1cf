"""Lint of quantized graphs: the placement policy of `calibration/placement.py`, checked on what came out.

A finding here is a graph that builds and answers, yet is slower, less exact or less INT8 than it says: builders accept
Q/DQ anywhere and fall back without a word.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from .macs import tensor_types

RULES = {
    "LF011": "a quantized tensor is read by DequantizeLinear alone, and a dequantized one by Conv, MatMul, Gemm or a "
    "residual sum alone: builders move what stands elsewhere, or fail (TensorRT 10.16 on Orin)",
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

PRODUCTS = ("Conv", "MatMul", "Gemm")
SCALE_FLOOR = 2.0**-20
HEAD_SIZES = (16, 32, 64)
MAX_SEQUENCE = 512
_COMPUTES = {
    "Add", "Conv", "Div", "Gelu", "Gemm", "LayerNormalization", "MatMul", "MaxPool", "Mul", "ReduceMean", "ReduceSum",
    "Relu", "Softmax", "Sub",
}  # fmt: skip

Found = tuple[str, str, str]  # rule, where, what


@dataclass(frozen=True)
class _View:
    """A graph with its usual lookups."""

    nodes: tuple[onnx.NodeProto, ...]
    maker: Mapping[str, onnx.NodeProto]
    readers: Mapping[str, list[onnx.NodeProto]]
    constants: Mapping[str, onnx.TensorProto]
    outputs: frozenset[str]
    types: Mapping[str, tuple[int, tuple[int, ...]]]

    def dequantized(self, name: str) -> bool:
        """Whether a tensor comes straight from a DequantizeLinear."""
        return name in self.maker and self.maker[name].op_type == "DequantizeLinear"

    def weight_axis(self, quantizer: onnx.NodeProto) -> int | None:
        """The output channels of the weight that a Q or DQ serves; None for an activation."""
        name = quantizer.input[0]
        while name in self.maker and self.maker[name].op_type == "QuantizeLinear":
            name = self.maker[name].input[0]
        if name not in self.constants:
            return None
        reader = quantizer
        while reader.op_type in ("QuantizeLinear", "DequantizeLinear") and self.readers.get(reader.output[0]):
            reader = self.readers[reader.output[0]][0]
        transposed = any(a.name == "transB" and a.i for a in reader.attribute)
        return 0 if reader.op_type == "Conv" or transposed else len(self.constants[name].dims) - 1


def lint_int8(model: onnx.ModelProto, kept_fp32: Collection[str] = ()) -> Iterator[Found]:
    """Findings of the rules above; none for a graph without Q/DQ.

    Args:
        model: checked by the other rules.
        kept_fp32: nodes that the range scan keeps in FP32.
    """
    graph = model.graph
    quantizers = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    if not quantizers:
        return
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    view = _View(
        nodes=tuple(graph.node),
        maker={name: node for node in graph.node for name in node.output},
        readers=readers,
        constants={item.name: item for item in graph.initializer},
        outputs=frozenset(value.name for value in graph.output),
        types=tensor_types(model),
    )
    for node in quantizers:
        yield from _neighbours(node, view)
        yield from _scales(node, view)
    for node in view.nodes:
        yield from _readers_of_dequantized(node, view)
        yield from _remainder(node, view, kept_fp32)
    yield from _attentions(view)


def _neighbours(node: onnx.NodeProto, view: _View) -> Iterator[Found]:
    name = node.output[0]
    allowed = {"DequantizeLinear"} if node.op_type == "QuantizeLinear" else {*PRODUCTS, "Add", "LayerNormalization"}
    for reader in view.readers.get(name, []):
        if reader.op_type not in allowed:  # Add and LayerNormalization have rules of their own
            yield "LF011", node.name, f"{reader.op_type} {reader.name} reads {name}"
    if name in view.outputs:
        yield "LF011", node.name, f"{name} is an output of the graph"
    if node.op_type == "DequantizeLinear":
        source = view.maker.get(node.input[0])
        stored = view.constants.get(node.input[0])
        if (source is None or source.op_type != "QuantizeLinear") and stored is None:
            yield "LF011", node.name, f"its input {node.input[0]} is neither quantized here nor stored"


def _scales(node: onnx.NodeProto, view: _View) -> Iterator[Found]:
    scale = view.constants.get(node.input[1])
    if scale is None:
        yield "LF017", node.name, f"the scale {node.input[1]} is computed"
        return
    values = numpy_helper.to_array(scale).astype(np.float64)
    if not np.isfinite(values).all() or values.min() < SCALE_FLOOR:
        yield "LF017", node.name, f"the smallest scale is {values.min():.3g}"
    axis = view.weight_axis(node)
    if axis is None and values.shape != ():
        yield "LF018", node.name, f"the scale of an activation has the shape {list(values.shape)}"
    elif axis is not None and values.shape != (channels := view.types[node.input[0]][1][axis],):
        yield "LF018", node.name, f"{list(values.shape)} scales for {channels} output channels"
    zero = view.constants.get(node.input[2]) if len(node.input) > 2 else None
    if zero is None or zero.data_type != TensorProto.INT8 or numpy_helper.to_array(zero).any():
        yield "LF020", node.name, "the zero point is missing, not INT8, or not 0"


def _readers_of_dequantized(node: onnx.NodeProto, view: _View) -> Iterator[Found]:
    read = [view.dequantized(name) for name in node.input]
    if node.op_type in PRODUCTS and read[0] != read[1]:
        yield "LF019", node.name, f"operand {int(read[0])} is not quantized"
    if not any(read):
        return
    if node.op_type == "Gemm":
        yield "LF016", node.name, "reads a dequantized tensor"
    if node.op_type == "LayerNormalization":
        yield "LF012", node.name, f"reads {node.input[read.index(True)]}"
    if node.op_type == "Add" and not _is_shortcut(node, view):
        yield "LF013", node.name, f"reads {node.input[read.index(True)]}"


def _is_shortcut(node: onnx.NodeProto, view: _View) -> bool:
    """One operand from a convolution, the other dequantized and a convolution's input too."""
    for slot in (0, 1):
        other = view.maker.get(node.input[1 - slot])
        by_conv = other is not None and other.op_type == "Conv"
        shared = any(reader.op_type == "Conv" for reader in view.readers[node.input[slot]])
        if view.dequantized(node.input[slot]) and by_conv and shared:
            return True
    return False


def _remainder(node: onnx.NodeProto, view: _View, kept_fp32: Collection[str]) -> Iterator[Found]:
    wide = view.types[node.output[0]][0] == TensorProto.FLOAT
    if wide and node.op_type in _COMPUTES and node.name not in kept_fp32:
        yield "LF015", node.name, f"{node.op_type} computes in FP32"


def _attentions(view: _View) -> Iterator[Found]:
    for softmax in view.nodes:
        first = view.maker.get(softmax.input[0]) if softmax.op_type == "Softmax" else None
        if first is None or first.op_type != "MatMul":
            continue
        weights, *_ = softmax.output
        second = next((n for n in view.nodes if n.op_type == "MatMul" and n.input[0] in _after(weights, view)), None)
        products = [node for node in (first, second) if node is not None]
        quantized = [all(view.dequantized(name) for name in list(node.input)[:2]) for node in products]
        if not any(quantized):
            continue
        head = view.types[first.input[0]][1][-1]
        scores = view.types[first.output[0]][1][-2:]
        if not all(quantized) or head not in HEAD_SIZES or max(scores) > MAX_SEQUENCE:
            counts = f"head size {head}, {scores[0]} queries, {scores[1]} keys"
            yield "LF014", softmax.name, f"{sum(quantized)} of {len(products)} products are INT8; {counts}"


def _after(name: str, view: _View) -> set[str]:
    """A tensor and its dequantized twin."""
    names = {name}
    for reader in view.readers.get(name, []):
        if reader.op_type == "QuantizeLinear":
            names |= {out for back in view.readers.get(reader.output[0], []) for out in back.output}
    return names
