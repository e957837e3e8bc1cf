"""Scores, by hand and end to end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from logoformer.clips import Sampling
from logoformer.errors import BadInputError, UsageError
from logoformer.files import dump_json
from logoformer.model.config import preset
from logoformer.model.evaluate import evaluate, metrics, score, uar_war
from logoformer.model.logoformer import LogoFormer, to_tensor
from logoformer.model.synthetic import SyntheticClips


def test_uar_and_war_by_hand():
    confusion = np.array([[8, 2, 0], [0, 10, 0], [15, 0, 5]])
    assert uar_war(confusion) == pytest.approx(((0.8 + 1.0 + 0.25) / 3, 23 / 40))


def test_published_row_is_reproduced():
    """The published recalls of LOGO-Former on DFEW's class counts give the published UAR and WAR."""
    counts = np.array([2445, 1894, 2669, 2173, 1469, 145, 902])
    recalls = np.array([85.39, 66.52, 68.94, 71.33, 54.59, 0.00, 32.71])
    right = np.rint(counts * recalls / 100).astype(int)
    confusion = np.zeros((7, 7), int)
    confusion[np.arange(7), np.arange(7)] = right
    confusion[np.arange(7), (np.arange(7) + 1) % 7] += counts - right
    uar, war = uar_war(confusion)
    assert 100 * uar == pytest.approx(54.21, abs=0.02)
    assert 100 * war == pytest.approx(66.98, abs=0.02)


def test_a_class_without_clips_does_not_count():
    result = metrics(np.array([[3, 1, 0], [0, 0, 0], [0, 0, 4]]))
    assert result.recalls == (0.75, None, 1.0)
    assert result.uar == pytest.approx(0.875)
    assert result.clips == 8
    assert dump_json(result.to_json())


@given(st.lists(st.lists(st.integers(0, 50), min_size=4, max_size=4), min_size=4, max_size=4))
def test_scores_are_shares(rows):
    confusion = np.array(rows)
    if confusion.sum() == 0:
        return
    uar, war = uar_war(confusion)
    assert 0 <= uar <= 1
    assert 0 <= war <= 1
    assert (war == 1) == (np.trace(confusion) == confusion.sum()) == (uar == 1)


def test_score_fills_the_confusion_by_row_of_truth():
    source = SyntheticClips(0, range(10), 7, 16)
    seen: list[tuple[str, int, int]] = []

    def always_angry(clips):
        assert clips.shape[1:] == (4, 16, 16, 3)
        return np.tile([0, 0, 0, 1, 0, 0, 0], (len(clips), 1))

    result = score(always_angry, source, Sampling(4, 1), progress=lambda *event: seen.append(event))
    assert result.confusion[0] == (0, 0, 0, 10, 0, 0, 0)
    assert result.recalls[3] == 1.0
    assert result.uar == result.war == pytest.approx(1 / 7)
    assert seen == [("evaluate", 32, 70), ("evaluate", 64, 70), ("evaluate", 70, 70)]


def test_score_hands_frames_over_in_the_order_asked_for():
    source = SyntheticClips(0, range(1), 7, 16)
    got = {}
    for order in ("forward", "reversed", "shuffled"):
        got[order] = []
        score(
            lambda clips, to=got[order]: to.append(clips) or np.zeros((len(clips), 7)),
            source,
            Sampling(6, 1),
            order=order,
        )
    forward, backwards, shuffled = (got[order][0] for order in ("forward", "reversed", "shuffled"))
    np.testing.assert_array_equal(forward[:, ::-1], backwards)
    assert (forward != shuffled).any()
    with pytest.raises(UsageError, match="sideways"):
        score(lambda clips: np.zeros((len(clips), 7)), source, Sampling(6, 1), order="sideways")


def test_evaluate_agrees_with_the_model_and_leaves_its_mode():
    torch.manual_seed(0)
    model = LogoFormer(preset("tiny")).train()
    source = SyntheticClips(0, range(2), 7, 64)
    result = evaluate(model, source)
    assert model.training
    assert result.clips == 14
    clips = []
    score(lambda batch: clips.append(batch) or np.zeros((len(batch), 7)), source, model.config.sampling)
    with torch.inference_mode():
        answers = model.eval()(to_tensor(clips[0])).argmax(1).numpy()
    confusion = np.zeros((7, 7), int)
    np.add.at(confusion, ([source.label(i) for i in range(14)], answers), 1)
    assert np.array_equal(result.confusion, confusion)


def test_evaluate_refuses_clips_of_another_size():
    with pytest.raises(BadInputError, match="32 x 32 pixels, the model reads 64 x 64"):
        evaluate(LogoFormer(preset("tiny")), SyntheticClips(0, range(1), 7, 32))
