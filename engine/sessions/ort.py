"""The ONNX Runtime backend: IO binding, every buffer allocated once.

The CPU provider computes FP16 graphs wider than FP16 between nodes, so it says nothing about FP16 overflow
(`export/reference.py` does); it is the way to run a bundle on a machine without a GPU. Those on a card: `ort_gpu.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...bundle import GraphEntry, TensorSpec
from ...bundle.onnx_scan import refuse_external
from ...errors import MachineError, RefusedError, missing_package
from .contract import Array, Session, allocate, check_tensors

_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
}


@dataclass(frozen=True)
class Provider:
    """Which of ONNX Runtime's execution providers compute.

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
        # Q/DQ are computed as they stand. ONNX Runtime's own INT8 fusions of an FP16 graph gave another class than FP32
        # on 8.4 % of 500 clips (trained `tiny`), the graph as it stands on 0.4 %, and they took longer.
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


def runtime_name(provider: Provider = CPU) -> str:
    """Such as 'onnxruntime 1.24.4 CPU'."""
    return f"onnxruntime {import_onnxruntime().__version__} {provider.title}"


def import_onnxruntime() -> Any:
    """The package, with its telemetry off.

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
    """The backend's entry point; `options` may hold `threads`."""
    return OrtSession(data, entry, options.get("threads"))
