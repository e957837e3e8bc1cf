import dataclasses

import numpy as np
import pytest
from logoformer.camera.faces.usable import BLURRED, CUT_OFF, SMALL, Limits, blur, reason_to_skip
from logoformer.errors import UsageError
from PIL import Image, ImageFilter


@pytest.fixture(scope="session")
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)


def moved(face, dx, dy):
    left, top, right, bottom = face.box
    points = {name: (x + dx, y + dy) for name, (x, y) in face.points.items()}
    return dataclasses.replace(face, box=(left + dx, top + dy, right + dx, bottom + dy), points=points)


def test_a_face_that_is_large_sharp_and_whole_can_be_read(noise, make_face):
    assert reason_to_skip(noise, make_face(320, 240, 80), Limits()) is None


def test_a_small_face_is_skipped(noise, make_face):
    assert reason_to_skip(noise, make_face(320, 240, 39.5), Limits()) == SMALL
    assert reason_to_skip(noise, make_face(320, 240, 39.5), Limits(least_width=20)) is None


@pytest.mark.parametrize("dx,dy", [(-300, 0), (300, 0), (0, -220), (0, 220)])
def test_a_face_that_reaches_out_of_the_frame_is_skipped(noise, make_face, dx, dy):
    face = make_face(320, 240, 80)
    assert reason_to_skip(noise, moved(face, dx, dy), Limits()) == CUT_OFF
    inside = moved(face, dx * 0.9, dy * 0.9)
    assert reason_to_skip(noise, inside, Limits()) is None


def test_an_eye_outside_is_no_whole_face_however_much_is_inside(noise, make_face):
    face = make_face(320, 240, 80)
    points = {**face.points, "left_eye": (-1.0, 200.0)}
    assert reason_to_skip(noise, dataclasses.replace(face, points=points), Limits(least_inside=0.5)) == CUT_OFF


def test_a_blurred_face_is_skipped_whatever_its_size(detector, placed):
    for eye_distance in (30, 84):
        frame, _ = placed(eye_distance)
        (face,) = detector.detect(frame)
        assert reason_to_skip(frame, face, Limits()) is None
        soft = Image.fromarray(frame).filter(ImageFilter.GaussianBlur(eye_distance / 12))
        assert reason_to_skip(np.asarray(soft), face, Limits()) == BLURRED
        assert reason_to_skip(np.asarray(soft), face, Limits(most_blur=1)) is None


def test_photographs_are_sharp_enough(detector, photos):
    frame = np.asarray(Image.open(photos / "sample1.jpg").convert("RGB"))
    assert [reason_to_skip(frame, face, Limits()) for face in detector.detect(frame)] == [None] * 3


def test_blur_agrees_with_the_published_measure(noise):
    measure = pytest.importorskip("skimage.measure", reason="scikit-image is not installed (the extra 'dev')")
    for radius in (0, 1, 2, 4):
        pixels = np.asarray(Image.fromarray(noise[:128, :128]).filter(ImageFilter.GaussianBlur(radius)))
        # scikit-image takes Sobel differences and 11 pixels; the order and the range are the same.
        assert blur(pixels) == pytest.approx(measure.blur_effect(pixels, h_size=9, channel_axis=2), abs=0.12)


def test_blur_does_not_depend_on_contrast(noise):
    soft = np.asarray(Image.fromarray(noise[:96, :96]).filter(ImageFilter.GaussianBlur(2)))
    assert blur((soft // 2 + 60).astype(np.uint8)) == pytest.approx(blur(soft), abs=0.03)
    assert blur(np.full((64, 64, 3), 7, np.uint8)) == 1.0


@pytest.mark.parametrize("wrong", [{"least_width": -1}, {"least_inside": 1.5}, {"most_blur": -0.1}])
def test_limits_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match="Limits need"):
        Limits(**wrong)
