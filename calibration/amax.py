"""The range that INT8 represents, from a histogram of absolute values.

Beyond the range values are clipped, inside it they are rounded to 127 steps: a smaller range trades clipping for finer
steps. `max` clips nothing; the others choose.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BINS = 2048
LEVELS = 127  # symmetric: -127 ... 127
PERCENTILE = 99.99
_STRIDE = 16  # bins between two candidates

Histogram = npt.NDArray[np.int64]


def amax_of(histogram: Histogram, top: float, method: str) -> float:
    """The range by 'entropy', 'percentile' or 'mse'.

    Args:
        histogram: counts of |x| in equal bins of 0 ... top.
        top: the largest |x|; where it is 0 there is nothing to choose.
        method: how.
    """
    if not histogram.sum():
        return top
    edge = {"percentile": _percentile, "mse": _mean_square, "entropy": _entropy}[method](histogram)
    return top * edge / len(histogram)


def _percentile(histogram: Histogram) -> int:
    """The first edge below which `PERCENTILE` of the values lie."""
    reached = np.cumsum(histogram) >= histogram.sum() * (PERCENTILE / 100.0)
    return int(np.argmax(reached)) + 1


def _candidates(histogram: Histogram) -> range:
    return range(LEVELS + 1, len(histogram) + 1, _STRIDE)  # below 128 bins the histogram is coarser than INT8


def _mean_square(histogram: Histogram) -> int:
    """The edge with the least mean square error of rounding and clipping.

    Values are taken at the middle of their bins.
    """
    middle = np.arange(len(histogram)) + 0.5
    weight = histogram.astype(np.float64)

    def error(edge: int) -> float:
        step = edge / LEVELS
        rounded = np.minimum(np.rint(middle / step), LEVELS) * step
        return float((weight * (middle - rounded) ** 2).sum())

    return min(_candidates(histogram), key=error)


def _entropy(histogram: Histogram) -> int:
    """The edge with the least Kullback-Leibler divergence of quantized from clipped values.

    The construction is that of TensorRT's calibrator (S. Migacz, "8-bit inference with TensorRT", GTC 2017): the
    clipped distribution has what lies beyond added to its last bin; the quantized one merges bins to 128 levels and
    spreads each level evenly over those of its bins that are not empty. Bin 0 is left out: zeros are always exact.
    """
    counts = histogram.astype(np.float64)
    counts[0] = 0.0
    if not counts.sum():
        return len(histogram)

    def divergence(edge: int) -> float:
        inside = counts[:edge]
        clipped = inside.copy()
        clipped[-1] += counts[edge:].sum()
        level = np.arange(edge) * (LEVELS + 1) // edge
        filled = inside > 0
        mass = np.bincount(level, inside, LEVELS + 1)
        bins = np.bincount(level, filled, LEVELS + 1)
        spread = np.where(filled, mass[level] / np.maximum(bins[level], 1.0), 0.0)
        # Where the quantized one is empty half a count is taken, else one outlier would forbid all.
        held = clipped > 0
        p, q = clipped[held] / clipped.sum(), np.maximum(spread[held], 0.5) / max(spread.sum(), 0.5)
        return float((p * np.log(p / q)).sum())

    return min(_candidates(histogram), key=divergence)
