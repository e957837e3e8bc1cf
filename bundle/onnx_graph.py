"""An ONNX graph read from its bytes: nodes, types of its tensors, multiply-accumulates.

Every exported graph carries the shape of each of its tensors, so `read_onnx` needs no `onnx` package: a device can do
it. `infer_onnx` takes a model of that package and infers the shapes anew, for graphs that are being made. For the field
numbers see `onnx_scan.py`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from ..errors import RefusedError, command
from .entries import TensorSpec
from .onnx_scan import MalformedError, fields, refuse_external, varint

if TYPE_CHECKING:
    import onnx

# ONNX's TensorProto.DataType -> our word, bytes of an element.
TYPES = {
    1: ("fp32", 4), 2: ("uint8", 1), 3: ("int8", 1), 6: ("int32", 4), 7: ("int64", 8), 9: ("bool", 1),
    10: ("fp16", 2), 11: ("fp64", 8), 16: ("bf16", 2),
}  # fmt: skip
_UINT8 = 2
_NUMPY = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"}
PRODUCTS = ("Conv", "MatMul", "Gemm")
_Part = tuple[int, int, int]  # of a message: wire type, value, end; see `onnx_scan.fields`


@dataclass(frozen=True)
class OnnxTensor:
    """Type of a tensor.

    Attributes:
        kind: ONNX's TensorProto.DataType.
        shape: 0 where a dimension is not static.
    """

    kind: int
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Product of the dimensions."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size of the data; 0 for types that are not in `TYPES`."""
        return self.elements * TYPES.get(self.kind, ("", 0))[1]


@dataclass
class OnnxNode:
    """A node as the file has it; `flags` are its integer attributes."""

    name: str = ""
    op: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    flags: dict[str, int] = field(default_factory=dict)


@dataclass
class OnnxGraph:
    """A graph as the file has it.

    Attributes:
        nodes: in the file's order.
        tensors: types by name.
        weights: names of the initializers.
        inputs, outputs: names; inputs without initializers.
    """

    nodes: list[OnnxNode] = field(default_factory=list)
    tensors: dict[str, OnnxTensor] = field(default_factory=dict)
    weights: set[str] = field(default_factory=set)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    @cached_property
    def maker(self) -> dict[str, OnnxNode]:
        """The node that makes a tensor."""
        return {name: node for node in self.nodes for name in node.outputs}

    @cached_property
    def readers(self) -> Mapping[str, list[OnnxNode]]:
        """The nodes that read a tensor, each once; empty for a tensor that nothing reads."""
        found: dict[str, list[OnnxNode]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found[name].append(node)
        return found

    def dequantized(self, name: str) -> bool:
        """Whether a tensor comes straight from a DequantizeLinear."""
        return name in self.maker and self.maker[name].op == "DequantizeLinear"

    def precision(self, node: OnnxNode) -> str:
        """Type of a node's first operand; 'int8' when both operands come from a DequantizeLinear."""
        operands = [name for name in node.inputs[:2] if name]
        if len(operands) == 2 and all(map(self.dequantized, operands)):
            return "int8"
        kind = self.tensors[operands[0]].kind if operands else 0
        return TYPES.get(kind, ("other", 0))[0]

    def macs(self, node: OnnxNode) -> int:
        """Multiply-accumulates of one node; 0 for all but `PRODUCTS`.

        Convolution: output elements x weights of one output channel. Product: output elements x inner length.
        """
        if node.op not in PRODUCTS:
            return 0
        left, right = self.tensors[node.inputs[0]].shape, self.tensors[node.inputs[1]].shape
        inner = math.prod(right[1:]) if node.op == "Conv" else left[0 if node.flags.get("transA") else -1]
        return self.tensors[node.outputs[0]].elements * inner

    @property
    def macs_by_node(self) -> dict[str, int]:
        """Multiply-accumulates of each of `PRODUCTS` by the node's name."""
        return {node.name: self.macs(node) for node in self.nodes if node.op in PRODUCTS}

    @property
    def macs_by_precision(self) -> dict[str, int]:
        """Multiply-accumulates by the type of their operands; types without any are left out."""
        total: Counter[str] = Counter()
        for node in self.nodes:
            if macs := self.macs(node):
                total[self.precision(node)] += macs
        return dict(total)


def read_onnx(onnx: bytes, shown: str) -> OnnxGraph:
    """Read a graph that this program exported, whose shapes are static.

    Raises:
        RefusedError: malformed, tensors in other files, or a tensor without a static shape.
    """
    refuse_external(onnx, shown)
    try:
        graph = _read(onnx)
    except MalformedError as error:
        raise RefusedError(f"{shown} cannot be read: {error}.", cause="a damaged file") from error
    _annotate_quantized(graph)
    _require_shapes(graph, shown)
    return graph


def read_interface(onnx: bytes, shown: str) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Read what a graph from anywhere takes and gives; a size that the file leaves open is 0.

    Returns:
        Inputs, outputs, in the order of the file.

    Raises:
        RefusedError: malformed, tensors in other files, or a tensor without a shape or of no supported type.
    """
    refuse_external(onnx, shown)
    try:
        graph = _read(onnx)
    except MalformedError as error:
        raise RefusedError(f"{shown} cannot be read: {error}.", cause="a damaged file") from error

    def spec(name: str) -> TensorSpec:
        found = graph.tensors.get(name)
        if found is None or found.kind not in _NUMPY:
            raise RefusedError(f"{shown} does not say the type of tensor {name!r}.", cause="no network of tensors")
        return TensorSpec(name, _NUMPY[found.kind], found.shape)

    return tuple(map(spec, graph.inputs)), tuple(map(spec, graph.outputs))


def infer_onnx(model: onnx.ModelProto) -> OnnxGraph:
    """Read a model of the onnx package, every type by ONNX's own shape inference.

    Raises:
        onnx.shape_inference.InferenceError: the graph contradicts itself.
    """
    from onnx import shape_inference

    inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    return _read(inferred.SerializeToString())


def _annotate_quantized(graph: OnnxGraph) -> None:
    """Give the tensors of Q/DQ nodes, and of the casts before them, a type.

    They are put into finished graphs and keep the shape; the type is that of the zero point or of the scale, or what
    a cast names.
    """
    for node in graph.nodes:
        source = graph.tensors.get(node.inputs[0]) if node.inputs else None
        if source is None or node.op not in ("Cast", "QuantizeLinear", "DequantizeLinear"):
            continue
        names = node.inputs[2:3] if node.op == "QuantizeLinear" else node.inputs[1:2]
        typed = graph.tensors.get(names[0]) if names else None
        kind = typed.kind if typed is not None else _UINT8  # ONNX: without a zero point, quantized is uint8
        kind = node.flags.get("to", 0) if node.op == "Cast" else kind
        graph.tensors.setdefault(node.outputs[0], OnnxTensor(kind, source.shape))


def _require_shapes(graph: OnnxGraph, shown: str) -> None:
    used = {name for node in graph.nodes for name in (*node.inputs, *node.outputs) if name}
    lost = sorted(name for name in used if name not in graph.tensors or 0 in graph.tensors[name].shape)
    if lost or not graph.nodes:
        raise RefusedError(
            f"{shown} does not say the static shape of {', '.join(lost[:3]) or 'anything'}.",
            cause="a graph that this program did not export: its exports annotate every tensor",
            next=command("logoformer", "export", "CHECKPOINT", "-o", "BUNDLE"),
        )


# -------------------------------------------------------------------------------------------------------------- reading
def _read(data: bytes) -> OnnxGraph:
    graph = OnnxGraph()
    for _, start, end in _message(data, 0, len(data))[7]:  # ModelProto.graph
        parts = _message(data, start, end)
        graph.nodes += [_node(data, at, stop) for _, at, stop in parts[1]]
        weights = dict(_initializer(data, at, stop) for _, at, stop in parts[5])
        graph.tensors |= weights
        graph.weights |= weights.keys()
        inputs, outputs, between = ([_value(data, at, stop) for _, at, stop in parts[n]] for n in (11, 12, 13))
        for name, tensor in (*inputs, *outputs, *between):
            if tensor is not None:
                graph.tensors.setdefault(name, tensor)
        graph.inputs += [name for name, _ in inputs if name not in graph.weights]
        graph.outputs += [name for name, _ in outputs]
    return graph


def _node(data: bytes, start: int, end: int) -> OnnxNode:
    parts = _message(data, start, end)
    inputs, outputs = ([_text(data, [part]) for part in parts[number]] for number in (1, 2))
    node = OnnxNode(_text(data, parts[3]), _text(data, parts[4]), inputs, outputs)
    for _, at, stop in parts[5]:
        attribute = _message(data, at, stop)
        node.flags[_text(data, attribute[1])] = _number(attribute[3])  # AttributeProto.i
    return node


def _initializer(data: bytes, start: int, end: int) -> tuple[str, OnnxTensor]:
    parts = _message(data, start, end)
    shape: list[int] = []
    for wire_type, value, stop in parts[1]:
        shape += [value] if wire_type == 0 else _packed(data, value, stop)
    return _text(data, parts[8]), OnnxTensor(_number(parts[2]), tuple(shape))


def _value(data: bytes, start: int, end: int) -> tuple[str, OnnxTensor | None]:
    """Read a ValueInfoProto: the name, and the type where it is a tensor's."""
    parts = _message(data, start, end)
    found = None
    for _, at, stop in parts[2]:
        for _, tensor, tensor_stop in _message(data, at, stop)[1]:  # TypeProto.tensor_type
            typed = _message(data, tensor, tensor_stop)
            for _, shape, shape_stop in typed[2]:
                found = OnnxTensor(_number(typed[1]), _shape(data, shape, shape_stop))
    return _text(data, parts[1]), found


def _shape(data: bytes, start: int, end: int) -> tuple[int, ...]:
    dimensions = (_message(data, at, stop)[1] for _, at, stop in _message(data, start, end)[1])
    return tuple(_number([part for part in parts if part[0] == 0]) for parts in dimensions)


def _message(data: bytes, start: int, end: int) -> Mapping[int, list[_Part]]:
    """The fields of a message by number; an empty list where there is none."""
    found: dict[int, list[_Part]] = defaultdict(list)
    for number, wire_type, value, stop in fields(data, start, end):
        found[number].append((wire_type, value, stop))
    return found


def _packed(data: bytes, start: int, end: int) -> Iterator[int]:
    """Values of a packed list of varints."""
    while start < end:
        value, start = varint(data, start, end)
        yield value


def _number(parts: list[_Part]) -> int:
    """The value of a varint; the last one counts, 0 without any."""
    return parts[-1][1] if parts else 0


def _text(data: bytes, parts: list[_Part]) -> str:
    """The value of a string; the last one counts, empty without any."""
    return data[parts[-1][1] : parts[-1][2]].decode("utf-8", "backslashreplace") if parts else ""
