"""Percentiles, bounds and confidence intervals of latencies.

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

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
CONFIDENCE = 0.99
MIN_ROUNDS = 8  # fewer leave too few frequencies to estimate their noise from
TRIMMED = 0.1  # share of the rounds that is cut off at each end


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
    """Ratio of two candidates' medians, round by round, with its interval.

    Attributes:
        value: the ratio; below 1 the numerator is faster.
        low, high: the interval at 99 %.
    """

    value: float
    low: float
    high: float

    @property
    def noise(self) -> float:
        """Distance of the interval's farther end from 1; of a candidate against itself, the noise."""
        return max(abs(self.high - 1.0), abs(self.low - 1.0))

    def detectable(self, margin: float = 0.0) -> float:
        """The smallest slowdown that about nine of ten such runs put wholly beyond 1 + margin.

        A share. Half the interval's width is found in every second run only; the whole width leaves room for chance.
        """
        return (1.0 + margin) * self.high / self.low - 1.0


def ratio(numerator_ms: FloatArray, denominator_ms: FloatArray, percentile: float = 50.0) -> Ratio:
    """Compares two candidates that were timed in the same rounds.

    A slow round is slow for both, so each round gives one ratio; the mean of their logarithms is what is reported, with
    the interval of `mean_of_rounds`.

    Args:
        numerator_ms: float64 `[R, K]`, R rounds of K latencies, in the order they were taken.
        denominator_ms: float64 `[R, K']`, the same R rounds.
        percentile: of each round, 0..100; the median by default.

    Raises:
        ValueError: the rounds do not fit each other, are fewer than MIN_ROUNDS, or are empty.
    """
    a, b = _logs(numerator_ms, percentile), _logs(denominator_ms, percentile)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} rounds cannot be compared: the same rounds are needed")
    return _ratio(mean_of_rounds(a - b))


def ratio_of_runs(after_ms: FloatArray, before_ms: FloatArray, percentile: float = 50.0) -> Ratio:
    """Compares a candidate between two runs.

    As `ratio`, but the rounds of the two sides have nothing to do with each other: their variances add up, with the
    degrees of freedom of Welch (1947) and Satterthwaite (1946).

    Args:
        after_ms: float64 `[R, K]`, the numerator, rounds in the order they were taken.
        before_ms: float64 `[R', K']`.
        percentile: of each round, 0..100; the median by default.

    Raises:
        ValueError: fewer than MIN_ROUNDS rounds on a side, or empty ones.
    """
    a, b = mean_of_rounds(_logs(after_ms, percentile)), mean_of_rounds(_logs(before_ms, percentile))
    variance = a.variance + b.variance
    shares = a.variance**2 / a.freedom + b.variance**2 / b.freedom
    freedom = math.floor(variance**2 / shares + 1e-9) if shares else a.freedom
    return _ratio(RoundMean(a.mean - b.mean, variance, freedom))


@dataclass(frozen=True)
class RoundMean:
    """Mean of a series of rounds.

    Attributes:
        mean: trimmed.
        variance: of that mean.
        freedom: degrees of freedom of Student's t.
    """

    mean: float
    variance: float
    freedom: int

    @property
    def reach(self) -> float:
        """Half the width of the interval at 99 %."""
        return student_t(self.freedom) * math.sqrt(self.variance)


def mean_of_rounds(series: FloatArray) -> RoundMean:
    """The mean of neighbours in time that resemble each other, with a variance that knows it.

    The variance is the series' power at its lowest frequencies, where slow drifts show: the mean over the first B
    cosine transforms, which are nearly independent, so that Student's t with B degrees of freedom holds (Müller 2007;
    Lazarus, Lewis, Stock and Watson 2018, "HAR Inference"). Intervals from the spread of single rounds, and bootstraps
    of 20 of them, are too narrow. One round in ten is cut off at each end, against neighbours that wake up (Tukey and
    McLaughlin 1963); what is cut counts in the variance with the value at the cut.

    Args:
        series: float64 `[R]`, at least MIN_ROUNDS, in the order of time.
    """
    rounds = len(series)
    cut = int(TRIMMED * rounds)
    ordered = np.sort(series)
    kept = np.clip(series, ordered[cut], ordered[rounds - 1 - cut])
    influence = (kept - kept.mean()) / (1.0 - 2.0 * cut / rounds)
    waves = _waves(rounds)
    power = np.mean((waves @ influence) ** 2) * 2.0 / rounds
    return RoundMean(float(ordered[cut : rounds - cut].mean()), float(power) / rounds, len(waves))


@functools.lru_cache(maxsize=64)
def _waves(rounds: int) -> FloatArray:
    """The first B cosines over the rounds, float64 `[B, R]`.

    B = R / 5 is as many as still see a lag-1 autocorrelation of 0.5 (`tests/benchmarks/test_intervals.py`); beyond 10,
    more degrees of freedom hardly narrow an interval.
    """
    count = max(2, min(10, rounds // 5))
    places = (np.arange(rounds) + 0.5) / rounds
    waves: FloatArray = np.cos(np.pi * np.outer(np.arange(1, count + 1), places))
    return waves


@functools.lru_cache(maxsize=256)
def student_t(freedom: int, confidence: float = CONFIDENCE) -> float:
    """The two-sided quantile of Student's t: 63.66 for 1 degree of freedom, 4.604 for 4.

    Source: Abramowitz and Stegun, 26.7.3 and 26.7.4 (the distribution as a finite sum), bisected.

    Args:
        freedom: degrees of freedom, at least 1.
        confidence: chance that |T| is smaller, strictly between 0 and 1.
    """
    low, high = 0.0, 1e9
    while high - low > 1e-12 * high:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _within(middle, freedom) < confidence else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """P(|T| < t)."""
    angle, odd, total = math.atan(t / math.sqrt(freedom)), freedom % 2, 0.0
    term = math.cos(angle) if odd else 1.0
    for exponent in range(odd, freedom - 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (exponent + 1) / (exponent + 2)
    total *= math.sin(angle)
    return 2.0 / math.pi * (angle + total) if odd else total


def _logs(latency_ms: FloatArray, percentile: float) -> FloatArray:
    """The logarithm of each round's percentile, float64 `[R]`."""
    x = np.asarray(latency_ms, np.float64)
    if x.ndim != 2 or len(x) < MIN_ROUNDS or 0 in x.shape:
        raise ValueError(f"{x.shape} cannot be compared: [R, K] with R >= {MIN_ROUNDS} is needed")
    logs: FloatArray = np.log(np.percentile(x, percentile, axis=1))
    return logs


def _ratio(found: RoundMean) -> Ratio:
    return Ratio(*(math.exp(found.mean + sign * found.reach) for sign in (0.0, -1.0, 1.0)))
