"""Builds an engine from a graph of the bundle."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from .compile import BuildOptions, Compilation
from .trt_log import BuildLog, Progress
from .trt_module import find_module

__all__ = ["BuildOptions", "BuiltEngine", "build_engine"]


@dataclass(frozen=True)
class BuiltEngine:
    """An engine and the record of its making.

    Attributes:
        plan: the serialized engine.
        target: 'rtx' or 'tensorrt'.
        tensorrt_version: such as '1.7.1.116'.
        compute_capabilities: GPUs it was built for; empty with TensorRT, which builds for the GPU of the machine.
        flags: settings as TensorRT gave them back.
        layers: layers of the parsed network by type.
        tensor_types: layer outputs of the parsed network by type. Typing is strong: what is not 'half' here is not FP16
            in the engine either.
        log: TensorRT's warnings and errors.
        seconds: what parsing and compiling took on this machine.
    """

    plan: bytes
    target: str
    tensorrt_version: str
    compute_capabilities: tuple[str, ...]
    flags: Mapping[str, bool | int | str | None]
    layers: Mapping[str, int]
    tensor_types: Mapping[str, int]
    log: tuple[str, ...]
    seconds: float


def build_engine(
    onnx: bytes, options: BuildOptions, progress: Progress | None = None, *, shown: str = "the graph"
) -> BuiltEngine:
    """Compiles one graph. TensorRT-RTX needs no GPU for it; TensorRT builds for the GPU of this machine.

    Verbosity is NONE. That keeps details out of what TensorRT tells of the engine later, not every name out of its
    bytes: TensorRT-RTX 1.7.1 stores the node names at any verbosity (doc strings and metadata at none). An engine
    hides nothing of its graph.

    Args:
        onnx: the checked bytes of a static graph whose precision is in its types.
        options: target, GPUs and limits.
        progress: called with (phase, steps done, steps) from TensorRT's phases; an exception in it ends the build.
        shown: how to name the graph in a message.

    Raises:
        RefusedError: the graph names data in other files, or is malformed.
        BadInputError: TensorRT's parser does not take it; the node, its operator and the reason are named.
        MachineError: TensorRT is missing, finds no GPU, runs out of memory or fails for this GPU.
    """
    trt = find_module(options.target)
    log = BuildLog()
    begun = time.perf_counter()
    compilation = Compilation(trt, onnx, shown, options, log)
    layers, tensor_types = compilation.layer_types(), compilation.tensor_types()
    plan, flags = compilation.run("NONE", progress)
    return BuiltEngine(
        plan=plan,
        target=options.target,
        tensorrt_version=trt.version,
        compute_capabilities=options.compute_capabilities,
        flags=flags,
        layers=layers,
        tensor_types=tensor_types,
        log=log.complaints,
        seconds=time.perf_counter() - begun,
    )
