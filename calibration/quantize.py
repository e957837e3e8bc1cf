"""INT8 graphs: QuantizeLinear and DequantizeLinear put into FP16 graphs by the policy.

The graph that comes out is FP16 wherever it is not INT8; weights are INT8 initializers behind one DequantizeLinear, so
the file is about a quarter of FP32. An activation is cast to FP32 before it is quantized, by the same scale in FP32:
ONNX Runtime's CPU kernel truncates FP16 in releases before 1.32 (microsoft/onnxruntime#18576), and its INT8 fusions of
an FP16 graph answer wrongly. TensorRT-RTX compiles both forms to the same number of kernels.
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
from .equalise import initializers
from .placement import Site, sites

if TYPE_CHECKING:
    import onnx

Steps = npt.NDArray[np.int8]  # a weight in units of its scale
# Largest absolute values that INT8 represents, by tensor name in the FP32 clip graph. `frame` and `temporal` hold the
# same nodes under the same names, so one set serves all three and the streaming pair rounds as the clip graph does.
Ranges = Mapping[str, float]
AUTO = "auto"  # the method of each part by the error of the answers, see `ranges.py`
RANGE_METHODS = ("max", "entropy", "percentile", "mse")
METHODS = (*RANGE_METHODS, AUTO)
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
        fold_weights: store INT8 weights behind one DequantizeLinear; False keeps FP32 weights behind QuantizeLinear and
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
                if node.op_type == "Conv" and len(node.input) > 2:
                    copied.input[2] = self._bias(node, site)
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
            real = values.astype(np.float32)
            if steps is None:
                steps = np.rint(real / wide).astype(np.int8)
            else:  # QuantizeLinear finds these steps again
                real = (steps * wide).astype(np.float32)
            self._pair(tensor, scale, axis, quantize=not self.fold, stored_wide=real)
            if self.fold:
                self._constant(f"{tensor}.int8", steps)
        return self.dequantized[tensor, axis]

    def _bias(self, node: onnx.NodeProto, site: Site) -> str:
        """The bias of a convolution in whole units of its products; see `powers.py`."""
        step = self.ranges[site.tensors[0]] / LEVELS
        if not is_power_of_two(step):
            return str(node.input[2])
        bias, weight = self.weights[node.input[2]], self.weights[node.input[1]]
        exponents = np.frexp(weight_scale(weight, site.axis).astype(np.float64))[1]
        unit = step * np.exp2(exponents - 4.0)  # the scale's last bit
        self._constant(f"{node.name}.bias", (np.rint(bias / unit) * unit).astype(bias.dtype))
        return f"{node.name}.bias"

    def _pair(
        self,
        tensor: str,
        scale: npt.NDArray[Any],
        axis: int | None,
        *,
        quantize: bool,
        stored_wide: npt.NDArray[np.float32] | None = None,
    ) -> None:
        make = self._onnx.helper.make_node
        scale_name, zero_name = f"{tensor}.scale", f"{tensor}.zero_point"
        self._constant(scale_name, scale)
        self._constant(zero_name, np.zeros(scale.shape, np.int8))
        fields = {} if axis is None else {"axis": axis}
        stored, back = f"{tensor}.int8", f"{tensor}.dequantized"
        if quantize:
            wide = f"{tensor}.wide"
            if stored_wide is None:
                cast = make("Cast", [tensor], [wide], name=f"{tensor}/Cast", to=self._onnx.TensorProto.FLOAT)
                self.nodes.append(cast)
            else:
                self._constant(wide, stored_wide)
            self._constant(f"{scale_name}.wide", scale.astype(np.float32))
            given = [wide, f"{scale_name}.wide", zero_name]
            self.nodes.append(make("QuantizeLinear", given, [stored], name=f"{tensor}/QuantizeLinear", **fields))
        name = f"{tensor}/DequantizeLinear"
        self.nodes.append(make("DequantizeLinear", [stored, scale_name, zero_name], [back], name=name, **fields))
        self.dequantized[tensor, axis] = back

    def _constant(self, name: str, value: npt.NDArray[Any]) -> None:
        self.model.graph.initializer.append(self._onnx.numpy_helper.from_array(value, name))


def weight_scale(values: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
    """The scale of each output channel of a weight, in the weight's type.

    127 steps reach the channel's largest value, or more. The scale has four bits: seven of a step and four of the scale
    are what FP16 holds, so every dequantized weight is exact in FP16. A backend that multiplies in FP16 or FP32 then
    reads the same weights as one that multiplies integers; where they differed, by half a bit of FP16, the answers of a
    trained `tiny` were as far apart (RMS 0.028 of the deviation between clips) as INT8 is from FP32.
    """
    others = tuple(place for place in range(values.ndim) if place != axis)
    return four_bits(np.abs(values.astype(np.float64)).max(others) / LEVELS).astype(values.dtype)


def four_bits(scale: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Scales rounded up to four bits, never below `SCALE_FLOOR`.

    >>> float(four_bits(np.array(8.01)))
    9.0
    """
    mantissa, exponent = np.frexp(np.maximum(scale, SCALE_FLOOR))  # the mantissa lies in [1/2, 1)
    return np.asarray(np.ldexp(np.ceil(mantissa * 16) / 16, exponent))


def is_power_of_two(scale: float) -> bool:
    """Whether a scale has one bit.

    >>> is_power_of_two(0.25), is_power_of_two(0.3)
    (True, False)
    """
    return bool(np.frexp(scale)[0] == 0.5)


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
