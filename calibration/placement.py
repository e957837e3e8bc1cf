"""Placement of INT8: the policy, and the groups that an accuracy gate may exclude.

TensorRT runs a product in INT8 when both its operands come straight from a DequantizeLinear. The policy, each rule kept
because the kernel plan of `base` (TensorRT-RTX 1.7.1, sm86) is smaller with it; the lint of `export/lint.py` checks the
result:

* Conv, and MatMul with a weight: both operands. The classifier (Gemm) stays out, it decides and costs nothing.
* A product of fewer than `MIN_ROWS` rows stays out: what it saves is less than the kernels that quantize for it
  (`temporal`: 84 kernels, 25 of which quantize, with this rule; 97 and 45 without).
* An attention is INT8 as a whole or not at all: its projections Q, K, V and the output projection are quantized, the
  head size is 16, 32 or 64, and there are at most 512 queries and keys. Any of these missing breaks the fusion, or
  pays for it with kernels that only quantize.
* The convolution that makes tokens of a clip's pixels stays out (MAE-DFER).
* The shortcut of a residual block shares the quantized input of the block, so that it is read as INT8. Nothing else
  of any residual stream is quantized, and no LayerNormalization input.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..bundle.onnx_graph import OnnxGraph, OnnxNode, infer_onnx
from ..errors import UsageError, one_of

if TYPE_CHECKING:
    import onnx

MIN_ROWS = 32
HEAD_SIZES = (16, 32, 64)
MAX_SEQUENCE = 512

# Node names are module paths (`export/networks/`): a trunk, one projection of pixels or maps, and blocks, in `frame` or
# in `temporal`, each with attentions and a feed-forward network.
_TRUNK = re.compile(r"frame\.trunk\.(conv1|layer\d+)\b")
_PROJECTION = re.compile(r"frame\.(project)/")
_LEFT = re.compile(r"frame\.embed/")  # tubelets of pixels: another product in `clip` than in `frame`, 1 % of the work
_BLOCK = re.compile(
    r"(frame|temporal)\.(?:\w+_)?blocks\.(\d+)\.(?:(ffn)\.fc\d|(\w+?)(?:_attention)?(?:\.(q|k|v|out))?)/"
)
_PASSES = {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Cast", "Identity"}


@dataclass(frozen=True)
class Site:
    """One node whose operands become INT8.

    Attributes:
        node: its name.
        group: what it belongs to, such as 'block0.local.qkv'.
        slots: operands that are activations.
        tensors: their names, one for each slot.
        weight: the operand that is a weight, or None.
        axis: the weight's output channels.
    """

    node: str
    group: str
    slots: tuple[int, ...]
    tensors: tuple[str, ...]
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
    graph = infer_onnx(model)
    found: list[Site] = []
    for node in graph.nodes:
        if node.op not in ("Conv", "MatMul") or node.inputs[1] not in graph.weights or _LEFT.match(node.name):
            continue
        if node.op == "Conv":
            found.append(_site(node, (0,), 1, 0))
        elif math.prod(graph.tensors[node.inputs[0]].shape[:-1]) >= MIN_ROWS:
            found.append(_site(node, (0,), 1, 1))
    found = [site for site in found if site.group not in exclude]
    chosen = {site.node for site in found}
    if attention:
        for products, projections, fits in _attentions(graph):
            if fits and projections <= chosen and group_of(products[0].name) not in exclude:
                found += [_site(node, (0, 1)) for node in products]
    chosen |= {site.node for site in found}
    found += _shortcuts(graph, chosen)
    order = {node.name: index for index, node in enumerate(graph.nodes)}
    return tuple(sorted(found, key=lambda site: order[site.node]))


def groups(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """The groups that can be left in FP16, each with its nodes, in graph order."""
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
    """The group of a node, such as 'trunk.layer1', 'project' or 'block0.local.qkv'.

    Raises:
        UsageError: the name is not one that the exporter gives.
    """
    trunk = _TRUNK.match(node)
    if trunk:
        return f"trunk.{trunk[1]}"
    projection = _PROJECTION.match(node)
    if projection:
        return projection[1]
    block = _BLOCK.match(node)
    if block is None:
        raise UsageError(f"The node {node!r} belongs to no known group.", next="export the bundle again")
    graph, number, ffn, where, part = block.groups()
    name = f"{'frame.' if graph == 'frame' else ''}block{number}"
    if ffn:
        return f"{name}.ffn"
    return f"{name}.{where}.{'qkv' if part in ('q', 'k', 'v') else part or 'bmm'}"


def _site(node: OnnxNode, slots: tuple[int, ...], weight: int | None = None, axis: int = 0) -> Site:
    return Site(node.name, group_of(node.name), slots, tuple(node.inputs[slot] for slot in slots), weight, axis)


def _attentions(graph: OnnxGraph) -> list[tuple[tuple[OnnxNode, OnnxNode], set[str], bool]]:
    """Find attentions: two products, four projections, whether a fused INT8 kernel exists."""

    def made_by(name: str) -> str:
        """The projection behind a product's operand; a bias of Q is added on the way."""
        node = graph.maker[name]
        while node.op in _PASSES or (node.op == "Add" and graph.weights.intersection(node.inputs)):
            node = graph.maker[next(given for given in node.inputs if given not in graph.weights)]
        return node.name

    found = []
    for softmax in graph.nodes:
        first = graph.maker.get(softmax.inputs[0]) if softmax.op == "Softmax" else None
        if first is None or first.op != "MatMul":
            continue
        (second,) = graph.readers[softmax.outputs[0]]
        out = graph.readers[second.outputs[0]][0]
        while out.op in _PASSES:
            out = graph.readers[out.outputs[0]][0]
        projections = {made_by(first.inputs[0]), made_by(first.inputs[1]), made_by(second.inputs[1]), out.name}
        head, (queries, keys) = graph.tensors[first.inputs[0]].shape[-1], graph.tensors[first.outputs[0]].shape[-2:]
        fits = head in HEAD_SIZES and max(queries, keys) <= MAX_SEQUENCE
        found.append(((first, second), projections, fits))
    return found


def _shortcuts(graph: OnnxGraph, chosen: set[str]) -> list[Site]:
    """Residual sums of the trunk whose shortcut is the input of a quantized convolution."""
    quantized = {node.inputs[0] for node in graph.nodes if node.op == "Conv" and node.name in chosen}
    found = []
    for node in graph.nodes:
        if node.op != "Add" or not _TRUNK.match(node.name):
            continue
        made_by_conv = [getattr(graph.maker.get(name), "name", "") in chosen for name in node.inputs]
        for slot in (0, 1):
            if node.inputs[slot] in quantized and made_by_conv[1 - slot]:
                found.append(_site(node, (slot,)))
    return found
