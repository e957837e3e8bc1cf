"""Comparison of a reduced precision with FP32, layer by layer, on Polygraphy.

FP32 runs on ONNX Runtime with every intermediate marked as an output. The other precision runs on the rounding
reference: ONNX Runtime's CPU kernels compute FP16 wider between nodes and would show layers that no device computes.
A layer is a node that both graphs have under one name; casts and Q/DQ belong to the layer that reads them.
"""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from torch import Tensor

from ..errors import missing_package
from .reference import NAME, Reference
from .trace import to_bytes

THRESHOLDS = {"fp16": 0.01, "int8": 0.10}
_PASSES = {"Cast", "Reshape", "Transpose", "Slice", "Concat", "Unsqueeze", "Squeeze", "Gather", "Identity"}
Feed = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class LayerError:
    """One layer.

    Attributes:
        layer: the node's name.
        error: ||x - FP32|| / ||FP32|| over the worst clip; infinite when x is not finite.
    """

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
    threshold: float | None = None,
) -> LayerReport:
    """Compares every layer.

    Args:
        graph: its name, for the report.
        precision: of `other`.
        fp32: the graph in FP32.
        other: the same in FP16 or INT8.
        feeds: inputs; a layer's error is that of its worst.
        threshold: None takes `THRESHOLDS`.

    Raises:
        MachineError: Polygraphy or ONNX Runtime is missing.
    """
    limit = THRESHOLDS[precision] if threshold is None else threshold
    errors: dict[str, float] = {}
    for compared in _compare(fp32, other, feeds):
        for name, error in compared.items():
            errors[name] = max(errors.get(name, 0.0), error)
    layers = tuple(LayerError(name, error) for name, error in errors.items())
    first = next((item.layer for item in layers if item.error > limit), "")
    worst = max(layers, key=lambda item: item.error).layer
    return LayerReport(graph, precision, layers, first, worst, limit, len(feeds))


def _compare(fp32: onnx.ModelProto, other: onnx.ModelProto, feeds: Sequence[Feed]) -> Iterator[dict[str, float]]:
    """Relative errors by layer, once for each feed."""
    try:
        from polygraphy import constants
        from polygraphy.backend.base import BaseRunner
        from polygraphy.backend.onnx import ModifyOutputs
        from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
        from polygraphy.common import TensorMetadata
        from polygraphy.comparator import Comparator
        from polygraphy.logger import G_LOGGER
    except ImportError as error:
        raise missing_package("polygraphy", "export", "Comparing layers") from error

    theirs = {node.name: node.output[0] for node in other.graph.node}
    layers = {
        node.output[0]: theirs[node.name]
        for node in fp32.graph.node
        if node.name in theirs and node.op_type not in _PASSES
    }
    names = {node.output[0]: node.name for node in fp32.graph.node}
    reference = Reference(other)

    class RoundingRunner(BaseRunner):  # type: ignore[misc]  # Polygraphy has no types
        """The rounding reference, its intermediates under FP32's tensor names."""

        def get_input_metadata_impl(self) -> Any:
            metadata = TensorMetadata()
            for value in other.graph.input:
                tensor = value.type.tensor_type
                shape = [axis.dim_value for axis in tensor.shape.dim]
                metadata.add(value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), shape)
            return metadata

        def infer_impl(self, feed_dict: Feed) -> Any:
            seen: dict[str, npt.NDArray[Any]] = {}
            wanted = set(layers.values())

            def observe(name: str, value: Tensor) -> None:
                if name in wanted:
                    seen[name] = value.numpy().astype(np.float32)

            reference.run(feed_dict, observe)
            self.inference_time = 0.0  # no time is reported
            return OrderedDict((mine, seen[their]) for mine, their in layers.items() if their in seen)

    def relative(first: Mapping[str, Any], second: Mapping[str, Any]) -> OrderedDict[str, _Result]:
        found = OrderedDict()
        for name in layers:
            if name in first and name in second:
                wanted, given = (np.asarray(side[name], np.float64).ravel() for side in (first, second))
                size = float(np.linalg.norm(wanted)) or 1.0
                error = float(np.linalg.norm(given - wanted)) / size if np.isfinite(given).all() else math.inf
                found[name] = _Result(error)
        return found

    marked = ModifyOutputs(onnx.load_from_string(to_bytes(fp32)), outputs=constants.MARK_ALL)
    build = SessionFromOnnx(lambda: marked().SerializeToString(), providers=["CPUExecutionProvider"])
    runners = [OnnxrtRunner(build, name="fp32"), RoundingRunner(name="rounding")]
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL), contextlib.redirect_stdout(None):
        results = Comparator.run(runners, data_loader=[dict(feed) for feed in feeds])
        compared = Comparator.compare_accuracy(results, compare_func=relative)
    # Since 0.53.6 a list, one result for each comparison function.
    (iterations,) = (compared if hasattr(compared, "values") else compared[0]).values()
    for iteration in iterations:
        yield {names[tensor]: result.error for tensor, result in iteration.items()}


@dataclass(frozen=True)
class _Result:
    """Polygraphy's idea of a comparison; every layer passes, the report decides."""

    error: float

    def __bool__(self) -> bool:
        return True
