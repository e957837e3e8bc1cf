"""The open loop on a clock of our own: what is queued is late, and a stall shows in the frames after it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.benchmarks.load.closed import Candidate, LoadConfig, closed_loop
from logoformer.benchmarks.load.paced import paced

MS = 1_000_000


class Clock:
    """Nanoseconds that pass when somebody works or waits."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def wait(self, due: int) -> None:
        self.now = max(self.now, due)


def run(delays_ms, rate_hz, answered=lambda index: True, late_ns=0):
    clock = Clock()
    seen = []

    def step(index):
        seen.append(index)
        clock.now += round(delays_ms[index] * MS)
        return answered(index)

    def wait(due):
        clock.wait(due + late_ns)

    return paced(step, rate_hz, len(delays_ms), clock=clock, wait=wait), seen


def service_ms(result) -> np.ndarray:
    """From the beginning of the work to the answer, as in a closed loop."""
    return (result.end_ns - result.start_ns) / 1e6


def test_a_stall_of_50_ms_queues_the_frames_that_follow():
    """Coordinated omission: 100 frames/s, 4 ms of work each, one frame takes 50 ms longer."""
    delays = [4.0] * 40
    delays[10] = 54.0
    result, _ = run(delays, rate_hz=100.0)
    want = [4.0] * 40
    # The stalled frame ends 54 ms after its arrival; the next arrived 44 ms before that, and so on, 6 ms less each.
    want[10:19] = [54.0, 48.0, 42.0, 36.0, 30.0, 24.0, 18.0, 12.0, 6.0]
    assert result.latency_ms.tolist() == want
    assert result.pace.queued == 8
    assert result.pace.longest_queue == 5
    # A closed loop sees one slow answer, and nothing of the eight that were late because of it.
    assert service_ms(result).tolist() == delays
    clock = Clock()

    def step(index):
        clock.now += round(delays[index] * MS)

    closed = closed_loop([Candidate("x", step)], LoadConfig(rounds=1, block=40, settle=0, warmup=0), clock=clock)
    assert (closed.latency_ms["x"] > 5).sum() == 1
    assert (result.latency_ms > 5).sum() == 9


def test_without_a_stall_nothing_queues():
    result, seen = run([3.0] * 30, rate_hz=25.0)
    assert seen == list(range(30))
    assert set(result.latency_ms) == {3.0}
    assert (result.pace.queued, result.pace.longest_queue, result.pace.wake_us) == (0, 0, 0.0)
    assert result.pace.achieved_hz == pytest.approx(25.0)


def test_a_machine_that_cannot_keep_up_gets_later_and_later():
    result, _ = run([50.0] * 20, rate_hz=25.0)  # 50 ms of work every 40 ms
    assert result.latency_ms.tolist() == [50.0 + 10.0 * i for i in range(20)]
    assert result.pace.achieved_hz == pytest.approx(20.0)
    assert result.pace.queued == 19


def test_frames_without_an_answer_are_no_results_but_delay_those_that_follow():
    delays = [1.0, 1.0, 1.0, 10.0] * 5
    delays[4] = 25.0  # no answer, but the next frames wait for it
    result, _ = run(delays, rate_hz=100.0, answered=lambda index: index % 4 == 3)
    assert result.steps.tolist() == [3, 7, 11, 15, 19]
    # Frame 7 is due at 70 ms; frame 4 ended at 65, frames 5 and 6 at 66 and 67: frame 7 did not wait.
    assert result.latency_ms.tolist() == [10.0] * 5
    assert result.pace.queued == 2


def test_how_late_the_harness_itself_wakes_up_is_told():
    result, _ = run([2.0] * 10, rate_hz=50.0, late_ns=300_000)
    assert result.pace.wake_us == 300.0
    assert result.latency_ms.tolist() == pytest.approx([2.3] * 10)


@settings(max_examples=80, deadline=None)
@given(
    delays=st.lists(st.integers(0, 80), min_size=1, max_size=60),
    period_ms=st.integers(1, 50),
)
def test_it_is_lindleys_queue(delays, period_ms):
    """Waiting times of a single server with fixed arrivals follow Lindley's recursion, computed here on its own."""
    result, _ = run([float(d) for d in delays], rate_hz=1000.0 / period_ms)
    wait, want = 0, []
    for delay in delays:
        want.append(wait + delay)
        wait = max(0, wait + delay - period_ms)
    assert result.latency_ms == pytest.approx(want, abs=1e-3)
    assert service_ms(result) == pytest.approx(delays, abs=1e-3)
    assert (result.latency_ms >= service_ms(result) - 1e-9).all()


def test_percentiles_of_the_stalled_run_are_numpys():
    delays = np.full(700, 4.0)
    delays[100] = 504.0
    result, _ = run(list(delays), rate_hz=100.0)
    assert np.percentile(service_ms(result), 99) == 4.0  # the closed loop's view: all is well
    assert np.percentile(result.latency_ms, 99) > 400  # the camera's view


@pytest.mark.parametrize(("rate", "frames"), [(0.0, 5), (-1.0, 5), (25.0, 0), (float("nan"), 5)])
def test_an_impossible_pace_is_refused(rate, frames):
    with pytest.raises(ValueError, match="needs frames and a rate"):
        paced(lambda index: True, rate, frames)


def test_the_real_clock_waits_until_a_frame_is_due():
    result = paced(lambda index: True, 500.0, 5)
    assert (result.start_ns >= result.due_ns).all()
