"""Percentiles, MLPerf's early stopping, ratios: constants exact, definitions kept apart."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.benchmarks import statistics as s

LATENCIES = st.lists(st.floats(0.001, 1e5), min_size=1, max_size=400)


def exact_cdf(k: int, n: int, chance: Fraction) -> Fraction:
    return sum((math.comb(n, i) * chance**i * (1 - chance) ** (n - i) for i in range(k + 1)), Fraction(0))


# ------------------------------------------------------------------------------------------------------ early stopping
@pytest.mark.parametrize(
    ("percentile", "t", "samples"),
    [
        (90, 1, 64),
        (90, 2, 81),
        (90, 5, 127),
        (90, 10, 197),
        (95, 1, 130),
        (99, 1, 662),
        (99, 2, 838),
        (99, 5, 1307),
        (99, 10, 2010),
        (99.9, 1, 6636),
    ],
)
def test_minimum_samples_are_mlperfs(percentile, t, samples):
    assert s.minimum_samples(percentile, t=t) == samples
    assert s.discardable(samples, percentile) == t
    assert s.discardable(samples - 1, percentile) == t - 1


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 90), k=st.integers(0, 90), tenths=st.integers(1, 999))
def test_binomial_cdf_is_exact(n, k, tenths):
    chance = Fraction(tenths, 1000)
    assert s.binomial_cdf(k, n, float(chance)) == pytest.approx(float(exact_cdf(min(k, n), n, chance)), abs=1e-12)


def test_binomial_cdf_does_not_underflow():
    # 0.5**5000 is zero in floating point; half of the distribution lies below its middle.
    assert s.binomial_cdf(2500, 5000, 0.5) == pytest.approx(0.5, abs=0.01)


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 20_000), percentile=st.sampled_from(s.PERCENTILES))
def test_discardable_is_the_largest_allowed(n, percentile):
    chance, t = 1 - percentile / 100, s.discardable(n, percentile)
    if t:
        assert s.binomial_cdf(t, n, chance) <= 0.01 < s.binomial_cdf(t + 1, n, chance)
    else:
        assert s.binomial_cdf(1, n, chance) > 0.01


def test_bound_drops_one_less_than_t():
    values = np.arange(1.0, 82.0)  # n = 81, t = 2 for p90: one value is dropped
    assert s.upper_bound(values, 90) == 80.0
    assert s.upper_bound(values[:64], 90) == 64.0  # t = 1: the maximum
    assert s.upper_bound(values[:63], 90) is None


def test_bound_holds_in_99_of_100_runs():
    rng, true_p90 = np.random.default_rng(5), math.log(10)  # of the exponential distribution
    broken = sum(s.upper_bound(rng.exponential(size=200), 90) < true_p90 for _ in range(1500))
    assert broken <= 15 + 3 * math.sqrt(15)


@settings(max_examples=80, deadline=None)
@given(values=LATENCIES, percentile=st.sampled_from(s.PERCENTILES))
def test_bound_is_at_least_the_sample_percentile(values, percentile):
    bound = s.upper_bound(values, percentile)
    if bound is not None:
        assert bound >= s.numpy_percentile(values, percentile)
        assert bound in values


# ---------------------------------------------------------------------------------------------------------- percentiles
@settings(max_examples=80, deadline=None)
@given(values=LATENCIES, percentile=st.floats(0, 100))
def test_numpy_percentile_is_numpys(values, percentile):
    assert s.numpy_percentile(values, percentile) == np.percentile(values, percentile, method="linear")


@pytest.mark.parametrize(
    ("n", "percentile", "index"),
    [(10, 90, 8), (100, 99, 99), (1000, 99, 990), (1000, 90, 899), (1, 99, 0), (3, 0, 0), (4, 50, 1), (101, 95, 95)],
)
def test_trtexec_percentile_indexes_like_trtexec(n, percentile, index):
    # Worked by hand in single precision; 100 at p99 excludes int(0.999999) = 0 samples, 1000 int(9.99999) = 9.
    values = np.random.default_rng(n).permutation(n).astype(float)
    assert s.trtexec_percentile(values, percentile) == index


# ------------------------------------------------------------------------------------------------------------- summary
def test_summary_withholds_what_n_does_not_allow():
    summary = s.Summary.of(np.linspace(1, 2, 140))
    assert [p.percentile for p in summary.percentiles] == [50, 90, 95]
    assert summary.withheld == ((99.0, 662), (99.9, 6636))
    assert summary.at(99) is None
    assert summary.at(50).value_ms == 1.5


def test_summary_of_few_has_no_percentile_at_all():
    summary = s.Summary.of([1.0, 3.0])
    assert (summary.n, summary.mean_ms, summary.min_ms, summary.max_ms) == (2, 2.0, 1.0, 3.0)
    assert summary.cov == 0.5  # the population's deviation, 1, over 2
    assert summary.percentiles == ()


@settings(max_examples=60, deadline=None)
@given(values=LATENCIES)
def test_summary_agrees_with_numpy(values):
    summary = s.Summary.of(values)
    assert summary.n == len(values)
    assert summary.mean_ms == pytest.approx(np.mean(values))
    assert summary.cov == pytest.approx(np.std(values) / np.mean(values))
    assert len(summary.percentiles) + len(summary.withheld) == len(s.PERCENTILES)
    for p in summary.percentiles:
        assert summary.min_ms <= p.value_ms <= p.upper_ms <= summary.max_ms
        assert summary.min_ms <= p.trtexec_ms <= summary.max_ms


@pytest.mark.parametrize("bad", [[], [1.0, math.nan], [math.inf], [1.0, -0.1]])
def test_summary_refuses_what_is_no_latency(bad):
    with pytest.raises(ValueError, match="latency"):
        s.Summary.of(bad)
