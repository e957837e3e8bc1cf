"""What a network sees: the place of every pixel, at the edges too."""

import numpy as np
import pytest
from logoformer.camera.faces.pictures import fitted, square_around, square_part

pytest.importorskip("hypothesis", reason="hypothesis is not installed (the extra 'dev')")
from hypothesis import given, settings
from hypothesis import strategies as st


def ramp(height: int, width: int) -> np.ndarray:
    """A picture whose red is its column and whose green is its row."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.full_like(x, 99)], -1).astype(np.uint8)


def in_frame(view, column: float, row: float) -> tuple[float, float]:
    """Where the middle of a pixel of the view lies in the frame."""
    x = view.origin[0] + (view.left + column + 0.5) / view.scale
    return x, view.origin[1] + (view.top + row + 0.5) / view.scale


@settings(max_examples=60)
@given(
    st.floats(-60, 200), st.floats(-60, 160), st.floats(4, 250), st.sampled_from([16, 64, 128]),
)  # fmt: skip
def test_a_square_part_shows_what_it_says(left, top, side, size):
    frame = ramp(130, 180)
    view = square_part(frame, (left, top, left + side, top + side), size)
    if view is None:
        inside = [max(0.0, min(e, n) - max(s, 0)) for s, e, n in ((left, left + side, 180), (top, top + side, 130))]
        assert min(inside) * size / side < 3
        return
    h, w = view.pixels.shape[:2]
    assert 0 <= view.left <= view.left + w <= size and 0 <= view.top <= view.top + h <= size
    for row, column in ((0, 0), (0, w - 1), (h - 1, 0), (h - 1, w - 1), (h // 2, w // 2)):
        x, y = in_frame(view, column, row)
        red, green, _ = view.pixels[row, column].astype(float)
        # Pixel i of the frame spans i to i + 1 and has the value i; at the rim half a pixel of the view is clamped.
        inside = row == h // 2 and column == w // 2 and min(h, w) > 4
        tolerance = 0.6 + 0.2 / view.scale if inside else 0.8 + 0.75 / view.scale
        assert abs(red - (x - 0.5)) < tolerance and abs(green - (y - 0.5)) < tolerance


@pytest.mark.parametrize("shape", [(480, 640), (640, 480), (1, 1), (1080, 1920), (3, 900)])
def test_a_whole_frame_is_fitted_into_the_middle(shape):
    frame = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    view = fitted(frame, 256, 256)
    h, w = view.pixels.shape[:2]
    assert max(h, w) == 256 and abs(h / w - shape[0] / shape[1]) <= 1 / min(h, w)
    assert view.left in ((256 - w) // 2, (256 - w + 1) // 2) and view.top in ((256 - h) // 2, (256 - h + 1) // 2)
    x, y = in_frame(view, w - 0.5, h - 0.5)  # the far corner
    assert (x, y) == pytest.approx((shape[1], shape[0]), abs=0.51 / view.scale)


def test_a_frame_seen_backwards_is_not_copied_whole(monkeypatch):
    bgr = ramp(120, 160)
    view = square_part(bgr[..., ::-1], (20, 30, 84, 94), 64)
    assert view.pixels[10, 5].tolist() == [99, 40, 25]


def test_a_square_lies_around_the_middle_of_the_longer_side():
    assert square_around((10, 20, 30, 30), 2.0) == (0, 5, 40, 45)
