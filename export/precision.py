"""Conversion to FP16: range scan on real clips, the nodes that FP16 cannot hold, the casts.

FP16 ends at 65504. The scan evaluates the FP32 graph on the clips with every intermediate exposed, and names the nodes
that must stay FP32, each with its reason. Precision is a property of the ONNX file: the builder gets no precision flag.
ModelOpt's AutoCast places the casts; inputs and outputs stay as they are.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from torch import Tensor

from ..errors import needing
from .reference import Reference
from .trace import quiet, strip

FP16_MAX = 65504.0
MARGIN = 0.25  # clips that were not scanned may go higher
SOFTMAX_LIMIT = 128.0  # above, neighbouring FP16 numbers are 1/8 apart and more: exp turns that into 6 % and more

_TOGETHER = 8  # feeds that are run in one go: more only cost memory


@dataclass(frozen=True)
class ScannedRanges:
    """Largest absolute values over the scanned clips.

    Attributes:
        largest: by tensor name.
        squares: for the input of each LayerNormalization, the largest sum of squared deviations of one row, which an
            FP16 accumulator would have to hold.
    """

    largest: Mapping[str, float]
    squares: Mapping[str, float]


@dataclass(frozen=True)
class Protected:
    """One node that stays FP32, and why."""

    node: str
    reason: str


def scan(model: onnx.ModelProto, feeds: Sequence[Mapping[str, npt.NDArray[Any]]]) -> ScannedRanges:
    """Runs the FP32 graph on each feed and keeps the extremes."""
    norm_inputs = {node.input[0] for node in model.graph.node if node.op_type == "LayerNormalization"}

    def measure(name: str, value: Tensor) -> dict[str, Tensor]:
        if not value.is_floating_point():
            return {}
        found = {name: value.abs().amax()}
        if name in norm_inputs:
            deviation = value - value.mean(-1, keepdim=True)
            found[f"squares:{name}"] = deviation.square().sum(-1).amax()
        return found

    found = _over_all(model, feeds, measure)
    squares = {name: float(found.pop(f"squares:{name}")) for name in norm_inputs}
    return ScannedRanges({name: float(value) for name, value in found.items()}, squares)


def channels(
    model: onnx.ModelProto, feeds: Sequence[Mapping[str, npt.NDArray[Any]]], tensors: Sequence[str]
) -> dict[str, npt.NDArray[np.float32]]:
    """The largest absolute value of each channel of some tensors, by name, float32 `[d]`."""
    wanted = frozenset(tensors)

    def measure(name: str, value: Tensor) -> dict[str, Tensor]:
        return {name: value.abs().flatten(0, -2).amax(0)} if name in wanted else {}

    return {name: np.asarray(found, np.float32) for name, found in _over_all(model, feeds, measure).items()}


def not_finite(model: onnx.ModelProto, feeds: Sequence[Mapping[str, npt.NDArray[Any]]]) -> list[str]:
    """The NaN and infinity probe: the tensors that hold one on any feed, in graph order.

    Args:
        model: FP16 or INT8; the rounding reference runs it, because ONNX Runtime hides what overflows.
        feeds: real inputs.
    """

    def measure(name: str, value: Tensor) -> dict[str, Tensor]:
        return {name: (~value.isfinite()).any()} if value.is_floating_point() else {}

    return [name for name, found in _over_all(model, feeds, measure).items() if found]


def _over_all(
    model: onnx.ModelProto,
    feeds: Sequence[Mapping[str, npt.NDArray[Any]]],
    measure: Callable[[str, Tensor], Mapping[str, Tensor]],
) -> dict[str, npt.NDArray[Any]]:
    """Measures every intermediate on every feed, a few feeds at a time, and keeps the largest."""
    reference = Reference(model)
    highest: dict[str, npt.NDArray[Any]] = {}
    for start in range(0, len(feeds), _TOGETHER):
        part = feeds[start : start + _TOGETHER]
        stacked = {name: np.stack([feed[name] for feed in part]) for name in part[0]}
        for name, values in reference.run_many(stacked, measure=measure)[1].items():
            top = values.max(0)
            highest[name] = np.maximum(highest[name], top) if name in highest else top
    return highest


def protect(model: onnx.ModelProto, ranges: ScannedRanges) -> list[Protected]:
    """Names the nodes that FP16 would harm.

    A tensor that is too large keeps its maker and its readers in FP32; LayerNormalization stays FP32 where its sum of
    squares, and Softmax where its input, is too large. The last Softmax always stays; the classifier does not, because
    TensorRT-RTX has no FP32 matrix product for Turing.

    Returns:
        In graph order, each node once.
    """
    limit = MARGIN * FP16_MAX
    reasons: dict[str, str] = {}
    large = {name: value for name, value in ranges.largest.items() if value > limit}
    outputs = {value.name for value in model.graph.output}
    for node in model.graph.node:
        for name in (*node.output, *node.input):
            if name in large:
                reasons.setdefault(node.name, f"tensor {name} reaches {large[name]:.4g}, the limit is {limit:.4g}")
        if node.op_type == "LayerNormalization" and ranges.squares.get(node.input[0], 0.0) > limit:
            value = ranges.squares[node.input[0]]
            reasons.setdefault(node.name, f"its sum of squares reaches {value:.4g}, the limit is {limit:.4g}")
        if node.op_type == "Softmax" and ranges.largest.get(node.input[0], 0.0) > SOFTMAX_LIMIT:
            value = ranges.largest[node.input[0]]
            reasons.setdefault(node.name, f"its input reaches {value:.4g}, the limit is {SOFTMAX_LIMIT:.4g}")
        if node.op_type == "Softmax" and node.output[0] in outputs:
            reasons.setdefault(node.name, "its output is the answer: FP16 has no probabilities below 6e-8")
    return [Protected(name, reason) for name, reason in reasons.items()]


def to_fp16(
    model: onnx.ModelProto, feed: Mapping[str, npt.NDArray[Any]], protected: Sequence[Protected]
) -> onnx.ModelProto:
    """Converts a graph to FP16 with FP32 inputs and outputs.

    Args:
        model: FP32.
        feed: one real input, for AutoCast's own run (its random data cannot fill a uint8 input).
        protected: nodes that stay FP32.

    Returns:
        A new model; the nodes keep their names.

    Raises:
        MachineError: ModelOpt is not installed.
    """
    with quiet(), tempfile.TemporaryDirectory() as folder:
        with needing("modelopt", "export", "Exporting FP16"):
            from modelopt.onnx.autocast import convert_to_mixed_precision
        source, real = Path(folder) / "fp32.onnx", Path(folder) / "real.npz"
        onnx.save(model, source)
        np.savez(real, **feed)  # type: ignore[arg-type]  # the stubs take any name for `allow_pickle`
        # Gather does no arithmetic: left alone, the cast comes after it and touches T frames, not the whole ring.
        kept = [f"{re.escape(item.node)}$" for item in protected] + ["Gather$"]
        converted: onnx.ModelProto = convert_to_mixed_precision(
            str(source),
            low_precision_type="fp16",
            nodes_to_exclude=kept,
            keep_io_types=True,
            calibration_data=str(real),
            data_max=float("inf"),  # our scan decides, on many clips instead of one
            providers=["cpu"],
        )
    return strip(converted)
