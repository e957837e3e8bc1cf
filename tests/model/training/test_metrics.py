"""UAR, WAR and their intervals: by hand, against scikit-learn, against the published row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logoformer.bundle.files import dump_json
from logoformer.model.training.evaluate import Predictions, pool
from logoformer.model.training.metrics import metrics, spread, uar_war

CLASSES = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")


def test_uar_and_war_by_hand():
    confusion = np.array([[8, 2, 0], [0, 10, 0], [15, 0, 5]])
    assert uar_war(confusion) == pytest.approx(((0.8 + 1.0 + 0.25) / 3, 23 / 40))


def test_the_published_row_comes_out_of_our_own_pooling():
    """LOGO-Former on DFEW: 54.21 / 66.98, from its published recalls and the class counts, in five folds."""
    counts = np.array([2445, 1894, 2669, 2173, 1469, 145, 902])
    recalls = np.array([85.39, 66.52, 68.94, 71.33, 54.59, 0.00, 32.71])
    right = np.rint(counts * recalls / 100).astype(int)
    labels = np.repeat(np.arange(7), counts)
    said = np.concatenate(
        [np.where(np.arange(n) < r, c, (c + 1) % 7) for c, (n, r) in enumerate(zip(counts, right, strict=True))]
    )
    fold = np.random.default_rng(0).permutation(len(labels)) % 5
    scores = np.eye(7, dtype=np.float32)[said]
    parts = [
        Predictions(CLASSES, tuple(f"{i:05d}" for i in np.flatnonzero(fold == f)), labels[fold == f], scores[fold == f])
        for f in range(5)
    ]
    found = pool(parts).metrics()
    assert f"{100 * found.uar:.2f} {100 * found.war:.2f}" == "54.21 66.98"
    assert found.clips == 11697 and found.recalls[5] == 0.0


def test_a_fixed_prediction_table_scores_as_scikit_learn_scores_it():
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed (the extra 'dev')")
    rng = np.random.default_rng(5)
    labels = rng.choice(7, 3000, p=[0.21, 0.16, 0.23, 0.18, 0.13, 0.012, 0.078])
    said = np.where(rng.random(3000) < 0.6, labels, rng.integers(7, size=3000))
    found = Predictions(CLASSES, tuple(map(str, range(3000))), labels, np.eye(7, dtype=np.float32)[said]).metrics()
    assert found.uar == pytest.approx(sklearn.balanced_accuracy_score(labels, said), abs=5e-5)
    assert found.war == pytest.approx(sklearn.accuracy_score(labels, said), abs=5e-5)
    assert np.array_equal(found.confusion, sklearn.confusion_matrix(labels, said))


def test_a_class_without_clips_does_not_count():
    result = metrics(np.array([[3, 1, 0], [0, 0, 0], [0, 0, 4]]))
    assert result.recalls == (0.75, None, 1.0)
    assert result.uar == pytest.approx(0.875)
    assert result.clips == 8
    assert dump_json(result.to_json())


def test_intervals_are_those_of_drawing_clips_again():
    """Against the plain way: draw clips with replacement, score each draw."""
    confusion = np.array([[30, 10], [5, 5]])
    labels = np.repeat([0, 0, 1, 1], confusion.ravel())
    said = np.repeat([0, 1, 0, 1], confusion.ravel())
    rng = np.random.default_rng(1)
    uars, wars = [], []
    for _ in range(4000):
        drawn = rng.integers(50, size=50)
        table = np.zeros((2, 2), int)
        np.add.at(table, (labels[drawn], said[drawn]), 1)
        uar, war = uar_war(table)
        uars.append(uar)
        wars.append(war)
    found = metrics(confusion)
    assert found.uar_interval == pytest.approx(np.percentile(uars, [2.5, 97.5]), abs=0.02)
    assert found.war_interval == pytest.approx(np.percentile(wars, [2.5, 97.5]), abs=0.02)


@given(st.lists(st.lists(st.integers(0, 50), min_size=4, max_size=4), min_size=4, max_size=4))
def test_scores_are_shares_inside_their_intervals(rows):
    confusion = np.array(rows)
    if confusion.sum() == 0:
        return
    found = metrics(confusion)
    assert 0 <= found.uar <= 1 and 0 <= found.war <= 1
    assert (found.war == 1) == (np.trace(confusion) == confusion.sum()) == (found.uar == 1)
    for low, high in (found.uar_interval, found.war_interval):
        assert 0 <= low <= high <= 1


def test_spread_is_small_for_tight_classes_and_ignores_length():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((3, 8))
    labels = np.repeat(np.arange(3), 20)
    tight, loose = (centres[labels] + s * rng.standard_normal((60, 8)) for s in (0.05, 1.0))
    assert spread(tight, labels) < 0.1 < 0.5 < spread(loose, labels)
    assert spread(7.0 * tight, labels) == pytest.approx(spread(tight, labels))
