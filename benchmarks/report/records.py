"""The frozen records behind `report.json`, schema version 3.

Every number here was measured on the machine that the report names, but a `Percentile.upper_ms`, which is a bound (what
is computed lies in `roofline/`). A figure that could not be measured is None, never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..load.closed import LoadConfig
from ..statistics import Ratio, Summary

CPU = "cpu"  # the device of a row that no GPU worked on
LONGEST_MS, SHORTEST_MS = 1e9, 1e-6  # of a latency: eleven days, and less than a clock can tell
DOUBLE = "double"  # how the name of every card begins that a test plays: its figures are nobody's
MODES = ("closed", "paced", "multi", "offline", "cold", "idle")


# ---------------------------------------------------------------------------------------------------------------- rows
@dataclass(frozen=True)
class Pace:
    """Queueing of an open loop: frames arrive by the clock, answered or not.

    Attributes:
        rate_hz: scheduled frames per second.
        achieved_hz: frames that were worked off per second.
        queued: frames that had to wait because an earlier one was still worked on.
        longest_queue: most frames that waited at once.
        wake_us: how late the harness itself began with a frame that did not have to wait, median.
        service: the same answers, timed from the beginning of their work as a closed loop would: queueing is missing.
    """

    rate_hz: float
    achieved_hz: float
    queued: int
    longest_queue: int
    wake_us: float
    service: Summary


@dataclass(frozen=True)
class Energy:
    """Energy of one row by the power sensor of the whole board or card, idle power included.

    Attributes:
        rail: which sensor.
        energy_mj: per result: the trapezoid over the samples in the row's timed windows, over its results.
        mean_w: over those windows.
        idle_w: mean power of the same rail before the run, None where it was not taken. Not subtracted.
        samples: power samples inside those windows.
        seconds: sum of those windows.
    """

    rail: str
    energy_mj: float
    mean_w: float
    idle_w: float | None
    samples: int
    seconds: float


@dataclass(frozen=True)
class ReportRow:
    """One baseline in one mode.

    Attributes:
        name: unique in the report.
        what: what one result costs the wall clock for, in words.
        mode: one of `MODES`; 'closed': the next begins when the last is answered; 'paced': from the *scheduled*
            arrival of the frame, so that queueing shows; 'multi': one step of all streams; 'offline': as many at once
            as the machine takes, latency is that of one clip among them.
        precision: of its arithmetic.
        backend: what ran it.
        device: 'cpu', or the name of the GPU.
        streams: faces that one step serves.
        hop: new frames for one answer; None where a whole clip is answered at once.
        summary: of its latencies.
        throughput_hz: results per second of its timed windows.
        stages_p50_ms: (stage, median wall clock) in the order they run, empty where the baseline has none. Stages are
            preprocess, frame, temporal (or clip), postprocess. On a GPU `frame` is what its start takes, and `temporal`
            waits for both.
        device_ms: the engines' time between two events on the device's own stream, in runs of their own after those
            that were timed; None where there is no device.
        energy: None where no power sensor can be read.
        pace: of the mode 'paced', else None.
        at_s: when each latency began, seconds on the clock of the telemetry, shape of `latency_ms`; empty where that
            was not recorded.
        latency_ms: every latency, `[R][K]`, in the order they were taken.
    """

    name: str
    what: str
    mode: str
    precision: str
    backend: str
    device: str
    streams: int
    hop: int | None
    summary: Summary
    throughput_hz: float
    stages_p50_ms: tuple[tuple[str, float], ...]
    device_ms: Summary | None
    energy: Energy | None
    pace: Pace | None
    at_s: tuple[tuple[float, ...], ...]
    latency_ms: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"{self.mode!r} is no mode")
        if self.device == CPU and self.device_ms is not None:
            raise ValueError(f"{self.name} has device time but ran on the CPU")
        if self.at_s and [len(block) for block in self.at_s] != [len(block) for block in self.latency_ms]:
            raise ValueError(f"{self.name} has other times than latencies")
        if not all(SHORTEST_MS <= latency <= LONGEST_MS for block in self.latency_ms for latency in block):
            raise ValueError(f"{self.name} has a latency that no clock can have measured")

    def rounds(self) -> npt.NDArray[np.float64]:
        """The latencies as float64 `[R, K]`."""
        return np.asarray(self.latency_ms, np.float64)


@dataclass(frozen=True)
class RowComparison:
    """Median of one baseline over the median of another, beside the noise of the run.

    Attributes:
        numerator, denominator: names of rows.
        ratio: below 1 the numerator is faster.
        noise: how far from 1 the same program came against itself (A/A), None where it is not known.
    """

    numerator: str
    denominator: str
    ratio: Ratio
    noise: float | None


@dataclass(frozen=True)
class CacheCheck:
    """Cache check (MLPerf's TEST04): one clip again and again, over clips in rotation.

    Attributes:
        repeated: median over median; a cache would bring it towards 0.
        noise: A/A noise of the same run.
        calls: times the graph ran for `answers` answers to one and the same clip, counted, not timed.
        answers: see `calls`.
        cached: fewer calls than answers, or the whole interval of `repeated` below 1 - max(noise, 10 %).
    """

    repeated: Ratio
    noise: float
    calls: int
    answers: int
    cached: bool


# ------------------------------------------------------------------------------------------------------ cold and idle
@dataclass(frozen=True)
class ColdStart:
    """Phases of a cold start; one value for each process that was started.

    Attributes:
        process_ms: from the call that starts the process to the first line of its own code.
        import_ms: `import logoformer` and what opening a bundle needs.
        load_ms: from the path of the bundle to all sessions opened: read, checked, hashed, compiled by the runtime.
        first_ms: the first answer.
        warm_ms: median of the answers after it, for comparison.
        total_ms: from the call that starts the process to its first answer.
    """

    process_ms: tuple[float, ...]
    import_ms: tuple[float, ...]
    load_ms: tuple[float, ...]
    first_ms: tuple[float, ...]
    warm_ms: tuple[float, ...]
    total_ms: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.total_ms or any(len(phase) != len(self.total_ms) for phase in vars(self).values()):
            raise ValueError("a cold start has one value of each phase for each process, at least one")


@dataclass(frozen=True)
class IdleGap:
    """Latencies of the first answer after one pause.

    Attributes:
        gap_s: the pause; 0 is back to back.
        latency_ms: every first answer after such a pause.
        ratio: median over the median of gap 0, None for gap 0 itself.
    """

    gap_s: float
    latency_ms: tuple[float, ...]
    ratio: float | None

    def __post_init__(self) -> None:
        if not self.latency_ms:
            raise ValueError(f"no answer after a pause of {self.gap_s} s")


# ------------------------------------------------------------------------------------------- telemetry, qualification
@dataclass(frozen=True)
class Series:
    """One sensor over the run.

    Attributes:
        name: such as 'VDD_IN', 'gpu-thermal', 'gpu clock', 'cpu0 clock', 'steal'.
        kind: 'power', 'temperature', 'clock', 'load', 'fan', 'steal' or 'throttle'.
        unit: 'W', 'C', 'MHz', '%', 'rpm', or '' for a count.
        source: the file or call that was read.
        t_s: seconds on the clock of `ReportRow.at_s`.
        value: as many.
    """

    name: str
    kind: str
    unit: str
    source: str
    t_s: tuple[float, ...]
    value: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.t_s) != len(self.value):
            raise ValueError(f"{self.name} has {len(self.t_s)} times and {len(self.value)} values")


@dataclass(frozen=True)
class Telemetry:
    """Sensor readings taken during the run, without root.

    Attributes:
        period_s: asked between two samples.
        cost_ms: what one sample costs the machine, median; a sample of every series.
        facts: what does not change: power mode, JetPack, driver, governor, ...
        series: one for each sensor that could be read.
        unreadable: sensors that are there and gave no usable value, each with the reason.
    """

    period_s: float
    cost_ms: float
    facts: Mapping[str, str]
    series: tuple[Series, ...]
    unreadable: tuple[str, ...]


@dataclass(frozen=True)
class Qualification:
    """Verdict on a run: its figures describe the device, or only this run of it.

    Attributes:
        qualified: no reason against it.
        reasons: why not, in words that name the figure and the bound.
        held: what was checked and held.
    """

    qualified: bool
    reasons: tuple[str, ...]
    held: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.qualified == bool(self.reasons):
            raise ValueError("qualified means that no reason stands against it")

    def line(self) -> str:
        """One line: 'qualified', or 'unqualified: reasons'."""
        return "qualified" if self.qualified else "unqualified: " + "; ".join(self.reasons)


# ---------------------------------------------------------------------------------------------- others' figures, floors
@dataclass(frozen=True)
class TrtexecRun:
    """Figures that trtexec printed for one engine, by its own definitions (see `trtexec.py`).

    Attributes:
        graph: of the bundle.
        version: of TensorRT, as trtexec prints it.
        command: word for word.
        latency_ms, gpu_ms: (name, value): min, max, mean, median, p90, p95, p99.
        throughput_hz: queries per second.
    """

    graph: str
    version: str
    command: str
    latency_ms: tuple[tuple[str, float], ...]
    gpu_ms: tuple[tuple[str, float], ...]
    throughput_hz: float


# ------------------------------------------------------------------------------------------------------------- the run
@dataclass(frozen=True)
class Subject:
    """The artifact that was timed.

    Attributes:
        bundle: name of its folder.
        preset: of its model.
        precision: of the graphs that ran.
        backend: what ran them.
        device: 'cpu', or the name of the GPU.
        graphs: SHA-256 of each graph that ran.
    """

    bundle: str
    preset: str
    precision: str
    backend: str
    device: str
    graphs: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Settings(LoadConfig):
    """Settings that a run was made with.

    Attributes:
        modes: what was run, some of `MODES`.
        threads: CPU threads of every baseline.
        inputs: different clips that were fed in rotation.
        rate_hz: frames per second of the mode 'paced'.
    """

    modes: tuple[str, ...]
    threads: int
    inputs: int
    rate_hz: float
