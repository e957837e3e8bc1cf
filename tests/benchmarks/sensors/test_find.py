"""Machines as recorded trees: what is read, in which unit, and what is not believed."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from logoformer.benchmarks.sensors.find import device_of, find_sensors, this_machine
from logoformer.benchmarks.sensors.nvml import open_nvml
from logoformer.errors import MachineError


def values(found) -> dict[str, float | None]:
    return {sensor.name: sensor.checked() for sensor in found.sensors}


def test_orin_nano(tree):
    found = find_sensors(tree("orin-nano").root)
    assert values(found) == {
        "cpu clock": 1728.0,
        "cpu-thermal": 48.531,
        "gpu-thermal": 47.812,
        "tj-thermal": 48.531,
        "steal": None,  # no time has passed since it was opened
        "VDD_IN": 10.0,
        "VDD_CPU_GPU_CV": 4.0,
        "VDD_SOC": 2.0,
        "gpu clock": 1020.0,
        "gpu load": 1.2,
        "cpu-throttle-alert": 0.0,
        "gpu-throttle-alert": 0.0,
        "over-current": 0.0,  # 52 events since boot are not ours
        "fan": 2140.0,
    }
    assert found.facts == {
        "governor": "schedutil",
        "GPU": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super (integrated)",
        "L4T": "36.4.3 (JetPack 6.1 or 6.2)",
        "power mode": "MAXN_SUPER (2)",
        "GPU clock range, MHz": "306..1020",
        "GPU load before, %": "1.2",
        "total power": "VDD_IN",
    }
    units = {sensor.kind: sensor.unit for sensor in found.sensors}
    assert units == {
        "clock": "MHz",
        "temperature": "C",
        "steal": "%",
        "power": "W",
        "load": "%",
        "throttle": "",
        "fan": "rpm",
    }
    assert all(not sensor.source.startswith("/") for sensor in found.sensors)


def test_agx_orin_has_no_rail_for_the_total(tree):
    found = find_sensors(tree("agx-orin").root)
    total = "sum of VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0 + VDDQ_VDD2_1V8AO"
    read = values(found)
    assert found.facts["total power"] == total
    assert read[total] == pytest.approx(5.0 + 2.0 + 4.0 + 1.0)
    assert "NC" not in read
    assert read["CV0-therm"] is None  # -256 C: switched off
    assert read["gpu clock"] == 1300.5
    assert found.facts["GPU clock range, MHz"] == "1300..1300"  # locked, as by jetson_clocks
    assert found.facts["power mode"] == "MAXN (0)"


def test_thor(tree):
    found = find_sensors(tree("thor").root)
    read = values(found)
    assert read["VIN"] == 23.0  # microwatts of an INA238
    assert found.facts["total power"] == "VIN"
    assert read["VDD_GPU"] == 0.0  # gated: an offset below zero is no power
    assert read["VDD_CPU_SOC_MSS"] == 6.0
    assert read["gpu clock"] == 1575.0
    assert "gpu load" not in read and "GPU load before, %" not in found.facts
    assert found.facts["L4T"] == "39.2.0 (JetPack 7.2)"
    assert found.facts["power mode"] == "120W (1)"


def test_a_desktop_without_nvml_shows_its_card_but_none_of_its_sensors(tree):
    found = find_sensors(tree("desktop").root, card="NVIDIA GeForce RTX 3080")
    assert found.gpu == "NVIDIA GeForce RTX 3080"
    assert values(found) == {"cpu clock": 3600.0, "cpu throttle": 0.0, "x86_pkg_temp": 41.0, "steal": None}
    assert found.facts == {"governor": "performance", "GPU": "NVIDIA GeForce RTX 3080"}


def test_no_sensors(tree, tmp_path):
    assert find_sensors(tree("no-sensors").root).sensors == ()  # proc/stat is too old to know of stolen time
    nowhere = find_sensors(tmp_path / "nowhere")
    assert (nowhere.sensors, nowhere.facts, nowhere.gpu) == ((), {}, None)


def test_a_mode_without_a_name_is_shown_by_its_number(tree):
    board = tree("orin-nano")
    board.write(**{"etc/nvpmodel.conf": "< POWER_MODEL ID=1 NAME=25W >"})
    assert find_sensors(board.root).facts["power mode"] == "mode 2"
    board.write(**{"var/lib/nvpmodel/status": "unknown"})
    assert "power mode" not in find_sensors(board.root).facts


@pytest.mark.parametrize(
    ("file", "content", "sensor", "why"),
    [
        ("sys/class/thermal/thermal_zone1/temp", "48", "gpu-thermal", "0.048 C"),  # degrees, not millidegrees
        ("sys/class/hwmon/hwmon1/in1_input", "5000000", "VDD_IN", "5000 V"),  # microvolts
        ("sys/class/hwmon/hwmon1/in1_input", "5", "VDD_IN", "0.005 V"),  # volts
        ("sys/class/hwmon/hwmon1/curr1_input", "2000000", "VDD_IN", "10000 W"),  # microamperes
        ("sys/class/devfreq/17000000.gpu/cur_freq", "1020000", "gpu clock", "1.02 MHz"),  # kilohertz
        ("sys/class/devfreq/17000000.gpu/device/load", "5000", "gpu load", "500 %"),
        ("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1728000000", "cpu clock", "1.728e+06 MHz"),
        ("sys/class/thermal/thermal_zone0/temp", "nan", "cpu-thermal", "nan C"),
    ],
)
def test_a_wrong_unit_is_not_believed(tree, file, content, sensor, why):
    board = tree("orin-nano")
    board.write(**{file: content})
    (found,) = [one for one in find_sensors(board.root).sensors if one.name == sensor]
    with pytest.raises(ValueError, match="not plausible") as raised:
        found.checked()
    assert str(raised.value).startswith(why)


def test_a_gated_zone_is_silent_and_a_broken_one_is_not(tree, monkeypatch):
    board = tree("orin-nano")
    (zone,) = [one for one in find_sensors(board.root).sensors if one.name == "gpu-thermal"]

    def failing(code):
        def read_text(self, *_):
            raise OSError(code, "")

        return read_text

    monkeypatch.setattr(Path, "read_text", failing(errno.EAGAIN))
    assert zone.checked() is None
    monkeypatch.setattr(Path, "read_text", failing(errno.EIO))
    with pytest.raises(OSError):
        zone.checked()


def test_stolen_time_and_throttle_counts_are_those_since_the_last_look(tree):
    desktop = tree("desktop")
    read = {sensor.name: sensor for sensor in find_sensors(desktop.root).sensors}
    read["cpu throttle"].checked()
    desktop.write(
        **{
            "proc/stat": "cpu  150 0 150 1600 0 0 0 100 60 0",  # 100 of 1000 ticks were stolen; guest time is in user
            "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": 5,
        }
    )
    assert read["steal"].checked() == pytest.approx(10.0)
    assert read["cpu throttle"].checked() == 3.0


def test_two_zones_of_one_type_keep_apart(tree):
    desktop = tree("desktop")
    desktop.write(
        **{"sys/class/thermal/thermal_zone1/type": "x86_pkg_temp", "sys/class/thermal/thermal_zone1/temp": 43000}
    )
    read = values(find_sensors(desktop.root))
    assert (read["x86_pkg_temp"], read["x86_pkg_temp thermal_zone1"]) == (41.0, 43.0)


# --------------------------------------------------------------------------------------------- no GPU, no GPU's figures
def test_a_gpu_backend_without_a_gpu_is_refused(tree):
    with pytest.raises(MachineError, match=r"shows none\. Nothing was timed"):
        device_of("tensorrt 10.3.0 on sm86 by cuda-python", find_sensors(tree("no-sensors").root))
    assert device_of("onnxruntime 1.24.4 CPU", find_sensors(tree("orin-nano").root)) == "cpu"
    assert device_of("tensorrt 10.3.0 on sm87 by pycuda", find_sensors(tree("orin-nano").root)).startswith(
        "NVIDIA Jetson"
    )


def test_this_machine_can_be_read():
    found = this_machine()
    if found.gpu is None:
        assert open_nvml() is None
        assert not any(sensor.name.startswith("gpu") for sensor in found.sensors)
    for sensor in found.sensors:
        sensor.checked()
