from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logoformer.media.clock import MAX_SKEW_S, ArrivalClock, FrameClock


def times(reported_s: list[float | None], fps: float = 10.0) -> list[float]:
    clock = FrameClock(fps)
    return [clock.stamp(value) for value in reported_s]


def test_ascending_times_are_kept_even_where_they_are_uneven():
    assert times([0.0, 0.033, 0.034, 0.5]) == pytest.approx([0, 0.033, 0.034, 0.5])


@pytest.mark.parametrize("value", [0.0, None, math.nan])
def test_times_that_stand_still_or_miss_are_counted_instead(value):
    assert times([value] * 4) == pytest.approx([0, 0.1, 0.2, 0.3])


def test_from_the_first_time_that_falls_on_they_are_counted():
    assert times([0.0, 0.05, 0.02, 0.06, 5.0]) == pytest.approx([0, 0.05, 0.15, 0.25, 0.35])


@given(st.lists(st.none() | st.floats(-1e9, 1e9) | st.just(math.nan) | st.just(math.inf)), st.floats(0.1, 1000))
def test_whatever_is_reported_times_are_finite_and_ascend_strictly(reported, fps):
    stamps = times(reported, fps)
    assert all(math.isfinite(stamp) for stamp in stamps)
    assert all(later > earlier for earlier, later in pairwise(stamps))


def test_a_live_streams_own_spacing_replaces_the_jitter_of_its_arrival():
    clock = ArrivalClock()
    stamps = [
        clock.stamp(10 + index / 30 + jitter, 500 + index / 30) for index, jitter in enumerate([0.1, 0, 0.2, 0.05])
    ]
    assert [later - earlier for earlier, later in pairwise(stamps)] == pytest.approx([1 / 30] * 3)
    assert stamps[0] == pytest.approx(10.1)


def test_a_live_stream_that_drifts_is_moved_to_the_clock_here():
    clock = ArrivalClock()  # a camera that says 25 frames a second and sends 10
    stamps = [clock.stamp(index / 10, index / 25) for index in range(100)]
    assert all(abs(stamp - index / 10) <= MAX_SKEW_S + 1e-9 for index, stamp in enumerate(stamps))
    assert MAX_SKEW_S == 1.0


def test_a_reconnect_starts_from_the_arrival():
    clock = ArrivalClock()
    clock.stamp(0.0, 100.0)
    clock.stamp(1.0, 101.0)
    clock.reconnect()
    assert clock.stamp(7.0, 0.0) == pytest.approx(7.0)
    assert clock.stamp(7.31, 0.04) == pytest.approx(7.04)  # its spacing is trusted again, not the late arrival


def test_a_reconnect_forgets_where_the_times_stood_and_trusts_them_again():
    clock = ArrivalClock()
    clock.stamp(0.0, 100.0)
    clock.reconnect()
    assert clock.stamp(7.0, 106.5) == 7.0  # moved to the arrival, though the old place would fit too
    clock.stamp(8.0, None)
    clock.reconnect()
    assert [clock.stamp(9.0, 3.0), clock.stamp(9.3, 3.04)] == pytest.approx([9.0, 9.04])


def test_a_live_stream_whose_times_stand_still_is_not_trusted_any_more():
    clock = ArrivalClock()
    stamps = [clock.stamp(arrival_s, media_s) for arrival_s, media_s in [(0, 5), (0.5, 5.4), (0.9, 5.4), (1.3, 6.0)]]
    assert stamps == pytest.approx([0, 0.4, 0.9, 1.3])


@given(st.lists(st.tuples(st.floats(0, 2), st.none() | st.floats(-1e6, 1e6) | st.just(math.nan), st.booleans())))
def test_whatever_a_live_stream_says_times_ascend_and_stay_near_the_arrival(rows):
    clock, now, stamps = ArrivalClock(), 0.0, []
    for step, media, reconnect in rows:
        now += step
        if reconnect:
            clock.reconnect()
        stamps.append((clock.stamp(now, media), now))
    assert all(later > earlier for (earlier, _), (later, _) in pairwise(stamps))
    assert all(abs(stamp - arrival) <= 2 * MAX_SKEW_S + 1e-6 for stamp, arrival in stamps)
