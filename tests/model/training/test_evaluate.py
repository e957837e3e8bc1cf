"""Scores, by hand and end to end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from logoformer.clips import Sampling
from logoformer.errors import BadInputError, UsageError
from logoformer.model.networks.configs import preset
from logoformer.model.networks.logoformer.model import LogoFormer
from logoformer.model.networks.network import to_tensor
from logoformer.model.synthetic.recordings import SyntheticClips
from logoformer.model.training.evaluate import Predictions, evaluate, pool, predict_all


def test_predictions_fill_the_confusion_by_row_of_truth():
    source = SyntheticClips(0, range(10), 7, 16)
    seen: list[tuple[str, int, int]] = []

    def always_angry(clips):
        assert clips.shape[1:] == (4, 16, 16, 3)
        return np.tile([0, 0, 0, 1, 0, 0, 0], (len(clips), 1))

    result = predict_all(always_angry, source, Sampling(4, 1), progress=lambda *event: seen.append(event)).metrics()
    assert result.confusion[0] == (0, 0, 0, 10, 0, 0, 0)
    assert result.recalls[3] == 1.0
    assert result.uar == result.war == pytest.approx(1 / 7)
    assert seen == [("evaluate", 32, 70), ("evaluate", 64, 70), ("evaluate", 70, 70)]


def test_frames_are_handed_over_in_the_order_asked_for():
    source = SyntheticClips(0, range(1), 7, 16)
    got = {}
    for order in ("forward", "reversed", "shuffled"):
        got[order] = []
        predict_all(
            lambda clips, to=got[order]: to.append(clips) or np.zeros((len(clips), 7)),
            source,
            Sampling(6, 1),
            order=order,
        )
    forward, backwards, shuffled = (got[order][0] for order in ("forward", "reversed", "shuffled"))
    np.testing.assert_array_equal(forward[:, ::-1], backwards)
    assert (forward != shuffled).any()
    with pytest.raises(UsageError, match="sideways"):
        predict_all(lambda clips: np.zeros((len(clips), 7)), source, Sampling(6, 1), order="sideways")


def test_evaluate_agrees_with_the_model_and_leaves_its_mode():
    torch.manual_seed(0)
    model = LogoFormer(preset("tiny")).train()
    source = SyntheticClips(0, range(2), 7, 64)
    result = evaluate(model, source)
    assert model.training and len(result.ids) == 14
    clips = []
    predict_all(lambda batch: clips.append(batch) or np.zeros((len(batch), 7)), source, model.config.sampling)
    with torch.inference_mode():
        answers = model.eval()(to_tensor(clips[0])).argmax(1).numpy()
    confusion = np.zeros((7, 7), int)
    np.add.at(confusion, ([source.label(i) for i in range(14)], answers), 1)
    assert np.array_equal(result.confusion(), confusion)
    np.testing.assert_allclose(result.scores.sum(1), 1.0, rtol=1e-5)


def test_evaluate_refuses_clips_of_another_size():
    with pytest.raises(BadInputError, match="32 x 32 pixels, the model reads 64 x 64"):
        evaluate(LogoFormer(preset("tiny")), SyntheticClips(0, range(1), 7, 32))


def answers(names: str, labels: list[int], said: list[int]) -> Predictions:
    scores = np.eye(3, dtype=np.float32)[said]
    return Predictions(("a", "b", "c"), tuple(names), np.array(labels), scores)


def test_folds_are_pooled_clip_by_clip_and_not_averaged():
    """Two folds of different sizes and class shares: the mean of their figures is another number."""
    first, second = answers("pqrs", [0, 0, 1, 2], [0, 0, 1, 1]), answers("tu", [1, 2], [0, 2])
    whole = pool([first, second]).metrics()
    assert whole.recalls == (1.0, 0.5, 0.5) and whole.war == pytest.approx(4 / 6)
    assert whole.uar == pytest.approx(2 / 3) != (first.metrics().uar + second.metrics().uar) / 2


def test_a_fold_given_twice_is_refused_and_so_are_other_classes():
    part = answers("pq", [0, 1], [0, 1])
    with pytest.raises(BadInputError, match="two folds: 'p', 'q'"):
        pool([part, part])
    other = Predictions(("b", "a", "c"), ("x",), np.array([0]), np.zeros((1, 3), np.float32))
    with pytest.raises(BadInputError, match="number their classes differently"):
        pool([part, other])


def test_further_views_are_averaged_with_the_centre_one():
    source = SyntheticClips(0, range(1), 7, 16)
    seen: list[np.ndarray] = []

    def predict(clips):
        seen.append(clips)
        return np.full((len(clips), 7), float(len(seen)))

    result = predict_all(predict, source, Sampling(4, 1), views=3, seed=1)
    np.testing.assert_allclose(result.scores, 2.0, rtol=1e-6)  # (1 + 2 + 3) / 3
    assert len({view.tobytes() for view in seen}) == 3
