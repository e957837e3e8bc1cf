"""The average at irregular times, hysteresis and gate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logoformer.camera.answers.contract import UNCERTAIN
from logoformer.camera.answers.smoothing import AnswerConfig, HeldLabel, Smoother
from logoformer.errors import UsageError

LABELS = ("a", "b", "c")


def shares(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@st.composite
def answers(draw):
    """Times that rise and probabilities that sum to 1."""
    gaps = draw(st.lists(st.floats(0.001, 5.0), min_size=1, max_size=12))
    raw = draw(st.lists(st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3), min_size=len(gaps), max_size=len(gaps)))
    times = np.cumsum(gaps)
    return [(t, np.array(p, np.float32) / sum(p)) for t, p in zip(times, raw, strict=True)]


@given(answers(), st.floats(0.0, 3.0))
def test_the_average_sums_to_one_and_stays_between_what_came_in(given_answers, smooth_s):
    smoother, seen = Smoother(smooth_s), []
    for time_s, probabilities in given_answers:
        seen.append(probabilities)
        mean = smoother.add(probabilities, time_s)
        assert mean.dtype == np.float32 and mean.sum() == pytest.approx(1, abs=1e-4)
        assert (mean >= np.min(seen, axis=0) - 1e-5).all() and (mean <= np.max(seen, axis=0) + 1e-5).all()


def test_after_one_time_constant_the_old_weighs_1_over_e_at_any_rate_of_answers():
    for steps in (1, 2, 7, 50):
        smoother = Smoother(0.5)
        smoother.add(shares(1, 0, 0), 0.0)
        for step in range(1, steps + 1):
            mean = smoother.add(shares(0, 1, 0), 0.5 * step / steps)
        assert mean[0] == pytest.approx(math.exp(-1), abs=1e-5)


def test_no_time_constant_gives_back_what_came_in_and_a_reset_forgets():
    assert Smoother(0).add(shares(0.2, 0.3, 0.5), 1.0).tolist() == shares(0.2, 0.3, 0.5).tolist()
    smoother = Smoother(10)
    smoother.add(shares(1, 0, 0), 0.0)
    smoother.reset()
    assert smoother.add(shares(0, 0, 1), 0.1).tolist() == [0, 0, 1]


def test_what_comes_in_is_not_written_to():
    smoother, first = Smoother(1.0), shares(1, 0, 0)
    smoother.add(first, 0.0)
    smoother.add(shares(0, 1, 0), 1.0)
    assert first.tolist() == [1, 0, 0]


# --------------------------------------------------------------------------------------------------------------- labels
def test_a_label_gives_way_only_to_one_that_leads_by_the_margin():
    held = HeldLabel(LABELS, gate=0.4, margin=0.1)
    assert held.update(shares(0.5, 0.3, 0.2)) == "a"
    assert held.update(shares(0.43, 0.5, 0.07)) == "a"  # leads by 0.07
    assert held.update(shares(0.42, 0.53, 0.05)) == "b"
    assert held.update(shares(0.5, 0.45, 0.05)) == "b"


def test_below_the_gate_it_is_uncertain_and_comes_back_only_at_the_gate():
    held = HeldLabel(LABELS, gate=0.5, margin=0.1)
    assert held.update(shares(0.45, 0.3, 0.25)) == UNCERTAIN
    assert held.update(shares(0.5, 0.3, 0.2)) == "a"
    assert held.update(shares(0.42, 0.3, 0.28)) == "a"  # the gate's own hysteresis
    assert held.update(shares(0.39, 0.36, 0.25)) == UNCERTAIN
    assert held.update(shares(0.48, 0.3, 0.22)) == UNCERTAIN
    assert held.update(shares(0.2, 0.6, 0.2)) == "b"


def test_a_leading_label_below_the_gate_does_not_replace_one_that_still_holds():
    held = HeldLabel(LABELS, gate=0.5, margin=0.05)
    assert held.update(shares(0.52, 0.3, 0.18)) == "a"
    assert held.update(shares(0.46, 0.495, 0.045)) == "a"


@given(answers())
def test_without_gate_and_margin_the_label_is_the_likeliest(given_answers):
    held = HeldLabel(LABELS, gate=0.0, margin=0.0)
    for _, probabilities in given_answers:
        label = held.update(probabilities)
        assert probabilities[LABELS.index(label)] == probabilities.max()


@given(answers(), st.floats(0, 0.9), st.floats(0, 0.9))
def test_a_held_label_is_never_less_likely_than_gate_less_margin(given_answers, gate, margin):
    held = HeldLabel(LABELS, gate, margin)
    for _, probabilities in given_answers:
        label = held.update(probabilities)
        assert label == UNCERTAIN or probabilities[LABELS.index(label)] >= min(gate, gate - margin) - 1e-6


def test_flicker_between_two_labels_changes_nothing():
    held, changes, before = HeldLabel(LABELS, 0.4, 0.1), 0, None
    for step in range(100):
        lead = 0.04 if step % 2 else -0.04
        label = held.update(shares(0.48 + lead, 0.48 - lead, 0.04))
        changes += label != before
        before = label
    assert changes == 1


@pytest.mark.parametrize(
    "wrong", [{"smooth_s": -1}, {"smooth_s": float("nan")}, {"gate": 1.0}, {"margin": -0.1}, {"gate": float("nan")}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(UsageError):
        AnswerConfig(**wrong)
