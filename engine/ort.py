"""The ONNX Runtime backend: IO binding, every buffer allocated once.

Here: the CPU provider. It computes FP16 graphs wider than FP16 between nodes, so it says nothing about FP16 overflow
(`export/reference.py` does); it is the way to run a bundle on a machine without a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..bundle import GraphEntry, TensorSpec
from ..errors import MachineError, RefusedError, missing_package
from .onnx_scan import refuse_external
from .session import Array, Session, allocate, check_tensors

_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
}


class OrtSession:
    """One graph on ONNX Runtime's CPU provider.

    Args:
        data: ONNX bytes, already checked against the index.
        entry: what the index says of them.
        threads: intra-op threads; None leaves the choice to ONNX Runtime.

    Raises:
        MachineError: onnxruntime is missing, or cannot run this graph.
        RefusedError: external tensors, or other tensors than promised.
    """

    def __init__(self, data: bytes, entry: GraphEntry, threads: int | None = None) -> None:
        refuse_external(data, entry.file)
        runtime = _import_onnxruntime()
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.inter_op_num_threads = 1
        # Each session has its own pool, whose idle threads would go on spinning while the next session computes:
        # `frame` and `temporal` alternating took twice as long (60 ms against 30 ms for `base` on 2 cores).
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Q/DQ are computed as they stand. ONNX Runtime's own INT8 fusions of an FP16 graph gave another class than FP32
        # on 8.4 % of 500 clips (trained `tiny`), the graph as it stands on 0.4 %, and they took longer.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own undocumented classes
            raise MachineError(
                f"ONNX Runtime {runtime.__version__} cannot load {entry.file}: {error}",
                cause="an ONNX Runtime older than the graph's opset, or without kernels for its precision",
                next="pip install --upgrade onnxruntime",
            ) from error
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


def runtime_name() -> str:
    """Such as 'onnxruntime 1.24.4 CPU'."""
    return f"onnxruntime {_import_onnxruntime().__version__} CPU"


def _import_onnxruntime() -> Any:
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
