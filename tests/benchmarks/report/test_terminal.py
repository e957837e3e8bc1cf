"""The parts of a report beside its table: each is shown when it is there, and only then."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from logoformer.benchmarks.report.records import Energy, Pace, Telemetry, TrtexecRun
from logoformer.benchmarks.report.terminal import details, report_text
from logoformer.benchmarks.statistics import Summary


def lines(report) -> str:
    return "\n".join(details(report))


def test_a_whole_report(made):
    shown = lines(made.report())
    assert "cold start, median of 2 new processes, ms: process 30, import 80, load 200, first 9, total 321" in shown
    assert "first answer after a pause, median of 2, ms: 0 s 5.05, 1 s 7.60 (x1.50)" in shown
    assert "machine: governor: performance" in shown
    assert "steal: 0..0.5 % in 2 samples (proc/stat)" in shown
    assert "not readable: gpu: no permission" in shown
    assert "trtexec 10.3, clip: GPU compute ms: median 1.5; 400.0 queries/s" in shown
    assert "trtexec --x" in shown
    assert "H2D + GPU compute + D2H" in shown  # what its words mean is said beside them


def test_device_time_stands_beside_trtexecs(made):
    """GPU Compute Time and time between two events mean the same; wall clocks do not."""
    runs = tuple(
        TrtexecRun(graph, "10.3", "trtexec", (("median", 9.0),), (("median", median),), 400.0)
        for graph, median in (("clip", 1.5), ("frame", 0.25), ("temporal", 0.5))
    )
    rows = tuple(
        made.row(name, np.full((20, 7), 5.0), device="a card", device_ms=Summary.of(np.full(140, median)), hop=hop)
        for name, median, hop in (("clip", 1.8, None), ("stream", 0.75, 1))
    )
    shown = lines(made.report(rows=rows, trtexec=runs))
    assert "clip: device time p50 1.800 ms, trtexec's clip 1.5 ms: 1.20 of it" in shown
    assert "stream: device time p50 0.750 ms, trtexec's frame + temporal 0.75 ms: 1.00 of it" in shown
    none = lines(made.report(rows=(made.row("clip"), made.row("stream", hop=1)), trtexec=runs[:2]))
    assert "clip: no device time was taken, so nothing compares with trtexec's 1.5 ms" in none
    assert "stream: no device time" not in none  # there is no figure of temporal either


def test_an_empty_report(made):
    nothing = made.report(cold=None, idle_gaps=(), trtexec=(), cache=None, telemetry=Telemetry(0.1, 0.0, {}, (), ()))
    assert lines(nothing) == ""
    assert report_text(replace(nothing, rows=(), comparisons=()))


def test_queueing_is_told_in_words(made):
    service = Summary.of(np.full(140, 4.0))
    slow = Pace(25.0, 20.0, 100, 30, 2.0, service)
    shown = lines(made.report(rows=(made.row("paced 25 Hz", mode="paced", hop=1, pace=slow),)))
    assert "20.0 of 25 frames/s worked off, 100 frames queued, at most 30 at once" in shown
    assert "a closed loop would show p50 4.00 ms" in shown
    assert "does not keep up with 25 frames/s" in shown
    level = replace(slow, achieved_hz=25.0, queued=0, longest_queue=0)
    assert "keep up" not in lines(made.report(rows=(made.row("paced 25 Hz", mode="paced", hop=1, pace=level),)))


def test_energy_and_device_time(made):
    energy = Energy("VDD_IN", 100.25, 10.5, 4.0, 29, 2.8)
    row = made.row(device="Example GPU", energy=energy, device_ms=Summary.of(np.full(140, 1.5)))
    shown = lines(made.report(rows=(row,)))
    assert "clip: 100.25 mJ per result at 10.50 W (VDD_IN; 29 samples in 2.8 s, 4.00 W idle before;" in shown
    assert "idle power is not subtracted" in shown
    assert "clip: device time p50 1.500 ms, by events on its stream" in shown
