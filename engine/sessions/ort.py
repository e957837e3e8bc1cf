"""The ONNX Runtime backend on a CPU and on a GPU: IO binding, every buffer allocated once.

The CPU provider computes FP16 graphs wider than FP16 between nodes, so it says nothing about FP16 overflow
(`export/reference.py` does); it is the way to run a bundle on a machine without a GPU. The CUDA and TensorRT providers
are for a card where no engine was built or TensorRT is not installed.

ONNX Runtime answers on the CPU, without a word, when the provider that it was asked for does not load, and it does so
with its own fallback switched off. So the provider's library is opened first, for the reason why it does not load; CPU
nodes are forbidden; and the session is asked in the end which provider computes.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...bundle import GraphEntry, TensorSpec
from ...bundle.onnx_scan import refuse_external
from ...errors import DeviceLostError, MachineError, RefusedError, command, missing_package
from ..cuda.layer import STICKY
from .contract import Array, Session, allocate, check_tensors

GPU_PROVIDERS = {"onnxruntime-cuda": "CUDAExecutionProvider", "onnxruntime-tensorrt": "TensorrtExecutionProvider"}
_LIBRARIES = {"onnxruntime-cuda": "cuda", "onnxruntime-tensorrt": "tensorrt"}
_DOCTOR = command("logoformer", "doctor")
_CAUSE = "no card that this provider can use, too little memory on it, or a node without a kernel there"
_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
}


@dataclass(frozen=True)
class Provider:
    """The execution providers of ONNX Runtime that compute, with their options.

    Attributes:
        name: of the one that is meant, as ONNX Runtime spells it.
        options: of it.
        after: (name, options) of those that take the nodes which it cannot.
        settings: entries of the session's configuration.
        cause, next: of the error when a graph cannot be loaded; see `errors.LogoformerError`.
    """

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    after: tuple[tuple[str, Mapping[str, str]], ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    cause: str = "an ONNX Runtime older than the graph's opset, or without kernels for its precision"
    next: str = "pip install --upgrade onnxruntime"

    @property
    def title(self) -> str:
        """Such as 'CPU', 'CUDA' or 'Tensorrt'."""
        return self.name.removesuffix("ExecutionProvider")


CPU = Provider("CPUExecutionProvider")


class OrtSession:
    """One graph on ONNX Runtime.

    Args:
        data: ONNX bytes, already checked against the index.
        entry: what the index says of them.
        threads: intra-op threads; None leaves the choice to ONNX Runtime.
        provider: who computes.

    Raises:
        MachineError: onnxruntime is missing, cannot run this graph, or would run it on another provider.
        RefusedError: external tensors, or other tensors than promised.
    """

    def __init__(self, data: bytes, entry: GraphEntry, threads: int | None = None, provider: Provider = CPU) -> None:
        refuse_external(data, entry.file)
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.inter_op_num_threads = 1
        # Each session has its own pool, whose idle threads would go on spinning while the next session computes:
        # `frame` and `temporal` alternating took twice as long (60 ms against 30 ms for `base` on 2 cores).
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Q/DQ are computed as they are. ONNX Runtime's own INT8 fusions of an FP16 graph gave another class than FP32
        # on 8.4 % of 500 clips (trained `tiny`), the graph as it is on 0.4 %, and they took longer.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        for key, value in provider.settings.items():
            options.add_session_config_entry(key, value)
        if threads is not None:
            options.intra_op_num_threads = threads
        asked = [(name, dict(given)) for name, given in ((provider.name, provider.options), *provider.after)]
        try:
            session = runtime.InferenceSession(data, options, providers=asked, enable_fallback=0)
        except Exception as error:  # onnxruntime raises its own undocumented classes
            raise MachineError(
                f"ONNX Runtime {runtime.__version__} cannot load {entry.file} on {provider.title}: {error}",
                cause=provider.cause,
                next=provider.next,
            ) from error
        given = session.get_providers()
        if not given or given[0] != provider.name:  # 1.24 takes the CPU without a word, whatever was asked of it
            raise MachineError(
                f"ONNX Runtime {runtime.__version__} would run {entry.file} on {', '.join(given)}, "
                f"not on {provider.name}.",
                cause=provider.cause,
                next=provider.next,
            )
        self.inputs = {spec.name: spec for spec in _specs(session.get_inputs())}
        self.outputs = {spec.name: spec for spec in _specs(session.get_outputs())}
        check_tensors(entry.file, (*entry.inputs, *entry.outputs), (*self.inputs.values(), *self.outputs.values()))
        self._buffers: dict[str, Array] = {**allocate(self.inputs), **allocate(self.outputs)}
        binding = session.io_binding()
        for name in self.inputs:
            binding.bind_input(name, *self._address(name))
        for name in self.outputs:
            binding.bind_output(name, *self._address(name))
        self._session, self._binding = session, binding

    def _address(self, name: str) -> tuple[Any, ...]:
        buffer = self._buffers[name]
        return "cpu", 0, buffer.dtype.type, buffer.shape, buffer.ctypes.data

    def input(self, name: str) -> Array:
        return self._buffers[name]

    def output(self, name: str) -> Array:
        return self._buffers[name]

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def take(self, source: Session, output: str, name: str, row: int, index: int = 0) -> None:
        rows = source.output(output)[index]  # [n, d]
        self._buffers[name][row : row + len(rows)] = rows

    def close(self) -> None:
        self._session = self._binding = None
        self._buffers = {}


class GpuSession(OrtSession):
    """One graph on a GPU through host buffers; a stream's tokens pass through the host too."""

    _lost = ""

    def run(self) -> None:
        if self._lost:
            raise _lost_device(self._lost)
        try:
            # A bound host input is copied to the card when it is bound, not when the graph runs: bound once, the first
            # frame would be answered for ever.
            for name in self.inputs:
                self._binding.bind_input(name, *self._address(name))
            self._binding.synchronize_inputs()
            super().run()
            self._binding.synchronize_outputs()
        except Exception as error:  # onnxruntime raises its own undocumented classes
            said = str(error)
            if any(name in said or text in said for name, text in STICKY.items()):
                self._lost = said
                raise _lost_device(said) from error
            raise MachineError("ONNX Runtime failed on the card.", cause=_CAUSE, next=_DOCTOR, log=[said]) from error


def runtime_name(provider: Provider = CPU) -> str:
    """The backend's name, such as 'onnxruntime 1.24.4 CPU'."""
    return f"onnxruntime {import_onnxruntime().__version__} {provider.title}"


def import_onnxruntime() -> Any:
    """The package onnxruntime, imported with its telemetry off.

    Raises:
        MachineError: it is not installed.
    """
    # Telemetry exists in some builds only; asked off before the import, where it is read.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_package("onnxruntime", "cpu", "Running a bundle without a GPU") from error
    return onnxruntime


def _specs(nodes: Any) -> list[TensorSpec]:
    specs = []
    for node in nodes:
        if node.type not in _DTYPES or not all(isinstance(n, int) for n in node.shape):
            raise RefusedError(f"Tensor {node.name} is {node.type} {node.shape}: not static, or of no supported type.")
        specs.append(TensorSpec(node.name, _DTYPES[node.type], tuple(node.shape)))
    return specs


def open_session(data: bytes, entry: GraphEntry, options: Mapping[str, Any]) -> Session:
    """The backend's entry point; `options` may hold `threads` and a `provider` (default: CPU)."""
    provider = options.get("provider", CPU)
    kind = OrtSession if provider is CPU else GpuSession
    return kind(data, entry, options.get("threads"), provider)


def find_provider(backend: str, precision: str, device: int) -> Provider:
    """A provider on a GPU, checked to be usable.

    Args:
        backend: a key of `GPU_PROVIDERS`.
        precision: of the graphs.
        device: which card, from 0.

    Raises:
        MachineError: another onnxruntime is installed, its libraries are missing, or TF32 cannot be kept out of FP32.
    """
    runtime = import_onnxruntime()
    name = GPU_PROVIDERS[backend]
    _require_library(runtime, backend, name)
    # Every switch by name: what is not given, the TensorRT provider takes from ORT_TENSORRT_* in the environment.
    cuda = {"device_id": str(device), "use_tf32": "0"}
    settings = {"session.disable_cpu_ep_fallback": "1"}
    if backend == "onnxruntime-cuda":
        return Provider(name, cuda, (), settings, _CAUSE, _DOCTOR)
    if precision == "fp32" and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0":
        raise MachineError(
            "ONNX Runtime's TensorRT provider has no switch for TF32: FP32 would be computed with 10 bits of mantissa.",
            next="set NVIDIA_TF32_OVERRIDE=0 in the environment, before the program starts; or name another precision",
        )
    options = {
        "device_id": str(device),
        # An engine from a cache would be native code that nobody vouched for.
        "trt_engine_cache_enable": "0",
        "trt_timing_cache_enable": "0",
        # TensorRT may not choose narrower types than those of the graph, which was judged with them.
        "trt_fp16_enable": "0",
        "trt_int8_enable": "0",
    }
    return Provider(name, options, (("CUDAExecutionProvider", cuda),), settings, _CAUSE, _DOCTOR)


def _require_library(runtime: Any, backend: str, name: str) -> None:
    if name not in runtime.get_available_providers():
        raise MachineError(
            f"This onnxruntime ({runtime.__version__}) has no {name}.",
            cause="the wheel onnxruntime is for CPUs; onnxruntime-gpu is another one, of the same module",
            next="pip uninstall onnxruntime && pip install 'logoformer[gpu]'",
        )
    if hasattr(runtime, "preload_dlls"):  # from 1.21 on: CUDA that pip brought is not where the loader looks
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find; that is asked for below
            runtime.preload_dlls(msvc=False)
    folder = Path(runtime.__file__).parent / "capi"
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / f"libonnxruntime_providers_{_LIBRARIES[backend]}.so"))
    except OSError as error:
        title = name.removesuffix("ExecutionProvider")
        tensorrt = "; for libnvinfer: TensorRT 10" if backend == "onnxruntime-tensorrt" else ""
        raise MachineError(
            f"ONNX Runtime {runtime.__version__} cannot load its {title} provider: {error}",
            cause="a machine without an NVIDIA GPU, or without the CUDA 12 and cuDNN 9 that it is built for",
            next=f"pip install 'onnxruntime-gpu[cuda,cudnn]=={runtime.__version__}'{tensorrt}; "
            "without a GPU: backend='onnxruntime'",
        ) from error


def _lost_device(said: str) -> DeviceLostError:
    return DeviceLostError(
        "The card is lost to this process.",
        cause="a kernel crashed, the card fell off the bus, or the driver was restarted: no call can mend the context",
        next="end this process and start it again; its supervisor may do so on exit code 7",
        log=[said],
    )
