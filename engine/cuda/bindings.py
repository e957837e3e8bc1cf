"""The CUDA layer on cuda-python (`cuda.bindings`): runtime API calls with checked results.

The runtime API uses each device's primary context by itself. Wheels exist for x86 and aarch64, and it has CUDA graphs.
The package is optional: `rt` is bound when a device is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...errors import needing
from .layer import CudaError, HostBlock, no_device

if TYPE_CHECKING:
    from cuda.bindings import runtime as rt


class CudaPython:
    """One device; see `layer.Cuda`.

    Raises:
        MachineError: cuda-python is not installed, or there is no such card.
    """

    has_graphs = True

    def __init__(self, device: int) -> None:
        global rt
        with needing("cuda.bindings", "cuda12", "The CUDA layer cuda-python"):
            from cuda.bindings import runtime as rt
        self.device, self.lost = device, ""
        self._before: list[int] = []
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
        except CudaError as fault:
            raise no_device(device, "cuda-python", str(fault)) from fault

    def _attribute(self, attribute: Any) -> int:
        return int(_take("cudaDeviceGetAttribute", rt.cudaDeviceGetAttribute(attribute, self.device)))

    def __enter__(self) -> object:
        before = int(_take("cudaGetDevice", rt.cudaGetDevice()))
        if before != self.device:
            _take("cudaSetDevice", rt.cudaSetDevice(self.device))
        self._before.append(before)
        return self

    def __exit__(self, *exception: object) -> None:
        before = self._before.pop()
        if before != self.device:
            rt.cudaSetDevice(before)

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

    def alloc_host(self, size: int, *, mapped: bool) -> HostBlock:
        import ctypes

        flags = rt.cudaHostAllocMapped if mapped else rt.cudaHostAllocDefault
        pointer = int(_take("cudaHostAlloc", rt.cudaHostAlloc(size, flags)))
        array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))
        seen = _take("cudaHostGetDevicePointer", rt.cudaHostGetDevicePointer(pointer, 0)) if mapped else 0
        return HostBlock(array, int(seen), pointer)

    def free_host(self, block: HostBlock) -> None:
        _take("cudaFreeHost", rt.cudaFreeHost(block.handle))

    # --------------------------------------------------------------------------------------------- streams and events
    def stream(self) -> int:
        return int(_take("cudaStreamCreateWithFlags", rt.cudaStreamCreateWithFlags(rt.cudaStreamNonBlocking)))

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

    def event(self) -> int:
        return int(_take("cudaEventCreateWithFlags", rt.cudaEventCreateWithFlags(rt.cudaEventDisableTiming)))

    def free_event(self, event: int) -> None:
        _take("cudaEventDestroy", rt.cudaEventDestroy(event))

    def record(self, event: int, stream: int) -> None:
        _take("cudaEventRecord", rt.cudaEventRecord(event, stream))

    def wait(self, stream: int, event: int) -> None:
        _take("cudaStreamWaitEvent", rt.cudaStreamWaitEvent(stream, event, 0))

    # ---------------------------------------------------------------------------------------------------------- copies
    def to_device(self, pointer: int, array: npt.NDArray[np.uint8], stream: int) -> None:
        kind = rt.cudaMemcpyKind.cudaMemcpyHostToDevice
        _take("cudaMemcpyAsync", rt.cudaMemcpyAsync(pointer, array.ctypes.data, array.nbytes, kind, stream))

    def to_host(self, array: npt.NDArray[np.uint8], pointer: int, stream: int) -> None:
        kind = rt.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _take("cudaMemcpyAsync", rt.cudaMemcpyAsync(array.ctypes.data, pointer, array.nbytes, kind, stream))

    def on_device(self, to: int, source: int, size: int, stream: int) -> None:
        kind = rt.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        _take("cudaMemcpyAsync", rt.cudaMemcpyAsync(to, source, size, kind, stream))

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
        _take("cudaGraphLaunch", rt.cudaGraphLaunch(self._graphs[graph][0], stream))

    def free_graph(self, graph: int) -> None:
        executable, source = self._graphs.pop(graph)
        _take("cudaGraphExecDestroy", rt.cudaGraphExecDestroy(executable))
        _take("cudaGraphDestroy", rt.cudaGraphDestroy(source))


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
