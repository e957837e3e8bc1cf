"""`cuda.bindings.runtime`, and contexts of `driver`, as a face of a `Gpu`.

Tuples `(error, value)`, handles that are objects, real names only.
"""

from __future__ import annotations

import types
from typing import Any

from .gpu import NOT_READY, Failure, Gpu
from .listed import ListedModule, make_enum, read_list
from .pycuda import TEXTS


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
        act = getattr(calls, name)
        setattr(runtime, name, _checked(runtime, runtime.cudaError_t, name, listed["functions"][name], act))
    below = listed["driver"]
    driver = ListedModule("cuda.bindings.driver", {*below["functions"], *below["enums"]})
    driver.CUresult = make_enum("CUresult", below["enums"]["CUresult"])
    contexts = _Contexts(gpu)
    for name in (name for name in vars(_Contexts) if name.startswith("cu")):
        act = getattr(contexts, name)
        setattr(driver, name, _checked(driver, driver.CUresult, name, below["functions"][name], act))
    bindings, cuda = types.ModuleType("cuda.bindings"), types.ModuleType("cuda")
    bindings.runtime, bindings.driver, cuda.bindings = runtime, driver, bindings  # type: ignore[attr-defined]
    names = {"cuda": cuda, "cuda.bindings": bindings}
    return {**names, "cuda.bindings.runtime": runtime, "cuda.bindings.driver": driver}


def _checked(runtime: Any, errors: Any, name: str, listed: list[str], act: Any) -> Any:
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


_CONTEXTS = 0xC0DE00  # handles of primary contexts: this, and the card's number
_VALUES = {
    "cudaMemGetInfo": 2,
    "cudaGraphGetNodes": 2,
    "cudaDeviceGetStreamPriorityRange": 2,
}  # values behind the error, where it is not one


class _Contexts:
    """The calls of the driver API that are acted out."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def cuInit(self, flags: int) -> None:
        return None

    def cuDeviceGet(self, ordinal: int) -> Handle:
        return Handle(ordinal)

    def cuDevicePrimaryCtxRetain(self, device: int) -> Handle:
        self._gpu.retain(device)
        return Handle(_CONTEXTS + device)

    def cuCtxPushCurrent(self, context: int) -> None:
        self._gpu.push(context - _CONTEXTS)

    def cuCtxPopCurrent(self) -> Handle:
        here = self._gpu.here()
        self._gpu.pop()
        return Handle(_CONTEXTS + here)

    def cuGetErrorString(self, error: int) -> bytes:
        return TEXTS.get(int(error), f"error {int(error)}").encode()


class _Calls:
    """The calls that are acted out; their names are cuda-bindings' own."""

    def __init__(self, gpu: Gpu, runtime: Any) -> None:
        self._gpu, self._runtime = gpu, runtime

    # The device
    def cudaRuntimeGetVersion(self) -> int:
        return 13050

    def cudaGetDeviceCount(self) -> int:
        if not self._gpu.count:
            raise Failure(100)  # cudaErrorNoDevice
        return self._gpu.count

    def cudaGetDevice(self) -> int:
        return self._gpu.here()

    def cudaSetDevice(self, device: int) -> None:
        self._gpu.choose(device)

    def cudaDeviceGetAttribute(self, attribute: int, device: int) -> int:
        kinds = self._runtime.cudaDeviceAttr
        digits = self._gpu.sm[2:]
        return {
            kinds.cudaDevAttrComputeCapabilityMajor: int(digits[:-1]),
            kinds.cudaDevAttrComputeCapabilityMinor: int(digits[-1]),
            kinds.cudaDevAttrIntegrated: int(self._gpu.integrated),
            kinds.cudaDevAttrConcurrentManagedAccess: int(self._gpu.concurrent),
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
        return types.SimpleNamespace(type=found, device=inside[0].device if inside else 0)

    def cudaMalloc(self, size: int) -> int:
        return self._gpu.malloc(size)

    def cudaFree(self, pointer: int) -> None:
        self._gpu.release("free", pointer, ("device", "managed"))

    def cudaMallocManaged(self, size: int, flags: int) -> int:
        if flags != self._runtime.cudaMemAttachGlobal:
            self._gpu.blame("managed memory of one stream or of the host alone")
        return self._gpu.host_alloc(size, False, True).base

    def cudaHostAlloc(self, size: int, flags: int) -> int:
        mapped = bool(flags & self._runtime.cudaHostAllocMapped)
        return self._gpu.host_alloc(size, mapped).base

    def cudaHostGetDevicePointer(self, pointer: int, flags: int) -> int:
        return next(b.base for b in self._gpu.blocks if b.base == pointer and b.kind == "mapped")

    def cudaFreeHost(self, pointer: int) -> None:
        self._gpu.release("free_host", pointer, ("pinned", "mapped"))

    # Streams and events
    def cudaStreamCreateWithFlags(self, flags: int) -> Handle:
        if flags != self._runtime.cudaStreamNonBlocking:
            self._gpu.blame("a stream that waits for the default stream")
        return Handle(self._gpu.stream_create())

    def cudaDeviceGetStreamPriorityRange(self) -> tuple[int, int]:
        return 0, -5  # the least, the greatest

    def cudaStreamCreateWithPriority(self, flags: int, priority: int) -> Handle:
        created = self.cudaStreamCreateWithFlags(flags)
        self._gpu.streams[int(created)].priority = priority
        return created

    def cudaStreamDestroy(self, stream: int) -> None:
        self._gpu.stream_destroy(stream)

    def cudaStreamSynchronize(self, stream: int) -> None:
        self._gpu.synchronize(stream)

    def cudaEventCreateWithFlags(self, flags: int) -> Handle:
        self._gpu.calls["blocking_event"] += bool(flags & self._runtime.cudaEventBlockingSync)
        return Handle(self._gpu.event_create(timing=not flags & self._runtime.cudaEventDisableTiming))

    def cudaEventElapsedTime(self, start: int, end: int) -> float:
        return float(self._gpu.elapsed(start, end))

    def cudaEventQuery(self, event: int) -> None:
        if not self._gpu.event_query(event):
            raise Failure(NOT_READY)

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
        sides = ["Host" if self._gpu.side(pointer, size) != "device" else "Device" for pointer in (source, to)]
        if kind not in (kinds.cudaMemcpyDefault, kinds[f"cudaMemcpy{sides[0]}To{sides[1]}"]):
            self._gpu.blame(f"a copy from {sides[0]} to {sides[1]} of the kind {kinds(kind).name}: undefined behaviour")
        self._gpu.copy(to, source, size, stream)

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
