"""The sampling rules against a plain rewriting of Former-DFER's, and against each other."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from logoformer.clips import (
    COLORS,
    DFEW_LABELS,
    PATTERN_TOLERANCE_S,
    Sampling,
    centre_indices,
    centre_square,
    check_color,
    check_frame,
    pattern_ages,
    pick,
    random_indices,
    resize,
    to_input,
    view_indices,
    window_order,
)
from logoformer.errors import BadInputError, UsageError


@st.composite
def samplings(draw: st.DrawFn) -> Sampling:
    """Any pattern that is allowed."""
    segments, neighbours = draw(st.integers(1, 16)), draw(st.integers(1, 6))
    fps = draw(st.floats(1, 400))
    frames = draw(st.integers(segments * neighbours, segments * neighbours + 300))
    sampling_span = frames / fps
    assume(0 < sampling_span <= 3600 and round(sampling_span * fps) == frames)
    return Sampling(segments, neighbours, sampling_span, fps)


# ---------------------------------------------------------------------------------- what the published loader computes
def published_test_rule(n: int, segments: int, duration: int) -> list[int]:
    """Former-DFER's rule for test clips, in plain Python."""
    offsets = []
    for k in range(segments):
        if n > segments + duration - 1:
            tick = (n - duration + 1) / float(segments)
            offsets.append(int(tick / 2.0 + tick * k))
        else:
            offsets.append(0)
    taken = []
    for offset in offsets:
        p = offset
        for _ in range(duration):
            taken.append(p)
            if p < n - 1:
                p += 1
    return taken


@given(st.integers(1, 1000), st.integers(1, 16), st.integers(1, 6))
@example(9, 8, 2)
@example(10, 8, 2)
@example(11, 8, 2)
def test_centre_indices_are_the_published_rule(n, segments, duration):
    sampling = Sampling(segments, duration, span_s=60.0, fps=25.0)
    assert centre_indices(n, sampling).tolist() == published_test_rule(n, segments, duration)


def test_centre_indices_of_a_median_clip_by_hand():
    # n = 70, 8 segments of 2: tick = 69 / 8 = 8.625; starts int(4.3125 + 8.625 k)
    starts = [4, 12, 21, 30, 38, 47, 56, 64]
    expected = [index for start in starts for index in (start, start + 1)]
    indices = centre_indices(70, Sampling())
    assert indices.tolist() == expected
    assert indices.dtype == np.int64


@given(st.integers(1, 500), samplings())
def test_centre_indices_stay_inside_and_ascend(n, sampling):
    indices = centre_indices(n, sampling).reshape(sampling.segments, sampling.frames_per_segment)
    assert indices.min() >= 0
    assert indices.max() <= n - 1
    assert (np.diff(indices, axis=1) >= 0).all()
    assert (np.diff(indices[:, 0]) >= 0).all()


@given(st.integers(1, 500), st.integers(1, 16), st.integers(1, 6), st.integers(0, 2**32 - 1))
@example(3, 2, 8, 0)  # fewer frames than neighbours, more than segments
def test_random_indices_are_the_published_rule(n, segments, duration, seed):
    """One start in each of S equal parts; short clips: sorted starts anywhere, or all at 0."""
    sampling = Sampling(segments, duration, span_s=60.0, fps=25.0)
    indices = random_indices(n, sampling, np.random.default_rng(seed)).reshape(segments, duration)
    starts = indices[:, 0].tolist()
    average = (n - duration + 1) // segments
    if average > 0:
        assert all(k * average <= start < (k + 1) * average for k, start in enumerate(starts))
    elif n > segments and n >= duration:
        assert starts == sorted(starts)
        assert 0 <= min(starts) <= max(starts) <= n - duration
    else:
        assert starts == [0] * segments
    for start, row in zip(starts, indices.tolist(), strict=True):
        assert row == [min(start + step, n - 1) for step in range(duration)]


def test_random_starts_reach_every_place_of_their_segment_and_follow_the_seed():
    sampling = Sampling()
    rng = np.random.default_rng(0)
    drawn = np.stack([random_indices(70, sampling, rng)[::2] for _ in range(400)])
    for k in range(8):
        assert set(drawn[:, k].tolist()) == set(range(8 * k, 8 * k + 8))
    one, same, other = (random_indices(70, sampling, np.random.default_rng(seed)).tolist() for seed in (5, 5, 6))
    assert one == same != other


@pytest.mark.parametrize("count", [0, -1])
def test_an_empty_recording_is_bad_input(count):
    with pytest.raises(BadInputError, match="no frames"):
        centre_indices(count, Sampling())
    with pytest.raises(BadInputError, match="no frames"):
        random_indices(count, Sampling(), np.random.default_rng(0))


# ---------------------------------------------------------------------------------------------------------- live rule
@given(
    samplings(),
    st.integers(0, 200),
    st.floats(0, 2e9),
    st.integers(0, 2**32 - 1),
    st.floats(0, 1),
)
@example(Sampling(), 0, 0.0, 0, 0.0)
@example(Sampling(8, 2, 64 / 400, 400.0), 100, 1.7e9, 1, 1.0)
def test_a_regular_camera_at_the_training_rate_is_read_as_a_recording(sampling, before, start_s, seed, jitter):
    """Whatever came before the span, and whatever the camera's clock, jitter below the tolerance included."""
    span = sampling.span_frames
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, before + span) * jitter * PATTERN_TOLERANCE_S * 0.99
    times = start_s + np.arange(before + span) / sampling.fps + noise
    assume((np.diff(times) > 0).all())
    picked = pick(times, pattern_ages(sampling))
    assert picked.tolist() == (before + centre_indices(span, sampling)).tolist()


@given(samplings(), st.lists(st.floats(1e-4, 0.5), max_size=120))
def test_every_place_holds_the_newest_frame_that_is_old_enough(sampling, steps):
    times = np.concatenate([[0.0], np.cumsum(steps)]) if steps else np.zeros(1)
    ages = pattern_ages(sampling)
    for age, found in zip(ages, pick(times, ages), strict=True):
        wanted = times[-1] - age + PATTERN_TOLERANCE_S
        candidates = [index for index, time in enumerate(times) if time <= wanted]
        assert found == (candidates[-1] if candidates else 0)


@given(samplings(), st.integers(1, 4))
def test_a_camera_of_a_multiple_of_the_rate_shows_the_same_moments(sampling, factor):
    assume(sampling.fps * factor <= 400)
    span = sampling.span_frames
    slow = np.arange(span) / sampling.fps
    fast = np.arange((span - 1) * factor + 1) / (sampling.fps * factor)
    ages = pattern_ages(sampling)
    assert fast[pick(fast, ages)] == pytest.approx(slow[pick(slow, ages)], abs=1e-9)


def test_before_the_history_began_its_first_frame_stands():
    ages = pattern_ages(Sampling())
    assert pick([5.0], ages).tolist() == [0] * 16
    assert pick([5.0, 5.04], ages).tolist()[:-2] == [0] * 14


def test_a_frame_of_exactly_the_wanted_time_is_taken():
    assert pick([0.0, 1.0], np.array([PATTERN_TOLERANCE_S])).tolist() == [1]


def test_ages_count_back_from_the_newest_frame_of_the_span():
    ages = pattern_ages(Sampling())
    assert ages[0] == pytest.approx((69 - 4) / 25)
    assert ages[-1] == pytest.approx((69 - 65) / 25)
    assert all(later <= earlier for earlier, later in pairwise(ages[::2]))


# ----------------------------------------------------------------------------------------------------------- Sampling
# ------------------------------------------------------------------------------------------------------------- strides
def published_strided_views(n: int, frames: int, rate: int, views: int) -> list[list[int]]:
    """MAE-DFER's rule for test recordings, in plain Python: every rate-th frame, the last one repeated, equal steps."""
    taken = list(range(0, n, rate))
    while len(taken) < frames:
        taken.append(taken[-1])
    step = max(1.0 * (len(taken) - frames) / (views - 1), 0) if views > 1 else 0
    return [taken[int(view * step) : int(view * step) + frames] for view in range(views)]


@given(st.integers(1, 600), st.sampled_from([1, 2, 4]), st.sampled_from([8, 16]), st.integers(1, 3))
@example(64, 4, 16, 2)
@example(61, 4, 16, 2)
@example(65, 4, 16, 2)
@example(16, 1, 16, 2)
def test_views_by_a_stride_are_the_published_rule(n, rate, frames, views):
    sampling = Sampling.strided(frames, rate, views=views)
    found = [view.tolist() for view in view_indices(n, sampling)]
    assert found == published_strided_views(n, frames, rate, views)
    assert centre_indices(n, sampling).tolist() == found[0]


def test_views_of_a_dfew_recording_by_hand():
    first, second = view_indices(90, Sampling.strided(16, 4))  # frames 0, 4, ..., 88: 23 of them
    assert first.tolist() == list(range(0, 61, 4)) and second.tolist() == list(range(28, 89, 4))
    ferv, again = view_indices(20, Sampling.strided(16, 1))
    assert ferv.tolist() == list(range(16)) and again.tolist() == list(range(4, 20))
    assert [view.tolist() for view in view_indices(70, Sampling())] == [centre_indices(70, Sampling()).tolist()]


@given(st.integers(1, 300), st.integers(0, 9))
def test_training_by_a_stride_starts_anywhere_that_fits(n, seed):
    sampling = Sampling.strided(16, 4)
    found = random_indices(n, sampling, np.random.default_rng(seed))
    assert len(found) == 16 and found[0] >= 0 and found[-1] < n
    if n >= 61:
        assert (np.diff(found) == 4).all()
    else:
        assert found.tolist() == published_strided_views(n, 16, 4, 1)[0]


def test_a_stream_by_a_stride_ends_with_the_newest_frame():
    sampling = Sampling.strided(16, 4, fps=25.0)
    np.testing.assert_allclose(pattern_ages(sampling), np.arange(60, -1, -4) / 25)
    times = np.arange(100) / 25
    assert pick(times, pattern_ages(sampling)).tolist() == list(range(39, 100, 4))


def test_the_default_is_sixteen_frames_over_a_median_clip():
    sampling = Sampling()
    assert (sampling.frames, sampling.span_frames) == (16, 70)


@given(st.one_of(samplings(), st.builds(Sampling.strided, st.integers(1, 32), st.integers(1, 8))))
def test_a_sampling_survives_json(sampling):
    assert Sampling.from_json(sampling.to_json()) == sampling


def test_a_sampling_of_version_0_1_is_read_as_before():
    data = {"segments": 8, "frames_per_segment": 2, "span_s": 2.8, "fps": 25.0}
    assert Sampling.from_json(data) == Sampling() and str(Sampling()) == "8 segments x 2 over 2.8 s"
    assert str(Sampling.strided(16, 4)) == "16 frames, 0.16 s apart, over 2.56 s, 2 views of a recording"


@pytest.mark.parametrize(
    "wrong",
    [
        {"segments": 0},
        {"frames_per_segment": 0},
        {"segments": -8},
        {"fps": 0.0},
        {"fps": -25.0},
        {"fps": 401.0},
        {"fps": float("nan")},
        {"fps": float("inf")},
        {"span_s": 0.0},
        {"span_s": 3601.0},
        {"span_s": float("nan")},
        {"span_s": 0.6},  # 15 frames for a pattern of 16
        {"stride": -1},
        {"views": 0},
        {"views": 2},  # of segments there is one
        {"segments": 16, "frames_per_segment": 1, "stride": 4},  # 64 frames in a span of 70
        {"segments": 8, "frames_per_segment": 2, "stride": 4, "span_s": 2.56},
    ],
)
def test_a_pattern_that_cannot_be_is_a_usage_error(wrong):
    with pytest.raises(UsageError):
        Sampling(**wrong)


def test_the_shortest_span_of_a_pattern_is_allowed():
    assert centre_indices(16, Sampling(span_s=0.64)).tolist() == published_test_rule(16, 8, 2)


def test_the_seven_labels_stand_in_the_data_sets_order():
    assert DFEW_LABELS == ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")


# ------------------------------------------------------------------------------------------------------------- pixels
def textured(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def shrink_rows(frame: np.ndarray, size: int) -> np.ndarray:
    """One axis of an antialiased triangle filter in 22-bit fixed point, `[H, W, 3]` to `[size, W, 3]`."""
    height = frame.shape[0]
    if height == size:
        return frame
    step = height / size
    reach = max(step, 1.0)
    rows = []
    for place in range(size):
        centre = (place + 0.5) * step
        first, last = max(0, int(centre - reach + 0.5)), min(height, int(centre + reach + 0.5))
        shares = [max(0.0, 1.0 - abs((row - centre + 0.5) * (1.0 / reach))) for row in range(first, last)]
        weights = np.array([int(0.5 + share / sum(shares) * (1 << 22)) for share in shares], np.int64)
        total = (frame[first:last].astype(np.int64) * weights[:, None, None]).sum(axis=0)
        rows.append(np.clip((total + (1 << 21)) >> 22, 0, 255))
    return np.stack(rows).astype(np.uint8)


@given(st.integers(1, 150), st.integers(1, 150), st.integers(1, 96), st.integers(0, 99))
@example(256, 256, 112, 0)
@example(64, 64, 112, 1)
def test_the_resize_is_an_antialiased_bilinear_filter_to_the_bit(height, width, size, seed):
    """Columns first, rounded to bytes, then rows. Whatever Pillow a machine has: an answer may not depend on it."""
    frame = textured(height, width, seed)
    expected = shrink_rows(shrink_rows(frame.transpose(1, 0, 2), size).transpose(1, 0, 2), size)
    out = resize(frame, size)
    assert out.shape == (size, size, 3)
    assert out.dtype == np.uint8
    assert np.array_equal(out, expected)


def test_halving_weighs_the_neighbours_as_an_antialiased_filter_does():
    """By hand: a triangle of two output pixels' width, so that fine stripes become grey instead of noise."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    inner = resize(stripes, 32)[:, 2:-2]
    assert np.abs(inner.astype(int) - 127.5).max() <= 1


def test_a_frame_of_the_right_size_is_given_back_itself():
    frame = textured(64, 64)
    assert resize(frame, 64) is frame


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 64), st.integers(0, 99))
def test_rgb_and_bgr_frames_give_the_same_input_to_the_bit(height, width, size, seed):
    rgb = textured(height, width, seed)
    one, other = (np.zeros((size, size, 3), np.uint8) for _ in range(2))
    to_input(rgb, size, "rgb", one)
    to_input(rgb[:, :, ::-1], size, "bgr", other)
    assert np.array_equal(one, other)
    assert np.array_equal(one, resize(rgb, size))


def test_views_are_resized_as_their_copies():
    frame = textured(120, 160)
    for view in (centre_square(frame), frame[::-1], frame[:, ::-1], frame[::2, ::3], frame[:, :, ::-1]):
        assert np.array_equal(resize(view, 50), resize(view.copy(), 50))


@given(st.integers(1, 60), st.integers(1, 60))
def test_the_centre_square_is_the_largest_in_the_middle_and_a_view(height, width):
    frame = textured(height, width)
    square = centre_square(frame)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    assert np.array_equal(square, frame[top : top + side, left : left + side])
    assert square.shape == (side, side, 3)
    assert np.shares_memory(square, frame)
    assert abs((height - side - top) - top) <= 1
    assert abs((width - side - left) - left) <= 1


def test_a_frame_passes_untouched():
    frame = textured(4, 5)
    assert check_frame(frame) is frame
    assert check_frame(frame[::-1, 1:]).shape == (4, 4, 3)


@pytest.mark.parametrize(
    ("frame", "named"),
    [
        ([[0, 0, 0]], "list"),
        (None, "NoneType"),
        (np.zeros((4, 5, 3), np.float32), "float32"),
        (np.zeros((4, 5, 3), np.int8), "int8"),
        (np.zeros((4, 5), np.uint8), r"\[4, 5\]"),
        (np.zeros((4, 5, 4), np.uint8), r"\[4, 5, 4\]"),
        (np.zeros((3, 4, 5), np.uint8), r"\[3, 4, 5\]"),
        (np.zeros((0, 5, 3), np.uint8), r"\[0, 5, 3\]"),
        (np.zeros((1, 4, 5, 3), np.uint8), r"\[1, 4, 5, 3\]"),
    ],
)
def test_another_frame_is_refused_with_both_sides_named(frame, named):
    with pytest.raises(BadInputError, match=named) as caught:
        check_frame(frame, shown="crop")
    assert "crop" in caught.value.what
    assert "uint8" in caught.value.what or "[H, W, 3]" in caught.value.what


@pytest.mark.parametrize("color", [None, "", "RGB", "rgba", "grey"])
def test_the_channel_order_has_no_default(color):
    with pytest.raises(UsageError) as caught:
        check_color(color)
    assert "color='bgr'" in caught.value.next
    assert [check_color(good) for good in COLORS] == ["rgb", "bgr"]


# ------------------------------------------------------------------------------------------------------------- tokens
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2))
def test_window_order_goes_window_after_window(times, cells, f, h, w, more):
    frames, grid = times * f, cells * h * w * more
    expected = [
        (t + dt) * grid * grid + (y + dy) * grid + (x + dx)
        for t in range(0, frames, f)
        for y in range(0, grid, h)
        for x in range(0, grid, w)
        for dt in range(f)
        for dy in range(h)
        for dx in range(w)
    ]
    order = window_order(frames, grid, (f, h, w))
    assert order.tolist() == expected
    assert order.dtype == np.int64
    assert sorted(expected) == list(range(frames * grid * grid))


def test_the_shared_ground_imports_nothing_heavy():
    script = (
        "import sys, logoformer.clips, logoformer.bundle.files, logoformer.errors\n"
        "print([name for name in ('torch', 'cv2', 'onnx', 'onnxruntime', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
