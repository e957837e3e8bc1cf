import dataclasses

import numpy as np
import pytest
from logoformer.camera.faces.contract import POINTS
from logoformer.camera.faces.steady import MOST, SETTLE_S, SteadyPoints

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed (the extra 'dev')")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402


def array(points) -> np.ndarray:
    return np.array([points[name] for name in POINTS])


def shifted(face, by: np.ndarray):
    places = array(face.points) + by
    return dataclasses.replace(face, points={n: tuple(p) for n, p in zip(POINTS, places, strict=True)})


def test_a_face_that_moves_without_turning_is_followed_at_once(make_face):
    steady = SteadyPoints()
    for n in range(20):
        face = make_face(100 + 9 * n, 200 - 4 * n)
        np.testing.assert_allclose(array(steady.follow(1, face, n / 25, False)), array(face.points), atol=1e-9)


def test_the_jitter_of_detections_is_damped(make_face):
    steady, rng = SteadyPoints(), np.random.default_rng(0)
    face, shown, seen = make_face(300, 200), [], []
    for n in range(200):
        noisy = shifted(face, rng.normal(0, 1.0, (4, 2)))
        seen.append(array(noisy.points))
        shown.append(array(steady.follow(1, noisy, n / 25, False)))
    for row in (seen, shown):  # relative to the middle, which is not damped
        row[:] = [p - p[[0, 1, 3]].mean(axis=0) for p in row[50:]]
    assert np.std(shown, axis=0).mean() < 0.3 * np.std(seen, axis=0).mean()
    np.testing.assert_allclose(np.mean(shown, axis=0), np.mean(seen, axis=0), atol=0.2)


@pytest.mark.parametrize("fps", [5, 25, 100])
def test_a_change_is_followed_in_seconds_whatever_the_frame_rate(make_face, fps):
    face = make_face(300, 200, 100)
    wider = shifted(face, np.array([[-2.0, 0], [2, 0], [0, 0], [0, 0]]))  # less than `MOST`
    steady = SteadyPoints()
    steady.follow(1, face, 0.0, False)
    for n in range(1, round(SETTLE_S * fps) + 1):
        points = steady.follow(1, wider, n / fps, False)
    done = (array(face.points)[0, 0] - points["left_eye"][0]) / 2
    assert done == pytest.approx(1 - np.exp(-round(SETTLE_S * fps) / fps / SETTLE_S), abs=1e-6)


@settings(max_examples=50)
@given(st.lists(st.tuples(*[st.floats(-300, 300)] * 8), min_size=2, max_size=6))
def test_no_point_is_moved_far_from_where_it_was_detected(make_face, places):
    steady = SteadyPoints()
    for n, flat in enumerate(places):
        points = np.array(flat).reshape(4, 2)
        face = dataclasses.replace(make_face(0, 0), points=dict(zip(POINTS, map(tuple, points), strict=True)))
        shown = array(steady.follow(1, face, n / 25, False))
        assert np.linalg.norm(shown - points, axis=1).max() <= MOST * np.linalg.norm(points[1] - points[0]) + 1e-6


def test_another_face_begins_anew(make_face):
    small, large = make_face(300, 200, 60), make_face(300, 200, 90)
    steady = SteadyPoints()
    steady.follow(1, small, 0.0, False)
    assert array(steady.follow(2, large, 0.0, False)) == pytest.approx(array(large.points))
    assert array(steady.follow(1, large, 0.1, True)) == pytest.approx(array(large.points))
    steady.forget([1, 9])
    assert array(steady.follow(1, small, 0.2, False)) == pytest.approx(array(small.points))
