"""Sensors of a Jetson from sysfs, without root: power, GPU, throttling, fan, power mode.

Shapes and their sources: `tests/benchmarks/data/SOURCES.md`. hwmon numbers change from boot to boot, so a chip
is found by its `name`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

from ...engine.machine.environment import read_power_mode
from .cpu import Rise, file_sensor, finite, read_number, text_of
from .telemetry import GPU_LOAD_BEFORE, POWER_MODE, TOTAL_POWER, Sensor

GPU, L4T, GPU_RANGE = "GPU", "L4T", "GPU clock range, MHz"
# The rail in front of all others, where a board has one: Orin Nano and NX; Thor; the first Nano.
TOTAL_RAILS = ("VDD_IN", "VIN", "POM_5V_IN")
SUM = "sum of "
VOLTS = (0.3, 30.0)  # the INA3221 measures up to 26 V
JETPACK = {"36.3": "6.0", "36.4": "6.1 or 6.2", "36.5": "6.2", "38.2": "7.0", "38.4": "7.1", "39.2": "7.2"}


def jetson_sensors(root: Path = Path("/")) -> list[Sensor]:
    """The sensors that are there; temperatures come from `cpu.thermal_zones`."""
    return [*_power(root), *_gpu(root), *_throttling(root), *_fan(root)]


def jetson_facts(root: Path = Path("/")) -> dict[str, str]:
    """Power mode, L4T, GPU, its clock range and its load now; what cannot be read is left out."""
    found: dict[str, str] = {}
    release = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", text_of(root / "etc/nv_tegra_release") or "")
    if release:
        version = f"{release[1]}.{release[2]}"
        jetpack = JETPACK.get(".".join(version.split(".")[:2]))
        found[L4T] = version + (f" (JetPack {jetpack})" if jetpack else "")
    mode = read_power_mode(root)
    if mode:
        found[POWER_MODE] = mode
    folder = gpu_folder(root)
    if folder is not None:
        if board := text_of(root / "proc/device-tree/model"):
            found[GPU] = f"{board} (integrated)"
        low, high, load = (finite(text_of(folder / name)) for name in ("min_freq", "max_freq", "device/load"))
        if low is not None and high is not None:
            found[GPU_RANGE] = f"{low / 1e6:.0f}..{high / 1e6:.0f}"
        if load is not None:
            found[GPU_LOAD_BEFORE] = f"{load / 10:.1f}"
    total = total_power(root)
    if total is not None:
        found[TOTAL_POWER] = total
    return found


# --------------------------------------------------------------------------------------------------------------- power
def _power(root: Path) -> list[Sensor]:
    rails = list(_rails(root))
    total = total_power(root)
    if total is not None and total.startswith(SUM):
        reads = [sensor.checked for sensor in rails]
        source = "the rails above"
        rails.append(Sensor(total, "power", "W", source, lambda: sum(read() or 0.0 for read in reads)))
    return rails


def total_power(root: Path) -> str | None:
    """The power series of the whole board: one rail, or the sum of all; None without rails.

    A sum is that of the module: the carrier board is in none of its rails.
    """
    names = [sensor.name for sensor in _rails(root)]
    return next((name for name in TOTAL_RAILS if name in names), SUM + " + ".join(names) if names else None)


def _rails(root: Path) -> Iterator[Sensor]:
    """Every labelled channel of the INA power monitors that has a current beside its voltage.

    An INA3221 has further nodes (shunt voltages, a sum) that are no rails. hwmon gives mV, mA and, for an INA238, uW
    (kernel.org, hwmon/sysfs-interface).
    """
    for chip in _chips(root, "ina"):
        labels = sorted(chip.glob("in[0-9]*_label"))
        for path in labels:
            label, channel = text_of(path), path.name[len("in") : -len("_label")]
            volts, amperes = chip / f"in{channel}_input", chip / f"curr{channel}_input"
            if label and label != "NC" and volts.exists() and amperes.exists():
                source = f"{chip.relative_to(root)}/{{{volts.name},{amperes.name}}}"
                yield Sensor(label, "power", "W", source, functools.partial(_watts, volts, amperes))
        label, power = text_of(chip / "label"), chip / "power1_input"
        if not labels and label and power.exists():
            yield file_sensor(root, power, label, "power", "W", 1e6)


def _watts(volts: Path, amperes: Path) -> float:
    """V x A of one channel.

    Raises:
        ValueError: a voltage that no rail of such a board has; a rail that is off has 0 V.
    """
    v, a = read_number(volts) / 1e3, read_number(amperes) / 1e3
    if v != 0 and not VOLTS[0] <= v <= VOLTS[1]:
        raise ValueError(f"{v:g} V is not plausible; another unit, or another driver?")
    return max(v * a, 0.0)  # an offset of some mA below zero is what a gated rail reads


# ----------------------------------------------------------------------------------------------------------- GPU, fan
def gpu_folder(root: Path) -> Path | None:
    """The GPU's devfreq folder: `17000000.gpu` or `.ga10b` (Orin), `gpu-gpc-0` (Thor)."""
    folders = sorted((root / "sys/class/devfreq").glob("*"))
    known = re.compile(r"gpu-gpc-0|[0-9a-f]+\.(gpu|ga10b|gv11b|gp10b)")
    return next((folder for folder in folders if known.fullmatch(folder.name)), None)


def _gpu(root: Path) -> Iterator[Sensor]:
    folder = gpu_folder(root)
    if folder is None:
        return
    yield file_sensor(root, folder / "cur_freq", "gpu clock", "clock", "MHz", 1e6)
    if (folder / "device/load").exists():  # not on Thor
        yield file_sensor(root, folder / "device/load", "gpu load", "load", "%", 10)


def _throttling(root: Path) -> Iterator[Sensor]:
    """Cooling devices `*-throttle-alert`, above 0 while throttled, and over-current events."""
    for folder in sorted((root / "sys/class/thermal").glob("cooling_device[0-9]*")):
        kind = text_of(folder / "type") or ""
        if kind.endswith("-throttle-alert"):
            yield file_sensor(root, folder / "cur_state", kind, "throttle", "")
    for chip in _chips(root, "soctherm_oc"):
        counts = sorted(chip.glob("oc[0-9]*_event_cnt"))
        if counts:
            yield Sensor("over-current", "throttle", "", f"{chip.relative_to(root)}/oc*_event_cnt", Rise(counts))


def _fan(root: Path) -> Iterator[Sensor]:
    paths = [chip / name for chip in _chips(root, "pwm_tach") for name in ("rpm", "fan1_input")]
    yield from [file_sensor(root, path, "fan", "fan", "rpm") for path in paths if path.exists()][:1]


def _chips(root: Path, prefix: str) -> list[Path]:
    chips = sorted((root / "sys/class/hwmon").glob("hwmon[0-9]*"), key=lambda path: int(path.name[len("hwmon") :]))
    return [chip for chip in chips if (text_of(chip / "name") or "").startswith(prefix)]
