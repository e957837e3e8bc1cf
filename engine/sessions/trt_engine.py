"""A deserialised engine of TensorRT or TensorRT-RTX.

Only names that exist in TensorRT 10.3 ... 11.4 and TensorRT-RTX 1.7 are used, but for RTX's runtime cache, which only
RTX is asked for. Addresses and streams are handed over as plain `int`: 10.3 takes nothing else.
"""

from __future__ import annotations

from typing import Any

from ...bundle import GraphEntry, TensorSpec
from ...errors import MachineError, RefusedError
from ..builder.compile import LOG_IN_ERROR
from ..cuda.layer import Cuda, out_of_memory
from ..machine.log import BuildLog, make_logger, write_to
from ..machine.memory import looks_short
from ..machine.tensorrt import TrtModule
from ..trust.store import RuntimeCache
from .contract import check_tensors

_DTYPES = {"FLOAT": "float32", "HALF": "float16", "INT32": "int32", "INT64": "int64", "UINT8": "uint8"}


class TrtEngine:
    """A deserialised engine with its execution context.

    Args:
        trt: the TensorRT to use.
        cuda: the device; its context is current.
        data: engine bytes that were admitted: they are native code.
        entry: what the index says of the graph.
        cache: for RTX; None keeps no cache.

    Raises:
        RefusedError: other tensors than promised.
        MachineError: TensorRT does not take the bytes, or memory is short.
    """

    def __init__(self, trt: TrtModule, cuda: Cuda, data: bytes, entry: GraphEntry, cache: RuntimeCache | None) -> None:
        self.trt, self.log = trt, BuildLog()
        self._cuda, self._cache = cuda, cache
        self._runtime_cache: Any = None
        self._shown = entry.file
        write_to(self.log)
        self._logger = make_logger(trt.module)
        self._context: Any = None
        self._engine: Any = None
        self._runtime: Any = None
        try:
            self._open(data, entry)
        except BaseException:
            self.close()  # or the error, which knows this object, would hold the memory for as long as it is looked at
            raise

    def _open(self, data: bytes, entry: GraphEntry) -> None:
        trt = self.trt
        try:
            self._runtime = trt.module.Runtime(self._logger)
        except (TypeError, RuntimeError) as error:  # pybind11's way to say that the factory gave nothing
            raise self.failed(f"{trt} does not start: {error}", next="nvidia-smi") from error
        # The default, said again: an engine may carry host code (plugins, a lean runtime), and none of ours does.
        self._runtime.engine_host_code_allowed = False
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise self.failed(f"{trt} does not take {entry.file}.", next="logoformer build BUNDLE", needed=len(data))
        specs = self._specs()
        self.inputs = {spec.name: spec for mode, spec in specs if mode == "INPUT"}
        self.outputs = {spec.name: spec for mode, spec in specs if mode == "OUTPUT"}
        check_tensors(entry.file, (*entry.inputs, *entry.outputs), (*self.inputs.values(), *self.outputs.values()))
        needed = int(self._engine.device_memory_size_v2)
        self._context = self._make_context()
        if self._context is None:
            raise self.failed(f"{trt} gives no execution context for {entry.file}.", needed=needed)
        if trt.target != "rtx":  # its engines keep details of their layers, which a profiler would be shown at each run
            self._context.nvtx_verbosity = trt.module.ProfilingVerbosity.NONE

    def _specs(self) -> list[tuple[str, TensorSpec]]:
        engine, module = self._engine, self.trt.module
        found = []
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            dtype, shape = engine.get_tensor_dtype(name).name, tuple(engine.get_tensor_shape(name))
            linear = engine.get_tensor_format(name) == module.TensorFormat.LINEAR
            device = engine.get_tensor_location(name) == module.TensorLocation.DEVICE
            if dtype not in _DTYPES or min(shape, default=0) < 0 or not linear or not device:
                raise RefusedError(
                    f"{self._shown}: tensor {name} is {dtype} {list(shape)}"
                    f"{'' if linear else ', not linear'}{'' if device else ', in host memory'}.",
                    cause="an engine that logoformer build did not make",
                    next="logoformer build BUNDLE",
                )
            found.append((engine.get_tensor_mode(name).name, TensorSpec(name, _DTYPES[dtype], shape)))
        return found

    def _make_context(self) -> Any:
        if self.trt.target != "rtx" or self._cache is None:
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        self._runtime_cache = config.create_runtime_cache()
        kept = self._cache.load()
        if kept is not None and not self._runtime_cache.deserialize(kept):
            self._runtime_cache = config.create_runtime_cache()  # of another driver or card: it is compiled anew
        config.set_runtime_cache(self._runtime_cache)
        return self._engine.create_execution_context(config)

    def save_cache(self) -> None:
        """Save the kernels that RTX has compiled so far."""
        if self._cache is not None and self._runtime_cache is not None:
            data = bytes(self._runtime_cache.serialize())
            if data != self._cache.load():
                self._cache.save(data)

    def set_address(self, name: str, pointer: int) -> None:
        """Set the device address of a tensor.

        Raises:
            MachineError: TensorRT does not take the address.
        """
        write_to(self.log)
        if not self._context.set_tensor_address(name, int(pointer)):
            raise self.failed(f"{self.trt} does not take an address for {name} of {self._shown}.")

    def enqueue(self, stream: int) -> bool:
        """Enqueue the engine in a stream; False when TensorRT refuses."""
        write_to(self.log)
        return bool(self._context.execute_async_v3(int(stream)))

    def capturable(self, stream: int) -> bool:
        """Whether the engine may be captured now; RTX says no while it still compiles kernels."""
        if self.trt.target == "rtx":
            return bool(self._context.is_stream_capturable(int(stream)))
        return True

    def close(self) -> None:
        """Gives everything back, the context before the engine. A second call does nothing."""
        self._context = self._runtime_cache = None
        self._engine = self._runtime = None

    def failed(self, what: str, next: str = "logoformer doctor", needed: int = 0) -> MachineError:
        """The error for a call that TensorRT refused; `needed`: bytes that were asked for."""
        said = self.log.complaints
        if looks_short(said):
            error = out_of_memory(self._cuda, self._shown, needed, said[-1])
        else:
            error = MachineError(what, cause="the lines below are TensorRT's own", next=next)
        error.log = said[-LOG_IN_ERROR:]
        return error
