"""Rates of what comes at once, evenly and no more."""

from __future__ import annotations

import pytest
from logoformer.camera.pipeline.counts import RATE_WINDOW_S, RateMeter


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
