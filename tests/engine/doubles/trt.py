"""TensorRT of one version: its names, its enums, its signatures, and answers by way of ONNX Runtime.

Building wraps the ONNX bytes in a container that names the version and the target; deserialising takes only its own. An
execution reads and writes at the addresses that it was given, when its stream comes to it.

What differs by version comes from the lists (names, integer pointers in 10.3, enums that are gone); beyond that:
TensorRT 10 builds weakly typed unless it is told otherwise, RTX asks whether a stream may be captured, and RTX has a
runtime cache.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np

from . import pycuda
from .container import MAGIC, host_memory, register, say, session_of
from .gpu import Failure, Gpu, Operation
from .listed import ListedModule, make_class, make_enum, read_list
from .trt_builder import ACTING

VERSIONS = {
    "10.3": "tensorrt-10.3.0",
    "10.16": "tensorrt-10.16.1.11",
    "11.4": "tensorrt-11.4.0.106",
    "rtx-1.7": "tensorrt_rtx-1.7.1.116",
}
_NUMPY = {"UINT8": "uint8", "INT32": "int32", "INT64": "int64", "FLOAT": "float32", "HALF": "float16"}


def make_module(version: str, gpu: Gpu) -> Any:
    """A module as `import tensorrt` (or `tensorrt_rtx`) gives it.

    Args:
        version: a key of `VERSIONS`.
        gpu: where it runs.
    """
    listed = read_list(VERSIONS[version])
    module = ListedModule(VERSIONS[version].split("-")[0], {*listed["classes"], *listed["functions"], "__version__"})
    module.__version__ = listed["version"]
    module._gpu, module._rtx = gpu, version.startswith("rtx")
    waiting = dict(listed["classes"])
    while waiting:
        for name, described in list(waiting.items()):
            if "enum" in described:
                setattr(module, name, make_enum(name, described["enum"]))
            elif not any(base in waiting for base in described["bases"]):
                bases = tuple(vars(module)[base] for base in described["bases"] if base in vars(module))
                cls = make_class(name, described, _ACTING.get(name), bases, module)
                cls._module = module
                setattr(module, name, cls)
            else:
                continue
            del waiting[name]
    return module


class Logger:
    def __init__(self, min_severity: Any = None) -> None:
        self._lines: list[str] = []

    def log(self, severity: Any, msg: str) -> None:
        self._lines.append(msg)


class ILogger:
    def __init__(self) -> None:
        return None

    def log(self, severity: Any, msg: str) -> None:
        return None


def _text(failure: Failure) -> str:
    return pycuda.TEXTS.get(failure.code, str(failure))


class Runtime:
    def __init__(self, logger: Any) -> None:
        register(self._module, logger)
        self._logger, self._host_code = logger, False

    @property
    def engine_host_code_allowed(self) -> bool:
        return self._host_code

    @engine_host_code_allowed.setter
    def engine_host_code_allowed(self, value: bool) -> None:
        if value:
            self._module._gpu.blame("host code of an engine was allowed")
        self._host_code = value

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        module, data = self._module, bytes(serialized_engine)
        gpu = module._gpu
        gpu.calls["deserialize"] += 1
        target = "rtx" if module._rtx else "tensorrt"
        if not data.startswith(MAGIC):
            say(self._logger, "ERROR", "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (magic tag)")
            return None
        header, _, onnx = data[len(MAGIC) :].partition(b"\0")
        said = json.loads(header)
        if (said["version"], said["target"]) != (module.__version__, target):
            say(self._logger, "ERROR", "Error Code 1: Serialization (Version tag does not match)")
            return None
        try:
            weights = gpu.malloc(len(data), "weights")
        except Failure as failure:
            say(self._logger, "ERROR", f"Error Code 2: OutOfMemory (Requested size was {len(data)} bytes): {failure}")
            return None
        engine = object.__new__(module.ICudaEngine)
        engine._start(said, onnx, weights, self._logger)
        return engine


class _Held:
    """Device memory of TensorRT's own, given back when the object goes."""

    @staticmethod
    def hold(owner: Any, gpu: Gpu, kind: str, pointer: int | None) -> None:
        gpu.objects[kind] += 1
        weakref.finalize(owner, _Held.drop, gpu, kind, pointer)

    @staticmethod
    def drop(gpu: Gpu, kind: str, pointer: int | None) -> None:
        with gpu.lock:
            gpu.objects[kind] -= 1
            if not gpu.objects[kind]:
                del gpu.objects[kind]
            blocks = [block for block in gpu.blocks if block.base == pointer]
            for block in blocks:  # TensorRT frees through its own allocator, which asks for no context
                gpu.drain_all() if not gpu.lost else None
                gpu.blocks.remove(block)
                gpu.freed.append(block)


class ICudaEngine:
    def _start(self, said: dict[str, Any], onnx: bytes, weights: int, logger: Any) -> None:
        self._said, self._onnx, self._logger = said, onnx, logger
        modes = self._module.TensorIOMode
        self._tensors = {name: (modes.INPUT, dtype, shape) for name, dtype, shape in said["inputs"]}
        self._tensors |= {name: (modes.OUTPUT, dtype, shape) for name, dtype, shape in said["outputs"]}
        _Held.hold(self, self._module._gpu, "engines", weights)

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def device_memory_size_v2(self) -> int:
        return 4096

    @property
    def num_aux_streams(self) -> int:
        return 0

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return self._tensors[name][0]

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(self._module.DataType, self._tensors[name][1])

    def get_tensor_shape(self, name: str) -> Any:
        return self._module.Dims(self._tensors[name][2])

    def get_tensor_format(self, name: str) -> Any:
        return self._module.TensorFormat.LINEAR

    def get_tensor_location(self, name: str) -> Any:
        return self._module.TensorLocation.DEVICE

    def create_engine_inspector(self) -> Any:
        inspector = object.__new__(self._module.EngineInspector)
        inspector._engine = self
        return inspector

    def create_runtime_config(self) -> Any:
        return object.__new__(self._module.IRuntimeConfig)

    def create_execution_context(self, strategy: Any = None) -> Any:
        module = self._module
        gpu = module._gpu
        try:
            gpu.enter("create_context")
            scratch = gpu.malloc(self.device_memory_size_v2, "scratch")
        except Failure as failure:
            say(self._logger, "ERROR", f"Error Code 2: OutOfMemory (no further information): {failure}")
            return None
        context = object.__new__(module.IExecutionContext)
        context._start(self, scratch, strategy)
        return context


class EngineInspector:
    def get_engine_information(self, format: Any) -> str:
        """One kernel, if the engine was built to tell of it."""
        told = self._engine._said["verbosity"] == "DETAILED"
        layers = [{"Name": "conv", "LayerType": "CaskConvolution"}] if told else []
        return json.dumps({"Layers": layers})


class IRuntimeConfig:
    def create_runtime_cache(self) -> Any:
        cache = object.__new__(self._module.IRuntimeCache)
        cache._data = b""
        return cache

    def set_runtime_cache(self, cache: Any = None) -> bool:
        self._cache = cache
        return True


class IRuntimeCache:
    def deserialize(self, blob: bytes) -> bool:
        self._module._gpu.calls["cache_deserialize"] += 1
        if not bytes(blob).startswith(b"KERNELS"):
            return False
        self._data = bytes(blob)
        return True

    def serialize(self) -> Any:
        return host_memory(self._module, self._data)


class IExecutionContext:
    def _start(self, engine: Any, scratch: int, strategy: Any) -> None:
        self._engine, self._addresses, self._warm = engine, {}, False
        # The engine's own level, until a lower one is set; above NONE each start makes markers for a profiler.
        self.__dict__["_value_nvtx_verbosity"] = getattr(self._module.ProfilingVerbosity, engine._said["verbosity"])
        self._config = strategy if isinstance(strategy, vars(self._module).get("IRuntimeConfig", ())) else None
        _Held.hold(self, self._module._gpu, "contexts", scratch)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self._engine._tensors:
            return False
        self._addresses[name] = int(memory)
        return True

    def get_tensor_address(self, name: str) -> int:
        return self._addresses.get(name, 0)

    def is_stream_capturable(self, stream: int) -> bool:
        free = self._engine._said["own_memory"]  # or a run may allocate, which no capture allows
        return self._module._gpu.enter("is_stream_capturable") is None and free

    def execute_async_v3(self, stream_handle: int) -> bool:
        gpu, engine = self._module._gpu, self._engine
        try:
            fault = gpu.enter("enqueue")
        except Failure as failure:
            say(engine._logger, "ERROR", f"enqueueV3: Error Code 1: Cuda Runtime ({_text(failure)})")
            return False
        handle = int(stream_handle)
        if handle == 0:
            gpu.blame("the default stream was used")
        if self.nvtx_verbosity == self._module.ProfilingVerbosity.DETAILED:
            gpu.blame("a start made a profiler's markers of every layer")
        stream = gpu.stream_of(handle)
        missing = [name for name in engine._tensors if not self._addresses.get(name)]
        if fault == "refuse" or missing:
            say(
                engine._logger,
                "ERROR",
                f"IExecutionContext::enqueueV3: Error Code 3: API Usage (no address: {missing})",
            )
            return False
        if stream.capture is not None and not self._warm:
            gpu.blame("captured before it was run plainly once")
            stream.broken = True
            return False
        if stream.capture is not None and fault == "empty":
            return True
        self._warm = True
        if self._config is not None and getattr(self._config, "_cache", None) is not None:
            self._config._cache._data = b"KERNELS of " + engine._said["version"].encode()
        gpu.put(handle, self._operation(dict(self._addresses), hollow=fault == "hollow", nan=fault == "nan"))
        return True

    def _operation(self, addresses: dict[str, int], hollow: bool, nan: bool) -> Operation:
        gpu, engine = self._module._gpu, self._engine
        touched: dict[bool, list[np.ndarray]] = {True: [], False: []}
        for name, (mode, dtype, shape) in engine._tensors.items():
            piece, block = gpu.view(addresses[name], _size(dtype, shape))
            if block.kind in ("mapped", "managed"):
                touched[mode == self._module.TensorIOMode.INPUT].append(piece)

        def run() -> None:
            if hollow:
                for name, dtype, shape in engine._said["outputs"]:
                    gpu.view(addresses[name], _size(dtype, shape))
                return
            gpu.enter("kernel")
            given = {n: _view(gpu, addresses[n], dtype, shape) for n, dtype, shape in engine._said["inputs"]}
            if not gpu.simple:
                given = {n: value.copy() for n, value in given.items()}
            for name, value in given.items():
                if (
                    value.dtype == np.int32
                    and "ring" in given
                    and not 0 <= value.min() <= value.max() < len(given["ring"])
                ):
                    gpu.blame(f"{name} leaves the ring: a card would read what stands there")
            outputs = engine._said["outputs"]
            answers = simple(given, outputs) if gpu.simple else session_of(engine._onnx).run(None, given)
            for (name, dtype, shape), answer in zip(engine._said["outputs"], answers, strict=True):
                if nan and answer.dtype.kind == "f":
                    answer = np.full_like(answer, np.nan)
                gpu.view(addresses[name], _size(dtype, shape))[0][:] = (
                    np.ascontiguousarray(answer).view(np.uint8).ravel()
                )

        what = "temporal" if "ring" in engine._tensors else next(iter(engine._tensors))  # 'frame' or 'clip'
        return Operation(run, reads=tuple(touched[True]), writes=tuple(touched[False]), what=what)


def simple(given: dict[str, np.ndarray], outputs: list[Any]) -> list[np.ndarray]:
    """Answers that name their frames: a frame's first pixel is its tokens; those of the last and the first place."""
    _, dtype, shape = outputs[0]
    answer = np.zeros(shape, _NUMPY[dtype])
    if "ring" in given:
        rows = given["ring"][given["order"][[-1, 0]]]  # [2, d]
        answer[0, :6] = rows[:, :3].reshape(-1)
    elif "frame" in given:
        answer[..., :3] = given["frame"][:, :1, 0]
    return [answer]


def _size(dtype: str, shape: list[int]) -> int:
    return int(np.prod(shape)) * np.dtype(_NUMPY[dtype]).itemsize


def _view(gpu: Gpu, pointer: int, dtype: str, shape: list[int]) -> np.ndarray:
    return gpu.view(pointer, _size(dtype, shape))[0].view(_NUMPY[dtype]).reshape(shape)


class Dims:
    def __init__(self, shape: Any = ()) -> None:
        self._shape = tuple(shape)

    def __len__(self) -> int:
        return len(self._shape)

    def __getitem__(self, index: Any) -> Any:
        return self._shape[index]

    def __iter__(self) -> Iterator[int]:
        return iter(self._shape)


class IHostMemory:
    def __bytes__(self) -> bytes:
        return self._data

    @property
    def nbytes(self) -> int:
        return len(self._data)


_ACTING: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        Dims,
        EngineInspector,
        ICudaEngine,
        IExecutionContext,
        IHostMemory,
        ILogger,
        IRuntimeCache,
        IRuntimeConfig,
        Logger,
        Runtime,
        *ACTING,
    )
}
