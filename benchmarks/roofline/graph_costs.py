"""What a graph must compute and move, read from its ONNX bytes: multiply-accumulates and bytes, node by node.

Every exported graph carries the shape of each of its tensors, so this needs no `onnx` package: a device can do it. Two
sums of bytes are kept apart, because they answer different questions:

* *compulsory*: weights and inputs read once, outputs written once. No schedule can move less, as long as a run begins
  with its weights outside the chip's caches;
* *of a node*: each tensor that it reads and writes, as if nothing were fused and nothing stayed in a cache.

Field numbers are those of onnx.proto3 (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ...bundle.onnx_scan import MalformedError, fields, refuse_external
from ...errors import RefusedError, command

# ONNX's TensorProto.DataType -> our word, bytes of an element.
_TYPES = {
    1: ("fp32", 4), 2: ("uint8", 1), 3: ("int8", 1), 6: ("int32", 4), 7: ("int64", 8), 9: ("bool", 1),
    10: ("fp16", 2), 11: ("fp64", 8), 16: ("bf16", 2),
}  # fmt: skip
_UINT8 = 2
_VIEWS = {"Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity"}  # another shape over the same bytes
_PICKS = {"Gather", "Slice"}  # read what they give, not the whole of what they pick from
MULTIPLIES = ("Conv", "MatMul", "Gemm")


@dataclass(frozen=True)
class NodeCost:
    """One node.

    Attributes:
        name: of the node.
        op: its operator.
        precision: of its operands, 'int8' when both come from a DequantizeLinear.
        macs: multiply-accumulates; 0 for all but products and convolutions.
        bytes: read and written, nothing fused; 0 for a view and for a DequantizeLinear, which a compiler folds away.
    """

    name: str
    op: str
    precision: str
    macs: int
    bytes: int


@dataclass(frozen=True)
class GraphCost:
    """One graph.

    Attributes:
        nodes: in the file's order.
        weight_bytes: constants, each once.
        input_bytes: of graph inputs; of a table that is only gathered from, the rows that are gathered.
        output_bytes: of graph outputs.
    """

    nodes: tuple[NodeCost, ...]
    weight_bytes: int
    input_bytes: int
    output_bytes: int

    @property
    def compulsory_bytes(self) -> int:
        """What any schedule must move."""
        return self.weight_bytes + self.input_bytes + self.output_bytes

    @property
    def macs_by_precision(self) -> dict[str, int]:
        """Multiply-accumulates by the type of their operands."""
        total: Counter[str] = Counter()
        for node in self.nodes:
            if node.macs:
                total[node.precision] += node.macs
        return dict(total)


@dataclass(frozen=True)
class _Tensor:
    """Type and shape."""

    kind: int
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * _TYPES.get(self.kind, ("", 0))[1]


@dataclass
class _Node:
    """A node as it stands in the file."""

    name: str = ""
    op: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    flags: dict[str, int] = field(default_factory=dict)


@dataclass
class _Graph:
    """A graph as it stands in the file."""

    nodes: list[_Node] = field(default_factory=list)
    tensors: dict[str, _Tensor] = field(default_factory=dict)
    weights: set[str] = field(default_factory=set)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


def graph_cost(onnx: bytes, shown: str) -> GraphCost:
    """Counts one graph.

    Args:
        onnx: the whole file, static shapes.
        shown: how to name it in a message.

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
    producer = {name: node for node in graph.nodes for name in node.outputs}
    readers: dict[str, list[_Node]] = defaultdict(list)
    for node in graph.nodes:
        for name in dict.fromkeys(node.inputs):
            readers[name].append(node)
    sizes = {name: _stored_bytes(name, graph, producer, readers[name]) for name in graph.tensors}
    return GraphCost(
        nodes=tuple(_node_cost(node, graph, producer, sizes) for node in graph.nodes),
        weight_bytes=sum(sizes[name] for name in graph.weights),
        input_bytes=sum(_input_bytes(name, graph, sizes, readers[name]) for name in graph.inputs),
        output_bytes=sum(sizes[name] for name in graph.outputs),
    )


# ------------------------------------------------------------------------------------------------------------- counting
def _node_cost(node: _Node, graph: _Graph, producer: dict[str, _Node], sizes: dict[str, int]) -> NodeCost:
    tensors = graph.tensors
    operands = [name for name in node.inputs[:2] if name]
    kind = tensors[operands[0]].kind if operands else 0
    dequantized = len(operands) == 2 and all(
        name in producer and producer[name].op == "DequantizeLinear" for name in operands
    )
    precision = "int8" if dequantized else _TYPES.get(kind, ("other", 0))[0]
    macs = _macs(node, tensors) if node.op in MULTIPLIES else 0
    return NodeCost(node.name or node.op, node.op, precision, macs, _node_bytes(node, sizes))


def _macs(node: _Node, tensors: dict[str, _Tensor]) -> int:
    """Convolution: output elements x weights of one output channel. Product: output elements x inner length."""
    left, right = tensors[node.inputs[0]].shape, tensors[node.inputs[1]].shape
    inner = math.prod(right[1:]) if node.op == "Conv" else left[0 if node.flags.get("transA") else -1]
    return tensors[node.outputs[0]].elements * inner


def _node_bytes(node: _Node, sizes: dict[str, int]) -> int:
    if node.op in _VIEWS or node.op == "DequantizeLinear":
        return 0
    given = sum(sizes[name] for name in node.outputs if name)
    if node.op in _PICKS:
        return 2 * given + sum(sizes[name] for name in node.inputs[1:] if name)
    return given + sum(sizes[name] for name in dict.fromkeys(node.inputs) if name)


def _stored_bytes(name: str, graph: _Graph, producer: dict[str, _Node], readers: Sequence[_Node]) -> int:
    """Bytes of a tensor as an engine would hold it: what Q/DQ pairs stand for is INT8."""
    made = producer.get(name)
    if made is not None and made.op == "DequantizeLinear":
        return graph.tensors[made.inputs[0]].bytes
    tensor = graph.tensors[name]
    folded = name in graph.weights and readers and all(reader.op == "QuantizeLinear" for reader in readers)
    return tensor.elements if folded else tensor.bytes


def _input_bytes(name: str, graph: _Graph, sizes: dict[str, int], readers: Sequence[_Node]) -> int:
    gathers = [reader for reader in readers if reader.op == "Gather" and reader.inputs[0] == name]
    if readers and len(gathers) == len(readers):
        return min(sizes[name], sum(sizes[gather.outputs[0]] for gather in gathers))
    return sizes[name]


def _annotate_quantized(graph: _Graph) -> None:
    """Q/DQ nodes are put into finished graphs: they keep the shape; the type is that of the zero point or the scale."""
    for node in graph.nodes:
        source = graph.tensors.get(node.inputs[0]) if node.inputs else None
        if source is None or node.op not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        names = node.inputs[2:3] if node.op == "QuantizeLinear" else node.inputs[1:2]
        teller = graph.tensors.get(names[0]) if names else None
        kind = teller.kind if teller is not None else _UINT8  # ONNX: without a zero point, quantized is uint8
        graph.tensors.setdefault(node.outputs[0], _Tensor(kind, source.shape))


def _require_shapes(graph: _Graph, shown: str) -> None:
    used = {name for node in graph.nodes for name in (*node.inputs, *node.outputs) if name}
    lost = sorted(used - set(graph.tensors))
    if lost or not graph.nodes:
        raise RefusedError(
            f"{shown} does not say the static shape of {', '.join(lost[:3]) or 'anything'}.",
            cause="a graph that this program did not export: its exports annotate every tensor",
            next=command("logoformer", "export", "CHECKPOINT", "-o", "BUNDLE"),
        )


# -------------------------------------------------------------------------------------------------------------- reading
def _read(data: bytes) -> _Graph:
    graph = _Graph()
    for number, _, start, end in fields(data, 0, len(data)):
        if number != 7:  # ModelProto.graph
            continue
        for inner, _, begin, stop in fields(data, start, end):
            if inner == 1:
                graph.nodes.append(_node(data, begin, stop))
            elif inner == 5:
                name, tensor = _initializer(data, begin, stop)
                graph.tensors[name] = tensor
                graph.weights.add(name)
            elif inner in (11, 12, 13):  # input, output, value_info
                name, tensor_or_none = _value(data, begin, stop)
                if tensor_or_none is not None:
                    graph.tensors.setdefault(name, tensor_or_none)
                if inner != 13:
                    (graph.inputs if inner == 11 else graph.outputs).append(name)
    graph.inputs = [name for name in graph.inputs if name not in graph.weights]
    return graph


def _node(data: bytes, start: int, end: int) -> _Node:
    node = _Node()
    for number, _, value, stop in fields(data, start, end):
        if number in (1, 2):
            (node.inputs if number == 1 else node.outputs).append(_text(data, value, stop))
        elif number == 3:
            node.name = _text(data, value, stop)
        elif number == 4:
            node.op = _text(data, value, stop)
        elif number == 5:
            name, flag = "", 0
            for inner, _, inner_value, inner_stop in fields(data, value, stop):
                if inner == 1:
                    name = _text(data, inner_value, inner_stop)
                elif inner == 3:  # AttributeProto.i
                    flag = inner_value
            node.flags[name] = flag
    return node


def _initializer(data: bytes, start: int, end: int) -> tuple[str, _Tensor]:
    name, kind, shape = "", 0, []
    for number, wire_type, value, stop in fields(data, start, end):
        if number == 1:
            shape += [value] if wire_type == 0 else list(_packed(data, value, stop))
        elif number == 2:
            kind = value
        elif number == 8:
            name = _text(data, value, stop)
    return name, _Tensor(kind, tuple(shape))


def _value(data: bytes, start: int, end: int) -> tuple[str, _Tensor | None]:
    """A ValueInfoProto; None for what is no tensor of a static shape."""
    name, kind, shape = "", 0, None
    for number, _, value, stop in fields(data, start, end):
        if number == 1:
            name = _text(data, value, stop)
        elif number == 2:
            for _, _, tensor, tensor_stop in _only(data, value, stop, 1):  # TypeProto.tensor_type
                for inner, _, inner_value, inner_stop in fields(data, tensor, tensor_stop):
                    if inner == 1:
                        kind = inner_value
                    elif inner == 2:
                        shape = _shape(data, inner_value, inner_stop)
    return name, None if shape is None else _Tensor(kind, shape)


def _shape(data: bytes, start: int, end: int) -> tuple[int, ...] | None:
    sizes: list[int] = []
    for _, _, dimension, stop in _only(data, start, end, 1):
        known = [value for _, wire_type, value, _ in _only(data, dimension, stop, 1) if wire_type == 0]
        if not known:
            return None
        sizes.append(known[-1])
    return tuple(sizes)


def _only(data: bytes, start: int, end: int, number: int) -> Iterator[tuple[int, int, int, int]]:
    return (found for found in fields(data, start, end) if found[0] == number)


def _packed(data: bytes, start: int, end: int) -> Iterator[int]:
    """A packed list of varints, read as fields would read them one by one."""
    value = shift = 0
    for byte in data[start:end]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield value
            value = shift = 0


def _text(data: bytes, start: int, end: int) -> str:
    return data[start:end].decode("utf-8", "backslashreplace")
