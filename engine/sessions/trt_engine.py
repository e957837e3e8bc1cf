"""A deserialised engine of TensorRT or TensorRT-RTX, its memory, and its CUDA graph.

Only names that exist in TensorRT 10.3 ... 11.4 and TensorRT-RTX 1.7 are used, but for RTX's runtime cache, which only
RTX is asked for. Addresses and streams are handed over as plain `int`: 10.3 takes nothing else.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...bundle import GraphEntry, TensorSpec
from ...errors import LogoformerError, MachineError, RefusedError
from ..builder.compile import LOG_IN_ERROR
from ..cuda.layer import Cuda, CudaError, HostBlock, explain, out_of_memory
from ..machine.log import BuildLog, make_logger
from ..machine.memory import looks_short
from ..machine.tensorrt import TrtModule
from ..trust.store import RuntimeCache
from .contract import Array, check_tensors

_DTYPES = {"FLOAT": "float32", "HALF": "float16", "INT32": "int32", "INT64": "int64", "UINT8": "uint8"}
_POISON = 0x5A
_TOLERANCE = 1e-3  # kernels may add in another order from run to run; a wrong graph is off by far more


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
        self._logger = make_logger(trt.module, self.log)
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
        if not self._context.set_tensor_address(name, int(pointer)):
            raise self.failed(f"{self.trt} does not take an address for {name} of {self._shown}.")

    def enqueue(self, stream: int) -> bool:
        """Enqueue the engine in a stream; False when TensorRT refuses."""
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


class DeviceBuffers:
    """The memory of one session: device and page-locked host memory of every tensor.

    *Pinned*: each tensor has device memory and page-locked host memory, and is copied between them. *Mapped*: the
    page-locked memory is the tensor, and the device reads and writes it where it is; on a Jetson, whose CPU and GPU
    share one memory, that saves the copies. Which is faster depends on the board, so it is measured there.

    Everything is allocated at once, zeroed, and freed at once.

    Args:
        cuda: the device; its context is current.
        specs: tensors by name.
        mapped: see above.
        stream: in which the memory is zeroed.
        shown: whose memory it is, for a message.

    Raises:
        MachineError: not enough memory; what was taken is given back.
    """

    def __init__(self, cuda: Cuda, specs: Mapping[str, TensorSpec], mapped: bool, stream: int, shown: str) -> None:
        self.mapped = mapped
        self.host: dict[str, Array] = {}  # shaped views of the page-locked memory
        self.bytes: dict[str, Array] = {}  # the same, uint8 [size]
        self.pointers: dict[str, int] = {}
        self.sizes = {name: int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize for name, spec in specs.items()}
        self._cuda = cuda
        self._blocks: list[HostBlock] = []
        needed = sum(self.sizes.values()) * (1 if mapped else 2)
        try:
            for name, spec in specs.items():
                block = cuda.alloc_host(self.sizes[name], mapped=mapped)
                self._blocks.append(block)
                block.array[:] = 0
                self.bytes[name] = block.array
                self.host[name] = block.array.view(spec.dtype).reshape(spec.shape)
                if mapped:
                    self.pointers[name] = block.device_pointer
                else:
                    self.pointers[name] = cuda.alloc(self.sizes[name])
                    cuda.fill(self.pointers[name], 0, self.sizes[name], stream)
            cuda.synchronize(stream)
        except CudaError as fault:
            error: LogoformerError = explain(fault, cuda, f"opening {shown}", needed)
            self.close()
            raise error from fault

    def close(self) -> None:
        """Free the memory, which makes `host` arrays invalid; a second call does nothing."""
        for pointer in () if self.mapped else self.pointers.values():
            with contextlib.suppress(CudaError):  # a device that is lost takes nothing back
                self._cuda.free(pointer)
        for block in self._blocks:
            with contextlib.suppress(CudaError):
                self._cuda.free_host(block)
        self.host, self.bytes, self.pointers, self._blocks = {}, {}, {}, []


def capture_checked(
    cuda: Cuda, engine: TrtEngine, buffers: DeviceBuffers, stream: int, run: Callable[[int | None], None]
) -> tuple[int | None, str]:
    """CUDA graph capture with a checked replay.

    A graph can be empty, or have baked in what must not be: then it launches without an error and leaves the old answer
    standing. So two different inputs are answered plainly and by a replay, with the output poisoned before the replay.
    Every input and output is copied by `run`.

    Args:
        cuda: the device.
        engine: after a plain warm-up.
        buffers: its tensors.
        stream: idle.
        run: one whole run, by a graph or plainly.

    Returns:
        (graph, ''), or (None, why there is none).

    Raises:
        CudaError: a sticky error.
    """
    if not cuda.has_graphs:
        return None, f"{cuda.name} has no CUDA graphs (cuda-python has)"
    if not engine.capturable(stream):
        return None, f"{engine.trt} says that it cannot be captured"
    graph = None
    try:
        graph, nodes = cuda.capture(stream, lambda: engine.enqueue(stream))
        reason = _compare(cuda, engine, buffers, stream, run, graph) if nodes else "the capture was empty"
    except CudaError as fault:
        if fault.sticky:
            raise
        reason = f"the capture failed ({fault})"
        cuda.synchronize(stream)  # copies of a replay that did not start may still be under way
    if reason and graph is not None:
        cuda.free_graph(graph)
    return (None, reason) if reason else (graph, "")


def _compare(
    cuda: Cuda,
    engine: TrtEngine,
    buffers: DeviceBuffers,
    stream: int,
    run: Callable[[int | None], None],
    graph: int,
) -> str:
    alike = functools.partial(np.allclose, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)
    plain = []
    for seed in range(2):
        for name in engine.inputs:
            _fill(buffers.host[name], seed)
        run(None)
        plain.append({name: buffers.host[name].copy() for name in engine.outputs})
        for name in engine.outputs:
            cuda.fill(buffers.pointers[name], _POISON, buffers.sizes[name], stream)
        run(graph)
        wrong = [name for name in engine.outputs if not alike(buffers.host[name], plain[seed][name])]
        if wrong:
            return f"a replay answers otherwise than a plain run in {', '.join(wrong)}"
    for name in engine.inputs:
        buffers.host[name][...] = 0
    if all(np.array_equal(plain[0][name], plain[1][name], equal_nan=True) for name in engine.outputs):
        return "two inputs gave one answer, so a comparison proves nothing"
    return ""


def _fill(array: Array, seed: int) -> None:
    """Noise; an integer input holds indices, of which 0 and 1 are always valid."""
    rng = np.random.default_rng(seed)
    if array.dtype.kind == "f":
        array[...] = rng.standard_normal(array.shape)
    elif array.dtype == np.uint8:
        array[...] = rng.integers(0, 256, array.shape)
    else:
        array[...] = seed
