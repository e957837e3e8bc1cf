"""Ratios of latencies: their intervals hold what they say while neighbouring rounds resemble each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.benchmarks import statistics as s
from logoformer.benchmarks.bench import FEWEST_ROUNDS, ROUNDS

SIMULATIONS = 4000


def noisy(seed: int, rounds: int = 20, block: int = 7) -> np.ndarray:
    return 10 + np.random.default_rng(seed).gamma(2, 0.1, (rounds, block))


# ------------------------------------------------------------------------------------------------------------- coverage
def runs(rng: np.random.Generator, rounds: int, lag1: float, kind: str) -> np.ndarray:
    """Float64 `[N, R, 3]`: rounds that are slow for a while (first-order autoregression), and skewed noise in each."""
    shocks = {
        "normal": lambda size: rng.standard_normal(size),
        "log-normal": lambda size: np.exp(rng.standard_normal(size)),
        "heavy": lambda size: rng.standard_t(3, size),
    }[kind]((SIMULATIONS, rounds + 30))
    mood = np.zeros_like(shocks)
    for now in range(1, shocks.shape[1]):
        mood[:, now] = lag1 * mood[:, now - 1] + np.sqrt(1 - lag1**2) * shocks[:, now]
    inside = rng.gamma(2, 0.005, (SIMULATIONS, rounds, 3))
    return 20.0 * np.exp(0.03 * mood[:, 30:, None] + inside)


def coverage(rounds: int, lag1: float, kind: str, paired: bool) -> float:
    """Share of intervals that hold the true ratio, 1.1."""
    rng = np.random.default_rng([rounds, round(100 * lag1), len(kind), paired])
    before, after = runs(rng, rounds, lag1, kind), 1.1 * runs(rng, rounds, lag1, kind)
    compare = s.ratio if paired else s.ratio_of_runs
    found = [compare(b, a) for a, b in zip(before, after, strict=True)]
    return float(np.mean([one.low <= 1.1 <= one.high for one in found]))


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("lag1", [0.0, 0.3, 0.5])
def test_99_percent_intervals_hold_the_truth_in_at_least_975_of_1000_runs(lag1, paired):
    found = coverage(ROUNDS, lag1, "normal", paired)
    assert 0.975 <= found <= 0.998, found


@pytest.mark.parametrize(
    ("rounds", "lag1", "kind"),
    [
        (ROUNDS, 0.5, "log-normal"), (ROUNDS, 0.3, "heavy"), (FEWEST_ROUNDS, 0.5, "normal"),
        (s.MIN_ROUNDS, 0.5, "normal"),
    ],
)  # fmt: skip
def test_so_do_those_of_skewed_rounds_and_of_fewer_rounds(rounds, lag1, kind):
    assert coverage(rounds, lag1, kind, paired=True) >= 0.975


def test_a_slowdown_of_the_detectable_size_is_found_in_about_nine_of_ten_runs():
    rng = np.random.default_rng(9)
    first, second = runs(rng, ROUNDS, 0.3, "normal"), runs(rng, ROUNDS, 0.3, "normal")
    found = 0
    for before, after, others in zip(first[:1000], second[:1000], first[-1000:], strict=True):
        slower = 1.0 + s.ratio(before, others).detectable(0.01)  # as another run would promise it
        found += s.ratio(slower * after, before).low > 1.01
    assert 0.85 <= found / 1000 <= 0.97


# ------------------------------------------------------------------------------------------------------------ Student's
@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 63.657), (2, 9.925), (3, 5.841), (4, 4.604), (5, 4.032), (8, 3.355), (10, 3.169), (30, 2.750)],
)
def test_quantiles_are_those_of_the_tables(freedom, quantile):
    assert s.student_t(freedom) == pytest.approx(quantile, abs=5e-4)
    assert s.student_t(freedom) > s.student_t(freedom + 1) > s.student_t(freedom + 1, 0.95)


# ------------------------------------------------------------------------------------------------ ratios in one run
def test_a_scaled_series_has_an_exact_ratio():
    b = noisy(0)
    found = s.ratio(2 * b, b)
    assert found.value == pytest.approx(2.0) and found.high / found.low == pytest.approx(1.0, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rounds=st.integers(s.MIN_ROUNDS, 60), factor=st.floats(0.01, 100))
def test_ratios_turn_with_their_sides_and_scale_with_their_units(seed, rounds, factor):
    a, b = noisy(seed, rounds), noisy(seed + 1, rounds)
    for compare in (s.ratio, s.ratio_of_runs):
        there, back, scaled = compare(a, b), compare(b, a), compare(factor * a, b)
        assert there.low <= there.value <= there.high
        assert (back.low, back.value) == (pytest.approx(1 / there.high), pytest.approx(1 / there.value))
        assert (scaled.low, scaled.high) == (pytest.approx(factor * there.low), pytest.approx(factor * there.high))


def test_a_planted_difference_is_found_and_none_where_there_is_none():
    a, again, slower = noisy(1), noisy(2), 1.05 * noisy(3)
    same, planted = s.ratio(a, again), s.ratio(slower, a)
    assert same.low <= 1 <= same.high
    assert planted.low > 1
    assert same.noise < planted.value - 1


def test_the_value_is_the_trimmed_mean_of_the_rounds_ratios():
    a, b = noisy(1, 40), noisy(2, 40)
    logs = sorted(np.log(np.median(a, axis=1) / np.median(b, axis=1)))
    assert s.ratio(a, b).value == pytest.approx(np.exp(sum(logs[4:-4]) / 32))


def test_what_slows_both_is_not_seen():
    # Rounds differ tenfold, alike for both.
    drift = np.linspace(1, 10, 20)[:, None]
    found = s.ratio(1.03 * drift * noisy(4), drift * noisy(4))
    assert (found.low, found.high) == (pytest.approx(1.03), pytest.approx(1.03))


def test_the_interval_widens_when_rounds_disagree_but_not_for_one_neighbour_that_woke_up():
    steady = s.ratio(noisy(5), noisy(6))
    rng = np.random.default_rng(7)
    moody = s.ratio(noisy(5) * rng.uniform(0.5, 2, (20, 1)), noisy(6))
    assert moody.high - moody.low > 5 * (steady.high - steady.low)
    woken = noisy(5)
    woken[3] *= 4
    once = s.ratio(woken, noisy(6))
    assert once.high - once.low < 2 * (steady.high - steady.low) and once.value == pytest.approx(steady.value, rel=0.01)


def test_noise_is_the_far_end_of_the_interval():
    assert s.Ratio(1.01, 0.9, 1.03).noise == pytest.approx(0.1)
    assert s.Ratio(1.01, 0.99, 1.03).noise == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("a", "b"), [((20, 7), (19, 7)), ((7, 3), (7, 3)), ((140,), (140,)), ((20, 0), (20, 7)), ((1, 140), (1, 140))]
)
def test_rounds_that_do_not_fit_are_refused(a, b):
    with pytest.raises(ValueError, match="cannot be compared"):
        s.ratio(np.ones(a), np.ones(b))


# ------------------------------------------------------------------------------------------------ ratios between runs
def test_between_two_runs_too_a_difference_is_found_and_none_where_there_is_none():
    same, planted = s.ratio_of_runs(noisy(1), noisy(2)), s.ratio_of_runs(1.05 * noisy(3), noisy(2))
    assert same.low <= 1 <= same.high
    assert 1 < planted.low <= planted.value <= planted.high
    tail = s.ratio_of_runs(1.3 * noisy(3), noisy(2), 90)
    assert tail.low <= 1.3 <= tail.high and tail.value == pytest.approx(1.3, rel=0.05)


def test_a_run_that_drifts_vouches_for_less():
    drift = np.linspace(1, 1.2, 20)[:, None]
    steady, moving = s.ratio_of_runs(noisy(1), noisy(2)), s.ratio_of_runs(drift * noisy(1), noisy(2))
    assert moving.high - moving.low > 5 * (steady.high - steady.low)
    # The same rounds in another order: their neighbourhood is what makes it a drift.
    shuffled = np.random.default_rng(0).permutation(drift * noisy(1))
    mixed = s.ratio_of_runs(shuffled, noisy(2))
    assert moving.high - moving.low > 1.5 * (mixed.high - mixed.low)


def test_rounds_of_two_runs_need_not_be_as_many():
    found = s.ratio_of_runs(noisy(1, rounds=9, block=3), noisy(2, rounds=20))
    assert found.low <= 1 <= found.high


@pytest.mark.parametrize(("a", "b"), [((7, 7), (20, 7)), ((20, 7), (7, 7)), ((140,), (20, 7)), ((20, 0), (20, 7))])
def test_runs_that_say_too_little_are_refused(a, b):
    with pytest.raises(ValueError, match="cannot be compared"):
        s.ratio_of_runs(np.ones(a), np.ones(b))
