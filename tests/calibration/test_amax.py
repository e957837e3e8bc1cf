"""Ranges from histograms: each method against a direct search on the values themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.calibration.amax import BINS, LEVELS, amax_of

CHOOSING = ("entropy", "percentile", "mse")


def histogram(values: np.ndarray) -> tuple[np.ndarray, float]:
    top = float(np.abs(values).max())
    return np.histogram(np.abs(values), BINS, (0.0, top))[0], top


def rounded(values: np.ndarray, amax: float) -> np.ndarray:
    step = amax / LEVELS
    return np.clip(np.rint(values / step), -LEVELS, LEVELS) * step


def test_mse_is_the_least_error_on_the_values():
    values = np.random.default_rng(0).laplace(size=200_000)
    counts, top = histogram(values)
    found = amax_of(counts, top, "mse")
    error = np.mean((values - rounded(values, found)) ** 2)
    tried = [np.mean((values - rounded(values, amax)) ** 2) for amax in np.linspace(top / 16, top, 200)]
    assert error <= 1.02 * min(tried)
    assert error < np.mean((values - rounded(values, top)) ** 2)


def test_percentile_leaves_its_share_outside():
    values = np.random.default_rng(1).normal(size=500_000)
    counts, top = histogram(values)
    found = amax_of(counts, top, "percentile")
    assert found == pytest.approx(np.quantile(np.abs(values), 0.9999), rel=0.01)


def test_one_outlier_does_not_widen_what_chooses():
    values = np.random.default_rng(2).normal(size=200_000)
    counts, top = histogram(np.append(values, 200.0))
    assert amax_of(counts, top, "percentile") < 10
    assert amax_of(counts, top, "entropy") < 50
    # The outlier alone costs (200 - range)^2: mean square error keeps it longer than the others do.
    assert amax_of(counts, top, "mse") <= top


@pytest.mark.parametrize("method", CHOOSING)
def test_uniform_values_are_not_clipped(method: str):
    values = np.random.default_rng(3).uniform(-4, 4, 200_000)
    counts, top = histogram(values)
    assert amax_of(counts, top, method) >= 0.95 * top


@pytest.mark.parametrize("method", CHOOSING)
def test_zeros_decide_nothing(method: str):
    values = np.maximum(np.random.default_rng(4).normal(size=100_000), 0)
    counts, top = histogram(values)
    counts[0] *= 3
    assert 0.3 * top < amax_of(counts, top, method) <= top
    assert amax_of(np.zeros(BINS, np.int64), 0.0, method) == 0.0


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.integers(0, BINS - 1), st.integers(1, 10**6), max_size=40), st.sampled_from(CHOOSING))
def test_a_range_lies_inside_what_was_seen(filled: dict[int, int], method: str):
    counts = np.zeros(BINS, np.int64)
    counts[list(filled)] = list(filled.values())
    assert 0 < amax_of(counts, 3.0, method) <= 3.0
