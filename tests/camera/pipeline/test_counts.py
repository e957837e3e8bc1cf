"""Rates of what comes at once, evenly and no more; ages of answers."""

from __future__ import annotations

import pytest
from logoformer.camera.pipeline.counts import AGE_BOUNDS_S, RATE_WINDOW_S, AgeMeter, RateMeter


def test_a_rate_is_that_of_the_last_seconds():
    now_s = 100.0
    meter = RateMeter(lambda: now_s)
    assert meter.hz == 0
    for _ in range(100):
        now_s += 0.04
        meter.count()
    assert meter.hz == pytest.approx(25)
    now_s += RATE_WINDOW_S + 0.1
    assert meter.hz == 0


def test_answers_for_two_faces_in_one_step_are_no_rate_of_thousands():
    now_s = 100.0
    meter = RateMeter(lambda: now_s)
    for _ in range(2):
        now_s += 40e-6
        meter.count()
    assert meter.hz <= 5


def test_ages_are_summed_in_seconds_and_counted_up_to_and_with_each_bound():
    ages = AgeMeter()
    assert ages.percentiles_ms() is None
    for age_ms in (20.0, 20.1, 50.0, 400.0, 6000.0):
        ages.add(age_ms)
    assert ages.sum_s == pytest.approx(6.4901)
    assert dict(zip((*AGE_BOUNDS_S, None), ages.under, strict=True)) == {
        0.02: 1, 0.05: 2, 0.1: 0, 0.2: 0, 0.3: 0, 0.5: 1, 0.75: 0, 1.0: 0, 2.0: 0, 5.0: 0, None: 1,
    }  # fmt: skip
    assert ages.percentiles_ms((0, 50, 100)) == pytest.approx((20.0, 50.0, 6000.0))
