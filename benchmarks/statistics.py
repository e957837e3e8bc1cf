"""Percentiles, bounds and bootstrap intervals of latencies.

Three definitions of a percentile meet here and are kept apart by name:

* `numpy_percentile`: the sample's own percentile (`numpy.percentile`, linear between neighbours);
* `trtexec_percentile`: what trtexec prints, for comparison with it;
* `upper_bound`: MLPerf's early-stopping estimate, a latency that the true percentile exceeds with a chance of at most
  1 %. It needs a minimum number of samples; below that no percentile is given at all.

Sources: NVIDIA TensorRT, samples/common/sampleReporting.cpp (`findPercentile`); MLPerf Inference, `inference_rules`
(section "early stopping") and loadgen/early_stopping.cc, with tolerance d = 0 and confidence c = 0.99.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
CONFIDENCE = 0.99
RESAMPLES = 2000
STRETCHES = 5  # of neighbouring rounds, drawn as one where two runs are compared
MIN_ROUNDS = 8  # fewer cannot be resampled honestly: the interval would shrink because there is nothing to draw


# --------------------------------------------------------------------------------------------- MLPerf early stopping
def binomial_cdf(k: int, n: int, chance: float) -> float:
    """P(at most k of n independent events happen), summed in logarithms against underflow.

    Args:
        k: at least 0.
        n: at least 1.
        chance: of one event, strictly between 0 and 1.
    """
    if k >= n:
        return 1.0
    log_odds = math.log(chance) - math.log1p(-chance)
    log_term = n * math.log1p(-chance)  # no event at all
    total = math.exp(log_term)
    for events in range(1, k + 1):
        log_term += log_odds + math.log((n - events + 1) / events)
        total += math.exp(log_term)
    return min(total, 1.0)


@functools.lru_cache(maxsize=1024)
def discardable(n: int, percentile: float) -> int:
    """MLPerf's t: the largest t >= 1 with BinomCDF(t; n, 1 - p) <= 1 - c, or 0 without one.

    With t, the estimate is the maximum after the t - 1 highest of n latencies were dropped.

    Args:
        n: samples.
        percentile: 0..100, both excluded.
    """
    chance = 1.0 - percentile / 100.0
    # The CDF grows with t, up to 1 at n.
    return bisect.bisect_left(range(1, n + 1), True, key=lambda t: binomial_cdf(t, n, chance) > 1.0 - CONFIDENCE)


@functools.lru_cache(maxsize=64)
def minimum_samples(percentile: float, t: int = 1) -> int:
    """The fewest samples that allow t: 64 for p90, 662 for p99, 6636 for p99.9 (t = 1).

    Args:
        percentile: 0..100, both excluded.
        t: MLPerf's discard count, at least 1.
    """
    chance = 1.0 - percentile / 100.0
    # The CDF falls with n, from 1 at t.
    return bisect.bisect_left(range(1 << 40), True, key=lambda n: binomial_cdf(t, n, chance) <= 1.0 - CONFIDENCE)


def upper_bound(latencies_ms: Sequence[float] | FloatArray, percentile: float) -> float | None:
    """A latency above the true percentile at 99 % confidence; None with too few samples."""
    ordered = np.sort(np.asarray(latencies_ms, np.float64))
    t = discardable(len(ordered), percentile)
    return float(ordered[len(ordered) - t]) if t else None


# ------------------------------------------------------------------------------------------------ sample percentiles
def numpy_percentile(latencies_ms: Sequence[float] | FloatArray, percentile: float) -> float:
    """The sample's percentile, linear between neighbours (numpy's default)."""
    return float(np.percentile(np.asarray(latencies_ms, np.float64), percentile))


def trtexec_percentile(latencies_ms: Sequence[float] | FloatArray, percentile: float) -> float:
    """Trtexec's percentile: sorted[max(n - 1 - int((1 - p / 100) * n), 0)], single precision.

    The single precision is visible: for n = 100 and p = 99 it excludes no sample where exact arithmetic excludes one.
    """
    ordered = np.sort(np.asarray(latencies_ms, np.float64))
    n = len(ordered)
    excluded = int((np.float32(1) - np.float32(percentile) / np.float32(100)) * np.float32(n))
    return float(ordered[max(n - 1 - excluded, 0)])


# ----------------------------------------------------------------------------------------------------------- summaries
@dataclass(frozen=True)
class Percentile:
    """One percentile that enough samples stand behind.

    Attributes:
        percentile: 0..100.
        value_ms: of the sample, by numpy's definition.
        trtexec_ms: of the sample, by trtexec's definition.
        upper_ms: MLPerf's early-stopping estimate at 99 % confidence.
    """

    percentile: float
    value_ms: float
    trtexec_ms: float
    upper_ms: float


@dataclass(frozen=True)
class Summary:
    """A series of latencies in numbers.

    Attributes:
        n: samples.
        mean_ms, min_ms, max_ms: of all samples; nothing is trimmed.
        cov: coefficient of variation, the population's standard deviation over the mean.
        percentiles: those that n allows.
        withheld: (percentile, samples it needs) for those that n does not allow.
    """

    n: int
    mean_ms: float
    min_ms: float
    max_ms: float
    cov: float
    percentiles: tuple[Percentile, ...]
    withheld: tuple[tuple[float, int], ...]

    @classmethod
    def of(cls, latencies_ms: Sequence[float] | FloatArray) -> Summary:
        """Summarises at least one latency.

        Raises:
            ValueError: the series is empty, or holds a value that is not finite and at least 0.
        """
        x = np.asarray(latencies_ms, np.float64).reshape(-1)
        if not len(x) or not np.isfinite(x).all() or (x < 0).any():
            raise ValueError("a summary needs at least one latency, all of them finite and not negative")
        given, withheld = [], []
        for p in PERCENTILES:
            bound = upper_bound(x, p)
            if bound is None:
                withheld.append((p, minimum_samples(p)))
            else:
                given.append(Percentile(p, numpy_percentile(x, p), trtexec_percentile(x, p), bound))
        mean = float(x.mean())
        cov = float(x.std() / mean) if mean > 0 else 0.0
        return cls(len(x), mean, float(x.min()), float(x.max()), cov, tuple(given), tuple(withheld))

    def at(self, percentile: float) -> Percentile | None:
        """One percentile, or None where the samples do not allow it."""
        return next((found for found in self.percentiles if found.percentile == percentile), None)


# -------------------------------------------------------------------------------------------------------------- ratios
@dataclass(frozen=True)
class Ratio:
    """Median latency of one candidate over the median of another, with its interval.

    Attributes:
        value: the ratio; below 1 the numerator is faster.
        low, high: the bootstrap interval at 99 %.
    """

    value: float
    low: float
    high: float

    @property
    def noise(self) -> float:
        """Distance of the interval's farther end from 1; of a candidate against itself, the noise."""
        return max(abs(self.high - 1.0), abs(self.low - 1.0))


def ratio(numerator_ms: FloatArray, denominator_ms: FloatArray, seed: int = 0) -> Ratio:
    """Compares two candidates that were timed in the same rounds.

    Whole rounds are drawn with replacement, the same rounds for both sides (a paired block bootstrap, percentile
    interval; Efron and Tibshirani, An Introduction to the Bootstrap, ch. 13): neighbours in time resemble each other,
    so single samples must not be drawn as if they were independent, and a slow round is slow for both.

    Args:
        numerator_ms: float64 `[R, K]`, R rounds of K latencies.
        denominator_ms: float64 `[R, K']`, the same R rounds.
        seed: of the draws.

    Raises:
        ValueError: the rounds do not fit each other, are fewer than MIN_ROUNDS, or are empty.
    """
    a, b = _comparable(numerator_ms, denominator_ms)
    if len(a) != len(b):
        raise ValueError(f"{a.shape} and {b.shape} cannot be compared: the same rounds are needed")
    rng = np.random.default_rng(seed)
    drawn = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        rounds = rng.integers(len(a), size=len(a))
        drawn[i] = np.median(a[rounds]) / np.median(b[rounds])
    return _with_interval(np.median(a) / np.median(b), drawn)


def ratio_of_runs(after_ms: FloatArray, before_ms: FloatArray, percentile: float = 50.0) -> Ratio:
    """Compares one percentile of a candidate between two runs.

    As `ratio`, but the rounds of the two sides have nothing to do with each other, so each side draws its own. What the
    machine did over a longer time is not shared either, so stretches of neighbouring rounds are drawn together, a fifth
    of the run each (circular block bootstrap; Politis and Romano 1992): a run that drifts gets a wider interval.

    Args:
        after_ms: float64 `[R, K]`, the numerator.
        before_ms: float64 `[R', K']`.
        percentile: 0..100.

    Raises:
        ValueError: fewer than MIN_ROUNDS rounds on a side, or empty ones.
    """
    a, b = _comparable(after_ms, before_ms)
    rng = np.random.default_rng(0)

    def draws(rounds: FloatArray) -> FloatArray:
        count, stretch = len(rounds), max(len(rounds) // STRETCHES, 1)
        starts = rng.integers(count, size=(RESAMPLES, -(-count // stretch), 1))
        chosen = (starts + np.arange(stretch)).reshape(RESAMPLES, -1)[:, :count] % count  # [RESAMPLES, R]
        drawn = rounds[chosen]  # [RESAMPLES, R, K]
        found: FloatArray = np.percentile(drawn.reshape(RESAMPLES, -1), percentile, axis=1)
        return found

    return _with_interval(np.percentile(a, percentile) / np.percentile(b, percentile), draws(a) / draws(b))


def _comparable(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or min(len(a), len(b)) < MIN_ROUNDS or 0 in (*a.shape, *b.shape):
        raise ValueError(f"{a.shape} and {b.shape} cannot be compared: [R, K] with R >= {MIN_ROUNDS} is needed")
    return a, b


def _with_interval(value: np.floating[Any], drawn: FloatArray) -> Ratio:
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(drawn, [tail, 100.0 - tail])
    return Ratio(float(value), float(low), float(high))
