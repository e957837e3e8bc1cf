"""Qualification of a run: checks that its figures describe the device, not only this run.

A latency without the state of the machine is an anecdote: a board in another power mode, a clock that fell while it
was measured, a second program on the card. Each bound below is either held, or stands as a reason beside the figures.
What cannot be known counts against the run: silence of a sensor is no proof of anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from .report.records import CPU, CacheCheck, Qualification, ReportRow, Series, Telemetry
from .sensors.machine import Machine
from .sensors.telemetry import GOVERNOR, GPU_LOAD_BEFORE, OTHER_GPU_USERS, POWER_MODE, within
from .statistics import minimum_samples

COV = 0.05  # of a latency in a closed loop; trtexec warns from 2.5 % of GPU time on, which has no host in it
DRIFT = 0.03  # median of the last third of the rounds over that of the first
CLOCK_SPREAD = 0.05  # lowest over highest clock while timed
STEAL_PERCENT = 1.0  # of CPU time taken by other virtual machines
BUSY = 0.5  # load average per CPU before the run
GPU_BUSY_PERCENT = 5.0  # of the GPU before the run, by whoever it was

Finding = tuple[bool, str]


def qualify(
    rows: Sequence[ReportRow], machine: Machine, telemetry: Telemetry, cache: CacheCheck | None
) -> Qualification:
    """Judges a run.

    Args:
        rows: ours, not those of other programs.
        machine: read before the run.
        telemetry: read beside it.
        cache: None where it was not checked.
    """
    found = [*_samples(rows), *_steady(rows), *_quiet(machine, telemetry)]
    devices = {row.device for row in rows}
    windows = timed_windows(rows)
    found += _clocks("gpu" if devices - {CPU} else "cpu", telemetry, windows)
    found += _throttling(telemetry, bool(devices - {CPU}))
    if devices - {CPU}:
        found += [_known(telemetry, POWER_MODE), *_alone(telemetry)]
    else:
        found.append(_known(telemetry, GOVERNOR))
    found += [(False, f"{item}") for item in telemetry.unreadable]
    if cache is not None:
        found.append((not cache.cached, f"repeated input takes {cache.repeated.value:.2f} of rotating input"))
    reasons = tuple(text for good, text in found if not good)
    return Qualification(not reasons, reasons, tuple(text for good, text in found if good))


def notes_of(machine: Machine, device: str, precision: str, foreign: Sequence[str]) -> list[str]:
    """Notes that a reader needs before quoting a figure."""
    notes = []
    if device == CPU:
        notes.append("Measured on the CPU. Nothing here says how fast a GPU would be.")
    if machine.load_1min is not None and machine.load_1min > BUSY * machine.usable_cpus:
        notes.append(
            f"The load average was {machine.load_1min:.2f} on {machine.usable_cpus} CPUs at the start: others were "
            "running. Times are upper limits, and whoever spins on more threads suffers more: measure again when idle."
        )
    if any(name.startswith("torch") for name in foreign):
        notes.append("torch runs the same architecture with random weights: a bundle holds none for it.")
        if precision != "fp32":
            notes.append(f"torch runs in FP32, the bundle's graphs in {precision}: that ratio mixes two causes.")
    return notes


def timed_windows(rows: Sequence[ReportRow]) -> npt.NDArray[np.float64]:
    """(begin, end) of every timed block in seconds, float64 `[W, 2]`."""
    found = [
        (at[0], at[-1] + latency[-1] / 1e3)
        for row in rows
        if row.at_s
        for at, latency in zip(row.at_s, row.latency_ms, strict=True)
        if at
    ]
    return np.asarray(found, np.float64).reshape(-1, 2)


# -------------------------------------------------------------------------------------------------------------- checks
def _samples(rows: Sequence[ReportRow]) -> Iterator[Finding]:
    need = minimum_samples(90)
    least = min((row.summary.n for row in rows), default=0)
    yield least >= need, f"{least} samples of each row, {need} needed for a p90"


def _steady(rows: Sequence[ReportRow]) -> Iterator[Finding]:
    closed = [row for row in rows if row.mode == "closed"]  # the other modes show queueing and contention on purpose
    if closed:
        worst = max(closed, key=lambda row: row.summary.cov)
        cov = worst.summary.cov
        yield cov <= COV, f"CoV up to {100 * cov:.1f} % ({worst.name}), {100 * COV:.0f} % is steady"
        worst = max(closed, key=lambda row: abs(drift_of(row)))
        drift = drift_of(worst)
        yield (
            abs(drift) <= DRIFT,
            f"drift {100 * drift:+.1f} % from first to last third ({worst.name}), {100 * DRIFT:.0f} % is steady",
        )


def drift_of(row: ReportRow) -> float:
    """Median latency of the last third of the rounds over that of the first third, less 1."""
    rounds = row.rounds()
    third = max(len(rounds) // 3, 1)
    return float(np.median(rounds[-third:]) / np.median(rounds[:third])) - 1.0


def _quiet(machine: Machine, telemetry: Telemetry) -> Iterator[Finding]:
    if machine.load_1min is None:
        yield False, "the load average cannot be read"
    else:
        share = machine.load_1min / machine.usable_cpus
        yield share <= BUSY, f"load average {machine.load_1min:.2f} on {machine.usable_cpus} CPUs before the run"
    for series in _of_kind(telemetry, "steal"):
        stolen = float(np.mean(series.value))  # of the whole run: one tick of a sample would be several percent of it
        yield stolen <= STEAL_PERCENT, f"{stolen:.1f} % of CPU time stolen by other machines"


def _clocks(device: str, telemetry: Telemetry, windows: npt.NDArray[np.float64]) -> Iterator[Finding]:
    clocks = [series for series in _of_kind(telemetry, "clock") if series.name.startswith(device)]
    if not clocks:
        yield False, f"the {device.upper()} clock cannot be read"
    for series in clocks:
        values = within(series, windows)
        if len(values) < 2:
            yield False, f"{series.name} was read {len(values)} times while timed"
            continue
        low, high = float(values.min()), float(values.max())
        spread = 1.0 - low / high if high > 0 else 1.0
        yield spread <= CLOCK_SPREAD, f"{series.name} {low:.0f}..{high:.0f} MHz while timed"


def _throttling(telemetry: Telemetry, needed: bool) -> Iterator[Finding]:
    series = _of_kind(telemetry, "throttle")
    if needed and not series:
        yield False, "whether it throttles cannot be read"
    for one in series:
        times = int(np.count_nonzero(one.value))
        yield not times, f"{one.name}: throttled in {times} of {len(one.value)} samples"


def _known(telemetry: Telemetry, fact: str) -> Finding:
    value = telemetry.facts.get(fact)
    return value is not None, f"{fact} {value}" if value else f"the {fact} cannot be read"


def _alone(telemetry: Telemetry) -> Iterator[Finding]:
    others, load = (telemetry.facts.get(fact) for fact in (OTHER_GPU_USERS, GPU_LOAD_BEFORE))
    if others is None and load is None:
        yield False, "whether others use the GPU cannot be read"
    if others is not None:
        yield others == "0", f"{others} other processes on the GPU"
    if load is not None:
        yield float(load) <= GPU_BUSY_PERCENT, f"GPU load {load} % before the run"


def _of_kind(telemetry: Telemetry, kind: str) -> list[Series]:
    return [series for series in telemetry.series if series.kind == kind and series.value]
