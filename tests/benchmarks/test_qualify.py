"""Verdict and energy on recorded trees whose files change while a run goes on: both exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from logoformer.benchmarks.qualify import drift_of, qualify, timed_windows
from logoformer.benchmarks.report.records import CacheCheck, ReportRow, Telemetry
from logoformer.benchmarks.sensors.find import find_sensors
from logoformer.benchmarks.sensors.nvml import Nvml
from logoformer.benchmarks.sensors.telemetry import MIN_SAMPLES, Sampler, row_energy, trapezoid
from logoformer.benchmarks.statistics import Ratio

TICKS = 40  # samples, 100 ms apart: one second before the run, three while it is timed
GPU = "NVIDIA Jetson Orin Nano"
NANO_GPU = "sys/class/devfreq/17000000.gpu"
VDD_IN = "sys/class/hwmon/hwmon1/curr1_input"


class Run:
    """Samples a machine on a clock of our own, changing it before each sample, and times a steady row beside it."""

    def __init__(self, made, machine, nvml=None):
        self.made, self.machine, self.nvml = made, machine, nvml

    def telemetry(self, change=lambda tick: {}) -> Telemetry:
        now = [0]
        self.machine.write(**change(0))
        found = find_sensors(self.machine.root, self.nvml)
        sampler = Sampler(found.sensors, found.facts, clock=lambda: now[0])
        for tick in range(TICKS):
            now[0] = tick * 100_000_000
            ticks = {"proc/stat": f"cpu  {100 + 20 * tick} 0 100 800 0 0 0 0 0 0"}
            self.machine.write(**{**ticks, **change(tick)})
            sampler.take()
        return sampler.result(zero_ns=1_000_000_000)

    def row(self, device=GPU, ms=None, **changes) -> ReportRow:
        """280 results of 10 ms, one after the other from second 0.1 to 2.9."""
        ms = np.full((20, 14), 10.0) if ms is None else ms
        backend = "onnxruntime 1.2.3 CPU" if device == "cpu" else "tensorrt 10.3.0 on sm87 by pycuda"
        return self.made.row("clip", ms, begin_s=0.1, device=device, backend=backend, **changes)

    def qualify(self, change=lambda tick: {}, row=None, cache=None):
        return qualify([row or self.row()], self.made.machine, self.telemetry(change), cache)


@pytest.fixture
def nano(made, tree):
    return Run(made, tree("orin-nano"))


# -------------------------------------------------------------------------------------------------------------- verdict
def test_a_steady_orin_nano_is_qualified(nano):
    verdict = nano.qualify()
    assert verdict.line() == "qualified"
    assert "gpu clock 1020..1020 MHz while timed" in verdict.held
    assert "power mode MAXN_SUPER (2)" in verdict.held
    assert "over-current: throttled in 0 of 40 samples" in verdict.held
    assert "280 samples of each row, 64 needed for a p90" in verdict.held


@pytest.mark.parametrize("name", ["agx-orin", "thor"])
def test_other_boards(made, tree, name):
    run = Run(made, tree(name))
    verdict = run.qualify()
    if name == "agx-orin":
        assert verdict.line() == "qualified"
    else:  # its devfreq node has no load, and NVML is not there in this run
        assert verdict.reasons == ("whether others use the GPU cannot be read",)


def test_a_thor_with_nvml_is_qualified(made, tree):
    assert Run(made, tree("thor"), Nvml(_card())).qualify().line() == "qualified"


def test_a_desktop_card(made, tree):
    run = Run(made, tree("desktop"), Nvml(_card()))
    assert run.qualify().line() == "qualified"
    busy = Run(made, run.machine, Nvml(_card(processes=2, load=30)))
    assert busy.qualify().reasons == ("2 other processes on the GPU", "GPU load 30 % before the run")
    hot = Run(made, run.machine, Nvml(_card(reasons=0x20)))
    assert hot.qualify().reasons == ("gpu throttle: throttled in 40 of 40 samples",)


def test_without_sensors_nothing_is_vouched_for(made, tree):
    run = Run(made, tree("no-sensors"))
    assert set(run.qualify().reasons) == {
        "the GPU clock cannot be read",
        "whether it throttles cannot be read",
        "the power mode cannot be read",
        "whether others use the GPU cannot be read",
    }
    assert set(run.qualify(row=run.row("cpu")).reasons) == {
        "the CPU clock cannot be read",
        "the governor cannot be read",
    }


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("sys/class/thermal/cooling_device1/cur_state", "gpu-throttle-alert"),
        ("sys/class/hwmon/hwmon10/oc3_event_cnt", "over-current"),
    ],
)
def test_a_throttled_run_is_unqualified(nano, file, name):
    start = {"sys/class/thermal/cooling_device1/cur_state": 0, "sys/class/hwmon/hwmon10/oc3_event_cnt": 37}
    verdict = nano.qualify(lambda tick: {file: start[file] + (3 if tick >= 30 else 0)})
    assert verdict.reasons == (f"{name}: throttled in 10 of 40 samples",)


def test_a_clock_that_drifts_is_found(nano):
    falling = nano.qualify(lambda tick: {f"{NANO_GPU}/cur_freq": 1_020_000_000 - 4_000_000 * tick})
    assert falling.reasons == ("gpu clock 864..976 MHz while timed",)  # ticks 11..39 lie within the timed windows


def test_a_clock_that_sleeps_before_the_run_only_is_steady(nano):
    asleep = {f"{NANO_GPU}/cur_freq": 306_000_000}
    awake = {f"{NANO_GPU}/cur_freq": 1_020_000_000}
    assert nano.qualify(lambda tick: asleep if tick < 10 else awake).qualified


def test_a_wrong_unit_makes_no_verdict_of_its_own(nano):
    verdict = nano.qualify(lambda tick: {f"{NANO_GPU}/cur_freq": 1_020_000})
    assert verdict.reasons == (
        "the GPU clock cannot be read",
        "gpu clock: 1.02 MHz is not plausible; another unit, or another driver? (40 of 40 samples)",
    )


def test_a_gpu_that_was_busy_before(nano):
    assert nano.qualify(lambda tick: {f"{NANO_GPU}/device/load": 730}).reasons == ("GPU load 73.0 % before the run",)


def test_stolen_time(nano):
    stolen = nano.qualify(lambda tick: {"proc/stat": f"cpu  {100 + 20 * tick} 0 100 800 0 0 0 {5 * tick} 0 0"})
    assert stolen.reasons == ("20.0 % of CPU time stolen by other machines",)
    once = nano.qualify(lambda tick: {"proc/stat": f"cpu  {100 + 20 * tick} 0 100 800 0 0 0 {5 * (tick > 20)} 0 0"})
    assert once.qualified and "0.5 % of CPU time stolen by other machines" in once.held  # of all samples together


def test_a_loaded_machine(nano, made):
    busy = replace(made.machine, load_1min=1.9)
    verdict = qualify([nano.row()], busy, nano.telemetry(), None)
    assert verdict.reasons == ("load average 1.90 on 2 CPUs before the run",)
    assert not qualify([nano.row()], replace(busy, load_1min=None), nano.telemetry(), None).qualified


def test_latencies_that_scatter_or_drift(nano):
    scattered = np.full((20, 14), 10.0)
    scattered[:, ::2] = 12.0
    assert nano.qualify(row=nano.row(ms=scattered)).reasons == ("CoV up to 9.1 % (clip), 5 % is steady",)
    drifting = np.linspace(10.0, 11.0, 280).reshape(20, 14)
    assert drift_of(nano.row(ms=drifting)) == pytest.approx(0.0686, abs=1e-3)
    (reason,) = nano.qualify(row=nano.row(ms=drifting)).reasons
    assert reason.startswith("drift +6.9 % from first to last third")


def test_queueing_is_no_unsteadiness(nano):
    scattered = np.full((20, 14), 10.0)
    scattered[:, ::2] = 19.0
    assert nano.qualify(row=nano.row(ms=scattered, mode="paced")).qualified


def test_too_few_samples(nano):
    few = nano.row(ms=np.full((7, 9), 45.0))
    assert nano.qualify(row=few).reasons == ("63 samples of each row, 64 needed for a p90",)


def test_a_cache_unqualifies(nano):
    cache = CacheCheck(Ratio(0.1, 0.09, 0.11), 0.02, 1, 3, True)
    assert nano.qualify(cache=cache).reasons == ("repeated input takes 0.10 of rotating input",)


def test_a_run_between_two_samples_says_so(nano):
    short = nano.row(ms=np.full((8, 8), 1.5))
    assert (
        "gpu clock was read 0 times while timed"
        in qualify(
            [replace(short, at_s=tuple(tuple(at + 0.01 - 0.1 for at in block) for block in short.at_s))],
            nano.made.machine,
            replace(nano.telemetry(), series=tuple(_thin(one) for one in nano.telemetry().series)),
            None,
        ).reasons
    )


def _thin(series):
    return replace(series, t_s=series.t_s[::20], value=series.value[::20])


def _card(reasons=0x1, processes=0, load=0):
    from types import SimpleNamespace

    class NVMLError(Exception):
        pass

    answers = {
        "nvmlInit": None, "nvmlDeviceGetHandleByIndex": 0, "nvmlDeviceGetName": "NVIDIA GeForce RTX 3080",
        "nvmlSystemGetDriverVersion": "595.78", "nvmlDeviceGetPowerUsage": 100_000, "nvmlDeviceGetClockInfo": 1710,
        "nvmlDeviceGetTemperature": 55, "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=load),
        "nvmlDeviceGetCurrentClocksEventReasons": reasons, "nvmlDeviceGetFanSpeed": 40,
        "nvmlDeviceGetEnforcedPowerLimit": 320_000,
        "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=-i) for i in range(1, processes + 1)],
    }  # fmt: skip
    functions = {name: (lambda *_, answer=answer: answer) for name, answer in answers.items()}
    return SimpleNamespace(**functions, NVMLError=NVMLError, NVML_CLOCK_SM=1, NVML_TEMPERATURE_GPU=0)


# --------------------------------------------------------------------------------------------------------------- energy
def test_energy_of_constant_power_is_exact(nano):
    """10 W for 2.8 s, 280 results: 100 mJ each; 4 W before the run are reported beside it and are not subtracted."""
    telemetry = nano.telemetry(lambda tick: {VDD_IN: 800 if tick < 10 else 2000})
    row = nano.row()
    energy = row_energy(telemetry, timed_windows([row]), row.summary.n)
    assert energy.rail == "VDD_IN"
    assert energy.energy_mj == pytest.approx(100.0, rel=1e-9)
    assert energy.mean_w == pytest.approx(10.0, rel=1e-9)
    assert energy.idle_w == pytest.approx(4.0)
    assert energy.seconds == pytest.approx(2.8)
    assert energy.samples == 29  # 0.1 ... 2.9 s


def test_energy_of_rising_power_is_the_trapezoid(nano):
    """5 W at second -1, 0.5 W more with every sample: 10 + 5 t W; its integral is 10 t + 2.5 t^2, from 0.1 to 2.9 s."""
    telemetry = nano.telemetry(lambda tick: {VDD_IN: 1000 + 100 * tick})
    row = nano.row()
    energy = row_energy(telemetry, timed_windows([row]), row.summary.n)
    assert energy.energy_mj == pytest.approx(1e3 * (28 + 2.5 * (2.9**2 - 0.1**2)) / 280, rel=1e-6)


def test_only_the_rows_own_windows_count(nano):
    """Two rows alternate; one draws 20 W, the other 10 W."""
    telemetry = nano.telemetry(lambda tick: {VDD_IN: 4000 if (tick // 5) % 2 else 2000})
    own = np.array([[-1.0 + 0.5 * k, -1.0 + 0.5 * k + 0.4] for k in range(2, 8)])
    hungry, modest = (row_energy(telemetry, own[k::2], 10) for k in (1, 0))
    assert hungry.mean_w == pytest.approx(20.0)
    assert modest.mean_w == pytest.approx(10.0)
    assert hungry.energy_mj == pytest.approx(2 * modest.energy_mj)


def test_the_sum_of_an_agx_orins_rails(made, tree):
    run = Run(made, tree("agx-orin"))
    row = run.row()
    energy = row_energy(run.telemetry(), timed_windows([row]), row.summary.n)
    assert energy.energy_mj == pytest.approx(120.0, rel=1e-9)
    assert energy.rail.startswith("sum of ")


def test_no_power_no_energy(made, tree, nano):
    row = nano.row()
    windows = timed_windows([row])
    assert row_energy(Run(made, tree("no-sensors")).telemetry(), windows, 280) is None
    wrong_unit = nano.telemetry(lambda tick: {"sys/class/hwmon/hwmon1/in1_input": 5_000_000})
    assert row_energy(wrong_unit, windows, 280) is None
    telemetry = nano.telemetry()
    assert row_energy(telemetry, windows + 10.0, 280) is None  # the sensor was not read then
    assert row_energy(telemetry, np.array([[0.0, 0.1 * (MIN_SAMPLES - 1) - 0.01]]), 90) is None  # too few samples
    assert row_energy(telemetry, np.empty((0, 2)), 0) is None


def test_a_window_may_begin_between_two_samples():
    assert trapezoid([0.0, 1.0, 2.0], np.array([0.0, 10.0, 0.0]), 0.5, 1.5) == pytest.approx(7.5)
    assert trapezoid([0.0, 1.0, 2.0], np.array([0.0, 10.0, 0.0]), 0.25, 0.75) == pytest.approx(2.5)
