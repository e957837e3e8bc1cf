"""Comparison of a reduced precision with FP32, layer by layer, on Polygraphy.

FP32 runs on ONNX Runtime with every intermediate marked as an output. The other precision runs on the rounding
reference: ONNX Runtime's CPU kernels compute FP16 wider between nodes and would show layers that no device computes.
A layer is a node that both graphs have under one name; casts and Q/DQ belong to the layer that reads them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from torch import Tensor

from ..errors import needing
from .reference import NAME, Reference
from .trace import to_bytes

THRESHOLDS = {"fp16": 0.01, "int8": 0.10}
_PASSES = {"Cast", "Reshape", "Transpose", "Slice", "Concat", "Unsqueeze", "Squeeze", "Gather", "Identity"}
Feed = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class LayerError:
    """One node's ||x - FP32|| / ||FP32|| on the worst clip; infinite when x is not finite."""

    layer: str
    error: float


@dataclass(frozen=True)
class LayerReport:
    """All layers of one graph in one precision.

    Attributes:
        graph, precision: which.
        layers: in graph order.
        first: the first layer above the threshold; empty when there is none.
        worst: the layer with the largest error.
        threshold: relative error from which a layer has left FP32.
        clips: how many were compared.
        evaluator: who computed the reduced precision.
    """

    graph: str
    precision: str
    layers: tuple[LayerError, ...]
    first: str
    worst: str
    threshold: float
    clips: int
    evaluator: str = NAME

    def to_json(self) -> dict[str, Any]:
        rows = [{"layer": x.layer, "error": x.error if math.isfinite(x.error) else None} for x in self.layers]
        return {**asdict(self), "layers": rows}


def compare_layers(
    graph: str,
    precision: str,
    fp32: onnx.ModelProto,
    other: onnx.ModelProto,
    feeds: Sequence[Feed],
) -> LayerReport:
    """Compares every layer of a graph in another precision; its error is that of the worst feed.

    Raises:
        MachineError: Polygraphy or ONNX Runtime is missing.
    """
    with needing("polygraphy", "export", "Comparing layers"):
        from polygraphy import constants
        from polygraphy.backend.onnx import ModifyOutputs
        from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
        from polygraphy.logger import G_LOGGER

    errors: dict[str, float] = {}
    theirs = {node.name: node.output[0] for node in other.graph.node}
    compared = [node for node in fp32.graph.node if node.name in theirs and node.op_type not in _PASSES]
    reference = Reference(other)
    marked = ModifyOutputs(onnx.load_from_string(to_bytes(fp32)), outputs=constants.MARK_ALL)
    build = SessionFromOnnx(lambda: marked().SerializeToString(), providers=["CPUExecutionProvider"])
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL), contextlib.redirect_stdout(None), OnnxrtRunner(build) as runner:
        for feed in feeds:
            wanted = runner.infer(dict(feed))
            given: dict[str, Tensor] = {}
            reference.run(feed, given.__setitem__)
            for node in compared:
                if theirs[node.name] in given:
                    error = _relative(wanted[node.output[0]], given[theirs[node.name]])
                    errors[node.name] = max(errors.get(node.name, 0.0), error)
    layers = tuple(LayerError(name, error) for name, error in errors.items())
    limit = THRESHOLDS[precision]
    first = next((item.layer for item in layers if item.error > limit), "")
    worst = max(layers, key=lambda item: item.error).layer
    return LayerReport(graph, precision, layers, first, worst, limit, len(feeds))


def _relative(wanted: npt.NDArray[Any], given: Tensor) -> float:
    first, second = np.asarray(wanted, np.float64).ravel(), given.numpy().astype(np.float64).ravel()
    if not np.isfinite(second).all():
        return math.inf
    return float(np.linalg.norm(second - first)) / (float(np.linalg.norm(first)) or 1.0)
