"""Multiply-accumulates of a graph, and the compiled kernels that do them.

How many there are is counted on the parsed network (two layer types hold them all in our graphs). Where they ended up
is read from the kernel plan: each kernel lists the ONNX nodes that it does a part of. What cannot be placed without
guessing stays named, not guessed.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from .kernels import ARITHMETIC, COMPUTE_ROLES, Kernel


def network_macs(module: Any, network: Any) -> dict[str, tuple[int, str]]:
    """Multiply-accumulates of each layer of a parsed network, with the precision asked for.

    Products count `M * N * K` (attention's two products included), convolutions
    `output elements * input channels / groups * kernel elements`. Norms, pooling and element-wise work count nothing.
    The precision is that of the operands before they are dequantized. The network is strongly typed, its shapes static.

    Returns:
        {ONNX node name: (multiply-accumulates, 'int8', 'fp16', ... or 'unclear' where the operands differ)}.
    """
    stored: dict[str, str] = {}  # dequantized tensor -> type of what it was dequantized from
    found: dict[str, tuple[int, str]] = {}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == module.LayerType.DEQUANTIZE:
            stored[layer.get_output(0).name] = _type_of(layer.get_input(0))
        elif layer.type == module.LayerType.SHUFFLE and layer.get_input(0).name in stored:
            stored[layer.get_output(0).name] = stored[layer.get_input(0).name]  # the parser gives weights a batch axis
        elif layer.type in (module.LayerType.MATRIX_MULTIPLY, module.LayerType.CONVOLUTION):
            operands = [layer.get_input(place) for place in (0, 1)]
            types = {stored.get(tensor.name, _type_of(tensor)) for tensor in operands if tensor is not None}
            found[layer.name] = (_layer_macs(module, layer), types.pop() if len(types) == 1 else "unclear")
    return found


def _layer_macs(module: Any, layer: Any) -> int:
    left, out = tuple(layer.get_input(0).shape), tuple(layer.get_output(0).shape)
    if layer.type == module.LayerType.MATRIX_MULTIPLY:
        # `[..., M, K] x [..., K, N] -> [..., M, N]`; the left side may be transposed, its batch may be repeated
        return int(math.prod(out) * (left[-1] * left[-2] // out[-2]))
    layer.__class__ = module.IConvolutionLayer  # the bindings' own way to reach a layer's settings
    return int(math.prod(out) * (left[1] // layer.num_groups) * math.prod(layer.kernel_size_nd))


def _type_of(tensor: Any) -> str:
    names = {"half": "fp16", "float": "fp32"}
    name = str(tensor.dtype.name).lower()
    return names.get(name, name)


def place_nodes(kernels: Sequence[Kernel], nodes: Iterable[str]) -> dict[str, int]:
    """Find the kernel that does each node's multiply-accumulates.

    A node is listed by its own kernel and often by neighbours that load, pad or scale for it. It is placed on the
    kernel that multiplies and is named after it; else where just one that multiplies lists it, or several of one
    precision (then on the first of them). A product with a single row is often generated, as 'MulSum': that is taken
    when all its tensors have one type, because the plan does not say what is computed in between.

    Returns:
        {ONNX node name: index of its kernel}, without the nodes that could not be placed.
    """
    placed: dict[str, int] = {}
    named: dict[str, list[int]] = defaultdict(list)
    listing: dict[str, list[int]] = defaultdict(list)
    generated: dict[str, list[int]] = defaultdict(list)
    for index, kernel in enumerate(kernels):
        if kernel.role in COMPUTE_ROLES:
            for name in kernel.named_after:
                named[name].append(index)
            for name in kernel.onnx_layers:
                listing[name].append(index)
        elif _is_plain_product(kernel):
            for name in kernel.onnx_layers:
                generated[name].append(index)
    for name in nodes:
        found = named.get(name) or listing.get(name) or generated.get(name) or []
        if len({kernels[index].precision for index in found}) == 1:
            placed[name] = found[0]
    return placed


def place_macs(kernels: Sequence[Kernel], macs: Mapping[str, int]) -> tuple[list[int], dict[str, int]]:
    """Sum the nodes' multiply-accumulates by kernel; see `place_nodes`.

    Returns:
        Multiply-accumulates per kernel, and those of the nodes that could not be placed.
    """
    where = place_nodes(kernels, macs)
    placed = [0] * len(kernels)
    for name, index in where.items():
        placed[index] += macs[name]
    return placed, {name: count for name, count in macs.items() if name not in where}


def _is_plain_product(kernel: Kernel) -> bool:
    """A generated kernel that multiplies and sums, and sees one type only."""
    operations = kernel.operations
    types = {tensor.dtype for tensor in kernel.tensors} & ARITHMETIC
    return ("Mul", "Sum") in pairwise(operations) and len(types) == 1
