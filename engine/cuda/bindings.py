"""The CUDA layer on cuda-python (`cuda.bindings`): runtime API calls with checked results.

The driver API pushes and pops the device's primary context: `cudaSetDevice`, which would do for one card, creates a
context on the card that it puts back too, with hundreds of megabytes that nobody asked for. Wheels exist for x86 and
aarch64, and there are CUDA graphs. The package is optional: `cu` and `rt` are bound when a device is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import needing
from .layer import CudaError, HostBlock, no_device
from .queue import Queue

if TYPE_CHECKING:
    from cuda.bindings import driver as cu
    from cuda.bindings import runtime as rt


class CudaPython:
    """One device; see `layer.Cuda`.

    Raises:
        MachineError: cuda-python is not installed, or there is no such card.
    """

    has_graphs = True

    def __init__(self, device: int, wait: str = "auto", priority: str = "normal") -> None:
        global cu, rt
        with needing("cuda.bindings", "cuda12", "The CUDA layer cuda-python"):
            from cuda.bindings import driver as cu
            from cuda.bindings import runtime as rt
        self.device, self.lost = device, ""
        self.queue = Queue(self, wait, priority)
        self._context: Any = None  # the primary one, once it is needed; kept until the process ends, as others use it
        self._not_ready = rt.cudaError_t.cudaErrorNotReady
        # What a frame's way calls, bound once.
        self._push, self._pop = cu.cuCtxPushCurrent, cu.cuCtxPopCurrent
        self._copy, self._launch = rt.cudaMemcpyAsync, rt.cudaGraphLaunch
        self._record, self._query = rt.cudaEventRecord, rt.cudaEventQuery
        self._default = rt.cudaMemcpyKind.cudaMemcpyDefault  # unified addresses say on which side memory lies
        self._graphs: dict[int, tuple[Any, Any]] = {}  # executable graph -> itself and what it was made from
        try:
            version = _take("cudaRuntimeGetVersion", rt.cudaRuntimeGetVersion())
            self.name = f"cuda-python (CUDA {version // 1000}.{version % 1000 // 10})"
            count = _take("cudaGetDeviceCount", rt.cudaGetDeviceCount())
            if device >= count:
                raise no_device(device, self.name, f"there are {count}")
            attribute = rt.cudaDeviceAttr
            major = self._attribute(attribute.cudaDevAttrComputeCapabilityMajor)
            minor = self._attribute(attribute.cudaDevAttrComputeCapabilityMinor)
            self.compute_capability = f"sm{major}{minor}"
            self.integrated = bool(self._attribute(attribute.cudaDevAttrIntegrated))
            managed = self.integrated and self._attribute(attribute.cudaDevAttrConcurrentManagedAccess)
            self.managed = bool(managed)
        except CudaError as fault:
            raise no_device(device, "cuda-python", str(fault)) from fault

    def _attribute(self, attribute: Any) -> int:
        return int(_take("cudaDeviceGetAttribute", rt.cudaDeviceGetAttribute(attribute, self.device)))

    def __enter__(self) -> object:
        if self._context is None:
            _said("cuInit", cu.cuInit(0))
            card = _said("cuDeviceGet", cu.cuDeviceGet(self.device))
            self._context = _said("cuDevicePrimaryCtxRetain", cu.cuDevicePrimaryCtxRetain(card))
        answer = self._push(self._context)
        if answer[0]:
            _said("cuCtxPushCurrent", answer)
        return self

    def __exit__(self, *exception: object) -> None:
        self._pop()  # nothing to be done about an error: the call's own is on its way

    # ---------------------------------------------------------------------------------------------------------- memory
    def memory(self) -> tuple[int, int]:
        error, free, total = rt.cudaMemGetInfo()
        return (int(free), int(total)) if int(error) == 0 else (0, 0)

    def owns(self, pointer: int, size: int) -> bool:
        error, found = rt.cudaPointerGetAttributes(pointer)
        if int(error) != 0:
            return False
        kinds = rt.cudaMemoryType
        on_device = found.type in (kinds.cudaMemoryTypeDevice, kinds.cudaMemoryTypeManaged)
        return on_device and int(found.device) == self.device

    def alloc(self, size: int) -> int:
        return int(_take("cudaMalloc", rt.cudaMalloc(size)))

    def free(self, pointer: int) -> None:
        _take("cudaFree", rt.cudaFree(pointer))

    def alloc_host(self, size: int, *, mapped: bool, managed: bool = False) -> HostBlock:
        import ctypes

        if managed:
            pointer = int(_take("cudaMallocManaged", rt.cudaMallocManaged(size, rt.cudaMemAttachGlobal)))
            array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))
            return HostBlock(array, pointer, pointer, managed=True)
        flags = rt.cudaHostAllocMapped if mapped else rt.cudaHostAllocDefault
        pointer = int(_take("cudaHostAlloc", rt.cudaHostAlloc(size, flags)))
        array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))
        seen = _take("cudaHostGetDevicePointer", rt.cudaHostGetDevicePointer(pointer, 0)) if mapped else 0
        return HostBlock(array, int(seen), pointer)

    def free_host(self, block: HostBlock) -> None:
        if block.managed:
            self.free(block.handle)
        else:
            _take("cudaFreeHost", rt.cudaFreeHost(block.handle))

    # --------------------------------------------------------------------------------------------- streams and events
    def stream(self, *, first: bool = False) -> int:
        if not first:
            return int(_take("cudaStreamCreateWithFlags", rt.cudaStreamCreateWithFlags(rt.cudaStreamNonBlocking)))
        error, _, greatest = rt.cudaDeviceGetStreamPriorityRange()
        _take("cudaDeviceGetStreamPriorityRange", (error,))
        created = rt.cudaStreamCreateWithPriority(rt.cudaStreamNonBlocking, greatest)
        return int(_take("cudaStreamCreateWithPriority", created))

    def free_stream(self, stream: int) -> None:
        _take("cudaStreamDestroy", rt.cudaStreamDestroy(stream))

    def synchronize(self, stream: int) -> None:
        _take("cudaStreamSynchronize", rt.cudaStreamSynchronize(stream))

    def follow(self, stream: int, foreign: int) -> None:
        if foreign == 0:
            _take("cudaDeviceSynchronize", rt.cudaDeviceSynchronize())
            return
        event = self.event()
        try:
            self.record(event, foreign)
            self.wait(stream, event)
        finally:
            self.free_event(event)  # the driver keeps it until the wait is over

    def event(self, *, blocking: bool = False, timing: bool = False) -> int:
        flags = (rt.cudaEventBlockingSync if blocking else 0) | (0 if timing else rt.cudaEventDisableTiming)
        return int(_take("cudaEventCreateWithFlags", rt.cudaEventCreateWithFlags(flags)))

    def free_event(self, event: int) -> None:
        _take("cudaEventDestroy", rt.cudaEventDestroy(event))

    def record(self, event: int, stream: int) -> None:
        error = self._record(event, stream)[0]
        if error:
            _take("cudaEventRecord", (error,))

    def query(self, event: int) -> bool:
        error = self._query(event)[0]
        if not error:
            return True
        if error != self._not_ready:
            _take("cudaEventQuery", (error,))
        return False

    def elapsed_ms(self, start: int, end: int) -> float:
        return float(_take("cudaEventElapsedTime", rt.cudaEventElapsedTime(start, end)))

    def await_event(self, event: int) -> None:
        _take("cudaEventSynchronize", rt.cudaEventSynchronize(event))

    def wait(self, stream: int, event: int) -> None:
        _take("cudaStreamWaitEvent", rt.cudaStreamWaitEvent(stream, event, 0))

    # ---------------------------------------------------------------------------------------------------------- copies
    def to_device(self, pointer: int, block: HostBlock, size: int, stream: int) -> None:
        _take("cudaMemcpyAsync", self._copy(pointer, block.handle, size, self._default, stream))

    def to_host(self, block: HostBlock, pointer: int, size: int, stream: int) -> None:
        _take("cudaMemcpyAsync", self._copy(block.handle, pointer, size, self._default, stream))

    def on_device(self, to: int, source: int, size: int, stream: int) -> None:
        error = self._copy(to, source, size, self._default, stream)[0]
        if error:
            _take("cudaMemcpyAsync", (error,))

    def fill(self, pointer: int, value: int, size: int, stream: int) -> None:
        _take("cudaMemsetAsync", rt.cudaMemsetAsync(pointer, value, size, stream))

    # ---------------------------------------------------------------------------------------------------------- graphs
    def capture(self, stream: int, body: Callable[[], bool]) -> tuple[int, int]:
        # Thread-local: a global capture would make allocations of other threads (a camera's, torch's) fail.
        mode = rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _take("cudaStreamBeginCapture", rt.cudaStreamBeginCapture(stream, mode))
        try:
            enqueued = body()
        finally:
            error, graph = rt.cudaStreamEndCapture(stream)  # always: a stream left in capture is of no use any more
        try:
            _take("cudaStreamEndCapture", (error,))
            if not enqueued:
                raise CudaError("execute_async_v3", "it refused to be captured")
            nodes = int(rt.cudaGraphGetNodes(graph)[-1])
            executable = _take("cudaGraphInstantiate", rt.cudaGraphInstantiate(graph, 0))
        except CudaError:
            if graph is not None and int(graph) != 0:
                rt.cudaGraphDestroy(graph)
            raise
        key = int(executable)
        self._graphs[key] = (executable, graph)
        return key, nodes

    def launch(self, graph: int, stream: int) -> None:
        error = self._launch(self._graphs[graph][0], stream)[0]
        if error:
            _take("cudaGraphLaunch", (error,))

    def free_graph(self, graph: int) -> None:
        executable, source = self._graphs.pop(graph)
        _take("cudaGraphExecDestroy", rt.cudaGraphExecDestroy(executable))
        _take("cudaGraphDestroy", rt.cudaGraphDestroy(source))


def _said(call: str, answer: Any) -> Any:
    """`_take` for a call of the driver API, whose texts are the same."""
    error = answer[0]
    if int(error) != 0:
        text = cu.cuGetErrorString(error)[1]
        raise CudaError(call, f"{error.name} ({text.decode() if isinstance(text, bytes) else text})")
    return answer[1] if len(answer) > 1 else None


def _take(call: str, answer: Any) -> Any:
    """The value of a call's answer `(error, value)`.

    Raises:
        CudaError: the error is not cudaSuccess.
    """
    error = answer[0]
    if int(error) != 0:
        text = rt.cudaGetErrorString(error)[1]
        raise CudaError(call, f"{error.name} ({text.decode() if isinstance(text, bytes) else text})")
    return answer[1] if len(answer) > 1 else None
