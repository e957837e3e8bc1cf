"""Where INT8 goes: the placement policy, and the groups that an accuracy gate may take out of it.

TensorRT runs a product in INT8 when both its operands come straight from a DequantizeLinear. The policy, each rule kept
because the kernel plan of `base` (TensorRT-RTX 1.7.1, sm86) is smaller with it; the lint of `export/lint.py` checks the
result:

* Conv, and MatMul with a weight: both operands. The classifier (Gemm) stays out, it decides and costs nothing.
* A product of fewer than `MIN_ROWS` rows stays out: what it saves is less than the kernels that quantize for it
  (`temporal`: 84 kernels, 25 of which quantize, with this rule; 97 and 45 without).
* An attention is INT8 as a whole or not at all: its projections Q, K, V and the output projection are quantized, the
  head size is 16, 32 or 64, and there are at most 512 queries and keys. Any of these missing breaks the fusion, or
  pays for it with kernels that only quantize.
* The shortcut of a residual block shares the quantized input of the block, so that it is read as INT8. Nothing else
  of any residual stream is quantized, and no LayerNormalization input.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UsageError, one_of

if TYPE_CHECKING:
    import onnx

MIN_ROWS = 32
HEAD_SIZES = (16, 32, 64)
MAX_SEQUENCE = 512

_TRUNK = re.compile(r"frame\.trunk\.(conv1|layer\d+)\b")
_BLOCK = re.compile(r"temporal\.blocks\.(\d+)\.(?:(local|global)_attention(?:\.(q|k|v|out))?|(ffn)\.fc\d)/")
_PASSES = {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Cast", "Identity"}


@dataclass(frozen=True)
class Site:
    """One node whose operands become INT8.

    Attributes:
        node: its name.
        group: what it belongs to, such as 'block0.local.qkv'.
        slots: operands that are activations.
        weight: the operand that is a weight, or None.
        axis: the weight's output channels.
    """

    node: str
    group: str
    slots: tuple[int, ...]
    weight: int | None = None
    axis: int = 0


def sites(model: onnx.ModelProto, *, attention: bool = True, exclude: tuple[str, ...] = ()) -> tuple[Site, ...]:
    """What the policy quantizes in a graph, in graph order.

    Args:
        model: one of the three graphs, FP32.
        attention: also the products of activations.
        exclude: groups left out.

    Raises:
        UsageError: a node that belongs to no group.
    """
    graph = model.graph
    shapes = _shapes(model)
    weights = {item.name for item in graph.initializer}
    found: list[Site] = []
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in weights:
            found.append(Site(node.name, group_of(node.name), (0,), 1, 0))
        elif node.op_type == "MatMul" and node.input[1] in weights:
            *batch, rows, _ = shapes[node.input[0]]
            if _product(batch) * rows >= MIN_ROWS:
                found.append(Site(node.name, group_of(node.name), (0,), 1, 1))
    found = [site for site in found if site.group not in exclude]
    chosen = {site.node for site in found}
    if attention:
        for products, projections, fits in _attentions(graph, shapes):
            if fits and projections <= chosen and group_of(products[0]) not in exclude:
                found += [Site(name, group_of(name), (0, 1)) for name in products]
    chosen |= {site.node for site in found}
    found += _shortcuts(graph, chosen)
    order = {node.name: index for index, node in enumerate(graph.node)}
    return tuple(sorted(found, key=lambda site: order[site.node]))


def groups(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """The groups that can be left in FP16: {'trunk.layer1': (node, ...), 'block0.local.qkv': ...}, in graph order."""
    found: dict[str, list[str]] = defaultdict(list)
    for site in sites(model):
        found[site.group].append(site.node)
    return {name: tuple(nodes) for name, nodes in found.items()}


def check_exclude(exclude: tuple[str, ...], known: dict[str, tuple[str, ...]]) -> None:
    """Refuses names of groups that do not exist.

    Raises:
        UsageError: lists those that do.
    """
    unknown = sorted(set(exclude) - set(known))
    if unknown:
        raise UsageError(f"There is no group {one_of(unknown)} to exclude.", next=f"choose from {one_of(list(known))}")


def group_of(node: str) -> str:
    """The group of a node: 'trunk.layer1', 'project', 'block0.local.qkv', 'block0.local.bmm', 'block0.ffn'.

    Raises:
        UsageError: the name is not one that the exporter gives.
    """
    trunk = _TRUNK.match(node)
    if trunk:
        return f"trunk.{trunk[1]}"
    if node.startswith("frame.project/"):
        return "project"
    block = _BLOCK.match(node)
    if block is None:
        raise UsageError(f"The node {node!r} belongs to no known group.", next="export the bundle again")
    number, where, part, ffn = block.groups()
    if ffn:
        return f"block{number}.ffn"
    return f"block{number}.{where}.{'qkv' if part in ('q', 'k', 'v') else part or 'bmm'}"


def _product(sizes: list[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    return {
        value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        for value in [*graph.input, *graph.output, *graph.value_info]
    }


def _attentions(
    graph: onnx.GraphProto, shapes: dict[str, tuple[int, ...]]
) -> list[tuple[tuple[str, str], set[str], bool]]:
    """Of each attention: its two products, its four projections, whether a fused INT8 kernel exists for its shape."""
    maker = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)

    def made_by(name: str) -> str:
        while maker[name].op_type in _PASSES:
            name = maker[name].input[0]
        return str(maker[name].name)

    found = []
    for softmax in graph.node:
        first = maker.get(softmax.input[0]) if softmax.op_type == "Softmax" else None
        if first is None or first.op_type != "MatMul":
            continue
        (second,) = readers[softmax.output[0]]
        out = readers[second.output[0]][0]
        while out.op_type in _PASSES:
            out = readers[out.output[0]][0]
        projections = {made_by(first.input[0]), made_by(first.input[1]), made_by(second.input[1]), out.name}
        head, (queries, keys) = shapes[first.input[0]][-1], shapes[first.output[0]][-2:]
        fits = head in HEAD_SIZES and max(queries, keys) <= MAX_SEQUENCE
        found.append(((first.name, second.name), projections, fits))
    return found


def _shortcuts(graph: onnx.GraphProto, chosen: set[str]) -> list[Site]:
    """The residual sums of the trunk whose shortcut is also the input of a quantized convolution."""
    maker = {name: node for node in graph.node for name in node.output}
    quantized = {node.input[0] for node in graph.node if node.op_type == "Conv" and node.name in chosen}
    found = []
    for node in graph.node:
        if node.op_type != "Add" or not _TRUNK.match(node.name):
            continue
        made_by_conv = [getattr(maker.get(name), "name", "") in chosen for name in node.input]
        for slot in (0, 1):
            if node.input[slot] in quantized and made_by_conv[1 - slot]:
                found.append(Site(node.name, group_of(node.name), (slot,)))
    return found
