"""INT8 graphs: QuantizeLinear and DequantizeLinear put into FP16 graphs by the policy.

The graph that comes out is FP16 wherever it is not INT8. Scales have the type of the tensor that they scale; weights
are INT8 initializers behind one DequantizeLinear, so the file is about a quarter of FP32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..bundle.onnx_graph import infer_onnx
from ..errors import BadInputError, UsageError, one_of
from .amax import LEVELS
from .placement import Site, sites
from .smooth import initializers

if TYPE_CHECKING:
    import onnx

Steps = npt.NDArray[np.int8]  # a weight in units of its scale
# Largest absolute values that INT8 represents, by tensor name in the FP32 clip graph. `frame` and `temporal` hold the
# same nodes under the same names, so one set serves all three and the streaming pair rounds as the clip graph does.
Ranges = Mapping[str, float]
METHODS = ("max", "entropy", "percentile", "mse")
# FP16 below 2^-14 has fewer bits, below 2^-25 it is zero, and TensorRT refuses scales that are not positive. At 2^-20
# five bits are left; scales are rounded up, so those that are missing cost resolution, never clipping.
SCALE_FLOOR = 2.0**-20


@dataclass(frozen=True)
class QuantizeConfig:
    """How to quantize.

    Attributes:
        method: how a range is taken from the values seen, one of `METHODS`.
        exclude: groups left in FP16; see `placement.groups`.
        attention: INT8 in the products of attention too, where TensorRT has the fused kernel.
        fold_weights: store INT8 weights behind one DequantizeLinear; False keeps FP16 weights behind QuantizeLinear and
            DequantizeLinear, the form that every TensorRT since 8 is known to take.
    """

    method: str = "max"
    exclude: tuple[str, ...] = ()
    attention: bool = True
    fold_weights: bool = True

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"There is no calibration method {self.method!r}.", next=f"choose from {one_of(METHODS)}")


def quantize_graph(
    fp32: onnx.ModelProto,
    fp16: onnx.ModelProto,
    ranges: Ranges,
    config: QuantizeConfig,
    steps: Mapping[str, Steps] | None = None,
) -> onnx.ModelProto:
    """Puts Q/DQ around the operands of the chosen nodes.

    Args:
        fp32: one of the three graphs; its tensor names are those of `ranges`.
        fp16: the same graph in FP16; nodes have the same names.
        ranges: of the clip graph.
        config: what to leave out.
        steps: by node, what its weight is rounded to (see `compensate.py`); the others go to the nearest step.

    Returns:
        A new model. Nodes keep their names.

    Raises:
        BadInputError: a range is missing or not finite, or the two graphs are not the same network.
    """
    chosen = {site.node: site for site in sites(fp32, attention=config.attention, exclude=config.exclude)}
    missing = chosen.keys() - {node.name for node in fp16.graph.node}
    if missing:
        raise BadInputError(f"The FP16 graph lacks the node {sorted(missing)[0]}.", cause="two different networks")
    writer = _Writer(fp16, ranges, config.fold_weights, steps or {})
    for node in fp16.graph.node:
        writer.add(node, chosen.get(node.name))
    return writer.finish()


class _Writer:
    """Copies a graph node by node and puts Q/DQ in front of the chosen ones, one pair a tensor."""

    def __init__(self, model: onnx.ModelProto, ranges: Ranges, fold: bool, steps: Mapping[str, Steps]) -> None:
        import onnx

        self._onnx = onnx
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.ranges, self.fold, self.steps = ranges, fold, steps
        self.types = {name: tensor.kind for name, tensor in infer_onnx(model).tensors.items()}
        self.weights = initializers(model)
        self.nodes: list[onnx.NodeProto] = []
        self.dequantized: dict[tuple[str, int | None], str] = {}

    def add(self, node: onnx.NodeProto, site: Site | None) -> None:
        copied = self._onnx.NodeProto()
        copied.CopyFrom(node)
        if site is not None:
            for slot, name in zip(site.slots, site.tensors, strict=True):
                copied.input[slot] = self._activation(node.input[slot], name)
            if site.weight is not None:
                copied.input[site.weight] = self._weight(node.input[site.weight], site.axis, self.steps.get(site.node))
        self.nodes.append(copied)

    def finish(self) -> onnx.ModelProto:
        graph = self.model.graph
        del graph.node[:]
        graph.node.extend(self.nodes)
        used = {name for node in graph.node for name in node.input}
        kept = [item for item in graph.initializer if item.name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        return self.model

    def _activation(self, tensor: str, fp32_name: str) -> str:
        if (tensor, None) not in self.dequantized:
            amax = self.ranges.get(fp32_name)
            if amax is None or not np.isfinite(amax):
                raise BadInputError(
                    f"The calibration gives the tensor {fp32_name} the range {amax}.",
                    cause="ranges of another network, or an activation that overflows",
                    next="calibrate again with the clip graph of this checkpoint",
                )
            scale = round_up(np.asarray(amax / LEVELS), self._onnx.helper.tensor_dtype_to_np_dtype(self.types[tensor]))
            self._pair(tensor, scale, None, quantize=True)
        return self.dequantized[tensor, None]

    def _weight(self, tensor: str, axis: int, steps: Steps | None) -> str:
        if (tensor, axis) not in self.dequantized:
            values = self.weights[tensor]
            scale = weight_scale(values, axis)
            shape = [-1 if place == axis else 1 for place in range(values.ndim)]
            wide = scale.astype(np.float32).reshape(shape)
            read = tensor
            if steps is None:
                steps = np.rint(values.astype(np.float32) / wide).astype(np.int8)
            elif not self.fold:  # QuantizeLinear finds these steps again
                read = f"{tensor}.rounded"
                self._constant(read, (steps * wide).astype(values.dtype))
            self._pair(tensor, scale, axis, quantize=not self.fold, read=read)
            if self.fold:
                self._constant(f"{tensor}.int8", steps)
        return self.dequantized[tensor, axis]

    def _pair(
        self, tensor: str, scale: npt.NDArray[Any], axis: int | None, *, quantize: bool, read: str | None = None
    ) -> None:
        make = self._onnx.helper.make_node
        names = [f"{tensor}.scale", f"{tensor}.zero_point"]
        self._constant(names[0], scale)
        self._constant(names[1], np.zeros(scale.shape, np.int8))
        fields = {} if axis is None else {"axis": axis}
        stored, back = f"{tensor}.int8", f"{tensor}.dequantized"
        if quantize:
            name = f"{tensor}/QuantizeLinear"
            self.nodes.append(make("QuantizeLinear", [read or tensor, *names], [stored], name=name, **fields))
        name = f"{tensor}/DequantizeLinear"
        self.nodes.append(make("DequantizeLinear", [stored, *names], [back], name=name, **fields))
        self.dequantized[tensor, axis] = back

    def _constant(self, name: str, value: npt.NDArray[Any]) -> None:
        self.model.graph.initializer.append(self._onnx.numpy_helper.from_array(value, name))


def weight_scale(values: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
    """The scale of each output channel of a weight, in the weight's type.

    127 steps reach the channel's largest value.
    """
    others = tuple(place for place in range(values.ndim) if place != axis)
    return round_up(np.abs(values.astype(np.float64)).max(others) / LEVELS, values.dtype)


def round_up(scale: npt.NDArray[np.float64], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Scales in another type, never smaller than they were and never below `SCALE_FLOOR`.

    Rounded up, so that the largest value still fits: 127 steps reach it or more.
    """
    wanted = np.maximum(scale, SCALE_FLOOR)
    rounded = np.asarray(wanted.astype(dtype))
    up = np.nextafter(rounded, np.asarray(np.inf, rounded.dtype))
    # `where` and not an index: a scale of no dimension must stay one. A vector of one element is the same number, but
    # with it TensorRT-RTX 1.7.1 runs every convolution in FP16.
    return np.asarray(np.where(rounded.astype(np.float64) < wanted, up, rounded))
