"""Conversion to FP16: range scan on real clips, the nodes that FP16 cannot hold, the casts.

FP16 ends at 65504. The scan evaluates the FP32 graph on the clips with every intermediate exposed, and names the nodes
that must stay FP32, each with its reason. Precision is a property of the ONNX file: the builder gets no precision flag.
ModelOpt's AutoCast places the casts; inputs and outputs stay as they are, but for the rows that `frame` gives and
`temporal` takes (`narrow_rows`).
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
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from ..bundle.onnx_graph import infer_onnx
from ..errors import needing
from .reference import Reference
from .trace import quiet, strip

FP16_MAX = 65504.0
MARGIN = 0.25  # clips that were not scanned may go higher
SOFTMAX_LIMIT = 128.0  # above, neighbouring FP16 numbers are 1/8 apart and more: exp turns that into 6 % and more

_REALS = (TensorProto.FLOAT, TensorProto.FLOAT16)
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


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The FP32 twin of an FP16 graph: same nodes and names, weights as FP16 holds them.

    For a graph whose own FP32 was written in another form.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    for item in graph.initializer:
        if item.data_type == TensorProto.FLOAT16:
            item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item).astype(np.float32), item.name))
    for value in [*graph.input, *graph.output, *graph.value_info]:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    small = {value.name for value in graph.input if value.type.tensor_type.elem_type != TensorProto.FLOAT}
    renamed: dict[str, str] = {}
    outputs = {value.name for value in graph.output}
    for node in list(graph.node):
        node.input[:] = [renamed.get(name, name) for name in node.input]
        if node.op_type != "Cast" or helper.get_attribute_value(node.attribute[0]) not in _REALS:
            continue
        if node.input[0] in small or node.output[0] in outputs:  # pixels, or the answer's own name
            node.attribute[0].i = TensorProto.FLOAT
            continue
        renamed[node.output[0]] = node.input[0]
        graph.node.remove(node)
    return made


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


def narrow_rows(frame: onnx.ModelProto, temporal: onnx.ModelProto) -> bool:
    """Lets tokens and ring be FP16 where both graphs of the pair have them so inside.

    `frame` widens its last result for the caller, and `temporal` narrows what it picks out of the ring: without the two
    casts the answers are the same to the bit, and tokens and ring take half the memory.

    Args:
        frame: of `to_fp16`; changed.
        temporal: of `to_fp16`; changed.

    Returns:
        Whether it was done: not where a node that stays FP32 writes or reads the rows.
    """
    types = infer_onnx(frame).tensors
    (tokens,), (ring, _) = frame.graph.output, temporal.graph.input
    last = next(node for node in frame.graph.node if tokens.name in node.output)
    pick = next(node for node in temporal.graph.node if ring.name in node.input)
    readers = [node for node in temporal.graph.node if pick.output[0] in node.input]
    if not (
        last.op_type == "Cast"
        and types[last.input[0]].kind == TensorProto.FLOAT16
        and sum(last.input[0] in node.input for node in frame.graph.node) == 1
        and pick.op_type == "Gather"
        and all(node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT16 for node in readers)
    ):
        return False
    frame.graph.node.remove(last)
    next(node for node in frame.graph.node if last.input[0] in node.output).output[0] = tokens.name
    for node in readers:
        temporal.graph.node.remove(node)
        for reader in temporal.graph.node:
            reader.input[:] = [pick.output[0] if name == node.output[0] else name for name in reader.input]
    narrow, gone = {tokens.name, ring.name, pick.output[0]}, {last.input[0], *(node.output[0] for node in readers)}
    for graph in (frame.graph, temporal.graph):
        for value in [value for value in graph.value_info if value.name in gone]:
            graph.value_info.remove(value)
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.name in narrow:
                value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return True
