"""The OpenVINO backend: tensors over our own host memory, bound once.

On CPUs with INT8 dot products it runs the INT8 graphs in INT8, where ONNX Runtime's CPU provider computes quantize and
dequantize nodes one by one. FP32 stays FP32: OpenVINO takes BF16 on CPUs that are fast at it unless it is told not to.
It says nothing about FP16 overflow either: its CPU kernels compute FP16 graphs in FP32.

OpenVINO's model cache is not used: its folder is read by OpenVINO itself, after no check of ours, and of the second of
CPU time that `base` takes to compile it saves half.
"""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Mapping
from typing import Any

from ...bundle import GraphEntry, TensorSpec
from ...bundle.onnx_scan import refuse_external
from ...errors import MachineError, RefusedError, needing, one_of
from .contract import Array, HostSession, Session, allocate, check_tensors

_DTYPES = {"u8": "uint8", "i32": "int32", "i64": "int64", "f32": "float32", "f16": "float16"}
_TELEMETRY = "openvino_telemetry"
CPU = "CPU"


class OpenVinoSession(HostSession):
    """One graph on one of OpenVINO's devices.

    Args:
        data: ONNX bytes, already checked against the index.
        entry: what the index says of them.
        threads: of one inference; None leaves the choice to OpenVINO.
        device: by OpenVINO's name.
        arena: a session whose ring this one reads; None: it has its own.

    Raises:
        MachineError: OpenVINO is missing, or cannot run this graph.
        RefusedError: external tensors, or other tensors than promised.
    """

    def __init__(
        self,
        data: bytes,
        entry: GraphEntry,
        threads: int | None = None,
        device: str = CPU,
        arena: Session | None = None,
    ) -> None:
        refuse_external(data, entry.file)
        openvino = import_openvino()
        settings = cpu_settings(threads) if device == CPU else {"PERFORMANCE_HINT": "LATENCY"}
        try:
            core = shared_core()
            model = core.read_model(io.BytesIO(data))
            ports = {"in": list(model.inputs), "out": list(model.outputs)}
            self.inputs = _specs(ports["in"], entry.inputs)
            self.outputs = _specs(ports["out"], entry.outputs)
            check_tensors(entry.file, (*entry.inputs, *entry.outputs), (*self.inputs.values(), *self.outputs.values()))
            request = core.compile_model(model, device, settings).create_infer_request()
        except RuntimeError as error:  # OpenVINO's own exceptions are all of this class
            raise MachineError(
                f"OpenVINO {_version(openvino)} cannot load {entry.file} on {device}: {_first_line(error)}",
                cause="an OpenVINO older than the graph's opset, or a device that it does not find",
                next="pip install --upgrade openvino",
            ) from error
        self._buffers: dict[str, Array] = {**allocate(self.inputs, arena), **allocate(self.outputs)}
        for place, name in enumerate(self.inputs):
            request.set_input_tensor(place, openvino.Tensor(self._buffers[name], shared_memory=True))
        for place, name in enumerate(self.outputs):
            request.set_output_tensor(place, openvino.Tensor(self._buffers[name], shared_memory=True))
        self._request: Any = request

    def input(self, name: str) -> Array:
        return self._buffers[name]

    def output(self, name: str) -> Array:
        return self._buffers[name]

    def run(self) -> None:
        self._request.infer(share_outputs=True)  # without it every output is copied once more

    def take(self, source: Session, output: str, name: str, row: int, index: int = 0) -> None:
        rows = source.output(output)[index]  # [n, d]
        self._buffers[name][row : row + len(rows)] = rows

    def close(self) -> None:
        self._request = None
        self._buffers = {}


def cpu_settings(threads: int | None) -> dict[str, Any]:
    """Settings of the CPU plugin: one inference at a time, as fast as it can be, FP32 kept."""
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    return settings if threads is None else {**settings, "INFERENCE_NUM_THREADS": threads}


def import_openvino() -> Any:
    """The package openvino, imported without its telemetry.

    Raises:
        MachineError: it is not installed.
    """
    # Its import sends an event over the network and writes ~/intel, unless openvino_telemetry does not import.
    missing = object()
    before = sys.modules.get(_TELEMETRY, missing)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        with needing("openvino", "openvino", "The backend 'openvino'"):
            import openvino
    finally:
        if before is missing:
            del sys.modules[_TELEMETRY]
        else:
            sys.modules[_TELEMETRY] = before  # type: ignore[assignment]
    return openvino


@functools.cache
def shared_core() -> Any:
    """The one `Core` of this process, which is never freed.

    Its CPU plugin gives the thread that loads it an alternate stack for signals, and takes it back when it is freed: of
    several that do not end in turn, one leaves a stack that is gone, and the next Ctrl-C ends the process (SIGSEGV).

    Raises:
        MachineError: OpenVINO is not installed.
    """
    return import_openvino().Core()


def runtime_name(device: str = CPU) -> str:
    """The backend's name, such as 'openvino 2026.4.1 CPU'."""
    return f"openvino {_version(import_openvino())} {device}"


def find_openvino_device(kind: str, number: int = 0) -> str:
    """OpenVINO's name of one of its devices; untested on any but a CPU.

    Args:
        kind: 'GPU' or 'NPU'.
        number: which of several, from 0.

    Raises:
        MachineError: OpenVINO sees none.
    """
    seen = list(shared_core().available_devices)
    name = next((name for name in (f"{kind}.{number}", kind if number == 0 else "") if name in seen), None)
    if name is None:
        raise MachineError(
            f"OpenVINO sees no {kind} {number} on this machine; it sees {one_of(seen)}.",
            cause="no such Intel device, or its driver is missing",
            next="take the backend 'openvino', which is the CPU",
        )
    return name


def open_session(data: bytes, entry: GraphEntry, options: Mapping[str, Any]) -> Session:
    """The backend's entry point; options: `threads`, `card` (a device's name), `arena`."""
    return OpenVinoSession(data, entry, options.get("threads"), options.get("card", CPU), options.get("arena"))


def _version(openvino: Any) -> str:
    return str(openvino.__version__).split("-")[0]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _specs(ports: list[Any], promised: tuple[TensorSpec, ...]) -> dict[str, TensorSpec]:
    """Tensors by name, in the graph's order; of a port's several names ours is taken."""
    wanted = {spec.name for spec in promised}
    found = {}
    for port in ports:
        names = sorted(port.get_names())
        name = next((name for name in names if name in wanted), names[0] if names else "")
        kind = port.get_element_type().get_type_name()
        if kind not in _DTYPES or port.get_partial_shape().is_dynamic:
            shape = port.get_partial_shape()
            raise RefusedError(f"Tensor {name} is {kind} {shape}: not static, or of no supported type.")
        found[name] = TensorSpec(name, _DTYPES[kind], tuple(int(n) for n in port.get_shape()))
    return found
