"""Compilation of one graph by TensorRT's builder.

Precision lives in the ONNX graph, so the builder is a pure compiler: strongly typed, no precision flag, no calibrator,
TF32 cleared. Only names that exist in TensorRT 10.3 ... 11.4 and in TensorRT-RTX 1.7 are used; where one of them lost a
name that another needs, it is asked for with getattr.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...bundle.onnx_scan import refuse_external
from ...errors import BadInputError, LogoformerError, MachineError, UsageError
from ..machine.environment import ON_GPU, build_memory, card_context, find_gpu
from ..machine.log import BuildLog, Progress, make_logger, make_monitor, write_to
from ..machine.memory import MIB, MORE_MEMORY, Memory, looks_short, shortage
from ..machine.targets import RTX_SMS, check_sms, check_target
from ..machine.tensorrt import TrtModule, find_module

LOG_IN_ERROR = 40  # lines
# What an engine remembers of its layers. A device's inspector tells the kernels of an engine only that remembers all;
# to compile it a second time for that would double the build. The file gets longer. By TensorRT's documentation it
# costs time at each start too, for a profiler's markers, unless a context is told to make none: `TrtEngine` tells it.
# TensorRT-RTX prints the plan of any build (`proof.xray`), so its engines keep nothing.
KEPT = {"rtx": "NONE", "tensorrt": "DETAILED"}
# 'Cannot compile operation ... for Turing (SM75): FP32 GEMM is not supported', 'Target GPU SM 87 is not supported'
_NO_KERNELS = re.compile(r"\(sm\d+\): .*not supported|target gpu sm \d+ is not supported")


@dataclass(frozen=True)
class BuildOptions:
    """Settings of a build; what is computed is given by the graph.

    Attributes:
        target: 'rtx' or 'tensorrt'.
        compute_capabilities: GPUs that a TensorRT-RTX engine shall run on; empty means all that it knows. TensorRT
            builds for the GPU of this machine, so there it must stay empty.
        workspace_bytes: scratch memory that a kernel may use at most; None: by what is free when the build begins.
        optimization_level: 0 ... 5; None leaves TensorRT's default.
        max_aux_streams: streams beside the main one. 0: at batch 1 the waiting costs more kernels than it hides
            (28 of 100 for an FP16 `temporal` graph).
        hardware_compatible: the engine shall run on every GPU from Ampere on, not on this one alone; slower, and not
            offered on a Jetson.
        device: CUDA's number of the GPU that TensorRT builds on and for.

    Raises:
        UsageError: a value that the target does not take.
    """

    target: str = "rtx"
    compute_capabilities: tuple[str, ...] = ()
    workspace_bytes: int | None = None
    optimization_level: int | None = None
    max_aux_streams: int = 0
    hardware_compatible: bool = False
    device: int = 0

    def __post_init__(self) -> None:
        check_target(self.target)
        if self.target == "rtx":
            object.__setattr__(self, "compute_capabilities", check_sms(self.compute_capabilities) or RTX_SMS)
            if self.hardware_compatible:
                raise UsageError(
                    "A TensorRT-RTX engine covers the GPUs that it is built for; there is no hardware compatibility.",
                    next="name the GPUs with --gpus",
                )
            if self.device:
                raise UsageError(
                    f"TensorRT-RTX compiles on the processor; it takes no card {self.device}.",
                    next="name the GPUs that it builds for with --gpus",
                )
        elif self.compute_capabilities:
            raise UsageError(
                f"TensorRT builds for the GPU it runs on; {'+'.join(self.compute_capabilities)} cannot be asked for.",
                next="build on the device, without compute capabilities",
            )
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise UsageError(f"A workspace of {self.workspace_bytes} bytes cannot be; at least 1 is needed.")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise UsageError(f"The optimization level is 0 ... 5, not {self.optimization_level}.")
        if self.device < 0:
            raise UsageError(f"device={self.device}: cards are counted from 0.", next="give device 0, the first")
        if self.max_aux_streams < 0:
            raise UsageError(f"The number of auxiliary streams cannot be {self.max_aux_streams}.")


class Compilation:
    """One graph on its way to an engine: parsed when it is made, compiled by `run`.

    Args:
        trt: the TensorRT to use.
        onnx: the whole file; tensors in other files are refused.
        shown: how to name it in a message.
        options: for the same target.
        log: receives TensorRT's lines.

    Attributes:
        network: the parsed network.
        timing_cache: after `run`, what TensorRT has measured of kernels; None where it keeps no such cache.

    Raises:
        RefusedError: external data, or malformed bytes.
        BadInputError: TensorRT's parser does not take the graph, a shape is not static, or there is no output.
        MachineError: TensorRT does not start.
    """

    def __init__(self, trt: TrtModule, onnx: bytes, shown: str, options: BuildOptions, log: BuildLog) -> None:
        refuse_external(onnx, shown)
        self.trt, self.options, self.log = trt, options, log
        self.timing_cache: bytes | None = None
        self._shown = shown
        self._memory = build_memory(trt.target, options.device)
        write_to(log)
        self._logger = make_logger(trt.module)
        try:
            self._builder = trt.module.Builder(self._logger)
        except (TypeError, RuntimeError) as error:  # pybind11's way to say that the factory gave nothing
            raise MachineError(
                f"{trt} does not start: {error}",
                cause="no NVIDIA GPU, no driver, or a driver older than this TensorRT",
                next="nvidia-smi",
                log=log.errors[-LOG_IN_ERROR:],
            ) from error
        self.network = self._builder.create_network(_network_flags(trt.module))
        self._parser = trt.module.OnnxParser(self.network, self._logger)  # owns the weights: lives as long as the build
        if not self._parser.parse(onnx):
            raise self._parse_failed()
        self._require_usable()

    def run(
        self, verbosity: str, progress: Progress | None = None, timing_cache: bytes = b""
    ) -> tuple[bytes, dict[str, Any]]:
        """Compiles.

        Args:
            verbosity: what the engine remembers of its layers: 'NONE' or 'DETAILED'.
            progress: called with (phase, steps done, steps).
            timing_cache: what was measured before on this GPU by this TensorRT; empty: nothing.

        Returns:
            The engine's bytes, and the settings as read back from TensorRT.

        Raises:
            MachineError: out of memory, or TensorRT fails for this GPU.
        """
        write_to(self.log)
        config = self._configure(verbosity)
        used = self._use_timing_cache(config, timing_cache)
        monitor = make_monitor(self.trt.module, progress) if progress is not None else None
        if monitor is not None:
            config.progress_monitor = monitor
        plan = self._builder.build_serialized_network(self.network, config)
        if monitor is not None and monitor.error is not None:
            raise monitor.error
        if plan is None:
            raise build_failed(self.trt, self._shown, self.log, self._memory, self.options.device)
        if used:
            self.timing_cache = bytes(config.get_timing_cache().serialize())
        return bytes(plan), {**self._settings(config), "timing_cache": used}

    def tensor_types(self) -> dict[str, int]:
        """Layer outputs of the parsed network by type, which the engine keeps: {'half': 310, ...}."""
        layers = [self.network.get_layer(index) for index in range(self.network.num_layers)]
        types = (layer.get_output(index).dtype.name.lower() for layer in layers for index in range(layer.num_outputs))
        return dict(Counter(types))

    def _configure(self, verbosity: str) -> Any:
        module, options = self.trt.module, self.options
        config = self._builder.create_builder_config()
        config.clear_flag(module.BuilderFlag.TF32)  # on by default: FP32 would be ten mantissa bits on Ampere and later
        config.profiling_verbosity = getattr(module.ProfilingVerbosity, verbosity)
        config.max_aux_streams = options.max_aux_streams
        workspace, self._workspace_source = self._workspace()
        if workspace is not None:
            config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, workspace)
        if options.optimization_level is not None:
            config.builder_optimization_level = options.optimization_level
        if options.hardware_compatible:
            config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
        if self.trt.target == "rtx":
            own_memory = getattr(module.BuilderFlag, "REQUIRE_USER_ALLOCATION", None)
            if own_memory is not None:  # from 1.2 on
                config.set_flag(own_memory)  # an engine that allocates while it runs is not captured by a CUDA graph
            config.num_compute_capabilities = len(options.compute_capabilities)
            for index, sm in enumerate(options.compute_capabilities):
                config.set_compute_capability(self._capability(sm), index)
        return config

    def _workspace(self) -> tuple[int | None, str]:
        """Scratch memory that a kernel may use, and where the limit comes from.

        TensorRT's default is all that the GPU has. On a Jetson that is all that the machine has, and trying kernels
        that need it ends other programs or the build. Half is left there for weights, for TensorRT itself and for
        what else runs; a fifth of memory that the GPU has to itself.
        """
        if self.options.workspace_bytes is not None:
            return self.options.workspace_bytes, "asked for"
        if self.trt.target == "rtx":
            return None, "TensorRT-RTX's default: it compiles for other machines, and measures nothing on this one"
        free = self._memory
        own = free.source == ON_GPU
        share = free.available_bytes // 5 * 4 if own else free.available_bytes // 2
        return max(share, MIB), f"{'four fifths' if own else 'half'} of {free}"

    def _use_timing_cache(self, config: Any, known: bytes) -> str:
        """Set the configuration's timing cache; returns 'used', 'new', or '' where there is none.

        In TensorRT-RTX a timing cache is a deprecated name without a function.
        """
        if self.trt.target == "rtx" or not hasattr(config, "create_timing_cache"):
            return ""
        for data, used in ((known, "used"), (b"", "new")):
            # False: a cache of another GPU is not taken; TensorRT says so in its log, and a new one is begun.
            if (data or used == "new") and config.set_timing_cache(config.create_timing_cache(data), False):
                return used
        return ""

    def _capability(self, sm: str) -> Any:
        try:
            return getattr(self.trt.module.ComputeCapability, sm.upper())
        except AttributeError as error:
            raise MachineError(
                f"{self.trt} does not know {sm}.",
                cause="a TensorRT-RTX older than that GPU",
                next="pip install --upgrade 'logoformer[rtx]'",
            ) from error

    def _settings(self, config: Any) -> dict[str, Any]:
        module = self.trt.module
        rtx = self.trt.target == "rtx"  # it warns at the question
        return {
            "strongly_typed": True,
            "tf32": bool(config.get_flag(module.BuilderFlag.TF32)),
            "max_aux_streams": int(config.max_aux_streams),
            "optimization_level": int(config.builder_optimization_level),
            "profiling_verbosity": config.profiling_verbosity.name,
            "workspace_bytes": int(config.get_memory_pool_limit(module.MemoryPoolType.WORKSPACE)),
            "workspace_source": self._workspace_source,
            "hardware_compatibility": "NONE" if rtx else config.hardware_compatibility_level.name,
        }

    def _require_usable(self) -> None:
        if not self.network.num_outputs:
            raise BadInputError(f"{self._shown} has no output: there is nothing to compute.")
        for index in range(self.network.num_inputs):
            tensor = self.network.get_input(index)
            shape = tuple(tensor.shape)
            if any(size < 0 for size in shape):
                raise BadInputError(
                    f"{self._shown}: input {tensor.name} has shape {list(shape)}; every size must be a number.",
                    cause="a graph exported with dynamic axes",
                    next="export it with static shapes",
                )

    def _parse_failed(self) -> LogoformerError:
        errors = [self._parser.get_error(index) for index in range(self._parser.num_errors)]
        where = ""
        if errors and (errors[0].node_operator() or errors[0].node_name()):
            where = f" at node {errors[0].node_name() or errors[0].node()!s} ({errors[0].node_operator()})"
        what = errors[0].desc() if errors else "the parser gives no reason"
        return BadInputError(
            f"{self.trt} does not parse {self._shown}{where}: {what}",
            cause="an operator, type or opset that this TensorRT does not take, or a file that is no ONNX model",
            next="export the bundle again with this version of logoformer",
            log=self.log.errors[-LOG_IN_ERROR:],
        )


def _network_flags(module: Any) -> int:
    """Explicit batch and strong typing, where the flags exist: implied in TensorRT 11 and RTX."""
    flags = 0
    for name in ("STRONGLY_TYPED", "EXPLICIT_BATCH"):
        flag = getattr(module.NetworkDefinitionCreationFlag, name, None)
        flags |= 0 if flag is None else 1 << int(flag)
    return flags


def build_failed(
    trt: TrtModule, shown: str, log: BuildLog, before: Memory | None = None, device: int = 0
) -> MachineError:
    """The error for a build that gave no engine, classified by what TensorRT said in `log`."""
    lines = log.errors or log.complaints or log.chatter
    said = (*log.complaints, *log.chatter)
    if looks_short(said):
        cause, advice = shortage(said, before, build_memory(trt.target, device)), MORE_MEMORY
    elif _NO_KERNELS.search("\n".join(said).lower()):
        cause = f"{trt} has no kernels for that GPU in that precision"
        advice = "leave that GPU out, build fp16, or install the TensorRT that belongs to the board"
    else:
        cause = "a graph that this TensorRT cannot compile for this GPU; the lines below are its own"
        advice = "build another precision, such as fp16"
    return MachineError(f"{trt} built no engine from {shown}.", cause=cause, next=advice, log=lines[-LOG_IN_ERROR:])


@dataclass(frozen=True)
class BuiltEngine:
    """A compiled engine, with its settings and measurements.

    Attributes:
        plan: the serialized engine.
        target: 'rtx' or 'tensorrt'.
        tensorrt_version: such as '1.7.1.116'.
        compute_capabilities: GPUs it was built for; with TensorRT the one of this machine.
        cuda: newest CUDA that the driver knows, such as '12.6'; empty where there is no driver.
        flags: settings as TensorRT gave them back.
        tensor_types: layer outputs of the parsed network by type. Typing is strong: what is not 'half' here is not FP16
            in the engine either.
        seconds: what parsing and compiling took on this machine.
        timing_cache: what TensorRT measured of kernels, for the next build; None where it keeps none.
        peak_bytes: the most memory that the process of the build held; 0 without such a process.
        gpu: `Gpu.model` of the one that measured the kernels; empty with TensorRT-RTX, which measures none.
    """

    plan: bytes
    target: str
    tensorrt_version: str
    compute_capabilities: tuple[str, ...]
    cuda: str
    flags: Mapping[str, bool | int | str | None]
    tensor_types: Mapping[str, int]
    seconds: float
    timing_cache: bytes | None = None
    peak_bytes: int = 0
    gpu: str = ""


def build_here(
    onnx: bytes,
    options: BuildOptions,
    progress: Progress | None = None,
    *,
    shown: str = "the graph",
    timing_cache: bytes = b"",
) -> BuiltEngine:
    """Compile one graph in this process; the child of `process.build_engine` calls it.

    Raises:
        RefusedError, BadInputError, MachineError: see `process.build_engine`.
    """
    trt = find_module(options.target)
    with on_card(options):
        return _build(trt, onnx, options, progress, shown, timing_cache)


@contextlib.contextmanager
def on_card(options: BuildOptions) -> Iterator[None]:
    """Makes the card of a build current in this thread; TensorRT-RTX needs none.

    Raises:
        MachineError: there is no such card.
    """
    if options.target == "rtx":
        yield
        return
    with card_context(options.device) as current:
        if options.device and not current:
            raise MachineError(
                f"There is no card {options.device} to build on.",
                cause="no NVIDIA driver, or fewer cards than that",
                next="nvidia-smi",
            )
        yield  # without a driver TensorRT itself says so


def _build(
    trt: TrtModule, onnx: bytes, options: BuildOptions, progress: Progress | None, shown: str, timing_cache: bytes
) -> BuiltEngine:
    begun = time.perf_counter()
    compilation = Compilation(trt, onnx, shown, options, BuildLog())
    tensor_types = compilation.tensor_types()
    plan, flags = compilation.run(KEPT[options.target], progress, timing_cache)
    gpu = find_gpu(options.device)
    this_gpu = () if gpu is None else (gpu.compute_capability,)
    return BuiltEngine(
        plan=plan,
        target=options.target,
        tensorrt_version=trt.version,
        compute_capabilities=options.compute_capabilities if options.target == "rtx" else this_gpu,
        cuda="" if gpu is None else gpu.cuda,
        flags=flags,
        tensor_types=tensor_types,
        seconds=time.perf_counter() - begun,
        timing_cache=compilation.timing_cache,
        gpu=gpu.model if gpu is not None and options.target == "tensorrt" else "",
    )
