"""A stream's rules at their edges: hop, gap, step, times, what a place of the clip shows."""

from __future__ import annotations

import math
import time
from pathlib import Path

import logoformer
import numpy as np
import pytest
from logoformer.clips import centre_indices
from logoformer.engine.ring import Ring
from logoformer.errors import BadInputError, UsageError, VerificationError, command

OLD = Path(__file__).parents[1] / "data" / "bundle-v0.1"


def pushed(stream, numbered, times) -> list:
    return [stream.push(numbered(0, number), time) for number, time in enumerate(times)]


def shown(result) -> tuple[int, int]:
    """(newest, oldest) frame of an answer of `watched`: their numbers."""
    return int(result.probabilities[1]), int(result.probabilities[4])


@pytest.mark.parametrize("hop", [1, 2, 3, 5])
def test_an_answer_comes_with_every_hopth_frame(watched, numbered, hop):
    with watched().stream(hop=hop, color="rgb", warmup="repeat") as stream:
        found = pushed(stream, numbered, [n / 10 for n in range(20)])
    assert [n + 1 for n, result in enumerate(found) if result is not None] == list(range(hop, 21, hop))
    assert [result.sequence for result in found if result is not None] == list(range(20 // hop))


def test_a_clip_shows_the_newest_frame_and_the_one_of_the_patterns_first_age(watched, numbered):
    with watched().stream(hop=1, color="rgb") as stream:
        found = pushed(stream, numbered, [n / 10 for n in range(20)])
    assert found[:6] == [None] * 6, "it waits for the whole pattern, 0.6 s"
    assert [shown(result) for result in found[6:]] == [(n, n - 6) for n in range(6, 20)]
    assert [result.time_s for result in found[6:]] == [n / 10 for n in range(6, 20)]


@pytest.mark.parametrize(("pause_s", "resets"), [(0.5, 0), (np.nextafter(0.5, 1), 1)])
def test_a_pause_of_just_the_gap_is_none(watched, numbered, pause_s, resets):
    with watched().stream(hop=1, color="rgb", warmup="repeat", max_gap_s=0.5) as stream:
        found = pushed(stream, numbered, [0.0, pause_s])
        assert stream.resets == resets
    assert shown(found[1]) == (1, 1 if resets else 0)


def test_a_frame_at_just_the_step_is_kept():
    ring = Ring(4, 0, 0.25)
    ring.claim()
    ring.file(1.0)
    assert ring.wants(1.25) and not ring.wants(np.nextafter(1.25, 0))


def test_a_claimed_slot_is_read_no_more_even_if_its_frame_never_comes():
    ring = Ring(3, 30, 0.0)
    for time_s in (0.0, 1.0, 2.0):
        ring.claim()
        ring.file(time_s)
    slot = ring.claim()
    assert slot == 30 and ring.kept == 2
    assert ring.pick(np.array([9.0, 1.0, 0.0])).tolist() == [31, 31, 32]


@pytest.mark.parametrize("time_s", [1.0, 0.9, math.nan])
def test_a_time_that_stands_still_is_refused(watched, numbered, time_s):
    with watched().stream(hop=1, color="rgb", warmup="repeat") as stream:
        stream.push(numbered(0, 0), 1.0)
        with pytest.raises(BadInputError, match="must rise"):
            stream.push(numbered(0, 1), time_s)
        assert shown(stream.flush()) == (0, 0)


def test_a_reset_forgets_frames_and_hops_and_the_sequence_goes_on(watched, numbered):
    with watched().stream(hop=2, color="rgb", warmup="repeat") as stream:
        assert [r is not None for r in pushed(stream, numbered, [0.0, 0.1, 0.2])] == [False, True, False]
        stream.reset()
        assert stream.flush() is None
        assert stream.push(numbered(0, 7), 0.0) is None
        result = stream.push(numbered(0, 8), 0.1)
    assert shown(result) == (8, 7) and result.sequence == 1


@pytest.mark.parametrize("pause_s", [0.1, 0.5])
def test_a_replayed_stream_goes_on_at_the_same_frame_of_the_hop(watched, numbered, pause_s):
    """The longest pause that is no gap lies in what is replayed."""
    runtime = watched()
    options = {"hop": 3, "color": "rgb", "warmup": "repeat", "max_gap_s": 0.5}
    times = [0.0, pause_s, *(pause_s + n / 10 for n in range(1, 12))]
    with runtime.stream(**options) as whole, runtime.stream(**options) as second:
        pushed(whole, numbered, times[:4])
        second.replay([numbered(0, n) for n in range(4)], times[:4], whole.since)
        for number in range(4, len(times)):
            wanted, found = (one.push(numbered(0, number), times[number]) for one in (whole, second))
            assert (wanted is None) == (found is None) == (number % 3 != 2)
            assert wanted is None or shown(found) == shown(wanted)


def test_one_number_that_is_none_makes_no_answer(watched, numbered):
    runtime = watched()

    def poison(session):
        if session.name == "temporal":
            session.buffers["ring"][0, 1] = np.nan  # one channel of the only frame

    runtime.state.before = poison
    stream = runtime.stream(hop=1, color="rgb", warmup="repeat")
    with pytest.raises(VerificationError, match="not finite") as caught:
        stream.push(numbered(0, 0), 0.0)
    assert runtime.not_finite == 1
    assert caught.value.next == command("logoformer", "verify", runtime.bundle.path)


def test_the_age_of_an_answer_counts_from_its_newest_frame(watched, numbered):
    """A flush answers later than the frame came; its own stages are shorter."""
    with watched().stream(hop=9, color="rgb", warmup="repeat") as stream:
        stream.push(numbered(0, 0), 0.0)
        time.sleep(0.05)
        result = stream.flush()
    assert result.age_ms >= 50 > sum(result.stages_ms.values())


def test_faces_keep_to_their_own_slots(watched, numbered, told):
    runtime = watched(faces=3)
    streams = [runtime.stream(hop=1, color="rgb", warmup="repeat") for _ in range(3)]
    for number in range(20):  # more than the 8 slots
        found = [stream.push(numbered(face, number), number / 10) for face, stream in enumerate(streams)]
        assert [told(result) for result in found] == [(face, number) for face in range(3)]


def test_a_recordings_frames_one_by_one_are_its_clip():
    """Real graphs with several tokens a frame, in windows: the committed bundle of version 0.1."""
    with logoformer.load(OLD, precision="fp32", threads=1) as runtime:
        sampling, size = runtime.bundle.sampling, runtime.bundle.image_size
        n = sampling.span_frames
        frames = np.random.default_rng(4).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
        with runtime.stream(hop=n, color="rgb", warmup="repeat") as stream:
            *waiting, result = [stream.push(frame, number / sampling.fps) for number, frame in enumerate(frames)]
        assert waiting == [None] * (n - 1)
        clip = runtime(frames[centre_indices(n, sampling)], color="rgb")
    np.testing.assert_allclose(result.probabilities, clip.probabilities, atol=1e-6)
    assert np.ptp(clip.probabilities) > 1e-3


def test_an_answer_that_fails_while_it_is_awaited_is_owed_and_comes_with_the_next_frame(watched, numbered, monkeypatch):
    runtime = watched()
    session = runtime.session("temporal")
    with runtime.stream(hop=3, color="rgb", warmup="repeat") as stream:
        pushed(stream, numbered, [0.0, 0.1])
        with monkeypatch.context() as failing:
            failing.setattr(session, "wait", lambda: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                stream.push(numbered(0, 2), 0.2)
        assert stream.since == 3
        result = stream.push(numbered(0, 3), 0.3)
    assert shown(result) == (3, 0) and result.sequence == 0


@pytest.mark.parametrize("gap_s", [0, -0.5, math.nan])
def test_a_gap_is_more_than_nothing(watched, gap_s):
    with pytest.raises(UsageError, match="max_gap_s is"):
        watched().stream(color="rgb", max_gap_s=gap_s)
