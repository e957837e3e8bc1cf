"""The pictures hold what they show, escape what came from files, and `spread` measures what it says."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from logoformer.model.training.pictures import confusion_svg, plane_svg, spread, tsne


def texts(svg: str) -> list[str]:
    return [node.text for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_matrix_is_by_row_of_truth():
    shown = texts(confusion_svg(["a<b", "c"], np.array([[3, 1], [0, 0]])))
    assert "a<b" in shown and shown[:4] == ["75%", "3", "25%", "1"] and "0%" in shown


def test_a_point_for_each_clip():
    svg = plane_svg(["a", "b"], np.array([0, 1, 1]), np.array([[0.0, 0.0], [1, 1], [2, 0]]))
    assert svg.count('r="3.2"') == 3 and texts(svg) == ["a", "b"]


def test_spread_is_small_for_tight_classes_and_ignores_length():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((3, 8))
    labels = np.repeat(np.arange(3), 20)
    tight, loose = (centres[labels] + s * rng.standard_normal((60, 8)) for s in (0.05, 1.0))
    assert spread(tight, labels) < 0.1 < 0.5 < spread(loose, labels)
    assert spread(7.0 * tight, labels) == pytest.approx(spread(tight, labels))


def test_tsne_keeps_far_groups_apart():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed (the extra 'train')")
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 15)
    plane = tsne((rng.standard_normal((30, 6)) + 20 * labels[:, None]).astype(np.float32))
    assert plane.shape == (30, 2)
    gap = np.linalg.norm(plane[labels == 0].mean(0) - plane[labels == 1].mean(0))
    assert gap > 2 * plane[labels == 0].std()
