"""The load generator on a clock of our own: nothing here depends on how fast this machine is."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.benchmarks.load.closed import Candidate, LoadConfig, closed_loop, overhead_us
from logoformer.benchmarks.statistics import numpy_percentile, ratio


class Clock:
    """Nanoseconds that pass only when somebody works, and `tick_ns` at each look."""

    def __init__(self, tick_ns: int = 0) -> None:
        self.now, self.tick_ns = 0, tick_ns

    def __call__(self) -> int:
        self.now += self.tick_ns
        return self.now

    def work(self, ms: float) -> None:
        self.now += round(ms * 1e6)


class Worker:
    """A step that takes `delay(clock, index)` milliseconds and remembers how it was called."""

    def __init__(self, clock: Clock, delay) -> None:
        self.clock, self.delay, self.calls = clock, delay, []

    def __call__(self, index: int) -> None:
        self.calls.append(index)
        self.clock.work(self.delay(index))


CONFIGS = st.builds(
    LoadConfig,
    rounds=st.integers(1, 12),
    block=st.integers(1, 6),
    settle=st.integers(0, 3),
    warmup=st.integers(0, 5),
    seed=st.integers(0, 1000),
)


@settings(max_examples=60, deadline=None)
@given(config=CONFIGS, count=st.integers(1, 5))
def test_every_candidate_gets_the_same_load(config, count):
    clock = Clock()
    workers = [Worker(clock, lambda index, own=i: own + 1 + index / 1024) for i in range(count)]
    result = closed_loop([Candidate(f"c{i}", w) for i, w in enumerate(workers)], config, clock=clock)
    everything = list(range(config.warmup + config.rounds * (config.settle + config.block)))
    assert all(worker.calls == everything for worker in workers)  # the same indices, none twice, in order
    assert len(result.order) == config.rounds
    assert all(sorted(turn) == sorted(f"c{i}" for i in range(count)) for turn in result.order)
    assert result.steps.size == config.samples
    for i in range(count):
        # Each latency is that of the step whose index stands at its place: warm-up and settling are not among them.
        assert np.allclose(result.latency_ms[f"c{i}"], i + 1 + result.steps / 1024, atol=1e-6)


def test_order_changes_from_round_to_round_and_no_place_is_favoured():
    clock = Clock()
    candidates = [Candidate(name, Worker(clock, lambda _: 1)) for name in "abc"]
    order = closed_loop(candidates, LoadConfig(rounds=300, block=1, settle=0, warmup=0), clock=clock).order
    firsts = Counter(turn[0] for turn in order)
    assert len(set(order)) == 6
    assert min(firsts.values()) > 70  # 100 each is expected


def test_it_rests_before_every_block_and_never_within_one():
    clock, rests = Clock(), []
    worker = Worker(clock, lambda _: 1)
    closed_loop(
        [Candidate("a", worker), Candidate("b", worker)],
        LoadConfig(rounds=3, block=4, settle=1, warmup=0, rest_s=0.25),
        clock=clock,
        sleep=lambda s: rests.append((s, len(worker.calls))),
    )
    assert rests == [(0.25, done) for done in range(0, 30, 5)]


def test_the_seed_decides_the_order():
    def orders(seed):
        clock = Clock()
        candidates = [Candidate(name, Worker(clock, lambda _: 1)) for name in "abcd"]
        return closed_loop(candidates, LoadConfig(seed=seed), clock=clock).order

    assert orders(1) == orders(1) != orders(2)


def test_reports_a_known_distribution_as_it_is():
    rng, clock = np.random.default_rng(1), Clock()
    delays = rng.gamma(4, 2, 2000)
    worker = Worker(clock, lambda index: delays[index])
    config = LoadConfig(rounds=50, block=20, settle=0, warmup=0)
    taken = closed_loop([Candidate("known", worker)], config, clock=clock).latency_ms["known"]
    for p in (50, 99):
        assert numpy_percentile(taken, p) == pytest.approx(np.percentile(delays[:1000], p), rel=1e-6)


def test_interleaving_takes_drift_out_of_the_ratio():
    rng, clock = np.random.default_rng(2), Clock()

    def drifting(factor):  # the machine slows down more than twofold over the run
        return lambda _: factor * (10 + clock.now / 1e9 * 2) * rng.uniform(0.98, 1.02)

    names = {"a": 1.0, "a again": 1.0, "slower": 1.05}
    candidates = [Candidate(name, Worker(clock, drifting(factor))) for name, factor in names.items()]
    taken = closed_loop(candidates, LoadConfig(rounds=20, block=7), clock=clock).latency_ms
    assert taken["a"][-1].mean() > 2 * taken["a"][0].mean()
    same, planted = ratio(taken["a again"], taken["a"]), ratio(taken["slower"], taken["a"])
    assert same.low <= 1 <= same.high
    assert planted.value == pytest.approx(1.05, abs=0.04)


def test_a_planted_slow_candidate_is_found_and_a_a_stays_quiet():
    alarms = found = 0
    for seed in range(20):
        rng, clock = np.random.default_rng(seed), Clock()
        delays = {"a": 1.0, "a again": 1.0, "slow": 1.05}
        candidates = [
            Candidate(name, Worker(clock, lambda _, base=base, rng=rng: base * (5 + rng.gamma(2, 0.1))))
            for name, base in delays.items()
        ]
        taken = closed_loop(candidates, LoadConfig(seed=seed), clock=clock).latency_ms
        same, slow = ratio(taken["a again"], taken["a"]), ratio(taken["slow"], taken["a"])
        alarms += not same.low <= 1 <= same.high
        found += slow.low > 1
    assert alarms <= 1
    assert found == 20


def test_overhead_is_what_the_clock_alone_costs():
    assert overhead_us(lambda _: None, clock=Clock(tick_ns=130)) == pytest.approx(0.13)
    clock = Clock(tick_ns=50)
    result = closed_loop([Candidate("one", Worker(clock, lambda _: 2))], LoadConfig(), clock=clock)
    assert np.allclose(result.latency_ms["one"], 2 + 0.05e-3)
    assert result.seconds > 0.28


def test_progress_reaches_its_total():
    clock, seen = Clock(), []
    candidates = [Candidate(name, Worker(clock, lambda _: 1)) for name in "ab"]
    closed_loop(candidates, LoadConfig(rounds=3), clock=clock, progress=lambda *call: seen.append(call))
    assert [done for _, done, _ in seen] == list(range(1, 9))
    assert {total for _, _, total in seen} == {8}
    assert [stage for stage, _, _ in seen] == ["warm-up"] * 2 + ["timing"] * 6


@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_names_must_differ(names):
    with pytest.raises(ValueError, match="different names"):
        closed_loop([Candidate(name, lambda _: None) for name in names], LoadConfig())


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"block": 0}, {"settle": -1}, {"warmup": -1}, {"rest_s": -0.1}])
def test_an_impossible_load_is_refused(wrong):
    with pytest.raises(ValueError, match="at least one"):
        LoadConfig(**wrong)


def test_an_error_of_a_candidate_ends_the_run():
    def broken(index):
        if index == 15:
            raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        closed_loop([Candidate("broken", broken)], LoadConfig())
