"""Ids of simulated people: crossings, misses, and what may be mixed up."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from logoformer.camera.faces.tracker import Tracker
from logoformer.errors import BadInputError

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed (the extra 'dev')")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

CLIP_S = 2.8  # a clip reaches back so far
MISSES, NOISE, HIDDEN = 0.08, 0.04, 0.3


def street(seed: int, fps: float, seconds: float = 20.0):
    """Two people who walk to and fro and cross, a third who is away for 1 s now and then.

    Yields (time, [(person, x, y, width)]) of what a detector sees: noise, misses, and of two faces that overlap only
    the nearer one.
    """
    rng = np.random.default_rng(seed)
    width = np.array([88.0, 80.0, 64.0]) * rng.uniform(0.9, 1.1, 3)
    period = rng.uniform(7.0, 9.0)
    phase = rng.uniform(-0.4, 0.4, 2)
    away = rng.uniform(4.0, 6.0)
    for number in range(round(seconds * fps)):
        t = number / fps
        swing = 2 * np.pi * t / period
        x = np.array([320 - 210 * np.cos(swing + phase[0]), 320 + 210 * np.cos(swing + phase[1]), 540.0])
        y = np.array([200 + 8 * np.sin(2.1 * t), 206 + 8 * np.sin(1.7 * t + 1), 380 + 5 * np.sin(t)])
        out = [person == 2 and t % away > away - 1.0 for person in range(3)]
        seen = []
        for person in range(3):
            nearer = [o for o in range(person) if covered(x, y, width, o, person) > HIDDEN]
            if out[person] or nearer or rng.random() < MISSES:
                continue
            dx, dy, dw = rng.normal(0, NOISE, 3) * width[person]
            seen.append((person, x[person] + dx, y[person] + dy, width[person] + dw))
        yield t, [seen[i] for i in rng.permutation(len(seen))]


def covered(x, y, width, a: int, b: int) -> float:
    """Overlap of the boxes of two people."""
    sides = [(x[n] - width[n] / 2, y[n] - width[n] / 2, x[n] + width[n] / 2, y[n] + width[n] / 2) for n in (a, b)]
    w = max(0.0, min(sides[0][2], sides[1][2]) - max(sides[0][0], sides[1][0]))
    h = max(0.0, min(sides[0][3], sides[1][3]) - max(sides[0][1], sides[1][1]))
    return w * h / (width[a] ** 2 + width[b] ** 2 - w * h)


def watch(seed: int, fps: float, make_face) -> tuple[int, int, float]:
    """(changes of a person's id, clips that mix two people, share of frames with a warm clip)."""
    tracker = Tracker()
    id_of: dict[int, int] = {}
    rings: dict[int, list[tuple[float, int]]] = defaultdict(list)
    to_reset: set[int] = set()
    changes = mixed = clips = frames = 0
    for t, seen in street(seed, fps):
        for (person, *_), one in zip(seen, tracker.update([make_face(*s[1:]) for s in seen], t), strict=True):
            frames += 1
            to_reset |= {one.id} if one.reset else set()
            if one.doubtful:  # nobody is shown this
                continue
            changes += id_of.get(person, one.id) != one.id
            id_of[person] = one.id
            if one.id in to_reset:
                rings[one.id].clear()
                to_reset.discard(one.id)
            ring = rings[one.id]
            ring.append((t, person))
            if t - ring[0][0] >= CLIP_S:  # warm
                clips += 1
                mixed += len({p for at, p in ring if t - at <= CLIP_S + 0.1}) > 1
    return changes, mixed, clips / frames


@pytest.mark.parametrize("fps", [30.0, 10.0])
def test_twenty_streets_change_at_most_one_id_and_mix_nobody(fps, make_face):
    results = [watch(seed, fps, make_face) for seed in range(20)]
    assert sum(mixed for _, mixed, _ in results) == 0, results
    assert sum(changes for changes, _, _ in results) <= 1, results
    assert np.mean([share for *_, share in results]) > 0.15  # they cross every 4 s


def walk(tracker, make_face, times, x, y=200.0, width=80.0):
    """One face along a line; x is a function of the time. The last `Seen`."""
    for t in times:
        (one,) = tracker.update([make_face(x(t), y, width)], t)
    return one


def times(begin: float, end: float, fps: float = 25.0) -> np.ndarray:
    return np.arange(round(begin * fps), round(end * fps)) / fps


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([4.0, 10.0, 25.0, 60.0]), st.floats(-2, 2), st.floats(20, 400), st.integers(0, 9999))
def test_a_walk_at_any_rate_and_size_keeps_its_id(make_face, fps, speed, width, seed):
    """`speed` in widths a second, with a detector's noise and misses."""
    tracker, rng = Tracker(), np.random.default_rng(seed)
    ids, resets = set(), 0
    for t in times(0, 4, fps):
        if t > 2 / fps and rng.random() < MISSES:
            assert tracker.update([], t) == []
            continue
        x, y, w = width * np.array([speed * t, 0, 1]) + rng.normal(0, NOISE, 3) * width
        (one,) = tracker.update([make_face(x, y, w)], t)
        ids.add(one.id)
        resets += one.reset
    assert ids == {1} and tracker.gone == ()
    assert resets <= 1  # until the velocity is known


@pytest.mark.parametrize("speed", [-1.5, 0.5, 2.0])
def test_a_walk_is_foretold(make_face, speed):
    """In widths and seconds: after two seconds of detections, where somebody is a quarter of a second later."""
    tracker = Tracker()
    walk(tracker, make_face, times(0, 2), lambda t: 300 + 80 * speed * t)
    (track,) = tracker.tracks
    left, _, right, _ = track.predict(track.seen_s + 0.25)
    coasted = 0.7 * (1 - np.exp(-0.25 / 0.7))  # a face that is not seen slows down
    wanted = 300 + 80 * speed * (track.seen_s + coasted)
    assert (left + right) / 2 == pytest.approx(wanted, abs=0.03 * 80)


def test_a_lost_face_keeps_its_id_for_a_second_and_a_half_then_it_is_given_up(make_face):
    for away, same in ((0.5, True), (1.0, True), (1.4, True), (1.6, False)):
        tracker = Tracker()
        walk(tracker, make_face, times(0, 2), lambda t: 300.0)
        gone: list[int] = []
        for t in times(2, 2 + away):
            assert tracker.update([], t) == []
            gone += tracker.gone
        (one,) = tracker.update([make_face(300, 200)], 2 + away)
        gone += tracker.gone
        assert (one.id == 1) is same
        assert gone == ([] if same else [1])
        assert one.reset is (same and away > 0.75)  # who was away for long may be somebody else


def test_who_left_the_picture_comes_back_where_he_left(make_face):
    tracker = Tracker()
    one = walk(tracker, make_face, times(0, 1), lambda t: 400 + 200 * t)
    for t in times(1, 2):
        tracker.update([], t)
    back = walk(tracker, make_face, times(2, 3), lambda t: 600 - 200 * (t - 2))
    assert back.id == one.id


def test_somebody_twice_as_large_is_somebody_else(make_face):
    tracker = Tracker()
    one = walk(tracker, make_face, times(0, 1), lambda t: 300.0)
    other = walk(tracker, make_face, times(1, 1.1), lambda t: 300.0, width=190)
    assert other.id != one.id


def test_a_face_that_jumps_begins_anew(make_face):
    tracker = Tracker()
    assert not walk(tracker, make_face, times(0, 1), lambda t: 300.0).reset
    (one,) = tracker.update([make_face(365, 200)], 1.0)
    assert one.id == 1 and one.reset
    (one,) = tracker.update([make_face(366, 200)], 1.04)
    assert not one.reset


def test_a_hidden_face_is_in_doubt_until_both_are_seen_apart(make_face):
    tracker, told = Tracker(), []
    for t in times(0, 4):
        a, b = 200 + 100 * t, 520 - 100 * t  # they meet at 1.6 s
        hidden = abs(a - b) < 45
        seen = tracker.update([make_face(a, 200)] + ([] if hidden else [make_face(b, 204)]), t)
        told.append((t, hidden, seen))
    for t, hidden, seen in told:
        if hidden or t < 1.2 or t > 2.1:  # in between both are seen, but one covers a part of the other
            assert [one.doubtful for one in seen] == [hidden] * len(seen), t
        if not seen[0].doubtful:
            assert [one.id for one in seen] == [1, 2], t
    after = next(seen for t, hidden, seen in told if t > 1.6 and not seen[0].doubtful)
    assert [one.reset for one in after] == [True, True]
    assert not any(one.reset for one in told[-1][2])


def test_the_one_in_front_goes_on_when_the_hidden_one_is_given_up(make_face):
    tracker, states = Tracker(), []
    for t in times(0, 4):
        b = 420 - 100 * t
        pair = [make_face(300, 200)] + ([make_face(b, 204)] if b > 345 else [])  # walks behind and stays there
        states.append(tracker.update(pair, t)[0])
    assert {one.id for one in states} == {1}
    assert any(one.doubtful for one in states) and not states[-1].doubtful and not states[-1].reset
    assert sum(one.reset and not one.doubtful for one in states) == 1


def test_ids_are_never_used_again(make_face):
    tracker = Tracker()
    first = tracker.update([make_face(100, 100), make_face(400, 100)], 0.0)
    tracker.clear()
    assert tracker.gone == (1, 2) and tracker.tracks == []
    again = tracker.update([make_face(100, 100)], 0.0)
    assert [one.id for one in (*first, *again)] == [1, 2, 3]
    assert tracker.drop([3, 77]) == (3,)
    assert tracker.update([make_face(100, 100)], 0.1)[0].id == 4


@pytest.mark.parametrize("time_s", [1.0, 0.5, float("nan")])
def test_times_that_do_not_rise_are_refused(make_face, time_s):
    tracker = Tracker()
    tracker.update([make_face(100, 100)], 1.0)
    with pytest.raises(BadInputError, match="came after one of 1"):
        tracker.update([], time_s)


boxes = st.lists(st.tuples(st.floats(-50, 700), st.floats(-50, 500), st.floats(0.1, 900)), max_size=6)  # x, y, width


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0.001, 1.0), boxes), max_size=12))
def test_any_detections_get_ids_that_differ(make_face, frames):
    tracker, t, known = Tracker(), 0.0, set()
    for step, faces in frames:
        t += step
        seen = tracker.update([make_face(*face) for face in faces], t)
        ids = [one.id for one in seen]
        assert len(set(ids)) == len(faces) and [one.found.centre[0] for one in seen] == pytest.approx(
            [face[0] for face in faces]
        )
        assert not set(tracker.gone) & {track.id for track in tracker.tracks}
        known |= set(ids)
        assert known >= {track.id for track in tracker.tracks} >= set(ids)
        for track in tracker.tracks:
            assert np.isfinite(track.predict(t + 0.1)).all()
