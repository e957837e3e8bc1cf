"""Graph lint: rules for what TensorRT 10.3 accepts and what this project promises.

The rules read the graph alone; no GPU and no TensorRT are needed. A finding is an error: the exporter refuses its own
output rather than ship it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from ..bundle.onnx_graph import PRODUCTS, OnnxGraph, OnnxNode, infer_onnx
from ..errors import VerificationError
from .trace import OPSET

RULES = {
    "LF001": "every dimension of every graph input and output is a number",
    "LF002": "no operator whose output shape depends on data, and no control flow",
    "LF003": "only operators that TensorRT 10.3 parses at opset 20 and that this project was tested with",
    "LF004": "the attention scale is applied before QK^T, never between it and the softmax",
    "LF005": "LayerNormalization is the native operator, never a chain of means and square roots",
    "LF006": "no tensor's data lies outside the file",
    "LF007": "no metadata: no doc strings, source paths or stack traces",
    "LF008": "the default domain's opset is 20 at the most, and there is no other domain",
    "LF009": "a uint8 input is read by Cast alone",
    "LF010": "every weight is finite",
    # The policy of `calibration/placement.py`, checked on the result. Builders accept Q/DQ anywhere and fall back
    # without a word: a graph that breaks these is slower, less exact or less INT8 than it says.
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

_DYNAMIC = {"If", "Loop", "Scan", "NonZero", "Shape", "Size", "Range", "Where", "Unique", "Compress", "Expand", "TopK"}
_COMPUTES = {
    "Add", "Conv", "Div", "Gelu", "Gemm", "LayerNormalization", "MatMul", "MaxPool", "Mul", "ReduceMean", "ReduceSum",
    "Relu", "Softmax", "Sub",
}  # fmt: skip
_QUANTIZERS = {"QuantizeLinear", "DequantizeLinear"}
_PASSES = {"Cast", "Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", *_QUANTIZERS}
_ALLOWED = {"Concat", "Gather", "Slice", *_COMPUTES, *_PASSES}
SCALE_FLOOR = 2.0**-20
HEAD_SIZES = (16, 32, 64)
MAX_SEQUENCE = 512


@dataclass(frozen=True)
class LintFinding:
    """One broken rule of `RULES`, the node or tensor that breaks it, and what was found."""

    rule: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule} {self.where}: {self.what} ({RULES[self.rule]})"


def lint(model: onnx.ModelProto, kept_fp32: Collection[str] = ()) -> list[LintFinding]:
    """All findings, in the order of the rules.

    Args:
        model: any of our graphs, in any precision.
        kept_fp32: nodes of a quantized graph that the range scan keeps in FP32.
    """
    return sorted([*_findings(model), *_int8(model, kept_fp32)], key=lambda finding: finding.rule)


def require_clean(model: onnx.ModelProto, shown: str, kept_fp32: Collection[str] = ()) -> None:
    """Refuses a graph with findings; see `lint`.

    Raises:
        VerificationError: lists them.
    """
    found = lint(model, kept_fp32)
    if found:
        raise VerificationError(
            f"{shown} breaks {len(found)} graph rules.",
            cause="a module that the exporter traced in a way TensorRT does not take",
            log=[str(finding) for finding in found[:20]],
        )


def _findings(model: onnx.ModelProto) -> Iterator[LintFinding]:
    graph = model.graph
    producer = {name: node for node in graph.node for name in node.output}
    yield from _shapes(graph)
    yield from _operators(graph)
    yield from _attention_scale(graph, producer)
    yield from _decomposed_norm(graph, producer)
    yield from _tensors(graph)
    yield from _metadata(model)
    for entry in model.opset_import:
        if entry.domain not in ("", "ai.onnx") or entry.version > OPSET:
            yield LintFinding("LF008", "opset", f"{entry.domain or 'ai.onnx'} {entry.version}")
    small = {value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.UINT8}
    for node in graph.node:
        if node.op_type != "Cast" and small & set(node.input):
            yield LintFinding("LF009", node.name, f"{node.op_type} reads a uint8 input")


def _shapes(graph: onnx.GraphProto) -> Iterator[LintFinding]:
    for value in [*graph.input, *graph.output]:
        for axis in value.type.tensor_type.shape.dim:
            if not axis.HasField("dim_value") or axis.dim_value < 1:
                yield LintFinding("LF001", value.name, f"dimension {axis.dim_param or '?'}")


def _operators(graph: onnx.GraphProto) -> Iterator[LintFinding]:
    for node in graph.node:
        if node.op_type in _DYNAMIC:
            yield LintFinding("LF002", node.name, node.op_type)
        elif node.domain not in ("", "ai.onnx") or node.op_type not in _ALLOWED:
            yield LintFinding("LF003", node.name, f"{node.domain or 'ai.onnx'}::{node.op_type}")


def _attention_scale(graph: onnx.GraphProto, producer: dict[str, onnx.NodeProto]) -> Iterator[LintFinding]:
    constants = {item.name for item in graph.initializer}
    for node in graph.node:
        if node.op_type != "Softmax":
            continue
        name, scaled = node.input[0], ""
        while name in producer:
            maker = producer[name]
            if maker.op_type == "MatMul":
                if scaled and not constants & set(maker.input):
                    yield LintFinding("LF004", scaled, f"scales the product {maker.name} before {node.name}")
                break
            if maker.op_type in ("Mul", "Div"):
                scaled = maker.name
                name = next((n for n in maker.input if n not in constants), "")
            elif maker.op_type in _PASSES:
                name = maker.input[0]
            else:
                break


def _decomposed_norm(graph: onnx.GraphProto, producer: dict[str, onnx.NodeProto]) -> Iterator[LintFinding]:
    for node in graph.node:
        makers = {producer[name].op_type for name in node.input if name in producer}
        if "ReduceMean" in makers and node.op_type == "Sub":
            yield LintFinding("LF005", node.name, "subtracts a mean")
        if node.op_type == "Sqrt":
            yield LintFinding("LF005", node.name, "takes a square root")


def _tensors(graph: onnx.GraphProto) -> Iterator[LintFinding]:
    for item in graph.initializer:
        if item.data_location == TensorProto.EXTERNAL or item.external_data:
            yield LintFinding("LF006", item.name, "external data")
        elif (
            item.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)
            and not np.isfinite(numpy_helper.to_array(item)).all()
        ):
            yield LintFinding("LF010", item.name, "NaN or infinity")


def _metadata(model: onnx.ModelProto) -> Iterator[LintFinding]:
    graph = model.graph
    if model.doc_string or model.metadata_props or graph.doc_string or graph.metadata_props:
        yield LintFinding("LF007", "model", "doc string or metadata")
    for item in [*graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info]:
        if item.doc_string or item.metadata_props:
            yield LintFinding("LF007", item.name, "doc string or metadata")


# ----------------------------------------------------------------------------------------------------- quantized graphs
def _int8(model: onnx.ModelProto, kept_fp32: Collection[str]) -> Iterator[LintFinding]:
    """Findings of the rules for quantized graphs; none for a graph without Q/DQ."""
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


def _neighbours(node: OnnxNode, graph: OnnxGraph) -> Iterator[LintFinding]:
    name = node.outputs[0]
    allowed = {"DequantizeLinear"} if node.op == "QuantizeLinear" else {*PRODUCTS, "Add", "LayerNormalization"}
    for reader in graph.readers.get(name, []):
        if reader.op not in allowed:  # Add and LayerNormalization have rules of their own
            yield LintFinding("LF011", node.name, f"{reader.op} {reader.name} reads {name}")
    if name in graph.outputs:
        yield LintFinding("LF011", node.name, f"{name} is an output of the graph")
    if node.op == "DequantizeLinear":
        source = graph.maker.get(node.inputs[0])
        if (source is None or source.op != "QuantizeLinear") and node.inputs[0] not in graph.weights:
            yield LintFinding("LF011", node.name, f"its input {node.inputs[0]} is neither quantized here nor stored")


def _scales(node: OnnxNode, graph: OnnxGraph, constants: Mapping[str, onnx.TensorProto]) -> Iterator[LintFinding]:
    scale = constants.get(node.inputs[1])
    if scale is None:
        yield LintFinding("LF017", node.name, f"the scale {node.inputs[1]} is computed")
        return
    values = numpy_helper.to_array(scale).astype(np.float64)
    if not np.isfinite(values).all() or values.min() < SCALE_FLOOR:
        yield LintFinding("LF017", node.name, f"the smallest scale is {values.min():.3g}")
    axis = _weight_axis(node, graph)
    if axis is None and values.shape != ():
        yield LintFinding("LF018", node.name, f"the scale of an activation has the shape {list(values.shape)}")
    elif axis is not None and values.shape != (channels := graph.tensors[node.inputs[0]].shape[axis],):
        yield LintFinding("LF018", node.name, f"{list(values.shape)} scales for {channels} output channels")
    zero = constants.get(node.inputs[2]) if len(node.inputs) > 2 else None
    if zero is None or zero.data_type != TensorProto.INT8 or numpy_helper.to_array(zero).any():
        yield LintFinding("LF020", node.name, "the zero point is missing, not INT8, or not 0")


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


def _readers_of_dequantized(node: OnnxNode, graph: OnnxGraph) -> Iterator[LintFinding]:
    read = [graph.dequantized(name) for name in node.inputs]
    if node.op in PRODUCTS and read[0] != read[1]:
        yield LintFinding("LF019", node.name, f"operand {int(read[0])} is not quantized")
    if not any(read):
        return
    if node.op == "Gemm":
        yield LintFinding("LF016", node.name, "reads a dequantized tensor")
    if node.op == "LayerNormalization":
        yield LintFinding("LF012", node.name, f"reads {node.inputs[read.index(True)]}")
    if node.op == "Add" and not _is_shortcut(node, graph):
        yield LintFinding("LF013", node.name, f"reads {node.inputs[read.index(True)]}")


def _is_shortcut(node: OnnxNode, graph: OnnxGraph) -> bool:
    """One operand from a convolution, the other dequantized and a convolution's input too."""
    for slot in (0, 1):
        other = graph.maker.get(node.inputs[1 - slot])
        by_conv = other is not None and other.op == "Conv"
        shared = any(reader.op == "Conv" for reader in graph.readers[node.inputs[slot]])
        if graph.dequantized(node.inputs[slot]) and by_conv and shared:
            return True
    return False


def _remainder(node: OnnxNode, graph: OnnxGraph, kept_fp32: Collection[str]) -> Iterator[LintFinding]:
    wide = graph.tensors[node.outputs[0]].kind == TensorProto.FLOAT
    if wide and node.op in _COMPUTES and node.name not in kept_fp32:
        yield LintFinding("LF015", node.name, f"{node.op} computes in FP32")


def _attentions(graph: OnnxGraph) -> Iterator[LintFinding]:
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
            yield LintFinding("LF014", softmax.name, f"{sum(quantized)} of {len(products)} products are INT8; {counts}")


def _after(name: str, graph: OnnxGraph) -> set[str]:
    """A tensor and its dequantized twin, behind the Cast that every quantized activation has."""
    names = {name}
    for reader in graph.readers.get(name, []):
        if reader.op in ("Cast", "QuantizeLinear", "DequantizeLinear"):
            names |= _after(reader.outputs[0], graph)
    return names
