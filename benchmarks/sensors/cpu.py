"""Sensors of any Linux machine: CPU clock, temperatures, stolen time, throttling; files."""

from __future__ import annotations

import errno
import functools
import math
from collections.abc import Sequence
from pathlib import Path

from .telemetry import GOVERNOR, Sensor

GATED_C = -256.0


def cpu_sensors(root: Path = Path("/")) -> list[Sensor]:
    """The sensors that are there.

    Args:
        root: where `proc` and `sys` stand.
    """
    found = []
    name = "sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq"
    if clocks := list(root.glob(name)):
        # The fastest core: a run on some of the cores leaves the others at rest.
        found.append(Sensor("cpu clock", "clock", "MHz", name, lambda: max(map(read_number, clocks)) / 1e3))
    name = "sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count"
    if counts := list(root.glob(name)):
        found.append(Sensor("cpu throttle", "throttle", "", name, Rise(counts)))
    found += thermal_zones(root)
    if _cpu_times(root / "proc/stat") is not None:
        found.append(Sensor("steal", "steal", "%", "proc/stat", _Steal(root / "proc/stat")))
    return found


def cpu_facts(root: Path = Path("/")) -> dict[str, str]:
    """The governor, if all CPUs have one and the same."""
    paths = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    governors = sorted({text for path in paths if (text := text_of(path))})
    return {GOVERNOR: ", ".join(governors)} if governors else {}


def thermal_zones(root: Path) -> list[Sensor]:
    """Every thermal zone by its type; the kernel gives millidegrees."""
    found: list[Sensor] = []
    for folder in sorted((root / "sys/class/thermal").glob("thermal_zone[0-9]*")):
        kind, path = text_of(folder / "type"), folder / "temp"
        if kind is None or not path.exists():
            continue
        taken = {sensor.name for sensor in found}
        name = kind if kind not in taken else f"{kind} {folder.name}"
        source = f"sys/class/thermal/{folder.name}/temp"
        found.append(Sensor(name, "temperature", "C", source, functools.partial(_celsius, path)))
    return found


# --------------------------------------------------------------------------------------------------------------- files
def read_number(path: Path) -> float:
    """A file that holds one number.

    Raises:
        OSError: it cannot be read now (a power-gated sensor gives EAGAIN or ENODATA).
        ValueError: it holds something else.
    """
    return float(path.read_text("ascii", "replace").strip())


def finite(text: str | None) -> float | None:
    """The finite number that a text says; None for any other."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def file_sensor(root: Path, path: Path, name: str, kind: str, unit: str, per_unit: float = 1.0) -> Sensor:
    """A file below `root` that holds one number, so many times that in `unit`."""
    return Sensor(name, kind, unit, str(path.relative_to(root)), lambda: read_number(path) / per_unit)


def _celsius(path: Path) -> float | None:
    """A thermal zone's temperature, None while the part that it sits in is switched off.

    A gated zone of a Jetson gives EAGAIN (seen on Thor and Orin) or -256 C (seen on AGX Orin): no fault, no value.
    """
    try:
        value = read_number(path) / 1e3
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.ENODATA):
            return None
        raise
    return None if value == GATED_C else value


def text_of(path: Path) -> str | None:
    """A file's stripped text, None when it is empty or cannot be read."""
    try:
        return path.read_text("utf-8", "replace").strip("\0 \t\r\n") or None
    except OSError:
        return None


class Rise:
    """Rise of counters since they were first read."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._first: float | None = None

    def __call__(self) -> float:
        count = sum(read_number(path) for path in self._paths)
        if self._first is None:
            self._first = count
        return count - self._first


class _Steal:
    """Share of CPU time that other virtual machines took since the last call, in percent."""

    def __init__(self, path: Path) -> None:
        self._path, self._before = path, _cpu_times(path)

    def __call__(self) -> float | None:
        now, before = _cpu_times(self._path), self._before
        self._before = now
        if now is None or before is None:
            raise ValueError("proc/stat lost its first line")
        total = now[1] - before[1]
        return 100.0 * (now[0] - before[0]) / total if total > 0 else None


def _cpu_times(path: Path) -> tuple[float, float] | None:
    """(stolen, total) ticks of all CPUs, from the first line of proc/stat (proc(5))."""
    words = (text_of(path) or "").partition("\n")[0].split()
    if len(words) < 9 or words[0] != "cpu":
        return None
    # guest and guest_nice are part of user and nice already.
    ticks = [float(word) for word in words[1:9]]
    return ticks[7], sum(ticks)
