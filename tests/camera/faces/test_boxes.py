import numpy as np
import pytest
from logoformer.camera.faces.boxes import group_boxes, overlap, weighted_mean

pytest.importorskip("hypothesis", reason="hypothesis is not installed (the extra 'dev')")
from hypothesis import given
from hypothesis import strategies as st


def test_overlap_is_intersection_over_union():
    a = np.array([[0.0, 0, 10, 10]])
    b = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [2, 2, 4, 4], [3, 3, 3, 9]])
    assert overlap(a, b)[0] == pytest.approx([1, 50 / 150, 0, 4 / 100, 0])


def counted(a, b) -> float:
    """Overlap of boxes of whole numbers, pixel by pixel."""
    grids = [np.zeros((24, 24), bool) for _ in (a, b)]
    for grid, box in zip(grids, (a, b), strict=True):
        grid[box[1] : box[3], box[0] : box[2]] = True
    both, any_ = (grids[0] & grids[1]).sum(), (grids[0] | grids[1]).sum()
    return both / any_ if any_ else 0.0


spot = st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(0, 11)] * 2).map(
    lambda v: (v[0], v[1], v[0] + v[2], v[1] + v[3])
)


@given(st.lists(spot, min_size=1, max_size=4), st.lists(spot, min_size=1, max_size=4))
def test_overlap_agrees_with_counting_pixels(a, b):
    expected = [[counted(one, other) for other in b] for one in a]
    np.testing.assert_allclose(overlap(np.array(a, float), np.array(b, float)), expected, atol=1e-9)


@given(st.lists(spot, min_size=1, max_size=8), st.randoms())
def test_every_box_is_in_one_group_whose_first_is_its_surest(boxes, random):
    scores = np.array([random.random() for _ in boxes])
    found = group_boxes(np.array(boxes, float), scores, 0.3)
    assert sorted(int(i) for group in found for i in group) == list(range(len(boxes)))
    assert all(scores[group[0]] == scores[group].max() for group in found)
    firsts = np.array([boxes[group[0]] for group in found], float)
    apart = overlap(firsts, firsts) - np.eye(len(firsts))
    assert (apart <= 0.3).all()


def test_a_blend_is_the_mean_by_score():
    assert weighted_mean(np.array([[0.0, 4.0], [3.0, 1.0]]), np.array([1.0, 2.0])) == pytest.approx([2.0, 2.0])
