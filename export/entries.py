"""Exported graphs as entries of a bundle's index."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import onnx

from ..bundle import BundleWriter, TensorSpec
from ..bundle.onnx_graph import infer_onnx
from .trace import OPSET, to_bytes

PROMISED = 0.95  # of a graph's multiply-accumulates


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


def share_to_promise(macs: Mapping[str, int], precision: str) -> float:
    """The share of multiply-accumulates that a graph promises to compile to its precision.

    `PROMISED`, or what its own types give where that is less: nodes that the range scan keeps in FP32, or groups that
    were excluded from INT8, are no broken promise.

    Args:
        macs: by precision, of the index entry.
        precision: which one.
    """
    return min(PROMISED, math.floor(1000 * macs.get(precision, 0) / max(sum(macs.values()), 1)) / 1000)
