"""Kernels compiled from one graph, with their roles, types and bytes, and the plan of all."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import printable

# The plan's word for a type -> our word, bits.
TYPES = {
    "Float": ("fp32", 32),
    "Half": ("fp16", 16),
    "BFloat16": ("bf16", 16),
    "FP8": ("fp8", 8),
    "FP4": ("fp4", 4),
    "Int4": ("int4", 4),
    "Int8": ("int8", 8),
    "UInt8": ("uint8", 8),
    "Bool": ("bool", 8),
    "Int32": ("int32", 32),
    "Int64": ("int64", 64),
}
ARITHMETIC = {"fp32", "fp16", "bf16", "fp8", "fp4", "int4", "int8"}  # what multiply-accumulates are done in
_QUANTIZED = {"fp8", "fp4", "int4", "int8"}

_MOVES = {"Resh", "Tran", "Move", "Conc", "Slic", "Gath"}
_ATTENTION = re.compile(r"_ge(?:mm|mv)_mha_v\d")
_GENERATED = re.compile(r"__myl_((?:[A-Z][a-z0-9]*)+)")
_KINDS = {"signal": "sync", "wait": "sync", "gemm": "matmul", "correlation": "convolution", "maxpool": "pooling"}
COMPUTE_ROLES = ("attention", "convolution", "matmul")
_NAMED_AFTER = re.compile(r"(.+?)(?:_U\d+)?")
_NUMBERING = re.compile(r"_myl\d+_\d+$")


@dataclass(frozen=True)
class PlanTensor:
    """A tensor as a kernel sees it.

    Attributes:
        name: the compiler's name.
        shape: as viewed by this kernel.
        strides: in elements, one per axis; 0 where an axis is repeated.
        dtype: 'fp16', 'int8', ... or the plan's own word when it is not known here.
        layout: the compiler's words.
    """

    name: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    layout: str

    @property
    def bytes(self) -> int:
        """Bytes of its elements; 0 for a type listed in `KernelPlan.unknown_types`."""
        bits = next((bits for name, bits in TYPES.values() if name == self.dtype), 0)
        strides = self.strides if len(self.strides) == len(self.shape) else (1,) * len(self.shape)
        elements = math.prod(size for size, stride in zip(self.shape, strides, strict=True) if stride)
        return (elements * bits + 7) // 8


@dataclass(frozen=True)
class Kernel:
    """One kernel of a plan.

    Attributes:
        name: the compiler's name.
        kind: the compiler's class: 'kgen' (generated), 'gemm', 'runtime_fusion', 'correlation' (a convolution),
            'maxpool', 'signal', 'wait', ...
        inputs, constants, outputs: tensors read from memory, weights and scales, tensors written.
        tactic: the kernel chosen; empty when that is left to run time.
        stream: number of its stream.
        onnx_layers: ONNX nodes that it does a part of.
    """

    name: str
    kind: str
    inputs: tuple[PlanTensor, ...]
    constants: tuple[PlanTensor, ...]
    outputs: tuple[PlanTensor, ...]
    tactic: str
    stream: int
    onnx_layers: tuple[str, ...]

    @property
    def tensors(self) -> tuple[PlanTensor, ...]:
        """Everything that it touches."""
        return (*self.inputs, *self.constants, *self.outputs)

    @property
    def bytes(self) -> int:
        """Bytes touched: each tensor once, whole (a gather's source too), caches not thought of."""
        return sum(tensor.bytes for tensor in self.tensors)

    @property
    def operations(self) -> tuple[str, ...]:
        """Syllables in a generated kernel's name: ('Cast', 'Tran', 'Conc'); 'Etc' where it is cut."""
        found = _GENERATED.match(self.name)
        return tuple(re.findall(r"[A-Z][a-z0-9]*", found.group(1))) if found else ()

    @property
    def named_after(self) -> tuple[str, ...]:
        """The ONNX nodes in its name: 'q/MatMul_U17+k/MatMul_U15_myl0_2' is named after two."""
        parts = _NUMBERING.sub("", self.name).split("+")
        return tuple(found.group(1) for part in parts if (found := _NAMED_AFTER.fullmatch(part)))

    @property
    def role(self) -> str:
        """The kind of work, judged by name, class and types.

        'sync'          waits for or wakes another stream
        'attention'     a fused attention: both products and the softmax
        'convolution', 'matmul', 'pooling'
        'movement'      moves data and computes nothing
        'conversion'    moves data and changes its type
        'requantize'    generated, and writes a quantized type
        'elementwise'   any other generated kernel: sums, norms, softmax, activations
        'other'         of a class not seen before
        """
        if self.kind in _KINDS:
            return _KINDS[self.kind]
        if _ATTENTION.match(self.name) or _ATTENTION.match(self.tactic):
            return "attention"
        operations = set(self.operations)
        if "Fc" in operations:
            return "matmul"
        if "Corr" in operations:
            return "convolution"
        if operations and operations <= _MOVES:
            return "movement"
        if operations and operations <= {*_MOVES, "Cast"}:
            return "conversion"
        if self.kind not in ("kgen", "runtime_fusion"):
            return "other"
        return "requantize" if any(tensor.dtype in _QUANTIZED for tensor in self.outputs) else "elementwise"

    @property
    def precision(self) -> str:
        """The type of what is multiplied, or 'unclear'.

        Operands stand among residuals and scales of other types. The largest constant is the weights; where an input
        has the weights' type, that is it. Without such an input (products of activations, or weights that are only
        stored small) all inputs must agree.
        """
        inputs = {tensor.dtype for tensor in self.inputs} & ARITHMETIC
        weights = max(self.constants, key=lambda tensor: tensor.bytes, default=None)
        if weights is not None and weights.dtype in inputs:
            return weights.dtype
        return inputs.pop() if len(inputs) == 1 else "unclear"


@dataclass(frozen=True)
class KernelPlan:
    """The kernels of one graph for one GPU.

    Attributes:
        sm: such as 'sm86'.
        compiler: such as 'TensorRT-RTX 1.7.1.116'.
        steps: every line of the plan in the order of execution, waiting for other streams included.
        macs: multiply-accumulates, one entry per step.
        unplaced_macs: {ONNX node: multiply-accumulates} of nodes whose kernel could not be told.
        unread: lines of the plan that could not be read; with any, all figures are lower bounds.
        typed_macs: multiply-accumulates by precision as the ONNX types have them, where the caller knows.
        parsed: {ONNX node: (multiply-accumulates, precision)} of the network that the compiler's parser made.
    """

    sm: str
    compiler: str
    steps: tuple[Kernel, ...]
    macs: tuple[int, ...]
    unplaced_macs: Mapping[str, int]
    unread: tuple[str, ...]
    typed_macs: Mapping[str, int] = field(default_factory=dict)
    parsed: Mapping[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Every step that is not synchronisation."""
        return tuple(step for step in self.steps if step.role != "sync")

    def with_role(self, role: str) -> tuple[Kernel, ...]:
        """The steps of one role; see `Kernel.role`."""
        return tuple(step for step in self.steps if step.role == role)

    @property
    def bytes(self) -> int:
        """Bytes touched by all kernels: an upper bound, without caches, gathers counted whole."""
        return sum(kernel.bytes for kernel in self.kernels)

    @property
    def bytes_by_type(self) -> dict[str, int]:
        """The same by the type of the tensors."""
        return dict(sorted(_totals((t.dtype, t.bytes) for kernel in self.kernels for t in kernel.tensors).items()))

    @property
    def unknown_types(self) -> tuple[str, ...]:
        """Types that this program cannot size; their bytes count 0."""
        return tuple(sorted(set(self.bytes_by_type) - {name for name, _ in TYPES.values()}))

    @property
    def macs_by_precision(self) -> dict[str, int]:
        """Multiply-accumulates by the type of their operands, as compiled."""
        return _totals((kernel.precision, n) for kernel, n in zip(self.steps, self.macs, strict=True) if n)

    @property
    def parsed_macs(self) -> dict[str, int]:
        """The same as the parsed network has them, before anything was compiled."""
        return _totals((precision, count) for count, precision in self.parsed.values())

    @property
    def kernels_by_precision(self) -> dict[str, int]:
        """Kernels that multiply (attention, convolution, matmul) by the type of their operands."""
        return dict(sorted(Counter(k.precision for k in self.kernels if k.role in COMPUTE_ROLES).items()))

    @property
    def roles(self) -> dict[str, int]:
        """Kernels by role, synchronisation apart."""
        return dict(sorted(Counter(kernel.role for kernel in self.kernels).items()))

    def summary(self) -> dict[str, Any]:
        """The figures for an index, as JSON."""
        return {
            "sm": self.sm,
            "compiler": self.compiler,
            "kernels": len(self.kernels),
            "sync": len(self.with_role("sync")),
            "roles": self.roles,
            "fused_attentions": len(self.with_role("attention")),
            "movement": len(self.with_role("movement")),
            "requantize": len(self.with_role("requantize")),
            "kernels_by_precision": self.kernels_by_precision,
            "macs_by_precision": self.macs_by_precision,
            "macs_as_parsed": self.parsed_macs,
            "macs_by_types": dict(self.typed_macs),
            "macs_unplaced": dict(self.unplaced_macs),
            "bytes": self.bytes,
            "bytes_by_type": self.bytes_by_type,
            "unknown_types": list(self.unknown_types),
            "unread_lines": len(self.unread),
        }

    def table(self) -> str:
        """The plan for a terminal: the figures, then one line per step."""
        sizes = {name: f"{count / 1e6:.2f}" for name, count in self.bytes_by_type.items()}
        lines = [
            f"Kernel plan for {self.sm} by {self.compiler} (compiled, not run: no figure here is a speed)",
            f"  kernels            {len(self.kernels)} ({_listed(self.roles)})",
            f"  synchronisation    {len(self.with_role('sync'))}",
            f"  fused attentions   {len(self.with_role('attention'))}",
            f"  pure data movement {len(self.with_role('movement'))}",
            f"  bytes touched      {self.bytes / 1e6:.2f} MB ({_listed(sizes)})",
            f"  MACs by ONNX types {_millions(self.typed_macs)}",
            f"  MACs as parsed     {_millions(self.parsed_macs)}",
            f"  MACs as compiled   {_millions(self.macs_by_precision)}; this one decides",
        ]
        if self.unplaced_macs:
            lost = sum(self.unplaced_macs.values())
            lines.append(f"  MACs not placed    {lost / 1e6:.4f} M: {printable(', '.join(self.unplaced_macs), 300)}")
        if self.unread or self.unknown_types:
            types = printable(", ".join(self.unknown_types), 300) or "none"
            lines.append(f"  NOT READ           {len(self.unread)} lines; unknown types: {types}; all above is less")
        lines += ["", f"{'':>4} {'role':<12} {'type':<8} {'MMAC':>9} {'KB':>8}  kernel <- ONNX nodes"]
        lines += [_row(index, *step) for index, step in enumerate(zip(self.steps, self.macs, strict=True))]
        return "\n".join(lines)


def _totals(items: Iterable[tuple[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for name, count in items:
        total[name] += count
    return dict(total)


def _row(index: int, step: Kernel, macs: int) -> str:
    precision = step.precision if step.role in COMPUTE_ROLES else ""
    million = f"{macs / 1e6:.2f}" if macs else ""
    origin = f"{step.name} <- {', '.join(step.onnx_layers)}" if step.onnx_layers else step.name
    kilobytes = f"{step.bytes / 1e3:.1f}"
    return f"{index:>4} {step.role:<12} {precision:<8} {million:>9} {kilobytes:>8}  {printable(origin, 160)}"


def _millions(macs: Mapping[str, int]) -> str:
    return _listed({name: f"{count / 1e6:.2f} M" for name, count in sorted(macs.items())})


def _listed(items: Mapping[str, object]) -> str:
    return ", ".join(f"{printable(name)} {count}" for name, count in items.items()) or "none"
