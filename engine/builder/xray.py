"""The X-ray of a graph: which kernels the compiler makes of it, seen without a GPU.

TensorRT-RTX compiles on any machine and, asked for details, prints its whole plan. That shows what a latency number
would only hint at: whether attention was fused, whether data is moved for nothing, and in which precision the work is
done *as compiled*. It is a plan: no kernel was run, and nothing here is a speed.

The X-ray is a build of its own. Engines that are shipped are built without details.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...errors import VerificationError, printable
from ..machine.log import BuildLog, Progress, make_logger
from ..machine.trt_module import find_module
from ..plan.inspector import engine_information, parse_inspector
from ..plan.macs import macs_by_precision, network_macs, network_precisions, place_macs
from ..plan.text import COMPUTE_ROLES, TYPES, Kernel, parse_plan
from .compile import BuildOptions, Compilation

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


def xray(
    onnx: bytes,
    sm: str = "sm86",
    options: BuildOptions | None = None,
    progress: Progress | None = None,
    *,
    shown: str = "the graph",
    typed_macs: Mapping[str, int] | None = None,
) -> KernelPlan:
    """Compiles a graph for one GPU with TensorRT-RTX and reads the plan. No GPU is needed.

    Args:
        onnx: the checked bytes of a static graph.
        sm: the compute capability, one of `targets.RTX_SMS`.
        options: settings of the engine whose plan is wanted; target and GPUs are replaced.
        progress: called with (phase, steps done, steps).
        shown: how to name the graph in a message.
        typed_macs: multiply-accumulates by precision as the ONNX types have them, to stand beside the other counts.

    Raises:
        UsageError: a GPU that TensorRT-RTX does not build for.
        RefusedError: the graph names data in other files, or is malformed.
        BadInputError: the parser does not take it.
        MachineError: TensorRT-RTX is missing, or the build fails.
        VerificationError: the build went well but its log holds no plan.
    """
    wanted = replace(options or BuildOptions(), target="rtx", compute_capabilities=(sm,))
    trt = find_module("rtx")
    messages: list[str] = []
    log = BuildLog(lambda message: messages.append(message) if message.startswith("Layers:") else None)
    compilation = Compilation(trt, onnx, shown, wanted, log)
    compilation.run("DETAILED", progress)
    steps, unread = parse_plan(messages)
    if not steps:
        raise VerificationError(
            f"{trt} compiled {shown} but printed no kernel plan that can be read.",
            cause="another version prints it in another way; 1.7.1 is the one this was written for",
            next="pip install 'logoformer[rtx]'",
            log=unread[:10],
        )
    network = compilation.network
    counted, precisions = network_macs(trt.module, network), network_precisions(trt.module, network)
    return _plan_of(sm, str(trt), counted, precisions, steps, unread, typed_macs)


@dataclass(frozen=True)
class Inspection:
    """What a device's TensorRT says of a graph that it compiled, as plain values: it crosses processes.

    Attributes:
        compiler: TensorRT's name and version.
        text: the engine inspector's JSON.
        macs: multiply-accumulates by ONNX node, of the parsed network.
        precisions: precision by ONNX node, of the parsed network.
    """

    compiler: str
    text: str
    macs: Mapping[str, int]
    precisions: Mapping[str, str]


def inspect_here(
    onnx: bytes, options: BuildOptions, *, shown: str = "the graph", timing_cache: bytes = b""
) -> Inspection:
    """Compiles for the GPU of this machine and asks the engine inspector; see `build.inspect_engine`.

    A build of its own, as `xray` is: shipped engines keep no details.

    Args:
        onnx: the checked bytes of a static graph.
        options: for the target 'tensorrt'.
        shown: how to name the graph in a message.
        timing_cache: of the build whose engine is meant, so that the same kernels are chosen.

    Raises:
        MachineError: no GPU, no TensorRT, or the build fails.
    """
    log = BuildLog()
    trt = find_module(options.target)
    compilation = Compilation(trt, onnx, shown, options, log)
    engine, _ = compilation.run("DETAILED", None, timing_cache)
    text = engine_information(trt.module, make_logger(trt.module, log), engine)
    network = compilation.network
    return Inspection(str(trt), text, network_macs(trt.module, network), network_precisions(trt.module, network))


def plan_of_inspection(inspection: Inspection, typed_macs: Mapping[str, int] | None = None) -> KernelPlan:
    """The kernel plan for 'this-gpu', read from an unverified shape (`inspector_plan.py`).

    Raises:
        RefusedError: the inspector's answer is no JSON.
    """
    steps, unread = parse_inspector(inspection.text)
    counted, precisions = inspection.macs, inspection.precisions
    return _plan_of("this-gpu", inspection.compiler, counted, precisions, steps, unread, typed_macs)


def _plan_of(
    sm: str,
    compiler: str,
    counted: Mapping[str, int],
    precisions: Mapping[str, str],
    steps: tuple[Kernel, ...],
    unread: tuple[str, ...],
    typed_macs: Mapping[str, int] | None,
) -> KernelPlan:
    placed, unplaced = place_macs(steps, counted)
    parsed = {name: (count, precisions[name]) for name, count in counted.items()}
    return KernelPlan(sm, compiler, steps, tuple(placed), unplaced, unread, dict(typed_macs or {}), parsed)
