"""Graph lint: rules for what TensorRT 10.3 accepts and what this project promises.

The rules read the graph alone; no GPU and no TensorRT are needed. A finding is an error: the exporter refuses its own
output rather than ship it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from ..errors import VerificationError
from . import lint_int8
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
    **lint_int8.RULES,
}

_DYNAMIC = {"If", "Loop", "Scan", "NonZero", "Shape", "Size", "Range", "Where", "Unique", "Compress", "Expand", "TopK"}
_ALLOWED = {
    "Add", "Cast", "Concat", "Conv", "DequantizeLinear", "Div", "Gather", "Gelu", "Gemm", "Identity",
    "LayerNormalization", "MatMul", "MaxPool", "Mul", "QuantizeLinear", "ReduceMean", "ReduceSum", "Relu", "Reshape",
    "Slice", "Softmax", "Squeeze", "Sub", "Transpose", "Unsqueeze",
}  # fmt: skip
_PASSES = {"Cast", "Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "QuantizeLinear", "DequantizeLinear"}


@dataclass(frozen=True)
class LintFinding:
    """One broken rule.

    Attributes:
        rule: 'LF001' and so on; see `RULES`.
        where: node or tensor.
        what: the fact found.
    """

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
    found = [*_findings(model), *(LintFinding(*item) for item in lint_int8.lint_int8(model, kept_fp32))]
    return sorted(found, key=lambda finding: finding.rule)


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
