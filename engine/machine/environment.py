"""TensorRT version, GPU and platform of this machine: an engine is tied to all three.

The GPU is queried through the driver's own library, which exists wherever TensorRT can build: that needs no CUDA
package and no context, so that a query takes no memory on the device.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .memory import Memory, read_memory
from .targets import default_target

ON_GPU = "the GPU's own memory, cuMemGetInfo"
# CUdevice_attribute in cuda.h
_MULTIPROCESSORS, _INTEGRATED, _CAPABILITY_MAJOR, _CAPABILITY_MINOR = 16, 18, 75, 76


@dataclass(frozen=True)
class Gpu:
    """A GPU, as its driver describes it.

    Attributes:
        name: such as 'Orin'.
        compute_capability: such as 'sm87'.
        integrated: it shares its memory with the processor, as on a Jetson.
        cuda: the newest CUDA that the driver knows, such as '12.6'.
        multiprocessors: that CUDA may use now; the power modes of a Jetson switch some of them off. 0: not said.
    """

    name: str
    compute_capability: str
    integrated: bool
    cuda: str
    multiprocessors: int = 0

    @property
    def model(self) -> str:
        """What tells two GPUs of one compute capability apart, such as 'Orin, 8 multiprocessors'."""
        return f"{self.name}, {self.multiprocessors} multiprocessors" if self.multiprocessors else self.name


@dataclass(frozen=True)
class Running:
    """What an engine is tied to, as it is on this machine.

    Attributes:
        target: 'rtx' or 'tensorrt'.
        tensorrt_version: as the module gives it, such as '10.3.0'.
        compute_capability: of the GPU in use, such as 'sm87'; None where there is none.
        platform: operating system and processor, such as 'linux-aarch64'.
        gpu: `Gpu.model` of the GPU in use; empty where it is not known.
        power_mode: of the board, such as 'MAXN_SUPER (2)'; empty where there is no such thing.
        device: CUDA's number of the GPU.
    """

    target: str
    tensorrt_version: str
    compute_capability: str | None
    platform: str
    gpu: str = ""
    power_mode: str = ""
    device: int = 0


def multiplies_int8(cpuinfo: str | os.PathLike[str] = "/proc/cpuinfo") -> bool:
    """Whether an x86 CPU has dot products of INT8 (VNNI, AMX); without, it saves little."""
    try:
        words = set(Path(cpuinfo).read_text("ascii", "replace").split())
    except OSError:
        return False
    return not words.isdisjoint(("avx512_vnni", "avx_vnni", "amx_int8"))


def platform_name() -> str:
    """Operating system and processor, such as 'linux-x86_64'."""
    return f"{platform.system().lower()}-{platform.machine()}"


def running(target: str, tensorrt_version: str, device: int = 0) -> Running:
    """This machine with one TensorRT and one GPU, by CUDA's number of it."""
    gpu = find_gpu(device)
    sm, model = (None, "") if gpu is None else (gpu.compute_capability, gpu.model)
    return Running(target, tensorrt_version, sm, platform_name(), model, read_power_mode(), device)


def is_jetson(root: Path = Path("/")) -> bool:
    """Whether this is a Tegra board with NVIDIA's L4T."""
    return (root / "etc/nv_tegra_release").exists() or "nvidia,tegra" in _text(root / "proc/device-tree/compatible")


def target_here() -> str:
    """What to build for on this machine where nobody says it: see `default_target`."""
    gpu = find_gpu()
    return default_target(is_jetson(), None if gpu is None else gpu.compute_capability)


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
        multiprocessors=_attribute(driver, _MULTIPROCESSORS, handle),
    )


def read_power_mode(root: Path = Path("/")) -> str:
    """A Jetson's mode of nvpmodel, such as 'MAXN_SUPER (2)'; empty where there is none.

    Its number is in a status file as `pmode:0002`, its name in the configuration.
    """
    mode = re.search(r"pmode:(\d+)", _text(root / "var/lib/nvpmodel/status"))
    if mode is None:
        return ""
    for line in _text(root / "etc/nvpmodel.conf").splitlines():
        named = re.match(r"\s*<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", line)
        if named and int(named[1]) == int(mode[1]):
            return f"{named[2]} ({int(mode[1])})"
    return f"mode {int(mode[1])}"


def bus_id(device: int = 0) -> str:
    """PCI address of a GPU, such as '0000:65:00.0'; empty where it has none.

    NVML numbers cards by their address, CUDA by their speed: 0 may be two cards.

    Args:
        device: CUDA's number of it.
    """
    driver = load_driver()
    handle, address = ctypes.c_int(), ctypes.create_string_buffer(32)
    if driver is None or driver.cuInit(0) != 0 or driver.cuDeviceGet(ctypes.byref(handle), device) != 0:
        return ""
    known = driver.cuDeviceGetPCIBusId(address, len(address), handle) == 0
    return address.value.decode("ascii", "replace") if known else ""


def build_memory(target: str, device: int = 0) -> Memory:
    """Memory that a build can use: a discrete GPU's own if it builds there, else the host's.

    Args:
        target: 'rtx' compiles on the processor; 'tensorrt' measures kernels on the GPU.
        device: CUDA's number of that GPU.
    """
    gpu = find_gpu(device) if target == "tensorrt" else None
    own = None if gpu is None or gpu.integrated else _device_memory(device)
    return own or read_memory()


def _device_memory(device: int) -> Memory | None:
    """Free memory of a GPU, or None where it cannot be read."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    with card_context(device) as current:
        known = current and load_driver().cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) == 0
    return Memory(total.value, free.value, 0, ON_GPU) if known else None


@contextlib.contextmanager
def card_context(device: int) -> Iterator[bool]:
    """Makes a GPU's primary context current in this thread; afterwards what was current before.

    TensorRT works in it. `cudaSetDevice` would leave a context on the first GPU that nobody asked for.

    Args:
        device: CUDA's number of the GPU.

    Yields:
        Whether it is; not where there is no driver or no such GPU.
    """
    driver = load_driver()
    handle, context, before = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
    if (
        driver is None
        or driver.cuInit(0) != 0
        or driver.cuDeviceGet(ctypes.byref(handle), device) != 0
        or driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), handle) != 0
    ):
        yield False
        return
    pushed = driver.cuCtxPushCurrent_v2(context) == 0
    try:
        yield pushed
    finally:
        if pushed:
            driver.cuCtxPopCurrent_v2(ctypes.byref(before))
        driver.cuDevicePrimaryCtxRelease_v2(handle)


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


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
