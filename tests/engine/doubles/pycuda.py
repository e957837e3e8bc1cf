"""`pycuda` and `pycuda.driver` as faces of a `Gpu`: objects free with themselves, and a context must be current."""

from __future__ import annotations

import contextlib
import types
from typing import Any

import numpy as np

from .gpu import ILLEGAL_ADDRESS, OUT_OF_MEMORY, Failure, Gpu
from .listed import ListedModule, make_enum, read_list

# cuGetErrorString's texts, of which pycuda makes its messages.
TEXTS = {
    1: "invalid argument",
    OUT_OF_MEMORY: "out of memory",
    100: "no CUDA-capable device is detected",
    201: "invalid device context",
    400: "invalid resource handle",
    ILLEGAL_ADDRESS: "an illegal memory access was encountered",
    719: "unspecified launch failure",
}
_FLAGS = {"DISABLE_TIMING": 2, "BLOCKING_SYNC": 1, "DEFAULT": 0, "INTERPROCESS": 4}


def make_modules(gpu: Gpu) -> dict[str, types.ModuleType]:
    """What `sys.modules` must hold."""
    listed = read_list("pycuda")
    gpu.needs_context = True
    driver = ListedModule("pycuda.driver", {*listed["functions"], *listed["classes"], *listed["errors"]})
    driver.Error = type("Error", (Exception,), {})
    for name in set(listed["errors"]) - {"Error"}:
        setattr(driver, name, type(name, (driver.Error,), {}))
    driver.event_flags = make_enum("event_flags", {n: _FLAGS[n] for n in listed["classes"]["event_flags"]})
    attributes = listed["classes"]["device_attribute"]
    driver.device_attribute = make_enum("device_attribute", {name: index for index, name in enumerate(attributes)})
    driver.mem_attach_flags = make_enum("mem_attach_flags", {"GLOBAL": 1, "HOST": 2, "SINGLE": 4})
    driver.host_alloc_flags = types.SimpleNamespace(PORTABLE=1, DEVICEMAP=2, WRITECOMBINED=4)
    for name, cls in _classes(gpu, driver).items():
        extra = {n for n in vars(cls) if not n.startswith("_")} - set(listed["classes"][name])
        assert not extra, f"the real {name} has no {extra}"
        setattr(driver, name, cls)
    for name, function in _functions(gpu, driver).items():
        setattr(driver, name, function)
    package = types.ModuleType("pycuda")
    package.VERSION_TEXT, package.driver = listed["version"], driver  # type: ignore[attr-defined]
    return {"pycuda": package, "pycuda.driver": driver}


class _Translated:
    """Runs a call of the card; its failures become pycuda's exceptions, by pycuda's own rule."""

    def __init__(self, driver: Any, call: str) -> None:
        self._driver, self._call = driver, call

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if isinstance(error, Failure):
            name = {2: "MemoryError", 719: "LaunchError", 702: "LaunchError", 999: "Error", 100: "RuntimeError"}
            cls = getattr(self._driver, name.get(error.code, "LogicError"))
            raise cls(f"{self._call} failed: {TEXTS.get(error.code, 'unknown error')}") from error


def _classes(gpu: Gpu, driver: Any) -> dict[str, type]:
    class Context:
        def __init__(self, device: int) -> None:
            self._device = device

        def push(self) -> None:
            with _Translated(driver, "cuCtxPushCurrent"):
                gpu.push(self._device)

        @staticmethod
        def pop() -> None:
            if not gpu.stack:
                raise driver.LogicError("context::pop failed: invalid device context - cannot pop non-current context")
            gpu.pop()

        @staticmethod
        def synchronize() -> None:
            with _Translated(driver, "cuCtxSynchronize"):
                gpu.device_synchronize()

        def detach(self) -> None:
            gpu.blame("Context.detach leaves a primary context on the driver's stack")

    class Device:
        def __init__(self, number: int) -> None:
            self._number = number

        @staticmethod
        def count() -> int:
            return gpu.count

        def retain_primary_context(self) -> Context:
            gpu.retain(self._number)
            return Context(self._number)

        def make_context(self, flags: int = 0) -> Context:
            gpu.blame("a context that is not the primary one")
            return Context(self._number)

        def get_attribute(self, attribute: Any) -> int:
            digits = gpu.sm[2:]
            values = {
                "COMPUTE_CAPABILITY_MAJOR": int(digits[:-1]),
                "COMPUTE_CAPABILITY_MINOR": int(digits[-1]),
                "INTEGRATED": int(gpu.integrated),
                "CONCURRENT_MANAGED_ACCESS": int(gpu.concurrent),
            }
            return values[attribute.name]

    class Stream:
        def __init__(self, flags: int = 0) -> None:
            if flags != 1:
                gpu.blame("a stream that waits for the default stream")
            with _Translated(driver, "cuStreamCreate"):
                self._handle = gpu.stream_create()

        @property
        def handle(self) -> int:
            return self._handle

        def synchronize(self) -> None:
            with _Translated(driver, "cuStreamSynchronize"):
                gpu.synchronize(self._handle)

        def wait_for_event(self, event: Any) -> None:
            with _Translated(driver, "cuStreamWaitEvent"):
                gpu.wait(self._handle, event._handle)

        def __del__(self) -> None:
            _quietly(gpu.stream_destroy, getattr(self, "_handle", None))

    class Event:
        def __init__(self, flags: int = 0) -> None:
            gpu.calls["blocking_event"] += bool(flags & _FLAGS["BLOCKING_SYNC"])
            with _Translated(driver, "cuEventCreate"):
                self._handle = gpu.event_create(timing=not flags & _FLAGS["DISABLE_TIMING"])

        def record(self, stream: Any = None) -> Event:
            with _Translated(driver, "cuEventRecord"):
                gpu.record(self._handle, stream.handle)
            return self

        def time_since(self, event: Any) -> float:
            with _Translated(driver, "cuEventElapsedTime"):
                return float(gpu.elapsed(event._handle, self._handle))

        def query(self) -> bool:
            with _Translated(driver, "cuEventQuery"):
                return gpu.event_query(self._handle)

        def synchronize(self) -> Event:
            with _Translated(driver, "cuEventSynchronize"):
                gpu.event_synchronize(self._handle)
            return self

        def __del__(self) -> None:
            _quietly(gpu.event_destroy, getattr(self, "_handle", None))

    class DeviceAllocation:
        def __init__(self, pointer: int) -> None:
            self._pointer, self._valid = pointer, True

        def __int__(self) -> int:
            return self._pointer

        __index__ = __int__

        def free(self) -> None:
            with _Translated(driver, "cuMemFree"):
                gpu.release("free", self._pointer, ("device",))
            self._valid = False

        def __del__(self) -> None:
            if self._valid:
                _quietly(lambda pointer: gpu.release("free", pointer, ("device",)), self._pointer)

    class PagelockedHostAllocation:
        def __init__(self, size: int, flags: int) -> None:
            with _Translated(driver, "cuMemHostAlloc"):
                self._block = gpu.host_alloc(size, bool(flags & 2))
            self.__array_interface__ = self._block.data.__array_interface__

        def get_device_pointer(self) -> int:
            return self._block.base

        def free(self) -> None:
            with _Translated(driver, "cuMemFreeHost"):
                gpu.release("free_host", self._block.base, ("pinned", "mapped"))

    class ManagedAllocation:
        def __init__(self, size: int, flags: int) -> None:
            if flags != driver.mem_attach_flags.GLOBAL:
                gpu.blame("managed memory of one stream or of the host alone")
            with _Translated(driver, "cuMemAllocManaged"):
                self._block = gpu.host_alloc(size, False, True)
            self.__array_interface__ = self._block.data.__array_interface__

        def get_device_pointer(self) -> int:
            return self._block.base

        def free(self) -> None:
            with _Translated(driver, "cuMemFree"):
                gpu.release("free", self._block.base, ("managed",))

    return {
        "Context": Context,
        "Device": Device,
        "Stream": Stream,
        "Event": Event,
        "DeviceAllocation": DeviceAllocation,
        "PagelockedHostAllocation": PagelockedHostAllocation,
        "ManagedAllocation": ManagedAllocation,
    }


def _quietly(function: Any, handle: int | None) -> None:
    """A destructor: it makes its context current itself; pycuda prints a warning where this is silent."""
    if handle is not None:
        with contextlib.suppress(Failure):
            function(handle)


def _functions(gpu: Gpu, driver: Any) -> dict[str, Any]:
    def init(flags: int = 0) -> None:
        if not gpu.count:
            with _Translated(driver, "cuInit"):
                raise Failure(100)

    def mem_alloc(size: int) -> Any:
        with _Translated(driver, "cuMemAlloc"):
            return driver.DeviceAllocation(gpu.malloc(size))

    def pagelocked_empty(shape: int, dtype: Any, order: str = "C", mem_flags: int = 0) -> Any:
        allocation = driver.PagelockedHostAllocation(shape * np.dtype(dtype).itemsize, mem_flags)
        return np.asarray(allocation).view(dtype) if dtype != np.uint8 else np.asarray(allocation)

    def managed_empty(shape: int, dtype: Any, order: str = "C", mem_flags: int = 0) -> Any:
        assert dtype == np.uint8, "a view would hide the allocation"
        return np.asarray(driver.ManagedAllocation(shape, mem_flags))

    def mem_get_info() -> tuple[int, int]:
        return gpu.free_bytes(), gpu.total

    def mem_get_address_range(pointer: int) -> tuple[int, int]:
        for block in gpu.blocks:
            if block.kind == "device" and block.base <= pointer < block.base + block.data.nbytes:
                return block.base, block.data.nbytes
        raise driver.LogicError("cuMemGetAddressRange failed: invalid argument")

    def memcpy_htod_async(dest: Any, src: Any, stream: Any = None) -> None:
        with _Translated(driver, "cuMemcpyHtoDAsync"):
            gpu.to_device(int(dest), src.ctypes.data, src.nbytes, stream.handle)

    def memcpy_dtoh_async(dest: Any, src: Any, stream: Any = None) -> None:
        with _Translated(driver, "cuMemcpyDtoHAsync"):
            gpu.to_host(dest.ctypes.data, int(src), dest.nbytes, stream.handle)

    def memcpy_dtod_async(dest: Any, src: Any, size: int, stream: Any = None) -> None:
        with _Translated(driver, "cuMemcpyDtoDAsync"):
            gpu.on_device(int(dest), int(src), size, stream.handle)

    def memset_d8_async(dest: Any, data: int, size: int, stream: Any = None) -> None:
        with _Translated(driver, "cuMemsetD8Async"):
            gpu.fill(int(dest), data, size, stream.handle)

    return {name: value for name, value in locals().items() if name not in ("gpu", "driver")}
