"""The synthetic faces: exact reversals, disjoint people, the same bytes from the same seed."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.clips import DFEW_LABELS, Sampling, centre_indices
from logoformer.errors import UsageError
from logoformer.model.synthetic.expressions import MOVEMENTS, ORDER_LABELS, ORDER_PAIRS, draw_script
from logoformer.model.synthetic.recordings import (
    FEWEST_FRAMES,
    FIRST_GOLDEN_IDENTITY,
    FIRST_VIDEO_IDENTITY,
    FPS,
    MOST_FRAMES,
    SyntheticClips,
    draw_clip,
    draw_person,
    draw_untrimmed,
    synthetic_clips,
)
from logoformer.model.synthetic.scene import CHANNELS, draw_look, draw_motion

PAIRS = [(DFEW_LABELS.index(first), DFEW_LABELS.index(second)) for first, second in ORDER_PAIRS]
HELD = [label for label in range(len(DFEW_LABELS)) if label not in ORDER_LABELS]


# ---------------------------------------------------------------------------------------------------- order of time
@pytest.mark.parametrize("first, second", PAIRS)
@pytest.mark.parametrize("identity, take, size", [(0, 0, 64), (1, 5, 64), (2, 3, 48), (3, 9, 64)])
def test_second_of_a_pair_is_the_first_backwards_to_the_byte(first, second, identity, take, size):
    one = draw_clip(7, identity, take, first)
    two = draw_clip(7, identity, take, second)
    everything = range(one.count)
    forwards, backwards = one.frames(everything, size), two.frames(everything, size)
    assert two.count == one.count
    np.testing.assert_array_equal(forwards[::-1], backwards)
    assert (forwards != backwards).any(), "the clip is its own mirror image: the classes would be one"


@pytest.mark.parametrize("first, second", PAIRS)
def test_bags_of_frames_of_a_pair_are_equal(first, second):
    def bag(label):
        recording = draw_clip(1, 4, 2, label)
        return sorted(hashlib.sha256(f.tobytes()).digest() for f in recording.frames(range(recording.count), 32))

    assert bag(first) == bag(second)


@pytest.mark.parametrize("first, second", PAIRS)
def test_a_pair_moves_one_set_of_muscles_first_and_another_later(first, second):
    phase = np.linspace(-1, 1, 201)
    for draw in range(20):
        script = draw_script(first, np.random.default_rng(draw))
        early, late = script.pulses[0], script.pulses[1]
        assert early.centre < late.centre
        assert not np.any(np.logical_and(np.array(early.weights) > 0.5, np.array(late.weights) > 0.5))
        overlap = np.minimum(early.at(phase).max(1), late.at(phase).max(1))
        assert overlap.max() < 0.5, "both at once: order would be unreadable"
        mirrored = draw_script(second, np.random.default_rng(draw))
        assert mirrored.label == second
        np.testing.assert_array_equal(script.at(phase), mirrored.at(-phase))


@given(label=st.integers(0, 6), seed=st.integers(0, 10_000), count=st.integers(1, 200))
@settings(max_examples=60, deadline=None)
def test_scripts_stay_in_range_and_mirror_exactly(label, seed, count):
    script = draw_script(label, np.random.default_rng(seed))
    phase = (2 * np.arange(count) + 1 - count) / count
    actions = script.at(phase)
    assert actions.shape == (count, len(MOVEMENTS))
    assert actions.min() >= 0.0
    assert actions.max() <= 1.0
    np.testing.assert_array_equal(script.mirrored().at(phase), actions[::-1])
    assert script.mirrored().mirrored() == script


@pytest.mark.parametrize("label", range(7))
def test_faces_are_nearly_at_rest_at_both_ends(label):
    ends = [draw_script(label, np.random.default_rng(seed)).at(np.array([-1.0, 1.0])).max() for seed in range(50)]
    assert max(ends) < 0.3


def test_static_classes_show_different_muscles_at_the_apex():
    seen = {}
    for label in HELD:
        script = draw_script(label, np.random.default_rng(0))
        seen[label] = tuple(np.array(script.pulses[0].weights) > 0.5)
    assert len(set(seen.values())) == len(HELD) == 3


@given(seed=st.integers(0, 10_000), half_s=st.floats(0.5, 60.0))
@settings(max_examples=40, deadline=None)
def test_motion_mirrors_exactly(seed, half_s):
    motion = draw_motion(half_s, np.random.default_rng(seed))
    tau = np.linspace(-half_s, half_s, 33)
    assert motion.at(tau).shape == (33, len(CHANNELS))
    np.testing.assert_array_equal(motion.mirrored().at(-tau), motion.at(tau))
    np.testing.assert_array_equal(motion.mirrored().blink(-tau), motion.blink(tau))


def test_blinks_close_the_lids():
    motion = draw_motion(30.0, np.random.default_rng(0))
    assert len(motion.blinks) > 0
    assert motion.blink(motion.blinks).min() == 1.0
    assert motion.blink(np.array([1e6])).max() == 0.0


# ------------------------------------------------------------------------------------------------- seeds and people
def test_same_seed_same_bytes_and_another_seed_other_bytes():
    def digest(seed):
        source = SyntheticClips(seed, range(3), 7, 32)
        return [source.frames(i, [0, 11, 30]).tobytes() for i in range(len(source))]

    assert digest(5) == digest(5)
    assert not set(digest(5)) & set(digest(6))
    assert draw_clip(5, 0, 0, 2).look != draw_clip(6, 0, 0, 2).look
    assert draw_clip(5, 0, 0, 2).look != draw_clip(5, 0, 1, 2).look


def test_a_frame_does_not_depend_on_what_is_drawn_with_it():
    recording = draw_clip(0, 3, 1, 4)
    together = recording.frames(range(recording.count), 64)
    for index in (0, 7, 20, recording.count - 1):
        np.testing.assert_array_equal(recording.frames([index], 64)[0], together[index])
    np.testing.assert_array_equal(recording.frames([9, 2, 9], 64), together[[9, 2, 9]])


def test_people_with_different_numbers_differ():
    people = [draw_person(0, n) for n in (*range(40), FIRST_GOLDEN_IDENTITY, FIRST_VIDEO_IDENTITY)]
    assert len(set(people)) == len(people)
    assert draw_person(0, 3) == draw_person(0, 3)


def test_pixels_are_a_picture():
    source = SyntheticClips(0, range(10), 7, 64)
    for index in range(0, len(source), 5):
        frames = source.frames(index, [0, source.count(index) // 2])
        assert frames.dtype == np.uint8
        assert frames.shape == (2, 64, 64, 3)
        assert 15 < frames.std() < 110
        assert 20 < frames.mean() < 220


@pytest.mark.parametrize("size", [32, 64, 112, 160])
def test_the_same_picture_at_every_size(size):
    import cv2

    recording = draw_clip(2, 8, 1, 3)
    small = cv2.resize(recording.frames([30], size)[0], (32, 32), interpolation=cv2.INTER_AREA).astype(float)
    reference = cv2.resize(recording.frames([30], 256)[0], (32, 32), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(small - reference).mean() < 12


def test_expressions_move_pixels():
    """The class is in the picture: at the apex a face differs from the same face at rest."""
    for label in range(7):
        if DFEW_LABELS[label] == "neutral":
            continue
        recording = draw_clip(3, 5, 2, label)
        frames = recording.frames(range(recording.count), 64).astype(float)
        step = np.abs(frames - frames[0]).mean((1, 2, 3))
        assert step.max() > 1.5 * step[1], DFEW_LABELS[label]


def test_looks_vary():
    looks = [draw_look(np.random.default_rng(seed)) for seed in range(200)]
    assert {look.occluder for look in looks} == {"none", "hand", "bar", "cup"}
    assert any(look.blur == 0 for look in looks)
    assert any(look.blur > 0.3 for look in looks)


# ---------------------------------------------------------------------------------------------------------- sources
def test_source_is_balanced_and_named():
    source = SyntheticClips(0, range(4), 14)
    labels = [source.label(i) for i in range(len(source))]
    assert len(source) == 56
    assert np.bincount(labels).tolist() == [8] * 7
    assert len({source.clip_id(i) for i in range(len(source))}) == 56
    counts = {source.count(i) for i in range(len(source))}
    assert min(counts) >= FEWEST_FRAMES
    assert max(counts) <= MOST_FRAMES
    assert len(counts) > 10
    with pytest.raises(IndexError):
        source.count(56)


@pytest.mark.parametrize("arguments", [(-1, range(3), 14, 64), (0, range(3), 0, 64), (0, range(3), 14, 8)])
def test_source_refuses_nonsense(arguments):
    with pytest.raises(UsageError):
        SyntheticClips(*arguments)


def test_ready_clips_are_centre_sampled_balanced_and_of_unseen_people():
    sampling = Sampling(4, 2)
    clips, labels, names = synthetic_clips(15, sampling, 48, seed=3)
    assert clips.shape == (15, 8, 48, 48, 3)
    assert clips.dtype == np.uint8
    assert np.bincount(labels).tolist() == [3, 2, 2, 2, 2, 2, 2]
    assert len(set(names)) == 15
    assert all(int(name.split("-")[2]) >= FIRST_GOLDEN_IDENTITY for name in names)
    recording = draw_clip(3, FIRST_GOLDEN_IDENTITY + 1, 2, 2)
    np.testing.assert_array_equal(clips[9], recording.frames(centre_indices(recording.count, sampling), 48))
    assert synthetic_clips(15, sampling, 48, seed=3)[0].tobytes() == clips.tobytes()


def test_untrimmed_recording_rests_between_spans():
    recording = draw_untrimmed(0, 5, [4, 6, 2, 0])
    assert [span.script.label for span in recording.spans] == [4, 6, 2, 0]
    edges = [0, *itertools.chain.from_iterable((s.start, s.end) for s in recording.spans), recording.count]
    assert edges == sorted(edges)
    rests = [edges[i + 1] - edges[i] for i in range(0, len(edges), 2)]
    assert min(rests) >= 1.4 * FPS
    lengths = [span.end - span.start for span in recording.spans]
    assert min(lengths) >= 60
    assert max(lengths) <= 80


def test_untrimmed_recording_mirrors_exactly():
    recording = draw_untrimmed(0, 5, [4, 2])
    mirrored = recording.mirrored()
    assert [DFEW_LABELS[span.script.label] for span in mirrored.spans] == ["neutral", "fear"]
    steps = range(0, recording.count, 3)
    backwards = [recording.count - 1 - index for index in steps]
    np.testing.assert_array_equal(mirrored.frames(backwards, 32), recording.frames(steps, 32))
