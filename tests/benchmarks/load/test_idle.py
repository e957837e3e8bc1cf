"""The first answer after a pause, on a clock of our own."""

from __future__ import annotations

import itertools

import pytest
from logoformer.benchmarks.load.idle import idle_gaps


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
