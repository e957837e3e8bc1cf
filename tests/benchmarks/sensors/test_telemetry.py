"""The sampler: by hand on a clock of our own, and its thread."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from logoformer.benchmarks.report.records import Series, Telemetry
from logoformer.benchmarks.sensors.telemetry import TOTAL_POWER, Sampler, Sensor, row_energy


def sensor(name, *answers, kind="clock", unit="MHz"):
    """A sensor that gives one answer after the other; an exception is raised."""
    left = iter(answers)

    def read():
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Sensor(name, kind, unit, f"file of {name}", read)


def test_times_and_values_belong_together():
    now = [0]
    sampler = Sampler([sensor("a", 100.0, 200.0, 300.0)], {"governor": "x"}, 0.25, clock=lambda: now[0])
    for tick in (1, 2, 4):
        now[0] = tick * 250_000_000
        sampler.take()
    telemetry = sampler.result(zero_ns=500_000_000)
    (series,) = telemetry.series
    assert (series.name, series.kind, series.unit, series.source) == ("a", "clock", "MHz", "file of a")
    assert series.t_s == (-0.25, 0.0, 0.5)
    assert series.value == (100.0, 200.0, 300.0)
    assert (telemetry.period_s, telemetry.facts, telemetry.unreadable) == (0.25, {"governor": "x"}, ())


def test_what_fails_is_named_and_the_rest_goes_on():
    good, off = sensor("good", 50.0, 60.0), sensor("off", None, 70.0)
    bad = sensor("bad", ValueError("no number"), OSError(5, "Input/output error"))
    wild = sensor("wild", 1e9, 80.0)
    sampler = Sampler([good, off, bad, wild], clock=lambda: 0)
    sampler.take()
    sampler.take()
    telemetry = sampler.result(0)
    assert {one.name: one.value for one in telemetry.series} == {"good": (50.0, 60.0), "off": (70.0,), "wild": (80.0,)}
    assert len(telemetry.unreadable) == 2
    assert "bad: [Errno 5] Input/output error (2 of 2 samples)" in telemetry.unreadable
    assert any(item.startswith("wild: 1e+09 MHz is not plausible") for item in telemetry.unreadable)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0])
def test_no_number_that_cannot_be_is_kept(value):
    sampler = Sampler([sensor("a", value)], clock=lambda: 0)
    sampler.take()
    assert sampler.result(0).series == ()


def test_what_a_sample_costs_is_told():
    now = [0]

    def clock():
        now[0] += 1_000_000
        return now[0]

    sampler = Sampler([sensor("a", 50.0), sensor("b", 50.0)], clock=clock)
    sampler.take()
    assert sampler.result(0).cost_ms == 3.0  # begin, one look before each sensor, end


def test_two_sensors_of_one_name_are_refused():
    with pytest.raises(ValueError, match="share a name"):
        Sampler([sensor("a"), sensor("a")])


def test_the_thread_samples_and_ends():
    sampled = threading.Event()

    def read():
        sampled.set()
        return 50.0

    with Sampler([Sensor("a", "clock", "MHz", "here", read)], period_s=0.001) as sampler:
        assert sampled.wait(30)
        zero = time.perf_counter_ns()
    assert not any(thread.name == "telemetry" for thread in threading.enumerate())
    assert sampler.result(zero).series[0].value[0] == 50.0


def test_without_sensors_no_thread_runs():
    with Sampler([]) as sampler:
        assert not any(thread.name == "telemetry" for thread in threading.enumerate())
    telemetry = sampler.result(0)
    assert (telemetry.series, telemetry.cost_ms) == ((), 0.0)


def test_an_error_of_the_run_ends_the_thread_too():
    with pytest.raises(RuntimeError), Sampler([Sensor("a", "clock", "MHz", "here", lambda: 50.0)], period_s=0.001):
        raise RuntimeError
    assert not any(thread.name == "telemetry" for thread in threading.enumerate())


@pytest.mark.parametrize(("begin_s", "end_s"), [(-0.01, 1.5), (0.5, 2.01), (0.5, 1.5), (0.0, 2.0)])
def test_energy_of_a_window_that_the_sensor_did_not_see_whole_is_none(begin_s, end_s):
    times = tuple(number / 10 for number in range(21))  # seconds 0 to 2
    series = Series("board", "power", "W", "here", times, (10.0,) * 21)
    telemetry = Telemetry(0.1, 0.0, {TOTAL_POWER: "board"}, (series,), ())
    energy = row_energy(telemetry, np.array([[begin_s, end_s]]), 10)
    assert (energy is None) == (begin_s < 0 or end_s > 2)
    assert energy is None or energy.mean_w == pytest.approx(10.0)
