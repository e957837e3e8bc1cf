"""Sensors, the thread that reads them beside a run, and energy of the power that it read.

A sensor is a name, a unit, and a function that reads a number; where the numbers come from is the business of
`cpu.py`, `jetson.py` and `nvml.py`. Everything is readable without root. A value that cannot be true in its unit (48 C
written as 48 instead of 48000 millidegrees) is not used, and the report names it: a wrong unit must not become a
wrong verdict.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..load.closed import Clock
from ..report.records import Energy, Series, Telemetry

PERIOD_S = 0.1  # the INA3221 of a Jetson converts at about this pace; faster would read one value twice

MIN_SAMPLES = 10  # of power inside a row's timed windows; fewer would make a figure of luck

# Facts that a verdict rests on; others are for the reader.
POWER_MODE, GOVERNOR = "power mode", "governor"
OTHER_GPU_USERS, GPU_LOAD_BEFORE = "other GPU processes", "GPU load before, %"
TOTAL_POWER = "total power"  # names the series that stands for the whole board or card

# (lowest, highest) that a value of a kind can be in its unit on a machine that runs.
PLAUSIBLE = {
    "power": (0.0, 2000.0),  # W
    "temperature": (1.0, 130.0),  # C
    "clock": (20.0, 10_000.0),  # MHz
    "load": (0.0, 100.0),  # %
    "steal": (0.0, 100.0),  # %
    "fan": (0.0, 100_000.0),  # rpm, or PWM
    "throttle": (0.0, math.inf),
}


@dataclass(frozen=True)
class Sensor:
    """One number that can be read again and again.

    Attributes:
        name, kind, unit, source: see `records.Series`.
        read: gives the number in `unit`. Raises OSError or ValueError when it cannot; None: nothing to say yet.
    """

    name: str
    kind: str
    unit: str
    source: str
    read: Callable[[], float | None]

    def checked(self) -> float | None:
        """The number, if it can be true.

        Raises:
            OSError, ValueError: it cannot be read, or cannot be true.
        """
        value = self.read()
        low, high = PLAUSIBLE[self.kind]
        if value is not None and not low <= value <= high:  # NaN ends here too
            raise ValueError(f"{value:g} {self.unit} is not plausible; another unit, or another driver?")
        return value


@dataclass
class Sampler:
    """Reads sensors, by hand with `take` or in a thread as a context manager.

    Args:
        sensors: names all different.
        facts: see `records.Telemetry`.
        period_s: between two samples.
        clock: the clock of the load generator, in nanoseconds.
    """

    sensors: Sequence[Sensor]
    facts: Mapping[str, str] = field(default_factory=dict)
    period_s: float = PERIOD_S
    clock: Clock = time.perf_counter_ns

    def __post_init__(self) -> None:
        self._taken: dict[str, list[tuple[int, float]]] = {sensor.name: [] for sensor in self.sensors}
        if len(self._taken) != len(self.sensors):
            raise ValueError(f"two sensors share a name: {sorted(sensor.name for sensor in self.sensors)}")
        self._failed: dict[str, tuple[int, str]] = {}
        self._cost_ns: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go, name="telemetry", daemon=True)

    def take(self) -> None:
        """Takes one sample of every sensor."""
        began = self.clock()
        for sensor in self.sensors:
            now = self.clock()
            try:
                value = sensor.checked()
            except (OSError, ValueError) as error:
                times, _ = self._failed.get(sensor.name, (0, ""))
                self._failed[sensor.name] = (times + 1, f"{error}")
                continue
            if value is not None:
                self._taken[sensor.name].append((now, float(value)))
        self._cost_ns.append(self.clock() - began)

    def result(self, zero_ns: int) -> Telemetry:
        """Everything taken so far.

        Args:
            zero_ns: second 0 of the report on `clock`.
        """
        series = []
        for sensor in self.sensors:
            taken = self._taken[sensor.name]
            times = tuple(round((at - zero_ns) / 1e9, 4) for at, _ in taken)
            values = tuple(round(value, 4) for _, value in taken)
            if taken:
                series.append(Series(sensor.name, sensor.kind, sensor.unit, sensor.source, times, values))
        failed = tuple(f"{name}: {why} ({times} of {len(self._cost_ns)} samples)"
                       for name, (times, why) in self._failed.items())  # fmt: skip
        cost_ms = float(np.median(self._cost_ns)) / 1e6 if self._cost_ns else 0.0
        return Telemetry(self.period_s, cost_ms, dict(self.facts), tuple(series), failed)

    def _go(self) -> None:
        while not self._stop.is_set():
            self.take()
            self._stop.wait(self.period_s)

    def __enter__(self) -> Sampler:
        if self.sensors:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self.sensors:
            self._thread.join()


# -------------------------------------------------------------------------------------------------------------- energy
def within(series: Series, windows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The values of a series that were taken inside the windows, float64 `[n]`."""
    times, values = np.asarray(series.t_s, np.float64), np.asarray(series.value, np.float64)
    inside = ((times[:, None] >= windows[:, 0]) & (times[:, None] <= windows[:, 1])).any(1)
    return values[inside]


def row_energy(telemetry: Telemetry, windows: npt.NDArray[np.float64], results: int) -> Energy | None:
    """Energy per result: the trapezoid of power over the row's timed windows.

    Power is that of the whole board or card, because that is what its sensors see; idle power is part of it and stands
    beside it. Between two samples power is taken as a straight line, so a window may begin between them.

    Args:
        telemetry: of the run.
        windows: (begin, end) of the row's timed blocks in seconds, float64 `[W, 2]`.
        results: answers given inside them.

    Returns:
        None where the power of the whole machine was not read often enough.
    """
    name = telemetry.facts.get(TOTAL_POWER)
    series = next((one for one in telemetry.series if one.kind == "power" and one.name == name), None)
    if series is None or not len(windows) or results < 1:
        return None
    times, watts = np.asarray(series.t_s, np.float64), np.asarray(series.value, np.float64)
    inside = len(within(series, windows))
    if inside < MIN_SAMPLES or windows.min() < times[0] or windows.max() > times[-1]:
        return None
    joules = sum(trapezoid(times, watts, begin, end) for begin, end in windows)
    seconds = float((windows[:, 1] - windows[:, 0]).sum())
    idle = watts[times < 0]
    return Energy(
        rail=series.name,
        energy_mj=1e3 * joules / results,
        mean_w=joules / seconds,
        idle_w=float(idle.mean()) if len(idle) else None,
        samples=inside,
        seconds=seconds,
    )


def trapezoid(times_s: Sequence[float] | npt.NDArray[np.float64], watts: npt.NDArray[np.float64],
              begin_s: float, end_s: float) -> float:  # fmt: skip
    """Joules from `begin_s` to `end_s`, power being straight between samples."""
    times = np.asarray(times_s, np.float64)
    between = (times > begin_s) & (times < end_s)
    t = np.concatenate([[begin_s], times[between], [end_s]])
    p = np.interp(t, times, watts)
    return float(((p[1:] + p[:-1]) / 2 * np.diff(t)).sum())
