"""Pictures hold their figures, escape what came from files, and are the same each time."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from logoformer.errors import MachineError
from logoformer.workflows.pictures import bars_svg, confusion_svg, plane_svg, tsne


def texts(svg: str) -> list[str]:
    return [node.text for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_matrix_is_by_row_of_truth():
    shown = texts(confusion_svg(["a<b", "c"], np.array([[3, 1], [0, 0]])))
    cells = [text for text in shown if text[0].isdigit()]
    assert "a<b" in shown and cells == ["75%", "3", "25%", "1", "0%", "0", "0%", "0"]


def test_a_point_for_each_clip():
    svg = plane_svg(["_a", "b"], np.array([0, 1, 1]), np.array([[0.0, 0.0], [1, 1], [2, 0]]))
    assert svg.count("<use ") == 3 + 2 and {"_a", "b"} < set(texts(svg))  # and the legend's


def test_bars_say_what_is_not_finite():
    svg = bars_svg("harm $x$", [("block0.ffn", 0.5, True), ("\x1bgone", float("inf"), False)], "red: left in FP16")
    shown = texts(svg)
    assert {"block0.ffn", "50.00%", "not finite", "harm $x$", "red: left in FP16"} < set(shown) and "\x1b" not in svg


def test_a_picture_is_the_same_each_time_and_loads_nothing():
    first, second = (confusion_svg(["a", "b"], np.array([[3, 1], [0, 2]])) for _ in range(2))
    assert first == second and first.startswith("<svg")
    assert not re.search(r"<script|<image|@import|href=\"[^#]|url\([^#]", first)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MachineError, match="matplotlib") as caught:
        confusion_svg(["a"], np.array([[1]]))
    assert "logoformer[train]" in caught.value.next


def test_tsne_keeps_far_groups_apart():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed (the extra 'train')")
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 15)
    plane = tsne((rng.standard_normal((30, 6)) + 20 * labels[:, None]).astype(np.float32))
    assert plane.shape == (30, 2)
    gap = np.linalg.norm(plane[labels == 0].mean(0) - plane[labels == 1].mean(0))
    assert gap > 2 * plane[labels == 0].std()
