"""Energy of a row from power samples: the trapezoid over the row's timed windows.

Power is that of the whole board or card, because that is what its sensors see; idle power is part of it and stands
beside it. Between two samples power is taken as a straight line, so a window may begin between them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..report.records import Energy, Telemetry
from .telemetry import TOTAL_POWER

MIN_SAMPLES = 10  # inside the windows; fewer would make a figure of luck


def row_energy(telemetry: Telemetry, windows: npt.NDArray[np.float64], results: int) -> Energy | None:
    """Energy per result, or None where the power of the whole machine was not read often enough.

    Args:
        telemetry: of the run.
        windows: (begin, end) of the row's timed blocks in seconds, float64 `[W, 2]`.
        results: answers given inside them.
    """
    name = telemetry.facts.get(TOTAL_POWER)
    series = next((one for one in telemetry.series if one.kind == "power" and one.name == name), None)
    if series is None or not len(windows) or results < 1:
        return None
    times, watts = np.asarray(series.t_s, np.float64), np.asarray(series.value, np.float64)
    inside = ((times[:, None] >= windows[:, 0]) & (times[:, None] <= windows[:, 1])).any(1)
    if inside.sum() < MIN_SAMPLES or windows.min() < times[0] or windows.max() > times[-1]:
        return None
    joules = sum(trapezoid(times, watts, begin, end) for begin, end in windows)
    seconds = float((windows[:, 1] - windows[:, 0]).sum())
    idle = watts[times < 0]
    return Energy(
        rail=series.name,
        energy_mj=1e3 * joules / results,
        mean_w=joules / seconds,
        idle_w=float(idle.mean()) if len(idle) else None,
        samples=int(inside.sum()),
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
