"""Kernel plans of a graph, by TensorRT-RTX without a GPU or by a device's engine inspector.

TensorRT-RTX compiles on any machine and, asked for details, prints its whole plan. That shows what a latency number
would only hint at: whether attention was fused, whether data is moved for nothing, and in which precision the work is
done *as compiled*. It is a plan: no kernel was run, and nothing here is a speed.

The X-ray is a build of its own. Engines that are shipped are built without details.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ...errors import VerificationError
from ..machine.log import BuildLog, Progress, make_logger
from ..machine.tensorrt import find_module
from ..plan.inspector import engine_information, parse_inspector
from ..plan.kernels import Kernel, KernelPlan
from ..plan.macs import network_macs, place_macs
from ..plan.rtx_log import parse_plan
from .compile import BuildOptions, Compilation


def xray(
    onnx: bytes,
    sm: str = "sm86",
    options: BuildOptions | None = None,
    progress: Progress | None = None,
    *,
    shown: str = "the graph",
    typed_macs: Mapping[str, int] | None = None,
) -> KernelPlan:
    """Compile a graph for one GPU with TensorRT-RTX and read its plan; no GPU is needed.

    Args:
        onnx: the checked bytes of a static graph.
        sm: the compute capability, one of `targets.RTX_SMS`.
        options: settings of the engine whose plan is wanted; target and GPUs are replaced.
        progress: called with (phase, steps done, steps).
        shown: how to name the graph in a message.
        typed_macs: multiply-accumulates by precision as the ONNX types have them, shown with the other counts.

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
    return _plan_of(sm, str(trt), network_macs(trt.module, compilation.network), steps, unread, typed_macs)


@dataclass(frozen=True)
class Inspection:
    """An engine inspector's answer and the parsed network, as plain values for another process.

    Attributes:
        compiler: TensorRT's name and version.
        text: the engine inspector's JSON.
        parsed: see `KernelPlan`.
    """

    compiler: str
    text: str
    parsed: Mapping[str, tuple[int, str]]


def inspect_here(
    onnx: bytes, options: BuildOptions, *, shown: str = "the graph", timing_cache: bytes = b""
) -> Inspection:
    """Compile for the GPU of this machine and query the engine inspector.

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
    return Inspection(str(trt), text, network_macs(trt.module, compilation.network))


def plan_of_inspection(inspection: Inspection, typed_macs: Mapping[str, int] | None = None) -> KernelPlan:
    """The kernel plan for 'this-gpu', parsed by `plan/inspector.py`.

    Raises:
        RefusedError: the inspector's answer is no JSON.
    """
    steps, unread = parse_inspector(inspection.text)
    return _plan_of("this-gpu", inspection.compiler, inspection.parsed, steps, unread, typed_macs)


def _plan_of(
    sm: str,
    compiler: str,
    parsed: Mapping[str, tuple[int, str]],
    steps: tuple[Kernel, ...],
    unread: tuple[str, ...],
    typed_macs: Mapping[str, int] | None,
) -> KernelPlan:
    placed, unplaced = place_macs(steps, {name: count for name, (count, _) in parsed.items()})
    return KernelPlan(sm, compiler, steps, tuple(placed), unplaced, unread, dict(typed_macs or {}), dict(parsed))
