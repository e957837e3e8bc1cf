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


FOLD = (489, 379, 534, 435, 294, 29, 180)  # test clips of one fold of DFEW, happy to fear
PUBLISHED = (0.854, 0.665, 0.689, 0.713, 0.546, 0.0, 0.327)  # recalls of LOGO-Former there


@pytest.mark.parametrize(
    ("clips", "recalls"),
    [
        (FOLD, PUBLISHED),
        (FOLD, (*PUBLISHED[:5], 0.1, 0.327)),
        (FOLD, (0.95,) * 7),
        ((40,) * 7, (0.5,) * 7),
        ((300,) * 7, (0.98, 0.9, 0.9, 0.8, 0.8, 0.7, 0.7)),
    ],
)
def test_intervals_cover_what_they_say(clips, recalls):
    """4000 test sets of one model: its own UAR and WAR are inside 95 of 100 intervals. Nothing is drawn again."""
    rng, shares, total = np.random.default_rng(0), np.array(recalls), np.array(clips)
    inside = np.zeros(2)
    for _ in range(4000):
        right = rng.binomial(total, shares)
        found = metrics(np.diag(right) + np.roll(np.diag(total - right), 1, axis=1))
        own = shares.mean(), (shares * total).sum() / total.sum()
        inside += [
            low <= value <= high
            for value, (low, high) in zip(own, (found.uar_interval, found.war_interval), strict=True)
        ]
    assert (inside / 4000 >= 0.945).all() and (inside / 4000 <= 0.985).all(), inside / 4000


def test_an_interval_is_as_narrow_as_drawing_clips_again_makes_it():
    """Where every class has clips enough, the bootstrap is right: the two agree."""
    confusion = np.array([[400, 100], [90, 310]])
    rng, clips = np.random.default_rng(1), 900
    drawn = rng.multinomial(clips, (confusion / clips).ravel(), 4000).reshape(-1, 2, 2)
    uars = (np.diagonal(drawn, axis1=1, axis2=2) / drawn.sum(2)).mean(1)
    found = metrics(confusion)
    assert found.uar_interval == pytest.approx(np.percentile(uars, [2.5, 97.5]), abs=0.003)


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
