"""First answers: phases of processes really started, and pauses on a clock of our own."""

from __future__ import annotations

import itertools

import pytest
from logoformer.benchmarks.load.first_answer import cold_starts, idle_gaps, phases
from logoformer.errors import MachineError


def test_phases_are_the_steps_between_the_marks():
    ms = 1_000_000
    marks = {"entered": 130 * ms, "imported": 180 * ms, "loaded": 480 * ms, "first": 510 * ms, "warm_ms": 4.5}
    assert phases(100 * ms, marks) == {
        "process_ms": 30.0,
        "import_ms": 50.0,
        "load_ms": 300.0,
        "first_ms": 30.0,
        "warm_ms": 4.5,
        "total_ms": 410.0,
    }


def test_new_processes_open_the_bundle_and_answer(toy):
    seen = []
    found = cold_starts(toy.path, "onnxruntime", "fp32", 1, starts=2, progress=lambda *call: seen.append(call))
    for values in (found.process_ms, found.import_ms, found.load_ms, found.first_ms, found.warm_ms):
        assert len(values) == 2
        assert min(values) > 0
    for i, total in enumerate(found.total_ms):
        parts = (found.process_ms, found.import_ms, found.load_ms, found.first_ms)
        assert total == pytest.approx(sum(part[i] for part in parts))
    assert seen == [("cold start", 1, 2), ("cold start", 2, 2)]


def test_a_process_that_fails_is_named_with_its_last_words(tmp_path):
    with pytest.raises(MachineError, match="ended with 1") as raised:
        cold_starts(tmp_path / "nothing", "onnxruntime", "fp32", 1, starts=1)
    assert any("no bundle" in line for line in raised.value.log)


# --------------------------------------------------------------------------------------------------------------- pauses
def test_a_machine_that_falls_asleep_is_found():
    now, slept, calls = [0], [0.0], []

    def sleep(seconds):
        now[0] += round(seconds * 1e9)
        slept[0] = seconds

    def step(index):
        calls.append(index)
        now[0] += 9_000_000 if slept[0] >= 0.5 else 3_000_000  # after half a second the clock is down
        slept[0] = 0.0

    gaps = idle_gaps(step, (0.0, 0.1, 0.5, 2.0), 5, clock=lambda: now[0], sleep=sleep)
    assert [gap.gap_s for gap in gaps] == [0.0, 0.1, 0.5, 2.0]
    assert [set(gap.latency_ms) for gap in gaps] == [{3.0}, {3.0}, {9.0}, {9.0}]
    assert [gap.ratio for gap in gaps] == [None, 1.0, 3.0, 3.0]
    assert all(len(gap.latency_ms) == 5 for gap in gaps)
    assert calls == list(range(5 * 4 * 3))  # no input twice in a row


def test_the_order_is_drawn_anew():
    order = []
    idle_gaps(lambda index: None, (0.0, 1.0, 2.0), 20, clock=itertools.count(0, 1000).__next__, sleep=order.append)
    assert len({tuple(order[i : i + 2]) for i in range(0, 40, 2)}) == 2


def test_progress_reaches_its_total():
    seen = []
    idle_gaps(lambda i: None, (0.0,), 3, clock=iter(range(99)).__next__, progress=lambda *call: seen.append(call))
    assert seen == [("idle gaps", 1, 3), ("idle gaps", 2, 3), ("idle gaps", 3, 3)]


@pytest.mark.parametrize("gaps", [(), (0.1, 0.5)])
def test_the_first_pause_is_none(gaps):
    with pytest.raises(ValueError, match="must be 0"):
        idle_gaps(lambda index: None, gaps)
