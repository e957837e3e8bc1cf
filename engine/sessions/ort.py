"""The ONNX Runtime backend on a CPU and on a GPU: IO binding, every buffer allocated once.

The CPU provider computes FP16 graphs wider than FP16 between nodes, so it says nothing about FP16 overflow
(`export/reference.py` does); it is the way to run a bundle on a machine without a GPU. The CUDA provider is for a card
where no engine was built or TensorRT is not installed.

ONNX Runtime answers on the CPU, without a word, when the provider that it was asked for does not load, and it does so
with its own fallback switched off. So the provider's library is opened first, for the reason why it does not load; CPU
nodes are forbidden; and the session is asked in the end which provider computes.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ...bundle import GRAPHS, GraphEntry, TensorSpec
from ...bundle.onnx_scan import refuse_external
from ...errors import MachineError, RefusedError, command, needing
from ..cuda.layer import CudaError, device_lost
from ..machine.environment import find_gpu, is_jetson
from .contract import Array, HostSession, Session, allocate, check_tensors

_LOST = "The card is lost to this process."
_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
}


class OrtSession(HostSession):
    """One graph on ONNX Runtime's CPU provider.

    Args:
        data: ONNX bytes, already checked against the index.
        entry: what the index says of them.
        threads: intra-op threads; None leaves the choice to ONNX Runtime.
        given: options of the provider.
        arena: a session whose ring this one reads; None: it has its own.

    Raises:
        MachineError: onnxruntime is missing, cannot run this graph, or would run it on another provider.
        RefusedError: external tensors, or other tensors than promised.
    """

    title = "CPU"
    settings: ClassVar[Mapping[str, str]] = {}
    cause = "an ONNX Runtime older than the graph's opset, or without kernels for its precision"
    next = "pip install --upgrade onnxruntime"

    def __init__(
        self,
        data: bytes,
        entry: GraphEntry,
        threads: int | None = None,
        given: Mapping[str, str] | None = None,
        arena: Session | None = None,
    ) -> None:
        refuse_external(data, entry.file)
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.inter_op_num_threads = 1
        # Each session has its own pool, whose idle threads would go on spinning while the next session computes:
        # `frame` and `temporal` alternating took twice as long (60 ms against 30 ms for `base` on 2 cores).
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Q/DQ are computed as they are: ONNX Runtime's own INT8 fusions of a mixed graph take longer, and of graphs
        # that quantize FP16 without a Cast (bundles of 0.1) they gave another class than FP32 on 8.4 % of 500 clips.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        # ONNX Runtime 1.24 and 1.25 end with a segmentation fault when they open a graph in which an FP16 product reads
        # a transpose (onnxruntime issue 28392): older bundles of divided attention, perhaps somebody's detector.
        if entry.precision != "fp32" or entry.graph not in GRAPHS:
            options.add_session_config_entry("optimization.disable_specified_optimizers", "MatmulTransposeFusion")
        for key, value in self.settings.items():
            options.add_session_config_entry(key, value)
        if threads is not None:
            options.intra_op_num_threads = threads
        provider = f"{self.title}ExecutionProvider"
        try:
            asked = [(provider, dict(given or {}))]
            session = runtime.InferenceSession(data, options, providers=asked, enable_fallback=0)
        except Exception as error:  # onnxruntime raises its own undocumented classes
            raise MachineError(
                f"ONNX Runtime {runtime.__version__} cannot load {entry.file} on {self.title}: {error}",
                cause=self.cause,
                next=self.next,
            ) from error
        taken = session.get_providers()
        if taken[:1] != [provider]:  # 1.24 takes the CPU without a word, whatever was asked of it
            raise MachineError(
                f"ONNX Runtime {runtime.__version__} would run {entry.file} on {', '.join(taken)}, not on {provider}.",
                cause=self.cause,
                next=self.next,
            )
        self.inputs = {spec.name: spec for spec in _specs(session.get_inputs())}
        self.outputs = {spec.name: spec for spec in _specs(session.get_outputs())}
        check_tensors(entry.file, (*entry.inputs, *entry.outputs), (*self.inputs.values(), *self.outputs.values()))
        self._buffers: dict[str, Array] = {**allocate(self.inputs, arena), **allocate(self.outputs)}
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


class CudaSession(OrtSession):
    """One graph on a GPU through host buffers; a stream's tokens pass through the host too."""

    title = "CUDA"
    settings: ClassVar[Mapping[str, str]] = {"session.disable_cpu_ep_fallback": "1"}
    cause = "no card that this provider can use, too little memory on it, or a node without a kernel there"
    next = command("logoformer", "doctor")
    _lost = ""

    def run(self) -> None:
        if self._lost:
            raise device_lost(_LOST, [self._lost])
        try:
            # A bound host input is copied to the card when it is bound, not when the graph runs: bound once, the first
            # frame would be answered for ever.
            for name in self.inputs:
                self._binding.bind_input(name, *self._address(name))
            self._binding.synchronize_inputs()
            super().run()
            self._binding.synchronize_outputs()
        except Exception as error:  # onnxruntime raises its own undocumented classes
            fault = CudaError("onnxruntime", str(error))
            if fault.sticky:
                self._lost = fault.said
                raise device_lost(_LOST, [fault.said]) from error
            what = "ONNX Runtime failed on the card."
            raise MachineError(what, cause=self.cause, next=self.next, log=[fault.said]) from error


def runtime_name(title: str = "CPU") -> str:
    """The backend's name, such as 'onnxruntime 1.24.4 CPU'."""
    return f"onnxruntime {import_onnxruntime().__version__} {title}"


def import_onnxruntime() -> Any:
    """The package onnxruntime, imported with its telemetry off.

    Raises:
        MachineError: it is not installed.
    """
    # Telemetry exists in some builds only; asked off before the import, where it is read.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    with needing("onnxruntime", "cpu", "Running a bundle without a GPU"):
        import onnxruntime
    return onnxruntime


def _specs(nodes: Any) -> list[TensorSpec]:
    specs = []
    for node in nodes:
        if node.type not in _DTYPES or not all(isinstance(n, int) for n in node.shape):
            raise RefusedError(f"Tensor {node.name} is {node.type} {node.shape}: not static, or of no supported type.")
        specs.append(TensorSpec(node.name, _DTYPES[node.type], tuple(node.shape)))
    return specs


def open_session(data: bytes, entry: GraphEntry, options: Mapping[str, Any]) -> Session:
    """The backend's entry point; options: `threads`, `card` (none: the CPU), `arena`."""
    card, threads, arena = (options.get(name) for name in ("card", "threads", "arena"))
    if card is None:
        return OrtSession(data, entry, threads, arena=arena)
    return CudaSession(data, entry, threads, {"device_id": str(card), "use_tf32": "0"}, arena)


def require_cuda() -> None:
    """Checks that the CUDA provider can be used.

    Raises:
        MachineError: another onnxruntime is installed, or its libraries are missing.
    """
    runtime = import_onnxruntime()
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        raise MachineError(
            f"This onnxruntime ({runtime.__version__}) has no CUDAExecutionProvider.",
            cause="the wheel onnxruntime is for CPUs; onnxruntime-gpu is another one, of the same module",
            next=_with_cuda(),
        )
    if hasattr(runtime, "preload_dlls"):  # from 1.21 on: CUDA that pip brought is not where the loader looks
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find; that is asked for below
            runtime.preload_dlls(msvc=False)
    folder = Path(runtime.__file__).parent / "capi"
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        raise MachineError(
            f"ONNX Runtime {runtime.__version__} cannot load its CUDA provider: {error}",
            cause="a machine without an NVIDIA GPU, or without the CUDA (13 since 1.27, else 12) and cuDNN 9 it needs",
            next=f"pip install 'onnxruntime-gpu[cuda,cudnn]=={runtime.__version__}'; "
            "without a GPU take the backend 'onnxruntime'",
        ) from error


def _with_cuda() -> str:
    """The command that brings an ONNX Runtime with CUDA, or what to use in its place."""
    if is_jetson() and sys.version_info < (3, 11):  # JetPack 6: the index has no aarch64 wheel for its Python 3.10
        return "keep onnxruntime for the CPU: no wheel with CUDA exists for this Python on a Jetson; --backend tensorrt"
    gpu = find_gpu()
    extra = "gpu12" if gpu is not None and gpu.cuda.startswith("12.") else "gpu"
    return f"pip uninstall onnxruntime && pip install 'logoformer[{extra}]'"
