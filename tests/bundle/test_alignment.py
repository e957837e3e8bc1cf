"""The warp against plain loops, and what a manifest may say about it."""

from __future__ import annotations

import contextlib
import json
import math

import numpy as np
import pytest
from logoformer.bundle import Bundle
from logoformer.bundle.alignment import DEFAULT, LEARNED, STANDARD, Alignment, align, learned, similarity
from logoformer.errors import BadInputError, RefusedError

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed (the extra 'dev')")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

SPEC = Alignment((0.38, 0.52), (0.64, 0.52), (0.51, 0.78), LEARNED, 80, "drawn faces")
triangle = st.lists(st.tuples(st.floats(-200, 200), st.floats(-200, 200)), min_size=3, max_size=3)
FAR = 5.0


def spread(points) -> float:
    return min(math.dist(points[a], points[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


# --------------------------------------------------------------------------------------------------------- similarity
@given(triangle, st.floats(-3.1, 3.1), st.floats(0.05, 20), st.floats(-300, 300), st.floats(-300, 300))
def test_a_similarity_is_found_again(points, angle, scale, dx, dy):
    hypothesis.assume(spread(points) > FAR)
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    source = np.array(points)
    found = similarity(source, source @ turn.T + (dx, dy))
    np.testing.assert_allclose(found, np.column_stack([turn, (dx, dy)]), atol=1e-6 * (1 + scale * 300))


@settings(max_examples=40)
@given(triangle, triangle, st.integers(0, 1000))
def test_no_other_similarity_is_nearer(source, target, seed):
    hypothesis.assume(spread(source) > FAR and spread(target) > FAR)
    source, target = np.array(source), np.array(target)
    found = similarity(source, target)
    a, b = found[0, 0], found[1, 0]
    np.testing.assert_allclose(found[:, :2], [[a, -b], [b, a]], atol=1e-9)  # no shear, no reflection

    def error(a, b, dx, dy) -> float:
        return sum(
            (a * x - b * y + dx - u) ** 2 + (b * x + a * y + dy - v) ** 2
            for (x, y), (u, v) in zip(source, target, strict=True)
        )

    best = error(a, b, *found[:, 2])
    for step in np.random.default_rng(seed).normal(0, 0.01, (20, 4)):
        assert error(a + step[0], b + step[1], *(found[:, 2] + 100 * step[2:])) >= best - 1e-6


@pytest.mark.parametrize("points", [[(5, 5)] * 3, [(0, 0), (math.nan, 0), (3, 9)], [(0, 0), (math.inf, 0), (3, 9)]])
def test_points_that_are_no_face_have_no_similarity(points):
    with pytest.raises(BadInputError, match="No similarity"):
        similarity(np.array(points, float), np.array([(0, 0), (1, 0), (0, 1)], float))


# --------------------------------------------------------------------------------------------------------------- warp
def dotted(shape, points, sigma) -> np.ndarray:
    """A black frame with a soft white dot at each point."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    total = sum(np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * sigma**2)) for u, v in points)
    return np.repeat((255 * np.clip(total, 0, 1)).astype(np.uint8)[..., None], 3, 2)


def brightest(crop, near) -> tuple[float, float]:
    """Middle of the light around a place."""
    y, x = np.mgrid[: crop.shape[0], : crop.shape[1]] + 0.5
    weight = crop[..., 0] * (np.hypot(x - near[0], y - near[1]) < crop.shape[0] / 9)
    return (x * weight).sum() / weight.sum(), (y * weight).sum() / weight.sum()


@settings(max_examples=25, deadline=None)
@given(st.floats(-40, 40), st.floats(0.3, 5.0), st.sampled_from([64, 112]))
def test_eyes_and_mouth_come_to_lie_at_the_targets(degrees, scale, size):
    angle = math.radians(degrees)
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    targets = np.array([SPEC.left_eye, SPEC.right_eye, SPEC.mouth]) * size
    places = (targets - size / 2) @ turn.T + (320, 300)
    frame = dotted((600, 640), places, max(1.0, scale * size / 40))
    points = dict(zip(("left_eye", "right_eye", "mouth"), map(tuple, places), strict=True))
    crop = align(frame, points, SPEC, size)
    assert crop.shape == (size, size, 3) and crop.dtype == np.uint8
    for target in targets:
        assert math.dist(brightest(crop, target), target) < 0.35


def test_a_large_face_is_filtered_not_sampled():
    """Stripes of one pixel become grey; taking single pixels of them would give black or white."""
    frame = np.zeros((900, 900, 3), np.uint8)
    frame[:, ::2] = 255
    points = {"left_eye": (300.0, 400.0), "right_eye": (560.0, 400.0), "mouth": (430.0, 660.0)}
    crop = align(frame, points, SPEC, 64)[8:-8, 8:-8].astype(int)
    assert np.abs(crop - 127).max() < 30


def test_a_face_of_the_crops_own_size_is_not_touched():
    frame = np.random.default_rng(0).integers(0, 255, (200, 240, 3), np.uint8)
    points = {
        name: (x * 112 + 60, y * 112 + 40)
        for name, (x, y) in (("left_eye", SPEC.left_eye), ("right_eye", SPEC.right_eye), ("mouth", SPEC.mouth))
    }
    assert np.abs(align(frame, points, SPEC, 112).astype(int) - frame[40:152, 60:172]).max() <= 1


def test_what_lies_outside_the_frame_is_black():
    frame = np.full((100, 100, 3), 200, np.uint8)
    points = {"left_eye": (-20.0, 40.0), "right_eye": (30.0, 40.0), "mouth": (5.0, 90.0)}
    crop = align(frame, points, SPEC, 64)
    assert (crop[:, :8] == 0).all() and (crop[30:40, -10:] == 200).all()
    far = {name: (x - 9000, y) for name, (x, y) in points.items()}
    assert (align(frame, far, SPEC, 64) == 0).all()


@settings(max_examples=60, deadline=None)
@given(triangle)
def test_any_three_points_give_a_crop_or_an_error(points):
    frame = np.full((90, 120, 3), 50, np.uint8)
    given_points = dict(zip(("left_eye", "right_eye", "mouth"), points, strict=True))
    with contextlib.suppress(BadInputError):
        assert align(frame, given_points, SPEC, 32).shape == (32, 32, 3)


# --------------------------------------------------------------------------------------------------------------- spec
def test_the_median_of_the_crops_is_learned():
    places = np.tile([[0.38, 0.52], [0.64, 0.53], [0.51, 0.78]], (9, 1, 1))
    places[0] = 0.99  # one wild detection
    assert learned(places, "crops") == Alignment((0.38, 0.52), (0.64, 0.53), (0.51, 0.78), LEARNED, 9, "crops")
    with pytest.raises(BadInputError, match="no upright face"):
        learned(places[:, ::-1], "crops")


def test_only_a_learned_alignment_is_calibrated():
    assert SPEC.calibrated and not STANDARD.calibrated
    assert STANDARD.origin == DEFAULT and STANDARD.source


@pytest.mark.parametrize("spec", [SPEC, STANDARD])
def test_a_manifest_holds_it(spec):
    assert Alignment.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_bundle_gives_its_alignment_and_an_older_one_gives_none(write_bundle, tmp_path):
    assert write_bundle(tmp_path / "old", "one").alignment is None
    path = write_bundle(tmp_path / "new", "one", alignment=SPEC.to_json()).path
    assert Bundle(path).alignment == SPEC


@pytest.mark.parametrize(
    "change",
    [
        {"left_eye": [0.38]}, {"left_eye": [0.38, "0.5"]}, {"left_eye": [True, 0.5]}, {"left_eye": [0.7, 0.52]},
        {"mouth": [0.5, 0.3]}, {"mouth": [0.5, 1.5]}, {"mouth": None}, {"origin": "guessed"}, {"origin": 7},
        {"crops": 0}, {"crops": -3}, {"crops": True}, {"origin": "default"}, {"source": 4},
    ],
    ids=str,
)  # fmt: skip
def test_a_garbled_alignment_is_refused(write_bundle, tmp_path, change):
    with pytest.raises(RefusedError, match="garbles a field"):
        write_bundle(tmp_path / "new", "one", alignment={**SPEC.to_json(), **change})
    assert not (tmp_path / "new" / "manifest.json").exists()


def test_the_card_says_whether_it_was_learned(write_bundle, tmp_path):
    for spec, said in ((SPEC, "learned from 80 crops of drawn faces"), (STANDARD, "uncalibrated")):
        path = write_bundle(tmp_path / spec.origin, "one", alignment=spec.to_json()).path
        assert said in (path / "CARD.md").read_text(encoding="utf-8")
