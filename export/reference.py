"""Reference evaluator that rounds after every operator.

ONNX Runtime's CPU kernels compute FP16 graphs wider than FP16 between nodes: an intermediate of 128000 passes unseen.
This evaluator runs the graph node by node; each operator is computed in float32 from its (already rounded) inputs and
its result is rounded to the type that the graph declares, as a tensor core with float32 accumulation would. Overflow
becomes infinity, as on a device.

Inside an INT8 kernel nothing is rounded to FP16: integers are multiplied, and bias, shortcut and activation follow in
float32 until the result is quantized. TensorRT, OpenVINO and ONNX Runtime agree in this. It decides what INT8 answers:
one FP16 rounding before a quantizer moves some values to the next step, and on a trained `tiny` the two answers were
then as far apart (RMS 0.029 of the deviation between clips) as INT8 is from FP32. Overflow becomes infinity here too.

It knows the operators that this project's graphs are made of and refuses others by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from torch import Tensor

from ..errors import VerificationError
from .rounding import declared_types, inside_int8_kernels

NAME = "rounding reference (float32 accumulation, every result that a kernel stores rounded to the graph's type)"
_OVERFLOW = 65520.0  # from here on FP16 rounds to infinity

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
        self._outputs = [value.name for value in self.graph.output]
        self._constants = {
            item.name: torch.from_numpy(numpy_helper.to_array(item).copy()) for item in self.graph.initializer
        }
        self._wide: dict[str, Tensor] = {}
        self._steps: list[_Step] = []
        declared = declared_types(model)
        inside = inside_int8_kernels(model, {*self._constants, *self._outputs})
        with torch.no_grad():
            for node in self.graph.node:
                attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
                name = node.output[0]
                step = _Step(node, _OPERATORS[node.op_type], attributes, declared[name], name in inside)
                if all(name in self._constants for name in node.input):  # a weight behind its DequantizeLinear
                    self._constants[node.output[0]] = self._compute(
                        step, [self._constants[name] for name in node.input]
                    )
                else:
                    self._steps.append(step)
        last = {name: index for index, step in enumerate(self._steps) for name in step.node.input}
        halves = {n: value for n, value in self._constants.items() if n in last and value.dtype == torch.float16}
        self._wide = {name: value.float() for name, value in halves.items()}
        kept = {*self._outputs, *self._constants}
        for index, step in enumerate(self._steps):
            step.ends = tuple(name for name in set(step.node.input) if last[name] == index and name not in kept)

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
        (outputs,) = self._evaluate([{name: _feed(value) for name, value in feeds.items()}], observe)
        return {name: value.numpy() for name, value in outputs.items()}

    @torch.no_grad()
    def run_many(
        self,
        feeds: Mapping[str, npt.NDArray[Any]],
        shared: Mapping[str, npt.NDArray[Any]] | None = None,
        measure: Callable[[str, Tensor], Mapping[str, Tensor]] | None = None,
    ) -> tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]:
        """Runs the graph on N inputs in one go, each as if it were alone.

        Args:
            feeds: graph inputs by name, each with one more axis in front, N.
            shared: inputs that are the same for all N.
            measure: called with the name and value of every intermediate tensor, as for one input; what it returns is
                collected. It may use torch, but not look at numbers.

        Returns:
            Graph outputs by name and what was collected, each with N in front.
        """
        alike = {name: _feed(value) for name, value in (shared or {}).items()}

        def one(batched: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
            collected: dict[str, Tensor] = {}

            def observe(name: str, value: Tensor) -> None:
                if measure is not None:
                    collected.update(measure(name, value))

            return self._evaluate([{**batched, **alike}], observe)[0], collected

        outputs, collected = torch.vmap(one)({name: _feed(value) for name, value in feeds.items()})
        return {name: v.numpy() for name, v in outputs.items()}, {name: v.numpy() for name, v in collected.items()}

    @torch.no_grad()
    def side_by_side(
        self,
        feeds: Sequence[Mapping[str, npt.NDArray[Any]]],
        before: Callable[[str, list[list[Tensor]]], list[list[Tensor]]],
    ) -> None:
        """Runs the graph on several inputs at once, all of them through one node before the next.

        Args:
            feeds: graph inputs by name, for each run.
            before: called with each node's name and its inputs in every run; the runs read what it returns.
        """
        self._evaluate([{name: _feed(value) for name, value in feed.items()} for feed in feeds], before=before)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The float32 constants by name; do not change them."""
        return {name: value for name, value in self._constants.items() if value.dtype == torch.float32}

    def differentiable(
        self,
        feeds: Mapping[str, Tensor],
        weights: Mapping[str, Tensor],
        before: Callable[[str, list[Tensor]], list[Tensor]],
    ) -> dict[str, Tensor]:
        """Runs an FP32 graph on N inputs with other weights, so that gradients reach them.

        Args:
            feeds: graph inputs by name, each with one more axis in front, N.
            weights: instead of the constants of the same names.
            before: called with each node's name and inputs; the node reads what it returns.

        Returns:
            Graph outputs by name, each with N in front.
        """

        def one(batched: dict[str, Tensor]) -> dict[str, Tensor]:
            return self._evaluate([{**weights, **batched}], before=lambda name, read: [before(name, read[0])])[0]

        outputs: dict[str, Tensor] = torch.vmap(one)(dict(feeds))
        return outputs

    def _evaluate(
        self,
        runs: Sequence[Mapping[str, Tensor]],
        observe: Callable[[str, Tensor], None] | None = None,
        before: Callable[[str, list[list[Tensor]]], list[list[Tensor]]] | None = None,
    ) -> list[dict[str, Tensor]]:
        held: list[dict[str, Tensor]] = [{**self._constants, **inputs} for inputs in runs]
        for step in self._steps:
            name = step.node.output[0]
            read = [[values[given] for given in step.node.input] for values in held]
            if before is not None:
                read = before(step.node.name, read)
            for values, inputs in zip(held, read, strict=True):
                values[name] = self._compute(step, inputs)
                if observe is not None:
                    observe(name, values[name])
                for ended in step.ends:
                    del values[ended]
        return [{name: values[name] for name in self._outputs} for values in held]

    def _compute(self, step: _Step, inputs: list[Tensor]) -> Tensor:
        """Computes one node wide and rounds its result to the type that the graph declares."""
        wide = [
            self._wide[name] if name in self._wide else value.float() if value.dtype == torch.float16 else value
            for name, value in zip(step.node.input, inputs, strict=True)
        ]
        result = step.operator(step.attributes, wide)
        if step.declared is None or not result.is_floating_point():
            return result
        if not step.inside:
            return result.to(step.declared)
        result = result.float()
        return torch.where(result.abs() < _OVERFLOW, result, result * torch.inf) if step.narrow else result


@dataclass
class _Step:
    """One node to compute.

    Attributes:
        node: of the graph.
        operator, attributes: what to compute.
        declared: type of the result; None where it is no float.
        inside: whether the result stays inside an INT8 kernel.
        ends: tensors that nothing reads after it.
    """

    node: onnx.NodeProto
    operator: Operator
    attributes: Attributes
    declared: torch.dtype | None
    inside: bool
    ends: tuple[str, ...] = ()

    @property
    def narrow(self) -> bool:
        """Whether the result is declared FP16."""
        return self.declared == torch.float16


def _feed(value: npt.NDArray[Any]) -> Tensor:
    array = np.ascontiguousarray(value)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


# ----------------------------------------------------------------------------------------------------------- operators
def _conv(a: Attributes, x: list[Tensor]) -> Tensor:
    pads = a.get("pads", [0, 0, 0, 0])
    if list(pads[:2]) != list(pads[2:]):
        raise VerificationError(f"The reference evaluator does not know a convolution padded by {list(pads)}.")
    sums = F.conv2d(x[0], x[1], None, a.get("strides", 1), tuple(pads[:2]), a.get("dilations", 1), a.get("group", 1))
    return sums + x[2].reshape(-1, 1, 1) if len(x) > 2 else sums


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
    steps = (x[0] / scale).round_()  # halves to the even neighbour, as ONNX and TensorRT
    if len(x) > 2:
        steps += _per_axis(x[2], x[0], a.get("axis", 1))
    return steps.clamp(-128, 127).to(torch.int8)


def _dequantize(a: Attributes, x: list[Tensor]) -> Tensor:
    scale = _per_axis(x[1], x[0], a.get("axis", 1))
    steps = x[0].float()
    if len(x) > 2:
        steps -= _per_axis(x[2], x[0], a.get("axis", 1))
    return steps.mul_(scale)


_OPERATORS: dict[str, Operator] = {
    "Add": lambda a, x: x[0] + x[1],
    "Cast": lambda a, x: x[0].to(getattr(torch, helper.tensor_dtype_to_np_dtype(a["to"]).name)),
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
    "Squeeze": lambda a, x: x[0].squeeze(tuple(x[1].tolist())),
    "Sub": lambda a, x: x[0] - x[1],
    "Transpose": lambda a, x: x[0].permute(*a["perm"]),
    "Unsqueeze": _unsqueeze,
}
