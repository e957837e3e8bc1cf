"""The evidence of `bench-compare`: what it counts, and that it refuses a busy machine."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from logoformer.benchmarks.baselines.contract import CLIP, Baseline, StepAnswer
from logoformer.errors import MachineError
from logoformer.studies import compare_evidence as c


def sides(rng, slower: float):
    """Two sides, float64 `[80, 8]` each, that a common mood slows; 0.3 % of noise between them."""
    mood = np.exp(rng.normal(0, 0.02, (80, 1)))
    noise = np.exp(rng.normal(0, 0.003, (2, 80, 8)))
    return mood * noise[0], (1 + slower) * mood * noise[1]


def test_counts_are_those_of_the_planted():
    rng = np.random.default_rng(0)
    found = c.judged({share: [sides(rng, share) for _ in range(20)] for share in c.PLANTED})
    assert (found["one_run"]["false_alarms"], found["one_run"]["found"]) == (0, {"0.02": 20, "0.05": 20})
    # Two runs apart in time do not share their moods.
    assert found["two_runs"]["false_alarms"] == 0 and found["two_runs"]["found"]["0.02"] < 20
    assert found["two_runs"]["detectable"] > 2 * found["one_run"]["detectable"]
    swapped = c.judged({share: [sides(rng, 0.05 - share) for _ in range(20)] for share in (0.0, 0.05)})
    assert (swapped["one_run"]["false_alarms"], swapped["one_run"]["found"]) == (20, {"0.05": 0})


@pytest.mark.parametrize(("load", "others"), [(0.5, 0.0), (13.0, 0.0), (0.1, 0.06)])
def test_a_busy_machine_is_refused(load, others):
    c.Idle(0.49, 0.05).require()
    with pytest.raises(MachineError, match="busy"):
        c.Idle(load, others).require()


def test_the_slowdown_is_planted_behind_the_answer(monkeypatch):
    now_ns = 0

    def clock() -> int:
        nonlocal now_ns
        now_ns += 10
        return now_ns

    monkeypatch.setattr(c.time, "perf_counter_ns", clock)
    plain = Baseline(CLIP, "", "fp32", True, lambda index: StepAnswer(np.full(2, index), {}), "x")
    with contextlib.ExitStack() as stack:
        assert c.slower(lambda _stack: plain, 0)(stack) is plain
        answer = c.slower(lambda _stack: plain, 1000)(stack).answer(3)
    assert answer.probabilities.tolist() == [3, 3] and now_ns >= 1000
