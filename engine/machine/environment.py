"""TensorRT version, GPU and platform of this machine: an engine is tied to all three.

The GPU is queried through the driver's own library, which exists wherever TensorRT can build: that needs no CUDA
package and no context, so that a query takes no memory on the device.
"""

from __future__ import annotations

import ctypes
import platform
from dataclasses import dataclass
from typing import Any

from .memory import Memory, read_memory
from .tensorrt import TrtModule

ON_GPU = "the GPU's own memory, cuMemGetInfo"
_CAPABILITY_MAJOR, _CAPABILITY_MINOR, _INTEGRATED = 75, 76, 18  # CUdevice_attribute in cuda.h


@dataclass(frozen=True)
class Gpu:
    """A GPU, as its driver describes it.

    Attributes:
        name: such as 'Orin'.
        compute_capability: such as 'sm87'.
        integrated: it shares its memory with the processor, as on a Jetson.
        cuda: the newest CUDA that the driver knows, such as '12.6'.
    """

    name: str
    compute_capability: str
    integrated: bool
    cuda: str


@dataclass(frozen=True)
class Running:
    """What an engine is tied to, as it is on this machine.

    Attributes:
        target: 'rtx' or 'tensorrt'.
        tensorrt_version: as the module gives it, such as '10.3.0'.
        compute_capability: of the GPU in use, such as 'sm87'; None where there is none.
        platform: operating system and processor, such as 'linux-aarch64'.
    """

    target: str
    tensorrt_version: str
    compute_capability: str | None
    platform: str


def platform_name() -> str:
    """Operating system and processor, such as 'linux-x86_64'."""
    return f"{platform.system().lower()}-{platform.machine()}"


def running(trt: TrtModule) -> Running:
    """This machine with this TensorRT and its first GPU."""
    gpu = find_gpu()
    return Running(trt.target, trt.version, None if gpu is None else gpu.compute_capability, platform_name())


def find_gpu(device: int = 0) -> Gpu | None:
    """The GPU of that number, or None where there is no driver or no such GPU.

    Args:
        device: CUDA's number of it; `CUDA_VISIBLE_DEVICES` counts.
    """
    driver = load_driver()
    if driver is None or driver.cuInit(0) != 0:
        return None
    handle, version, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
    if driver.cuDeviceGet(ctypes.byref(handle), device) != 0:
        return None
    driver.cuDriverGetVersion(ctypes.byref(version))
    driver.cuDeviceGetName(name, len(name), handle)
    major, minor = (_attribute(driver, which, handle) for which in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR))
    return Gpu(
        name=name.value.decode("utf-8", "replace"),
        compute_capability=f"sm{major}{minor}",
        integrated=bool(_attribute(driver, _INTEGRATED, handle)),
        cuda=f"{version.value // 1000}.{version.value % 1000 // 10}",
    )


def build_memory(target: str) -> Memory:
    """Memory that a build can use: a discrete GPU's own if it builds there, else the host's.

    Args:
        target: 'rtx' compiles on the processor; 'tensorrt' measures kernels on the GPU.
    """
    gpu = find_gpu() if target == "tensorrt" else None
    own = None if gpu is None or gpu.integrated else _device_memory()
    return own or read_memory()


def _device_memory() -> Memory | None:
    """Free memory of the first GPU, or None where it cannot be read.

    Needs the primary context, which TensorRT is about to use; it is released again.
    """
    driver = load_driver()
    handle, context, before = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
    if driver.cuDeviceGet(ctypes.byref(handle), 0) != 0:
        return None
    if driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), handle) != 0:
        return None
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    pushed = driver.cuCtxPushCurrent_v2(context) == 0
    known = pushed and driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) == 0
    if pushed:
        driver.cuCtxPopCurrent_v2(ctypes.byref(before))
    driver.cuDevicePrimaryCtxRelease_v2(handle)
    return Memory(total.value, free.value, 0, ON_GPU) if known else None


def load_driver() -> Any:
    """The CUDA driver's library, or None."""
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


def _attribute(driver: Any, which: int, handle: ctypes.c_int) -> int:
    value = ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(value), which, handle)
    return value.value
