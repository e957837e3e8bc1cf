"""The GPU, asked through a driver that answers as CUDA's does."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from logoformer.engine.builder.compile import BuildOptions, Compilation
from logoformer.engine.machine import environment as module
from logoformer.engine.machine.environment import (
    Gpu,
    Running,
    build_memory,
    bus_id,
    find_gpu,
    platform_name,
    read_power_mode,
    running,
    target_here,
)
from logoformer.engine.machine.log import BuildLog
from logoformer.engine.machine.memory import MIB, Memory
from logoformer.engine.machine.tensorrt import find_module

GIB = 1 << 30


class Driver:
    """libcuda.so.1 with one GPU, or none; counts the contexts that are held."""

    def __init__(self, capability: tuple[int, int] = (8, 7), integrated: int = 1, gpus: int = 1) -> None:
        self.attributes = {75: capability[0], 76: capability[1], 18: integrated, 16: 8}
        self.gpus, self.held, self.current = gpus, 0, 0
        self.memory_error = 0

    def cuInit(self, flags: int) -> int:
        return 0 if self.gpus else 100  # CUDA_ERROR_NO_DEVICE

    def cuDeviceGet(self, handle: Any, number: int) -> int:
        handle._obj.value = number
        return 0 if number < self.gpus else 101

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = 12060
        return 0

    def cuDeviceGetName(self, name: Any, size: int, handle: ctypes.c_int) -> int:
        name.value = b"Orin"
        return 0

    def cuDeviceGetAttribute(self, value: Any, which: int, handle: ctypes.c_int) -> int:
        value._obj.value = self.attributes[which]
        return 0

    def cuDeviceGetPCIBusId(self, address: Any, size: int, handle: ctypes.c_int) -> int:
        address.value = f"0000:{0x65 - handle.value:02x}:00.0".encode()
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, handle: ctypes.c_int) -> int:
        self.held += 1
        return 0

    def cuCtxPushCurrent_v2(self, context: Any) -> int:
        self.current += 1
        return 0

    def cuMemGetInfo_v2(self, free: Any, total: Any) -> int:
        free._obj.value, total._obj.value = 5 * GIB, 8 * GIB
        return self.memory_error

    def cuCtxPopCurrent_v2(self, context: Any) -> int:
        self.current -= 1
        return 0

    def cuDevicePrimaryCtxRelease_v2(self, handle: ctypes.c_int) -> int:
        self.held -= 1
        return 0


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    def put(driver: Driver | None) -> Driver | None:
        monkeypatch.setattr(module, "load_driver", lambda: driver)
        return driver

    return put


def test_a_card_is_named_by_its_address(install):
    install(Driver(gpus=2))
    assert [bus_id(0), bus_id(1), bus_id(2)] == ["0000:65:00.0", "0000:64:00.0", ""]
    install(None)
    assert bus_id() == ""


def test_the_power_mode_is_nvpmodels(tmp_path):
    assert read_power_mode(tmp_path) == ""
    for name, text in {
        "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet\n",
        "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    assert read_power_mode(tmp_path) == "MAXN_SUPER (2)"
    (tmp_path / "etc/nvpmodel.conf").unlink()
    assert read_power_mode(tmp_path) == "mode 2"


def test_a_jetson_builds_for_tensorrt_unless_told(install, monkeypatch):
    install(Driver())
    assert target_here() == "tensorrt"  # sm87, which TensorRT-RTX does not know
    install(None)
    assert target_here() == "rtx"
    monkeypatch.setattr(module, "is_jetson", lambda: True)
    assert target_here() == "tensorrt"


def test_a_jetson_as_its_driver_tells_it(install):
    install(Driver())
    assert find_gpu() == Gpu("Orin", "sm87", True, "12.6", 8)
    here = running("tensorrt", "10.3.0")
    assert here == Running("tensorrt", "10.3.0", "sm87", platform_name(), "Orin, 8 multiprocessors")


@pytest.mark.parametrize(("capability", "name"), [((7, 5), "sm75"), ((11, 0), "sm110"), ((12, 1), "sm121")])
def test_names_of_compute_capabilities(install, capability, name):
    install(Driver(capability))
    gpu = find_gpu()
    assert gpu is not None and gpu.compute_capability == name


def test_no_driver_no_gpu_or_no_such_gpu(install):
    for driver in (None, Driver(gpus=0), Driver(gpus=1)):
        install(driver)
        assert find_gpu(1) is None
    install(None)
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (the extra 'rtx')")
    assert running("rtx", find_module("rtx").version).compute_capability is None


def test_a_platform_is_named_by_system_and_processor():
    system, _, machine = platform_name().partition("-")
    assert system == "linux" and machine


# -------------------------------------------------------------------------------------------------------------- memory
def test_a_gpu_of_its_own_memory_is_asked_for_it_and_let_go(install):
    driver = install(Driver((8, 6), integrated=0))
    assert build_memory("tensorrt") == Memory(8 * GIB, 5 * GIB, 0, "the GPU's own memory, cuMemGetInfo")
    assert (driver.held, driver.current) == (0, 0)
    driver.memory_error = 1
    assert build_memory("tensorrt").source == "MemAvailable"
    assert (driver.held, driver.current) == (0, 0)


def test_shared_memory_is_the_machines(install, monkeypatch):
    driver = install(Driver(integrated=1))
    monkeypatch.setattr(driver, "cuMemGetInfo_v2", lambda *args: pytest.fail("cudaMemGetInfo was asked on a Jetson"))
    assert build_memory("tensorrt").source == "MemAvailable"


def test_rtx_compiles_on_the_processor(install):
    install(Driver((8, 6), integrated=0))
    assert build_memory("rtx").source == "MemAvailable"


@pytest.mark.parametrize(
    ("integrated", "free", "workspace", "said"),
    [
        (1, 6 * GIB, 3 * GIB, "half of 6144 MiB"),
        (0, 5 * GIB, 4 * GIB, "four fifths of 5120 MiB"),
        (1, 0, MIB, "half of 0 MiB"),
    ],
)
def test_the_workspace_is_a_share_of_what_is_free(install, monkeypatch, scripted, integrated, free, workspace, said):
    scripted("well")
    install(Driver((8, 7), integrated))
    monkeypatch.setattr(module, "read_memory", lambda: Memory(8 * GIB, free, 0, "MemAvailable"))
    onnx = b"\x3a\x02\x12\x00"
    compilation = Compilation(find_module("tensorrt"), onnx, "g", BuildOptions(target="tensorrt"), BuildLog())
    flags = compilation.run("NONE")[1]
    assert flags["workspace_bytes"] // 4 * 4 == workspace
    assert flags["workspace_source"].startswith(said)
