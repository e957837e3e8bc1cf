"""Exported graphs as entries of a bundle's index."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import onnx

from ..bundle import Bundle, BundleWriter, TensorSpec
from ..bundle.onnx_graph import infer_onnx
from ..model.data.clips import Progress
from .precision import widened
from .trace import OPSET, to_bytes

PROMISED = 0.95  # of a graph's multiply-accumulates


def read_model(bundle: Bundle, graph: str, precision: str) -> onnx.ModelProto:
    """A graph of a bundle, for one face."""
    return onnx.load_from_string(bundle.read_graph(bundle.graph(graph, precision)))


def read_fp32_twin(bundle: Bundle, graph: str) -> onnx.ModelProto:
    """The FP32 graph with the nodes of the FP16 one.

    The bundle's own FP32 graph, or where that has another form (`forms.py`), the FP16 graph widened.
    """
    forms = [bundle.precisions[name].get("form", {}) for name in ("fp32", "fp16")]
    if forms[0] == forms[1]:
        return read_model(bundle, graph, "fp32")
    return widened(read_model(bundle, graph, "fp16"))


def tensor_specs(model: onnx.ModelProto) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a graph."""

    def spec(value: onnx.ValueInfoProto) -> TensorSpec:
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        return TensorSpec(value.name, dtype.name, tuple(axis.dim_value for axis in tensor.shape.dim))

    return tuple(map(spec, model.graph.input)), tuple(map(spec, model.graph.output))


def add_model(
    writer: BundleWriter, model: onnx.ModelProto, graph: str, precision: str, batch: int = 1
) -> dict[str, Any]:
    """Write a graph into a bundle; returns its entry for the index.

    Args:
        writer: of the bundle.
        model: static shapes.
        graph: 'clip', 'frame' or 'temporal'.
        precision: 'fp32', 'fp16' or 'int8'.
        batch: leading size of its input.
    """
    inputs, outputs = tensor_specs(model)
    return writer.add_graph(
        to_bytes(model), graph=graph, precision=precision, batch=batch, opset=OPSET, inputs=inputs, outputs=outputs,
        macs=infer_onnx(model).macs_by_precision,
    )  # fmt: skip


def add_models(
    writer: BundleWriter, models: Mapping[str, Mapping[str, onnx.ModelProto]], progress: Progress
) -> tuple[list[dict[str, Any]], dict[str, dict[str, float]]]:
    """Writes graphs, by precision and name; gives their entries, and what each promises."""
    entries: list[dict[str, Any]] = []
    promised: dict[str, dict[str, float]] = {precision: {} for precision in models}
    total = sum(map(len, models.values()))
    for precision, graphs in models.items():
        for name, model in graphs.items():
            progress("write", len(entries), total)
            entries.append(add_model(writer, model, name, precision))
            promised[precision][name] = share_to_promise(entries[-1]["macs"], precision)
    return entries, promised


def share_to_promise(macs: Mapping[str, int], precision: str) -> float:
    """The share of multiply-accumulates that a graph promises to compile to its precision.

    `PROMISED`, or what its own types give where that is less: nodes that the range scan keeps in FP32, or groups that
    were excluded from INT8, are no broken promise.
    """
    return min(PROMISED, math.floor(1000 * macs.get(precision, 0) / max(sum(macs.values()), 1)) / 1000)
