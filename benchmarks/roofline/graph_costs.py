"""Multiply-accumulates and bytes of a graph, node by node, read from its ONNX bytes.

Two sums of bytes are kept apart, because they answer different questions:

* *compulsory*: weights and inputs read once, outputs written once. No schedule can move less, as long as a run begins
  with its weights outside the chip's caches;
* *of a node*: each tensor that it reads and writes, as if nothing were fused and nothing stayed in a cache.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...bundle.onnx_graph import OnnxGraph, OnnxNode, read_onnx

_VIEWS = {"Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity"}  # another shape over the same bytes
_PICKS = {"Gather", "Slice"}  # read what they give, not the whole of what they pick from


@dataclass(frozen=True)
class Piece:
    """One node of a graph, or one kernel of a plan.

    Attributes:
        name: of the node or kernel.
        role: what a kernel is for; a node's operator.
        precision: of its operands, 'int8' when both come from a DequantizeLinear.
        macs: multiply-accumulates; 0 for all but products and convolutions.
        bytes: touched, each tensor once; 0 for a view and for a DequantizeLinear, which a compiler folds away.
    """

    name: str
    role: str
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
        macs_by_precision: multiply-accumulates by the type of their operands.
    """

    nodes: tuple[Piece, ...]
    weight_bytes: int
    input_bytes: int
    output_bytes: int
    macs_by_precision: dict[str, int]

    @property
    def compulsory_bytes(self) -> int:
        """What any schedule must move."""
        return self.weight_bytes + self.input_bytes + self.output_bytes


def graph_cost(onnx: bytes, shown: str) -> GraphCost:
    """Counts one graph.

    Args:
        onnx: the whole file, static shapes.
        shown: how to name it in a message.

    Raises:
        RefusedError: malformed, tensors in other files, or a tensor without a static shape.
    """
    graph = read_onnx(onnx, shown)
    sizes = {name: _stored_bytes(name, graph) for name in graph.tensors}
    return GraphCost(
        nodes=tuple(
            Piece(node.name or node.op, node.op, graph.precision(node), graph.macs(node), _node_bytes(node, sizes))
            for node in graph.nodes
        ),
        weight_bytes=sum(sizes[name] for name in graph.weights),
        input_bytes=sum(_input_bytes(name, graph, sizes) for name in graph.inputs),
        output_bytes=sum(sizes[name] for name in graph.outputs),
        macs_by_precision=graph.macs_by_precision,
    )


def _node_bytes(node: OnnxNode, sizes: dict[str, int]) -> int:
    if node.op in _VIEWS or node.op == "DequantizeLinear":
        return 0
    given = sum(sizes[name] for name in node.outputs if name)
    if node.op in _PICKS:
        return 2 * given + sum(sizes[name] for name in node.inputs[1:] if name)
    return given + sum(sizes[name] for name in dict.fromkeys(node.inputs) if name)


def _stored_bytes(name: str, graph: OnnxGraph) -> int:
    """Bytes of a tensor as an engine would hold it: what Q/DQ pairs stand for is INT8."""
    if graph.dequantized(name):
        return graph.tensors[graph.maker[name].inputs[0]].bytes
    tensor, readers = graph.tensors[name], graph.readers.get(name, [])
    folded = name in graph.weights and readers and all(reader.op == "QuantizeLinear" for reader in readers)
    return tensor.elements if folded else tensor.bytes


def _input_bytes(name: str, graph: OnnxGraph, sizes: dict[str, int]) -> int:
    readers = graph.readers.get(name, [])
    gathers = [reader for reader in readers if reader.op == "Gather" and reader.inputs[0] == name]
    if readers and len(gathers) == len(readers):
        return min(sizes[name], sum(sizes[gather.outputs[0]] for gather in gathers))
    return sizes[name]
