"""Multiply-accumulates of a graph, and in which precision the compiled kernels do them.

How many there are is counted on the parsed network (two layer types hold them all in our graphs). Where they ended up
is read from the kernel plan: each kernel lists the ONNX nodes that it does a part of. What cannot be placed without
guessing stays named, not guessed.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from .text import ARITHMETIC, COMPUTE_ROLES, Kernel


def network_macs(module: Any, network: Any) -> dict[str, int]:
    """Counts the multiply-accumulates of each layer of a parsed network.

    Products count `M * N * K` (attention's two products included), convolutions
    `output elements * input channels / groups * kernel elements`. Norms, pooling and element-wise work count nothing.

    Args:
        module: the TensorRT module that the network belongs to.
        network: parsed, with static shapes.

    Returns:
        {ONNX node name: multiply-accumulates}.
    """
    counts: dict[str, int] = {}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == module.LayerType.MATRIX_MULTIPLY:
            counts[layer.name] = _matmul_macs(tuple(layer.get_input(0).shape), tuple(layer.get_output(0).shape))
        elif layer.type == module.LayerType.CONVOLUTION:
            layer.__class__ = module.IConvolutionLayer  # the bindings' own way to reach a layer's settings
            channels = layer.get_input(0).shape[1] // layer.num_groups
            counts[layer.name] = math.prod(layer.get_output(0).shape) * channels * math.prod(layer.kernel_size_nd)
    return counts


def network_precisions(module: Any, network: Any) -> dict[str, str]:
    """In which precision a parsed network multiplies: that of its operands before they are dequantized.

    Args:
        module: the TensorRT module that the network belongs to.
        network: parsed, strongly typed.

    Returns:
        {ONNX node name: 'int8', 'fp16', ...}; 'unclear' where the operands differ.
    """
    stored: dict[str, str] = {}  # dequantized tensor -> type of what it was dequantized from
    found: dict[str, str] = {}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == module.LayerType.DEQUANTIZE:
            stored[layer.get_output(0).name] = _type_of(layer.get_input(0))
        elif layer.type == module.LayerType.SHUFFLE and layer.get_input(0).name in stored:
            stored[layer.get_output(0).name] = stored[layer.get_input(0).name]  # the parser gives weights a batch axis
        elif layer.type in (module.LayerType.MATRIX_MULTIPLY, module.LayerType.CONVOLUTION):
            operands = [layer.get_input(place) for place in (0, 1)]
            types = {stored.get(tensor.name, _type_of(tensor)) for tensor in operands if tensor is not None}
            found[layer.name] = types.pop() if len(types) == 1 else "unclear"
    return found


def _type_of(tensor: Any) -> str:
    names = {"half": "fp16", "float": "fp32"}
    name = str(tensor.dtype.name).lower()
    return names.get(name, name)


def _matmul_macs(left: tuple[int, ...], out: tuple[int, ...]) -> int:
    """`[..., M, K] x [..., K, N] -> [..., M, N]`; the left side may stand transposed, its batch may be repeated."""
    k = left[-1] * left[-2] // out[-2]
    return math.prod(out) * k


def place_nodes(kernels: Sequence[Kernel], nodes: Iterable[str]) -> dict[str, int]:
    """Finds the kernel that does each node's multiply-accumulates.

    A node is listed by its own kernel and often by neighbours that load, pad or scale for it. It is placed on the
    kernel that multiplies and is named after it; else where just one that multiplies lists it, or several of one
    precision (then on the first of them). A product with a single row is often generated, as 'MulSum': that is taken
    when all its tensors have one type, because the plan does not say what is computed in between.

    Args:
        kernels: the plan.
        nodes: names of ONNX nodes that multiply.

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
    """Sums multiply-accumulates by kernel; see `place_nodes`.

    Args:
        kernels: the plan.
        macs: {ONNX node name: multiply-accumulates}.

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


def macs_by_precision(kernels: Sequence[Kernel], placed: Sequence[int]) -> dict[str, int]:
    """Sums the placed multiply-accumulates: {'fp16': 4160749568, 'fp32': 3584}."""
    total: Counter[str] = Counter()
    for kernel, count in zip(kernels, placed, strict=True):
        if count:
            total[kernel.precision] += count
    return dict(total)
