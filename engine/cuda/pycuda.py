"""The CUDA layer on pycuda: the primary context only, current just while a session works.

`pycuda.autoinit` and `make_context` make a context of their own, in which the handles of torch, ONNX Runtime and
TensorRT mean nothing ("invalid resource handle"). Here the primary context is retained once a device and kept until the
process ends: pycuda's `detach` would leave it on the driver's stack of contexts. pycuda has no CUDA graphs, and no way
to wait for another library's stream but to wait for the whole device.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from ...errors import MachineError, missing_package
from .layer import CudaError, HostBlock, no_device
from .queue import Queue

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING; pycuda has no name for it
_CONTEXTS: weakref.WeakKeyDictionary[Any, dict[int, Any]] = weakref.WeakKeyDictionary()


class PyCuda:
    """One device; see `layer.Cuda`.

    Raises:
        MachineError: pycuda is not installed or does not import, or there is no such card; or a priority is asked for.
    """

    has_graphs = False

    def __init__(self, device: int, wait: str = "auto", priority: str = "normal") -> None:
        if priority != "normal":
            raise MachineError(
                f"pycuda makes no streams of {priority} priority.", next="pip install 'logoformer[cuda12]'"
            )
        try:
            import pycuda
            import pycuda.driver as drv
        except ModuleNotFoundError as error:
            raise missing_package("pycuda", "pycuda", "The CUDA layer pycuda") from error
        except (ImportError, OSError) as error:
            raise MachineError(
                f"The Python package pycuda is installed but does not import: {error}",
                cause="no NVIDIA driver, or a pycuda built for another CUDA",
                next="python3 -c 'import pycuda.driver'",
            ) from error
        self._drv, self.device, self.lost = drv, device, ""
        self.queue = Queue(self, wait)
        self.name = f"pycuda {pycuda.VERSION_TEXT}"
        try:
            drv.init()
            count = drv.Device.count()
            if device >= count:
                raise no_device(device, self.name, f"there are {count}")
            card = drv.Device(device)
            contexts = _CONTEXTS.setdefault(drv, {})
            if device not in contexts:
                contexts[device] = card.retain_primary_context()
            attribute = drv.device_attribute
            major = card.get_attribute(attribute.COMPUTE_CAPABILITY_MAJOR)
            minor = card.get_attribute(attribute.COMPUTE_CAPABILITY_MINOR)
            self.integrated = bool(card.get_attribute(attribute.INTEGRATED))
            concurrent = attribute.CONCURRENT_MANAGED_ACCESS
            self.managed = self.integrated and bool(card.get_attribute(concurrent))
        except drv.Error as error:
            raise no_device(device, self.name, str(error)) from error
        self.compute_capability = f"sm{major}{minor}"
        self._context = contexts[device]
        # pycuda frees with the Python object; the integers are what others know it by.
        self._memory: dict[int, Any] = {}
        self._streams: dict[int, Any] = {}
        self._events: dict[int, Any] = {}
        self._next_event = 1

    def _call(self, name: str, *arguments: Any) -> Any:
        return self._guarded(name, getattr(self._drv, name), *arguments)

    def _guarded(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._drv.Error as error:
            raise CudaError(f"pycuda {name}", str(error)) from error

    def __enter__(self) -> object:
        self._guarded("Context.push", self._context.push)
        return self

    def __exit__(self, *exception: object) -> None:
        self._guarded("Context.pop", self._drv.Context.pop)

    # ---------------------------------------------------------------------------------------------------------- memory
    def memory(self) -> tuple[int, int]:
        try:
            free, total = self._drv.mem_get_info()
        except self._drv.Error:
            return 0, 0
        return int(free), int(total)

    def owns(self, pointer: int, size: int) -> bool:
        try:
            base, length = self._drv.mem_get_address_range(pointer)
        except self._drv.Error:
            return False
        return int(base) <= pointer and pointer + size <= int(base) + int(length)

    def alloc(self, size: int) -> int:
        memory = self._call("mem_alloc", size)
        self._memory[int(memory)] = memory
        return int(memory)

    def free(self, pointer: int) -> None:
        self._guarded("DeviceAllocation.free", self._memory.pop(pointer).free)

    def alloc_host(self, size: int, *, mapped: bool, managed: bool = False) -> HostBlock:
        if managed:
            array = self._call("managed_empty", size, np.uint8, "C", int(self._drv.mem_attach_flags.GLOBAL))
            allocation = array.base
            seen = self._guarded("ManagedAllocation.get_device_pointer", allocation.get_device_pointer)
            return HostBlock(array, int(seen), allocation, managed=True)
        flags = self._drv.host_alloc_flags.DEVICEMAP if mapped else 0
        array = self._call("pagelocked_empty", size, np.uint8, "C", flags)
        allocation = array.base
        seen = self._guarded("HostPointer.get_device_pointer", allocation.get_device_pointer) if mapped else 0
        return HostBlock(array, int(seen), allocation)

    def free_host(self, block: HostBlock) -> None:
        self._guarded("PagelockedHostAllocation.free", block.handle.free)

    # --------------------------------------------------------------------------------------------- streams and events
    def stream(self, *, first: bool = False) -> int:
        stream = self._call("Stream", _NON_BLOCKING)
        self._streams[int(stream.handle)] = stream
        return int(stream.handle)

    def free_stream(self, stream: int) -> None:
        del self._streams[stream]

    def synchronize(self, stream: int) -> None:
        self._guarded("Stream.synchronize", self._streams[stream].synchronize)

    def follow(self, stream: int, foreign: int) -> None:
        self._guarded("Context.synchronize", self._drv.Context.synchronize)

    def event(self, *, blocking: bool = False, timing: bool = False) -> int:
        flags = self._drv.event_flags
        wanted = (int(flags.BLOCKING_SYNC) if blocking else 0) | (0 if timing else int(flags.DISABLE_TIMING))
        event = self._call("Event", wanted)
        key, self._next_event = self._next_event, self._next_event + 1
        self._events[key] = event
        return key

    def free_event(self, event: int) -> None:
        del self._events[event]

    def record(self, event: int, stream: int) -> None:
        self._guarded("Event.record", self._events[event].record, self._streams[stream])

    def query(self, event: int) -> bool:
        return bool(self._guarded("Event.query", self._events[event].query))

    def elapsed_ms(self, start: int, end: int) -> float:
        return float(self._guarded("Event.time_since", self._events[end].time_since, self._events[start]))

    def await_event(self, event: int) -> None:
        self._guarded("Event.synchronize", self._events[event].synchronize)

    def wait(self, stream: int, event: int) -> None:
        self._guarded("Stream.wait_for_event", self._streams[stream].wait_for_event, self._events[event])

    # ---------------------------------------------------------------------------------------------------------- copies
    def to_device(self, pointer: int, block: HostBlock, size: int, stream: int) -> None:
        self._call("memcpy_htod_async", pointer, block.array[:size], self._streams[stream])

    def to_host(self, block: HostBlock, pointer: int, size: int, stream: int) -> None:
        self._call("memcpy_dtoh_async", block.array[:size], pointer, self._streams[stream])

    def on_device(self, to: int, source: int, size: int, stream: int) -> None:
        self._call("memcpy_dtod_async", to, source, size, self._streams[stream])

    def fill(self, pointer: int, value: int, size: int, stream: int) -> None:
        self._call("memset_d8_async", pointer, value, size, self._streams[stream])

    # ---------------------------------------------------------------------------------------------------------- graphs
    def _refuse(self, *arguments: Any, **named: Any) -> NoReturn:
        raise CudaError("CUDA graphs", "pycuda has none")

    capture = launch = free_graph = _refuse
