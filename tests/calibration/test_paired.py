"""Paired comparison: the bound covers, the exact test is exact, the worst clips are named."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.calibration.paired import compare_answers, drop_interval, mcnemar

C = 4


def probabilities(answers: np.ndarray, sure: float = 0.9) -> np.ndarray:
    """Float32 `[N, C]` whose largest entry is the answer."""
    rows = np.full((len(answers), C), (1 - sure) / (C - 1), np.float32)
    rows[np.arange(len(answers)), answers] = sure
    return rows


def test_counts_scores_and_names():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 3])
    before = np.array([0, 0, 0, 1, 1, 1, 2, 0])  # recalls 3/4, 1, 1, 0
    after = np.array([0, 0, 1, 0, 1, 2, 2, 0])  # recalls 3/4, 1/2, 1, 0: one lost and one gained in class 0
    ids = [f"clip{i}" for i in range(8)]
    found = compare_answers(probabilities(before), probabilities(after), labels, ids)
    assert (found.uar_before, found.uar) == (pytest.approx(11 / 16), pytest.approx(9 / 16))
    assert (found.war_before, found.war) == (6 / 8, 5 / 8)
    assert found.drop == pytest.approx(1 / 8) and (found.lost, found.gained) == (2, 1)
    assert found.agreement == 5 / 8 and found.finite and found.mcnemar_p == 1.0
    assert [w.clip for w in found.worst[:3]] == ["clip2", "clip3", "clip5"], "clips with another answer come first"
    assert (found.worst[2].label, found.worst[2].before, found.worst[2].after) == (1, 1, 2)


def test_an_answer_that_is_not_finite_is_wrong_and_named_first():
    labels = np.array([0, 1, 2, 3])
    good = probabilities(labels)
    bad = good.copy()
    bad[2] = np.nan
    found = compare_answers(good, bad, labels, list("abcd"))
    assert not found.finite and found.lost == 1 and found.agreement == 0.75
    assert found.worst[0].clip == "c" and found.worst[0].share is None and found.worst[0].after == -1
    assert found.max_share is None and found.rms_share is None


def test_logit_shares_are_those_of_the_deviation_between_clips():
    logits = np.random.default_rng(0).standard_normal((50, C))
    moved = logits + 0.1 * np.array([3.0, -1.0, -1.0, -1.0])  # centred already

    def softmax(x: np.ndarray) -> np.ndarray:
        e = np.exp(x)
        return (e / e.sum(1, keepdims=True)).astype(np.float32)

    centred = logits - logits.mean(1, keepdims=True)
    deviation = math.sqrt(centred.var(0).mean())
    found = compare_answers(softmax(logits), softmax(moved), np.zeros(50, np.int64), ["x"] * 50)
    assert found.max_share == pytest.approx(0.3 / deviation, rel=1e-4)
    assert found.rms_share == pytest.approx(0.1 * math.sqrt(12 / 4) / deviation, rel=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_binomial_test(lost: int, gained: int):
    n = lost + gained
    chances = [math.comb(n, k) / 2**n for k in range(n + 1)]
    as_extreme = sum(c for k, c in enumerate(chances) if abs(k - n / 2) >= abs(lost - n / 2) - 1e-9)
    assert mcnemar(lost, gained) == pytest.approx(min(1.0, as_extreme))


def test_no_difference_on_few_clips_is_no_certainty():
    labels = np.repeat(np.arange(7), 4)
    right = np.ones(28, bool)
    drop, bound, floor = drop_interval(right, right, labels)
    assert drop == 0.0 and bound > 0.05 and floor < -0.05
    many = np.repeat(np.arange(7), 600)
    assert drop_interval(np.ones(4200, bool), np.ones(4200, bool), many)[1] < 0.0016


@pytest.mark.parametrize(("lose", "gain"), [(0.03, 0.03), (0.01, 0.005), (0.002, 0.001), (0.10, 0.02)])
def test_the_bounds_cover_the_true_drop_at_least_as_often_as_they_say(lose: float, gain: float):
    """5 % of 600 draws is 30, with a standard error of 5; classes of very different size, as in DFEW."""
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(C), [400, 200, 80, 40])
    above = below = 0
    for _ in range(600):
        chance = rng.random(len(labels))
        before, after = chance >= gain, chance < 1 - lose  # lost: the top share; gained: the bottom share
        _, bound, floor = drop_interval(before, after, labels)
        above += lose - gain > bound
        below += lose - gain < floor
    assert above <= 39 and below <= 39
