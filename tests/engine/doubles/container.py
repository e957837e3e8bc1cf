"""An engine of a double: ONNX bytes in a container that names the version and the target, answered by ONNX Runtime."""

from __future__ import annotations

import functools
import hashlib
import json
import weakref
from typing import Any

MAGIC = b"DOUBLE OF AN ENGINE\0"
DTYPES = {"uint8": "UINT8", "int32": "INT32", "int64": "INT64", "float": "FLOAT", "float16": "HALF"}  # ONNX -> TensorRT


@functools.cache
def _session(digest: str, onnx: _Bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(onnx.data, options, providers=["CPUExecutionProvider"])


class _Bytes:
    """Bytes that are told apart by their hash, which is beside them."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return True


def session_of(onnx: bytes) -> Any:
    """ONNX Runtime's session of a graph; made once."""
    return _session(hashlib.sha256(onnx).hexdigest(), _Bytes(onnx))


def tensors_of(nodes: Any) -> list[list[Any]]:
    return [[node.name, DTYPES[node.type[7:-1]], list(node.shape)] for node in nodes]


def pack(version: str, target: str, onnx: bytes, *, own_memory: bool = True, verbosity: str = "NONE") -> bytes:
    """The container that a build gives.

    Args:
        version: of the TensorRT that reads it.
        target: 'rtx' or 'tensorrt'.
        onnx: the graph.
        own_memory: with the flag REQUIRE_USER_ALLOCATION, where there is one.
        verbosity: what it remembers of its layers.
    """
    session = session_of(onnx)
    header = {
        "version": version,
        "target": target,
        "own_memory": own_memory,
        "verbosity": verbosity,
        "inputs": tensors_of(session.get_inputs()),
        "outputs": tensors_of(session.get_outputs()),
    }
    return MAGIC + json.dumps(header).encode() + b"\0" + onnx


def host_memory(module: Any, data: bytes) -> Any:
    memory = object.__new__(module.IHostMemory)
    memory._data = data
    return memory


def register(module: Any, logger: Any) -> None:
    """The first logger is the process's own: no other may come, and it may never go (ILogger in NvInferRuntime.h)."""
    first = vars(module).get("_first_logger")
    if first is None:
        module._first_logger = weakref.ref(logger)
    elif first() is not logger:
        gone = "was freed" if first() is None else "is another one"
        module._gpu.blame(f"a second logger was given to {module.__name__}; the first {gone}")


def say(logger: Any, severity: str, text: str) -> None:
    """Writes a line into TensorRT's log."""
    logger.log(getattr(type(logger)._module.ILogger.Severity, severity), text)
