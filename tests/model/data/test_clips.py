"""Batches: which frames, which order, read once, refused early."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.clips import DFEW_LABELS, Sampling, centre_indices
from logoformer.errors import BadInputError
from logoformer.model.data.clips import (
    Box,
    CachedClips,
    at_random,
    batches,
    centre_pick,
    check_source,
    in_order,
    random_pick,
    split,
)

SAMPLING = Sampling(segments=8, frames_per_segment=1)


class Counting:
    """A source whose pixels tell clip and frame, and which records what was read."""

    labels = DFEW_LABELS
    size = 4

    def __init__(self, clips: int = 10, frames: int = 50) -> None:
        self.clips = clips
        self.frame_count = frames
        self.read: list[tuple[int, int]] = []
        self.lock = threading.Lock()

    def __len__(self) -> int:
        return self.clips

    def label(self, index: int) -> int:
        return index % 7

    def clip_id(self, index: int) -> str:
        return f"c{index}"

    def count(self, index: int) -> int:
        return self.frame_count

    def frames(self, index: int, indices: Sequence[int], box: Box | None = None) -> np.ndarray:
        with self.lock:
            self.read += [(index, int(number)) for number in indices]
        frames = np.zeros((len(indices), 4, 4, 3), np.uint8)
        frames[..., 0] = index
        frames[..., 1] = np.asarray(indices)[:, None, None]
        return frames


def test_batches_carry_the_right_frames_in_the_right_order():
    source = Counting()
    groups = [np.array([3, 1, 4]), np.array([9]), np.array([0, 2]), np.array([5]), np.array([6, 7])]
    got = list(batches(source, groups, centre_pick(SAMPLING)))
    assert len(got) == len(groups)
    expected = centre_indices(50, SAMPLING)
    for (clips, labels), group in zip(got, groups, strict=True):
        assert clips.shape == (len(group), 8, 4, 4, 3)
        assert labels.tolist() == [index % 7 for index in group]
        for clip, index in zip(clips, group, strict=True):
            assert set(clip[..., 0].ravel()) == {index}
            np.testing.assert_array_equal(clip[:, 0, 0, 1], expected)


def test_each_clip_is_read_as_it_was_told():
    source = Counting()
    groups = [np.array([3, 1]), np.array([3]), np.array([2])]

    def plus(amount: int):
        return lambda source, index, indices: source.frames(index, indices) + np.uint8(amount)

    reads = [[plus(10), plus(20)], [plus(30)], [plus(40)]]
    got = [clips[:, 0, 0, 0, 0].tolist() for clips, _ in batches(source, groups, centre_pick(SAMPLING), reads)]
    assert got == [[13, 21], [33], [42]]  # clip 3 in two batches, each its own way


def test_orders():
    source = Counting(clips=6)
    picks = {order: centre_pick(SAMPLING, order, seed=1) for order in ("forward", "reversed", "shuffled")}
    forward = picks["forward"](0, 50)
    np.testing.assert_array_equal(picks["reversed"](0, 50), forward[::-1])
    shuffled = [picks["shuffled"](index, 50) for index in range(len(source))]
    assert all(sorted(order) == sorted(forward) for order in shuffled)
    assert len({tuple(order) for order in shuffled}) > 3
    np.testing.assert_array_equal(shuffled[2], centre_pick(SAMPLING, "shuffled", seed=1)(2, 50))


@given(count=st.integers(1, 300), seed=st.integers(0, 100), epoch=st.integers(0, 100), index=st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_random_pick_is_a_function_of_seed_epoch_and_clip(count, seed, epoch, index):
    pick = random_pick(SAMPLING, seed, epoch)
    chosen = pick(index, count)
    assert chosen.shape == (8,)
    assert chosen.min() >= 0
    assert chosen.max() < count
    assert (np.diff(chosen) >= 0).all()
    np.testing.assert_array_equal(chosen, random_pick(SAMPLING, seed, epoch)(index, count))


def test_random_pick_changes_with_the_epoch_and_the_clip():
    chosen = {tuple(random_pick(SAMPLING, 0, epoch)(index, 90)) for epoch in range(5) for index in range(5)}
    assert len(chosen) == 25


def test_an_error_while_reading_reaches_the_caller():
    class Broken(Counting):
        def frames(self, index: int, indices: Sequence[int], box: Box | None = None) -> np.ndarray:
            if index == 4:
                raise BadInputError("clip 4 is broken")
            return super().frames(index, indices)

    before = threading.active_count()
    with pytest.raises(BadInputError, match="clip 4"):
        list(batches(Broken(), in_order(10, 2), centre_pick(SAMPLING)))
    assert threading.active_count() == before


def test_threads_end_when_the_reader_stops_early():
    before = threading.active_count()
    stream = batches(Counting(), in_order(10, 2), centre_pick(SAMPLING))
    next(stream)
    stream.close()
    assert threading.active_count() == before


@given(count=st.integers(1, 200), batch=st.integers(1, 50), seed=st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_groups(count, batch, seed):
    ordered = in_order(count, batch)
    assert np.concatenate(ordered).tolist() == list(range(count))
    assert all(1 <= len(group) <= batch for group in ordered)
    random = at_random(count, batch, np.random.default_rng(seed))
    assert {len(group) for group in random} == {min(batch, count)}
    seen = np.concatenate(random)
    assert len(set(seen)) == len(seen) > count - min(batch, count)
    assert seen.min() >= 0
    assert seen.max() < count


# -------------------------------------------------------------------------------------------------------------- cache
def test_cache_reads_each_frame_once_and_returns_the_same_pixels():
    plain, source = Counting(), Counting()
    cached = CachedClips(source)
    rng = np.random.default_rng(0)
    for _ in range(40):
        index, wanted = int(rng.integers(3)), rng.integers(0, 50, 8)
        np.testing.assert_array_equal(cached.frames(index, wanted), plain.frames(index, wanted))
        assert cached.count(index) == 50
    assert len(source.read) == len(set(source.read))
    assert (len(cached), cached.label(8), cached.clip_id(8)) == (10, 1, "c8")


def test_cache_stays_within_its_bytes():
    source = Counting()
    cached = CachedClips(source, max_bytes=2 * 50 * 4 * 4 * 3)
    for _ in range(3):
        for index in range(10):
            np.testing.assert_array_equal(cached.frames(index, [1, 2])[:, 0, 0, 0], [index, index])
    reads = [sum(1 for clip, _ in source.read if clip == index) for index in range(10)]
    assert sorted(reads) == [2, 2, *[6] * 8]


def test_cache_leaves_parts_of_pictures_to_the_source():
    class Boxes(Counting):
        def frames(self, index: int, indices: Sequence[int], box: Box | None = None) -> np.ndarray:
            frames = super().frames(index, indices)
            return frames if box is None else frames + np.uint8(100)

    source = Boxes()
    cached = CachedClips(source)
    box = Box(0.0, 0.0, 0.5, 0.5)
    for _ in range(2):
        assert cached.frames(7, [1, 2])[:, 0, 0, 0].tolist() == [7, 7]
        assert cached.frames(7, [1, 2], box)[:, 0, 0, 0].tolist() == [107, 107]
    assert source.read.count((7, 1)) == 3  # once whole, twice the part


def test_a_returned_clip_is_not_the_cache_itself():
    cached = CachedClips(Counting())
    cached.frames(0, [5])[:] = 255
    assert cached.frames(0, [5])[0, 0, 0, 1] == 5


# -------------------------------------------------------------------------------------------------------------- check
def test_sources_that_do_not_fit_are_refused_with_both_sides():
    check_source(Counting(), DFEW_LABELS, 4)
    with pytest.raises(BadInputError, match="4 x 4 pixels, the model reads 64 x 64"):
        check_source(Counting(), DFEW_LABELS, 64)
    with pytest.raises(BadInputError, match=r"'happy', 'sad'.*'Angry'"):
        check_source(Counting(), ("Angry", "Disgust"), 4)
    with pytest.raises(BadInputError, match="no clips"):
        check_source(Counting(clips=0), DFEW_LABELS, 4)


# --------------------------------------------------------------------------------------------------------------- split
def held_out(clips: int, share: float, seed: int) -> list[int]:
    larger, held = split(Counting(clips), share, seed)
    assert sorted([*larger.indices, *held.indices]) == list(range(clips))
    return held.indices


def test_a_split_follows_its_seed():
    assert held_out(70, 0.3, seed=1) == held_out(70, 0.3, seed=1)
    assert len({tuple(held_out(70, 0.3, seed)) for seed in range(4)}) == 4


def test_a_split_holds_out_of_each_class_and_never_its_only_clip():
    assert sorted(index % 7 for index in held_out(70, 0.01, seed=0)) == list(range(7))
    assert held_out(8, 0.5, seed=0) in ([0], [7])  # the only class of two clips
