"""The driver's library, libcuda.so.1, as `ctypes` calls it: the cards of a `Gpu`, each a model of its own."""

from __future__ import annotations

import ctypes
from typing import Any

from .gpu import Failure, Gpu

_MULTIPROCESSORS, _INTEGRATED, _MAJOR, _MINOR = 16, 18, 75, 76
_NO_DEVICE, _INVALID_DEVICE = 100, 101


class Driver:
    """Calls that `engine/machine/environment.py` makes; handles are the cards' numbers, contexts one more.

    Attributes:
        retained: contexts that were not released.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self.retained = 0

    def cuInit(self, flags: int) -> int:
        return 0 if self._gpu.count else _NO_DEVICE

    def cuDeviceGet(self, handle: Any, number: int) -> int:
        handle._obj.value = number
        return 0 if number < self._gpu.count else _INVALID_DEVICE

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = 12060
        return 0

    def cuDeviceGetName(self, name: Any, size: int, handle: ctypes.c_int) -> int:
        name.value = f"Double {handle.value}".encode()
        return 0

    def cuDeviceGetAttribute(self, value: Any, which: int, handle: ctypes.c_int) -> int:
        major, minor = divmod(int(self._gpu.sm[2:]), 10)
        value._obj.value = {
            _MULTIPROCESSORS: 40 + handle.value,
            _INTEGRATED: int(self._gpu.integrated),
            _MAJOR: major,
            _MINOR: minor,
        }[which]
        return 0

    def cuDeviceGetPCIBusId(self, address: Any, size: int, handle: ctypes.c_int) -> int:
        address.value = f"0000:{0x65 - handle.value:02x}:00.0".encode()
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, handle: ctypes.c_int) -> int:
        self._gpu.retain(handle.value)
        self.retained += 1
        context._obj.value = handle.value + 1
        return 0

    def cuCtxPushCurrent_v2(self, context: Any) -> int:
        try:
            self._gpu.push(context.value - 1)
        except Failure as failure:
            return failure.code
        return 0

    def cuMemGetInfo_v2(self, free: Any, total: Any) -> int:
        free._obj.value, total._obj.value = self._gpu.free_bytes(), self._gpu.total
        return 0

    def cuCtxPopCurrent_v2(self, context: Any) -> int:
        self._gpu.pop()
        return 0

    def cuDevicePrimaryCtxRelease_v2(self, handle: ctypes.c_int) -> int:
        self.retained -= 1
        return 0
