from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logoformer.camera.run import find_face
from logoformer.errors import UsageError


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["whole", "center"]))
def test_the_box_is_where_the_pixels_come_from_and_nothing_is_copied(height, width, mode):
    frame = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    face = find_face(frame, mode)
    left, top, across, down = face.box
    assert np.array_equal(face.pixels, frame[top : top + down, left : left + across])
    assert np.shares_memory(face.pixels, frame)
    side = min(height, width)
    assert (across, down) == ((width, height) if mode == "whole" else (side, side))


def test_the_square_is_in_the_middle():
    frame = np.zeros((10, 30, 3), np.uint8)
    assert find_face(frame, "center").box == (10, 0, 10, 10)
    assert find_face(frame.transpose(1, 0, 2), "center").box == (0, 10, 10, 10)


def test_another_mode_is_a_usage_error_that_lists_the_modes():
    with pytest.raises(UsageError) as caught:
        find_face(np.zeros((2, 2, 3), np.uint8), "nose")
    assert "'whole', 'center'" in caught.value.next
