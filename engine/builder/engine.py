"""Builds an engine from a graph of the bundle, in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from ..machine.environment import find_gpu
from ..machine.log import BuildLog, Progress
from ..machine.trt_module import find_module
from .compile import BuildOptions, Compilation
from .process import answers_of, ask, died, raised, start
from .xray import Inspection

__all__ = ["BuildOptions", "BuiltEngine", "build_engine", "build_here"]


@dataclass(frozen=True)
class BuiltEngine:
    """An engine and the record of its making.

    Attributes:
        plan: the serialized engine.
        target: 'rtx' or 'tensorrt'.
        tensorrt_version: such as '1.7.1.116'.
        compute_capabilities: GPUs it was built for; with TensorRT the one of this machine.
        cuda: newest CUDA that the driver knows, such as '12.6'; empty where there is no driver.
        flags: settings as TensorRT gave them back.
        layers: layers of the parsed network by type.
        tensor_types: layer outputs of the parsed network by type. Typing is strong: what is not 'half' here is not FP16
            in the engine either.
        log: TensorRT's warnings and errors.
        seconds: what parsing and compiling took on this machine.
        timing_cache: what TensorRT measured of kernels, for the next build; None where it keeps none.
        peak_bytes: the most memory that the process of the build held; 0 without such a process.
    """

    plan: bytes
    target: str
    tensorrt_version: str
    compute_capabilities: tuple[str, ...]
    cuda: str
    flags: Mapping[str, bool | int | str | None]
    layers: Mapping[str, int]
    tensor_types: Mapping[str, int]
    log: tuple[str, ...]
    seconds: float
    timing_cache: bytes | None = None
    peak_bytes: int = 0


def build_engine(
    onnx: bytes,
    options: BuildOptions,
    progress: Progress | None = None,
    *,
    shown: str = "the graph",
    timing_cache: bytes = b"",
) -> BuiltEngine:
    """Compiles one graph in a child process. TensorRT-RTX needs no GPU for it; TensorRT builds for this machine's.

    The child is ended, and nothing of it is left, when this call ends for whatever reason: an exception of `progress`,
    Ctrl-C, the end of this process, or memory that runs short.

    Verbosity is NONE. That keeps details out of what TensorRT tells of the engine later, not every name out of its
    bytes: TensorRT-RTX 1.7.1 stores the node names at any verbosity (doc strings and metadata at none). An engine
    hides nothing of its graph.

    Args:
        onnx: the checked bytes of a static graph whose precision is in its types.
        options: target, GPUs and limits.
        progress: called with (phase, steps done, steps) from TensorRT's phases; an exception in it ends the build.
        shown: how to name the graph in a message.
        timing_cache: what an earlier build measured on this GPU with this TensorRT, from the trust store.

    Raises:
        RefusedError: the graph names data in other files, or is malformed.
        BadInputError: TensorRT's parser does not take it; the node, its operator and the reason are named.
        MachineError: TensorRT is missing, finds no GPU, runs out of memory, crashes or fails for this GPU.
    """
    with start(f"{__package__}.child", shown) as child:
        ask(child, {"options": asdict(options), "shown": shown, "job": "build"}, [onnx, timing_cache])
        for head, parts in answers_of(child):
            if "progress" in head:
                if progress is not None:
                    progress(*head["progress"])
            elif "error" in head:
                raise raised(head["error"])
            else:
                record = head["built"]
                for name in ("compute_capabilities", "log"):
                    record[name] = tuple(record[name])
                return BuiltEngine(plan=parts[0], timing_cache=parts[1] or None, **record)
        raise died(child)


def inspect_engine(
    onnx: bytes, options: BuildOptions, *, shown: str = "the graph", timing_cache: bytes = b""
) -> Inspection:
    """Has a child process compile the graph once more, with details, and ask TensorRT's engine inspector.

    Raises:
        MachineError: the child ran out of memory, crashed, or TensorRT does not tell.
    """
    with start(f"{__package__}.child", shown) as child:
        request = {"options": asdict(options), "shown": shown, "job": "inspect"}
        ask(child, request, [onnx, timing_cache])
        for head, _ in answers_of(child):
            if "error" in head:
                raise raised(head["error"])
            return Inspection(**head["inspected"])
        raise died(child)


def build_here(
    onnx: bytes,
    options: BuildOptions,
    progress: Progress | None = None,
    *,
    shown: str = "the graph",
    timing_cache: bytes = b"",
) -> BuiltEngine:
    """The same in this very process: what the child does.

    Raises:
        RefusedError, BadInputError, MachineError: see `build_engine`.
    """
    trt = find_module(options.target)
    log = BuildLog()
    begun = time.perf_counter()
    compilation = Compilation(trt, onnx, shown, options, log)
    layers, tensor_types = compilation.layer_types(), compilation.tensor_types()
    plan, flags = compilation.run("NONE", progress, timing_cache)
    gpu = find_gpu()
    this_gpu = () if gpu is None else (gpu.compute_capability,)
    return BuiltEngine(
        plan=plan,
        target=options.target,
        tensorrt_version=trt.version,
        compute_capabilities=options.compute_capabilities if options.target == "rtx" else this_gpu,
        cuda="" if gpu is None else gpu.cuda,
        flags=flags,
        layers=layers,
        tensor_types=tensor_types,
        log=log.complaints,
        seconds=time.perf_counter() - begun,
        timing_cache=compilation.timing_cache,
    )
