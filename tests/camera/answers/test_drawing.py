"""What is drawn: boxes where the faces are, bars as long as the probabilities, nothing outside the picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.camera.answers.contract import FaceAnswer, FaceCrop, FaceFrame
from logoformer.camera.answers.drawing import (
    LEAST_SIDE,
    WAITING,
    color_of,
    draw_frame,
    draw_readings,
    fit_width,
    text_size,
    to_image,
)
from logoformer.engine import Result

LABELS = ("calm", "glad", "Zürich")


def answer(face: int, shares=(0.1, 0.7, 0.2), label="glad") -> FaceAnswer:
    result = Result("glad", 1, np.array(shares, np.float32), {}, 1.0, 0.0, 0)
    return FaceAnswer("x", face, (0, 0, 1, 1), 1.0, result, label, result.probabilities, LABELS, False, 0, 0, 0.0, 1.0)


def frame(height: int, width: int, boxes, color="rgb", level=90) -> FaceFrame:
    picture = np.full((height, width, 3), level, np.uint8)
    crops = tuple(FaceCrop(face, box, 1.0, picture[:2, :2]) for face, box in boxes.items())
    return FaceFrame(picture, color, 0.0, 0, 0, 0.0, 0.0, crops)


def near(pixel, color) -> bool:
    return np.abs(np.asarray(pixel, int) - color).max() < 30


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_colours_are_the_right_way_round(color):
    pixels = np.zeros((3, 5, 3), np.uint8)
    pixels[..., 0] = 200
    image = to_image(pixels[:, ::-1], color)
    assert image.size == (5, 3)
    assert image.getpixel((1, 1)) == ((200, 0, 0) if color == "rgb" else (0, 0, 200))


def test_a_box_is_drawn_where_the_face_is_in_the_faces_own_colour():
    image = draw_frame(frame(480, 640, {2: (100, 200, 300, 400), 5: (400, 100, 500, 200)}), {2: answer(2)})
    assert image.size == (640, 480)
    for place in ((100, 300), (299, 300), (200, 399)):
        assert near(image.getpixel(place), color_of(2)), place
    assert near(image.getpixel((200, 300)), (90, 90, 90))  # nothing inside
    assert near(image.getpixel((450, 199)), WAITING)  # no answer yet


def test_a_small_picture_is_enlarged_and_a_large_one_made_smaller_with_its_boxes():
    small = draw_frame(frame(60, 80, {0: (20, 30, 60, 58)}), {0: answer(0)})
    assert max(small.size) == LEAST_SIDE
    scale = LEAST_SIDE / 80
    assert near(small.getpixel((round(20 * scale) + 1, round(45 * scale))), color_of(0))
    large = draw_frame(frame(1000, 4000, {0: (2000, 500, 3000, 900)}), {0: answer(0)}, 800)
    assert large.size == (800, 200)
    assert near(large.getpixel((401, 140)), color_of(0))


@settings(max_examples=60)
@given(st.tuples(*[st.floats(-900, 900)] * 4), st.integers(1, 50), st.integers(1, 50))
def test_any_box_on_any_picture_is_drawn_or_left_out(box, height, width):
    image = draw_frame(frame(height, width, {0: box}), {0: answer(0)})
    assert min(image.size) >= 1 and max(image.size) == LEAST_SIDE


def test_bars_are_as_long_as_the_probabilities():
    panel = np.asarray(draw_readings((400, 480), LABELS, [answer(0, (0.0, 0.75, 0.25))], "1.00 s"), int)
    best = np.abs(panel - color_of(0)).max(axis=2) < 12
    rows = [int(count) for count in best.sum(axis=1)]
    others = (np.abs(panel - (120, 126, 132)).max(axis=2) < 8).sum(axis=1)
    assert max(rows[60:]) / others.max() == pytest.approx(3.0, rel=0.05)


def test_more_faces_than_fit_are_left_out_and_none_is_said():
    panel = draw_readings((200, 240), LABELS, [answer(face) for face in range(30)], "note")
    assert panel.size == (200, 240)
    empty = np.asarray(draw_readings((200, 240), LABELS, [], "note"), int)
    assert (empty.max(axis=(1, 2)) > 100).any()


def test_a_text_is_cut_to_its_width():
    assert fit_width("short", 12, 500) == "short"
    cut = fit_width("a very long label indeed", 12, 60)
    assert cut.endswith("..") and text_size(cut, 12)[0] <= 60
    assert fit_width("\u4e2d\u6587 and \x00", 12, 500)
