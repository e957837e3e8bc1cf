"""The kernels that a compiler makes of one graph, with the figures drawn from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import printable
from .macs import macs_by_precision
from .text import COMPUTE_ROLES, TYPES, Kernel

_KNOWN_TYPES = {name for name, _ in TYPES.values()}


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
        """What does work: every step that is not synchronisation."""
        return tuple(step for step in self.steps if step.role != "sync")

    def with_role(self, role: str) -> tuple[Kernel, ...]:
        """The steps of one role; see `Kernel.role`."""
        return tuple(step for step in self.steps if step.role == role)

    @property
    def sync(self) -> tuple[Kernel, ...]:
        """Signals and waits between streams."""
        return self.with_role("sync")

    @property
    def fused_attentions(self) -> tuple[Kernel, ...]:
        """Attentions that became one kernel."""
        return self.with_role("attention")

    @property
    def movement(self) -> tuple[Kernel, ...]:
        """Kernels that only move data."""
        return self.with_role("movement")

    @property
    def requantize(self) -> tuple[Kernel, ...]:
        """Generated kernels that write a quantized type, fused with other work or not."""
        return self.with_role("requantize")

    @property
    def bytes(self) -> int:
        """Bytes touched by all kernels: an upper bound on traffic, no cache thought of, gathers counted whole."""
        return sum(kernel.bytes for kernel in self.kernels)

    @property
    def bytes_by_type(self) -> dict[str, int]:
        """The same by the type of the tensors."""
        total: Counter[str] = Counter()
        for kernel in self.kernels:
            for tensor in kernel.tensors:
                total[tensor.dtype] += tensor.bytes
        return dict(sorted(total.items()))

    @property
    def unknown_types(self) -> tuple[str, ...]:
        """Types that this program cannot size; their bytes count 0."""
        return tuple(sorted({t.dtype for kernel in self.kernels for t in kernel.tensors} - _KNOWN_TYPES))

    @property
    def macs_by_precision(self) -> dict[str, int]:
        """Multiply-accumulates by the type of their operands, as compiled."""
        return macs_by_precision(self.steps, self.macs)

    @property
    def parsed_macs(self) -> dict[str, int]:
        """The same as the parsed network has them, before anything was compiled."""
        total: Counter[str] = Counter()
        for count, precision in self.parsed.values():
            total[precision] += count
        return dict(total)

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
            "sync": len(self.sync),
            "roles": self.roles,
            "fused_attentions": len(self.fused_attentions),
            "movement": len(self.movement),
            "requantize": len(self.requantize),
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
            f"  synchronisation    {len(self.sync)}",
            f"  fused attentions   {len(self.fused_attentions)}",
            f"  pure data movement {len(self.movement)}",
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
