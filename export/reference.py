"""The reference that rounds after every operator.

ONNX Runtime's CPU kernels compute FP16 graphs wider than FP16 between nodes: an intermediate of 128000 passes unseen.
This evaluator runs the graph node by node; each operator is computed in float32 from its (already rounded) inputs and
its result is rounded to the type that the graph declares, as a tensor core with float32 accumulation would. Overflow
becomes infinity, as on a device.

It knows the operators that this project's graphs are made of and refuses others by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from ..errors import VerificationError

NAME = "rounding reference (float32 accumulation, every operator's result rounded to the graph's type)"

_TYPES = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT8: torch.int8,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
}

Attributes = Mapping[str, Any]
Operator = Callable[[Attributes, list[Tensor]], Tensor]


class Reference:
    """Evaluates one ONNX graph.

    Args:
        model: static shapes, one output per node.

    Raises:
        VerificationError: an operator that it does not know.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        unknown = sorted({node.op_type for node in self.graph.node} - _OPERATORS.keys())
        if unknown:
            raise VerificationError(
                f"The reference evaluator does not know {unknown}.", next="add the operator to export/reference.py"
            )
        self._constants = {item.name: _to_torch(item) for item in self.graph.initializer}
        self._wide = {name: value.float() for name, value in self._constants.items() if value.dtype == torch.float16}
        self._attributes = [
            {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
            for node in self.graph.node
        ]
        self._last_use = {name: index for index, node in enumerate(self.graph.node) for name in node.input}

    @torch.no_grad()
    def run(
        self, feeds: Mapping[str, npt.NDArray[Any]], observe: Callable[[str, Tensor], None] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Runs the graph once.

        Args:
            feeds: graph inputs by name.
            observe: called with the name and value of every intermediate tensor, right after it is made.

        Returns:
            Graph outputs by name.
        """
        values: dict[str, Tensor] = dict(self._constants)
        values.update({name: torch.as_tensor(np.ascontiguousarray(value)) for name, value in feeds.items()})
        kept = {value.name for value in self.graph.output} | self._constants.keys()
        for index, (node, attributes) in enumerate(zip(self.graph.node, self._attributes, strict=True)):
            inputs = [values[name] for name in node.input]
            wide = [
                self._wide[name] if name in self._wide else value.float() if value.dtype == torch.float16 else value
                for name, value in zip(node.input, inputs, strict=True)
            ]
            result = _OPERATORS[node.op_type](attributes, wide)
            if node.op_type != "Cast" and result.is_floating_point():
                result = result.to(_result_type(node, inputs))
            values[node.output[0]] = result
            if observe is not None:
                observe(node.output[0], result)
            for name in set(node.input):
                if self._last_use[name] == index and name not in kept:
                    del values[name]
        return {value.name: values[value.name].numpy() for value in self.graph.output}


def _to_torch(item: onnx.TensorProto) -> Tensor:
    return torch.from_numpy(numpy_helper.to_array(item).copy())


def _result_type(node: onnx.NodeProto, inputs: list[Tensor]) -> torch.dtype:
    if node.op_type == "DequantizeLinear":
        return inputs[1].dtype  # the scale's type is the result's
    return next(value.dtype for value in inputs if value.is_floating_point())


# ----------------------------------------------------------------------------------------------------------- operators
def _cast(a: Attributes, x: list[Tensor]) -> Tensor:
    return x[0].to(_TYPES[a["to"]])


def _conv(a: Attributes, x: list[Tensor]) -> Tensor:
    pads = a.get("pads", [0, 0, 0, 0])
    if list(pads[:2]) != list(pads[2:]):
        raise VerificationError(f"The reference evaluator does not know a convolution padded by {list(pads)}.")
    bias = x[2] if len(x) > 2 else None
    return F.conv2d(x[0], x[1], bias, a.get("strides", 1), tuple(pads[:2]), a.get("dilations", 1), a.get("group", 1))


def _max_pool(a: Attributes, x: list[Tensor]) -> Tensor:
    pads = a.get("pads", [0, 0, 0, 0])
    return F.max_pool2d(x[0], a["kernel_shape"], a.get("strides"), tuple(pads[:2]), ceil_mode=bool(a.get("ceil_mode")))


def _reshape(a: Attributes, x: list[Tensor]) -> Tensor:
    shape = [x[0].shape[place] if size == 0 else size for place, size in enumerate(x[1].tolist())]
    return x[0].reshape(shape)


def _gather(a: Attributes, x: list[Tensor]) -> Tensor:
    axis, indices = a.get("axis", 0), x[1].long()
    rows = x[0].index_select(axis, indices.reshape(-1))
    return rows.reshape(*x[0].shape[:axis], *indices.shape, *x[0].shape[axis + 1 :])


def _slice(a: Attributes, x: list[Tensor]) -> Tensor:
    starts, ends = x[1].tolist(), x[2].tolist()
    axes = x[3].tolist() if len(x) > 3 else list(range(len(starts)))
    steps = x[4].tolist() if len(x) > 4 else [1] * len(starts)
    index = [slice(None)] * x[0].ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        index[axis] = slice(start, min(end, x[0].shape[axis]), step)
    return x[0][tuple(index)]


def _unsqueeze(a: Attributes, x: list[Tensor]) -> Tensor:
    result = x[0]
    for axis in sorted(x[1].tolist()):
        result = result.unsqueeze(axis)
    return result


def _squeeze(a: Attributes, x: list[Tensor]) -> Tensor:
    return x[0].squeeze(tuple(x[1].tolist()))


def _layer_norm(a: Attributes, x: list[Tensor]) -> Tensor:
    axis = a.get("axis", -1)
    bias = x[2] if len(x) > 2 else None
    return F.layer_norm(x[0], x[0].shape[axis:], x[1], bias, a.get("epsilon", 1e-5))


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def reduce(a: Attributes, x: list[Tensor]) -> Tensor:
        axes = x[1].tolist() if len(x) > 1 else list(range(x[0].ndim))
        return function(x[0], dim=axes, keepdim=bool(a.get("keepdims", 1)))

    return reduce


def _gemm(a: Attributes, x: list[Tensor]) -> Tensor:
    left = x[0].t() if a.get("transA") else x[0]
    right = x[1].t() if a.get("transB") else x[1]
    result = a.get("alpha", 1.0) * (left @ right)
    return result + a.get("beta", 1.0) * x[2] if len(x) > 2 else result


def _gelu(a: Attributes, x: list[Tensor]) -> Tensor:
    return F.gelu(x[0], approximate=a.get("approximate", b"none").decode())


def _per_axis(value: Tensor, like: Tensor, axis: int) -> Tensor:
    shape = [1] * like.ndim
    if value.ndim:
        shape[axis] = -1
    return value.reshape(shape) if value.ndim else value


def _quantize(a: Attributes, x: list[Tensor]) -> Tensor:
    scale = _per_axis(x[1], x[0], a.get("axis", 1))
    zero = _per_axis(x[2], x[0], a.get("axis", 1)).float() if len(x) > 2 else 0.0
    return torch.clamp(torch.round(x[0] / scale) + zero, -128, 127).to(torch.int8)


def _dequantize(a: Attributes, x: list[Tensor]) -> Tensor:
    scale = _per_axis(x[1], x[0], a.get("axis", 1))
    zero = _per_axis(x[2], x[0], a.get("axis", 1)).float() if len(x) > 2 else 0.0
    return (x[0].float() - zero) * scale


_OPERATORS: dict[str, Operator] = {
    "Add": lambda a, x: x[0] + x[1],
    "Cast": _cast,
    "Concat": lambda a, x: torch.cat(x, a["axis"]),
    "Conv": _conv,
    "DequantizeLinear": _dequantize,
    "Div": lambda a, x: x[0] / x[1],
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "Identity": lambda a, x: x[0],
    "LayerNormalization": _layer_norm,
    "MatMul": lambda a, x: x[0] @ x[1],
    "MaxPool": _max_pool,
    "Mul": lambda a, x: x[0] * x[1],
    "QuantizeLinear": _quantize,
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "Relu": lambda a, x: torch.relu(x[0]),
    "Reshape": _reshape,
    "Slice": _slice,
    "Softmax": lambda a, x: torch.softmax(x[0], a.get("axis", -1)),
    "Squeeze": _squeeze,
    "Sub": lambda a, x: x[0] - x[1],
    "Transpose": lambda a, x: x[0].permute(*a["perm"]),
    "Unsqueeze": _unsqueeze,
}
