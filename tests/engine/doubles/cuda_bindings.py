"""`cuda.bindings.runtime` as a face of a `Gpu`: tuples `(error, value)`, handles that are objects, real names only."""

from __future__ import annotations

import types
from typing import Any

from .gpu import Failure, Gpu
from .listed import ListedModule, make_enum, read_list


class Handle:
    """A cudaStream_t and its like: an object with a number inside."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __int__(self) -> int:
        return self._number


def make_modules(gpu: Gpu) -> dict[str, types.ModuleType]:
    """What `sys.modules` must hold."""
    listed = read_list("cuda-bindings")
    names = {*listed["functions"], *listed["enums"], *listed["constants"]}
    runtime = ListedModule("cuda.bindings.runtime", names)
    for name, members in listed["enums"].items():
        setattr(runtime, name, make_enum(name, members))
    for name, value in listed["constants"].items():
        setattr(runtime, name, value)
    calls = _Calls(gpu, runtime)
    for name in (name for name in vars(_Calls) if name.startswith("cuda")):
        setattr(runtime, name, _checked(runtime, name, listed["functions"][name], getattr(calls, name)))
    bindings, cuda = types.ModuleType("cuda.bindings"), types.ModuleType("cuda")
    bindings.runtime, cuda.bindings = runtime, bindings  # type: ignore[attr-defined]
    return {"cuda": cuda, "cuda.bindings": bindings, "cuda.bindings.runtime": runtime}


def _checked(runtime: Any, name: str, listed: list[str], act: Any) -> Any:
    errors = runtime.cudaError_t
    required = [item for item in listed if not item.endswith("=")]

    def call(*arguments: Any) -> tuple[Any, ...]:
        if not len(required) <= len(arguments) <= len(listed):
            raise TypeError(f"{name}() takes {len(required)} to {len(listed)} arguments, {len(arguments)} were given")
        for item, value in zip(listed, arguments, strict=False):
            enum = item.rstrip("=").partition(":")[2]
            if enum and not isinstance(value, getattr(runtime, enum)):
                raise TypeError(f"{name}(): {item} is given as {type(value).__name__}")
        plain = [int(value) if isinstance(value, Handle) else value for value in arguments]
        if not all(isinstance(value, int) for value in plain):
            raise TypeError(f"{name}(): {[type(value).__name__ for value in plain]}")
        try:
            answer = act(*plain)
        except Failure as failure:
            return (errors(failure.code), *([None] * _VALUES.get(name, 1)))
        if answer is None:
            return (errors(0),)
        return (errors(0), *answer) if isinstance(answer, tuple) else (errors(0), answer)

    return call


_VALUES = {"cudaMemGetInfo": 2, "cudaGraphGetNodes": 2}  # values behind the error, where it is not one


class _Calls:
    """The calls that are acted out; their names are cuda-bindings' own."""

    def __init__(self, gpu: Gpu, runtime: Any) -> None:
        self._gpu, self._runtime, self._device = gpu, runtime, 0

    # The device
    def cudaRuntimeGetVersion(self) -> int:
        return 13050

    def cudaGetDeviceCount(self) -> int:
        if not self._gpu.count:
            raise Failure(100)  # cudaErrorNoDevice
        return self._gpu.count

    def cudaGetDevice(self) -> int:
        return self._device

    def cudaSetDevice(self, device: int) -> None:
        self._gpu.enter("set_device")
        self._device = device

    def cudaDeviceGetAttribute(self, attribute: int, device: int) -> int:
        kinds = self._runtime.cudaDeviceAttr
        digits = self._gpu.sm[2:]
        return {
            kinds.cudaDevAttrComputeCapabilityMajor: int(digits[:-1]),
            kinds.cudaDevAttrComputeCapabilityMinor: int(digits[-1]),
            kinds.cudaDevAttrIntegrated: int(self._gpu.integrated),
        }[kinds(attribute)]

    def cudaGetErrorString(self, error: int) -> bytes:
        return f"error {int(error)}".encode()

    def cudaDeviceSynchronize(self) -> None:
        self._gpu.device_synchronize()

    # Memory
    def cudaMemGetInfo(self) -> tuple[int, int]:
        return self._gpu.free_bytes(), self._gpu.total

    def cudaPointerGetAttributes(self, pointer: int) -> Any:
        kinds = self._runtime.cudaMemoryType
        inside = [b for b in self._gpu.blocks if b.base <= pointer < b.base + b.data.nbytes]
        kind = {"device": kinds.cudaMemoryTypeDevice, "pinned": kinds.cudaMemoryTypeHost}
        found = kind.get(inside[0].kind, kinds.cudaMemoryTypeHost) if inside else kinds.cudaMemoryTypeUnregistered
        return types.SimpleNamespace(type=found, device=self._device)

    def cudaMalloc(self, size: int) -> int:
        return self._gpu.malloc(size)

    def cudaFree(self, pointer: int) -> None:
        self._gpu.release("free", pointer, ("device",))

    def cudaHostAlloc(self, size: int, flags: int) -> int:
        mapped = bool(flags & self._runtime.cudaHostAllocMapped)
        return int(self._gpu.host_alloc(size, mapped).data.ctypes.data)

    def cudaHostGetDevicePointer(self, pointer: int, flags: int) -> int:
        return next(b.base for b in self._gpu.blocks if b.data.ctypes.data == pointer and b.kind == "mapped")

    def cudaFreeHost(self, pointer: int) -> None:
        self._gpu.release("free_host", pointer, ("pinned", "mapped"))

    # Streams and events
    def cudaStreamCreateWithFlags(self, flags: int) -> Handle:
        if flags != self._runtime.cudaStreamNonBlocking:
            self._gpu.blame("a stream that waits for the default stream")
        return Handle(self._gpu.stream_create())

    def cudaStreamDestroy(self, stream: int) -> None:
        self._gpu.stream_destroy(stream)

    def cudaStreamSynchronize(self, stream: int) -> None:
        self._gpu.synchronize(stream)

    def cudaEventCreateWithFlags(self, flags: int) -> Handle:
        return Handle(self._gpu.event_create())

    def cudaEventDestroy(self, event: int) -> None:
        self._gpu.event_destroy(event)

    def cudaEventRecord(self, event: int, stream: int) -> None:
        self._gpu.record(event, stream)

    def cudaStreamWaitEvent(self, stream: int, event: int, flags: int) -> None:
        self._gpu.wait(stream, event)

    def cudaEventSynchronize(self, event: int) -> None:
        self._gpu.event_synchronize(event)

    # Copies
    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> None:
        kinds = self._runtime.cudaMemcpyKind
        if kind == kinds.cudaMemcpyHostToDevice:
            self._gpu.to_device(to, source, size, stream)
        elif kind == kinds.cudaMemcpyDeviceToHost:
            self._gpu.to_host(to, source, size, stream)
        else:
            self._gpu.on_device(to, source, size, stream)

    def cudaMemsetAsync(self, pointer: int, value: int, size: int, stream: int) -> None:
        self._gpu.fill(pointer, value, size, stream)

    # Graphs
    def cudaStreamBeginCapture(self, stream: int, mode: int) -> None:
        wanted = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._gpu.begin_capture(stream, mode == wanted)

    def cudaStreamEndCapture(self, stream: int) -> Handle:
        return Handle(self._gpu.end_capture(stream))

    def cudaGraphGetNodes(self, graph: int, count: int = 0) -> tuple[list[Handle], int]:
        return [], len(self._gpu.graphs[graph])

    def cudaGraphInstantiate(self, graph: int, flags: int) -> Handle:
        return Handle(self._gpu.instantiate(graph))

    def cudaGraphLaunch(self, executable: int, stream: int) -> None:
        self._gpu.launch(executable, stream)

    def cudaGraphExecDestroy(self, executable: int) -> None:
        self._gpu.enter("destroy")
        del self._gpu.executables[executable]

    def cudaGraphDestroy(self, graph: int) -> None:
        self._gpu.enter("destroy")
        del self._gpu.graphs[graph]
