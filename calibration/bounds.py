"""Upper confidence bound of a UAR drop whose loss may lie in the smallest class.

UAR is the mean of the classes' recalls, so a clip of a small class weighs most, and a loss of all its budget there is
the case that is hardest to see: of DFEW's 29 test clips of disgust in one fold, 3.5 % are one clip. A bound from the
variance that was seen takes no loss for certainty. Here the drop that is seen is held against what it would be if the
smallest class lost the whole budget (Farrington and Manning's idea of a variance under the hypothesis, Statistics in
Medicine 9, 1990, 1447-1454, taken to the least favourable class), by the saddlepoint approximation of the tail
(Lugannani and Rice, Advances in Applied Probability 12, 1980, 475-490).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..errors import UsageError

Floats = npt.NDArray[np.float64]

# Of 5 %; the rest pays for the approximations. tests/calibration/test_bounds.py simulates what comes out.
LEVEL = 0.048
_LEAST_CORRECTION = 0.25  # of a clip of the smallest class
_LENT = 100.0  # clips of the common rate that a class's own rate is mixed with
_NEVER = 0.99
LEAST_DROP = 1e-6  # of UAR; to prove less takes more clips than there are, and numbers finer than these
_FEWEST = 10  # clips of a class; the approximation is not for fewer, which could prove no useful budget either


def chance_of_no_more(lost: Floats, gained: Floats, clips: Floats, drop: float) -> Floats:
    """Chance of no larger drop than was seen, if the smallest class had lost `drop` of UAR.

    Args:
        lost: `[S, C]`, clips of each class that only the first answers rightly, in S experiments.
        gained: `[S, C]`, clips that only the second answers rightly.
        clips: `[C]`, clips of each class.
        drop: of UAR, 0..1.

    Returns:
        float64 `[S]`.
    """
    classes = len(clips)
    weights = 1.0 / (classes * clips)
    worst = int(np.argmin(clips))
    others = np.arange(classes) != worst
    # Answers differ by chance as well, both ways alike, in each class at a rate of its own: small counts lean on all
    # classes together. What only the smallest class loses is not counted as chance.
    both = (lost + gained).sum(-1) - lost[:, worst] + gained[:, worst]
    common = np.minimum((both + 1) / (2 * clips.sum()), 0.5)[:, None]  # [S, 1]
    gains = (lost + gained + 2 * _LENT * common) / (2 * (clips + _LENT))
    least = _rate_by_chance(lost[:, worst], gained[:, worst], clips[worst], classes * drop)
    gains[:, worst] = np.maximum(common[:, 0], least)
    loses = gains.copy()
    loses[:, worst] = np.minimum(loses[:, worst] + classes * drop, _NEVER)
    gains = np.minimum(gains, 1.0 - loses)
    seen = ((lost - gained) * weights).sum(-1)
    # Without chance the drop moves in steps of the smallest class: half a step is the correction for continuity. What
    # the other classes lose and gain fills the gaps between the steps.
    rate = (lost + gained)[:, others].sum(-1) / max(float(clips[others].sum()), 1.0)
    spread = rate * float((clips[others] * weights[others] ** 2).sum())
    half = 0.5 * np.exp(-2 * math.pi**2 * spread / weights[worst] ** 2)
    return _tail(seen + np.maximum(_LEAST_CORRECTION, half) * weights[worst], clips, weights, loses, gains)


def _rate_by_chance(lost: Floats, gained: Floats, clips: float, more: float) -> Floats:
    """Rate of clips gained in one class if `more` is lost beyond it: the most likely one, `[S]`.

    Source: Tango, Statistics in Medicine 17, 1998, 891-908 (the trinomial likelihood under a given difference).
    """
    a, b = 2 * clips, -lost - gained + (2 * clips - lost + gained) * more
    root = np.sqrt(np.maximum(b**2 + 4 * a * gained * more * (1 - more), 0.0))
    rate: Floats = np.maximum((root - b) / (2 * a), 0.0)
    return rate


def drop_bound(lost: npt.ArrayLike, gained: npt.ArrayLike, clips: npt.ArrayLike) -> float:
    """Drop of UAR that the true one exceeds in at most 5 % of experiments.

    Args:
        lost: `[C]`, clips of each class that only the first answers rightly.
        gained: `[C]`, clips that only the second answers rightly.
        clips: `[C]`, at least 1 each.

    Returns:
        0..1; 1 where the clips exclude nothing, as fewer than 10 of a class do.
    """
    n = np.asarray(clips, np.float64)
    if n.min() < _FEWEST:
        return 1.0
    counts = np.asarray(lost, np.float64)[None], np.asarray(gained, np.float64)[None]
    low, high = 0.0, 1.0 / len(n)  # more than the smallest class has cannot be lost there
    if chance_of_no_more(*counts, n, high)[0] > LEVEL:
        return 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if chance_of_no_more(*counts, n, middle)[0] > LEVEL else (low, middle)
    return high


def least_bound(clips: npt.ArrayLike) -> float:
    """The bound if no clip were lost, which is about the least that these clips can prove.

    A clip that a large class loses may lower it by a few percent: the correction for continuity shrinks.
    """
    none = np.zeros_like(np.asarray(clips, np.float64))
    return drop_bound(none, none, clips)


def clips_needed(clips: npt.ArrayLike, drop: float) -> int:
    """Fewest clips of each class that can prove a drop, where the other classes are as they are.

    Args:
        clips: `[C]`, those that there are.
        drop: of UAR, at least `LEAST_DROP`.

    Raises:
        UsageError: it is smaller: no number of clips would do.
    """
    if not drop >= LEAST_DROP:
        raise UsageError(f"No number of clips proves a drop of {drop:g}; the least is {LEAST_DROP:g}.")
    n = np.asarray(clips, np.float64)
    low, high = 0, 1
    while least_bound(np.maximum(n, high)) > drop:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if least_bound(np.maximum(n, middle)) > drop else (low, middle)
    return high


def _tail(drop: Floats, clips: Floats, weights: Floats, loses: Floats, gains: Floats) -> Floats:
    """P(sum of `weights` x (lost - gained) <= drop), `[S]`, by the saddlepoint approximation."""
    reach = 50.0 / weights.max()
    low, high, s = np.full(len(drop), -reach), np.full(len(drop), reach), np.zeros(len(drop))
    for number in range(120):  # Newton's method, kept inside a bracket that is halved now and then: alone it may circle
        _, k1, k2 = _cumulants(s, clips, weights, loses, gains)
        low, high = np.where(k1 < drop, s, low), np.where(k1 < drop, high, s)
        step = s - (k1 - drop) / np.maximum(k2, 1e-300)
        inside = (step > low) & (step < high) & (number % 4 < 3)
        moved = np.where(inside, step, (low + high) / 2) - s
        s = s + moved
        if np.abs(moved).max() < 1e-9 * reach:
            break
    k0, _, k2 = _cumulants(s, clips, weights, loses, gains)
    r = np.sign(s) * np.sqrt(np.maximum(2 * (s * drop - k0), 0.0))
    u = s * np.sqrt(k2)
    near = np.abs(r) < 1e-3  # at the mean both terms grow beyond all bounds; the chance is about a half
    r, u = np.where(near, 1.0, r), np.where(near | (u == 0), 1.0, u)
    normal = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in r])
    density = np.exp(-(r**2) / 2) / math.sqrt(2 * math.pi)
    chance: Floats = np.where(near, 0.5, np.clip(normal + density * (1 / r - 1 / u), 0.0, 1.0))
    return chance


def _cumulants(
    s: Floats, clips: Floats, weights: Floats, loses: Floats, gains: Floats
) -> tuple[Floats, Floats, Floats]:
    """The cumulant generating function at `s` and its first two derivatives."""
    up = np.exp(s[:, None] * weights)
    mass = 1 + loses * (up - 1) + gains * (1 / up - 1)
    first, second = (loses * up - gains / up) / mass, (loses * up + gains / up) / mass
    return (
        (clips * np.log(mass)).sum(-1),
        (clips * weights * first).sum(-1),
        (clips * weights**2 * (second - first**2)).sum(-1),
    )
