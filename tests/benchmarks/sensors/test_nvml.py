"""NVML through a double that has only names of the real module; it lives in tests and nowhere else."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest
from logoformer.benchmarks.sensors.find import find_sensors
from logoformer.benchmarks.sensors.nvml import THROTTLED, Nvml, open_nvml


class NVMLError(Exception):
    pass


def card(**changes):
    """A card whose answers are given by NVML's own names; an exception as answer is raised."""
    answers = {
        "nvmlInit": None,
        "nvmlDeviceGetHandleByIndex": "card",
        "nvmlDeviceGetName": b"NVIDIA GeForce RTX 3080",
        "nvmlSystemGetDriverVersion": "595.78",
        "nvmlDeviceGetPowerUsage": 120_500,
        "nvmlDeviceGetClockInfo": 1710,
        "nvmlDeviceGetTemperature": 55,
        "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=3),
        "nvmlDeviceGetCurrentClocksEventReasons": 0x1,
        "nvmlDeviceGetFanSpeed": 40,
        "nvmlDeviceGetEnforcedPowerLimit": 320_000,
        "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=os.getpid())],
        **changes,
    }

    def calling(answer):
        def call(*_):
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    functions = {name: calling(answer) for name, answer in answers.items()}
    return SimpleNamespace(**functions, NVMLError=NVMLError, NVML_CLOCK_SM=1, NVML_TEMPERATURE_GPU=0)


def test_a_desktop_card(tree):
    found = find_sensors(tree("desktop").root, Nvml(card()))
    read = {sensor.name: sensor.checked() for sensor in found.sensors}
    assert read["board power"] == 120.5  # milliwatts
    assert (read["gpu clock"], read["gpu temperature"], read["gpu load"], read["fan"]) == (1710, 55, 3, 40)
    assert read["gpu throttle"] == 0
    assert found.gpu == "NVIDIA GeForce RTX 3080"
    assert found.facts["driver"] == "595.78"
    assert found.facts["power mode"] == "limit 320 W"
    assert found.facts["other GPU processes"] == "0"  # this process is none of the others
    assert found.facts["total power"] == "board power"


@pytest.mark.parametrize(
    ("reasons", "throttled"), [(0x1, 0), (0x2, 0), (0x4, 0), (0x8, 8), (0x20, 32), (0x44, 64), (0x80, 128)]
)
def test_which_reasons_are_throttling(reasons, throttled):
    sensors = Nvml(card(nvmlDeviceGetCurrentClocksEventReasons=reasons)).sensors()
    assert next(sensor for sensor in sensors if sensor.name == "gpu throttle").checked() == throttled


def test_other_processes_are_counted():
    processes = [SimpleNamespace(pid=os.getpid()), SimpleNamespace(pid=1), SimpleNamespace(pid=2)]
    assert Nvml(card(nvmlDeviceGetComputeRunningProcesses=processes)).facts()["other GPU processes"] == "2"


def test_what_a_card_does_not_support_is_left_out():
    lacking = card(nvmlDeviceGetFanSpeed=NVMLError("Not Supported"), nvmlDeviceGetPowerUsage=NVMLError("Not Supported"))
    names = {sensor.name for sensor in Nvml(lacking).sensors()}
    assert "fan" not in names and "board power" not in names and "gpu clock" in names
    assert "total power" not in Nvml(lacking).facts()


def test_a_thor_takes_from_nvml_what_its_files_lack(tree):
    found = find_sensors(tree("thor").root, Nvml(card(nvmlDeviceGetPowerUsage=NVMLError("Not Supported"))))
    read = {sensor.name: sensor for sensor in found.sensors}
    assert read["gpu clock"].source == "sys/class/devfreq/gpu-gpc-0/cur_freq"
    assert read["gpu load"].source == "nvmlDeviceGetUtilizationRates"
    assert found.facts["total power"] == "VIN"
    assert found.facts["power mode"] == "120W (1)"
    assert found.facts["GPU load before, %"] == "3"


def test_an_older_module_calls_the_reasons_otherwise():
    old = card(nvmlDeviceGetCurrentClocksThrottleReasons=0x8)
    del old.nvmlDeviceGetCurrentClocksEventReasons
    assert next(s for s in Nvml(old).sensors() if s.name == "gpu throttle").checked() == 8


def test_the_card_is_the_one_at_cudas_address():
    """NVML's first card and CUDA's may be two."""
    asked = []
    two = card(nvmlDeviceGetHandleByPciBusId="cuda's card")
    for name in ("nvmlDeviceGetHandleByPciBusId", "nvmlDeviceGetHandleByIndex"):
        setattr(two, name, lambda given, name=name: asked.append((name, given)))
    Nvml(two, "0000:65:00.0")
    Nvml(two)
    assert asked == [("nvmlDeviceGetHandleByPciBusId", "0000:65:00.0"), ("nvmlDeviceGetHandleByIndex", 0)]


def test_without_the_package_a_driver_or_a_card_there_is_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_nvml() is None
    monkeypatch.setitem(sys.modules, "pynvml", card(nvmlInit=NVMLError("Library Not Found")))
    assert open_nvml() is None
    monkeypatch.setitem(sys.modules, "pynvml", card(nvmlDeviceGetHandleByIndex=NVMLError("Invalid Argument")))
    assert open_nvml() is None


def test_the_double_has_only_names_of_the_real_module():
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    for name in vars(card(nvmlDeviceGetCurrentClocksThrottleReasons=0, nvmlDeviceGetHandleByPciBusId=0)):
        assert hasattr(pynvml, name), name
    bits = ("HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown")
    assert sum(getattr(pynvml, f"nvmlClocksThrottleReason{bit}") for bit in bits) == THROTTLED
    assert (pynvml.NVML_CLOCK_SM, pynvml.NVML_TEMPERATURE_GPU) == (1, 0)
