"""Augmentation: all frames alike, chance that belongs to the clip, and parts that are cut from the stored picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logoformer.clips import resize
from logoformer.model.data.augment import chance, draw_augmentations, draw_crop, draw_shifts
from logoformer.model.data.clips import Box, CachedClips, Subset, cut
from logoformer.model.data.datasets import open_clips
from logoformer.model.data.listing import Reading
from PIL import Image


def still(size: int = 32, frames: int = 3) -> np.ndarray:
    frame = np.random.default_rng(0).integers(0, 256, (size, size, 3)).astype(np.uint8)
    return np.broadcast_to(frame, (frames, size, size, 3)).copy()


class Still:
    """A clip of one picture."""

    def frames(self, index, indices, box=None):
        clip = still(frames=len(indices))
        return clip if box is None else cut(clip, box)


def changes(kind: str, count: int = 64, seed: int = 1) -> list:
    return draw_augmentations(kind, [np.arange(count)], 32, (seed, 0), np.random.default_rng(seed))[0]


@pytest.mark.parametrize("kind", ["shift", "crop"])
def test_all_frames_of_a_clip_are_treated_alike(kind):
    results = [augment(Still(), 0, np.arange(3)) for augment in changes(kind)]
    assert all(r.shape == (3, 32, 32, 3) and r.dtype == np.uint8 and (r == r[:1]).all() for r in results)
    assert len({r.tobytes() for r in results}) > 20
    assert all((augment(Still(), 0, np.arange(3)) == still()).all() for augment in changes("none"))


def test_shift_moves_by_two_pixels_at_most_and_mirrors_half():
    clip = still()
    centre = clip[0, 2:-2, 2:-2]

    def holds_centre(view):
        return any((view[y : y + 28, x : x + 28] == centre).all() for y in range(5) for x in range(5))

    results = [augment.change(clip) for augment in changes("shift")]
    plain = sum(holds_centre(r[0]) for r in results)
    mirrored = sum(holds_centre(r[0, :, ::-1]) for r in results)
    assert plain + mirrored == 64 and min(plain, mirrored) > 16


def test_shifts_are_drawn_as_the_recorded_trainings_drew_them():
    rng = np.random.default_rng([3, 1])
    drawn = [(*augment.move, int(augment.mirrored)) for augment in draw_shifts(4, 64, rng) + draw_shifts(2, 64, rng)]
    assert drawn == RECORDED


RECORDED = [(8, 2, 0), (5, 3, 0), (6, 3, 1), (1, 3, 0), (7, 6, 0), (6, 5, 1)]


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 1000))
def test_the_random_part_lies_inside_whatever_the_pictures_size(width, height, seed):
    box = draw_crop(np.random.default_rng(seed)).box
    assert box is None or (0 <= box.left < box.right <= 1 and 0 <= box.top < box.bottom <= 1)
    left, top, right, bottom = (box or Box(0, 0, 1, 1)).pixels(width, height)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height


def test_the_random_part_covers_the_range_of_areas_and_mirrors_half():
    drawn = [draw_crop(np.random.default_rng(seed)) for seed in range(400)]
    boxes = [augment.box for augment in drawn if augment.box]
    shares = [(b.right - b.left) * (b.bottom - b.top) for b in boxes]
    ratios = [(b.right - b.left) / (b.bottom - b.top) for b in boxes]
    assert len(boxes) > 390 and 150 < sum(augment.mirrored for augment in drawn) < 250
    assert min(shares) < 0.15 and max(shares) > 0.85 and np.mean(shares) == pytest.approx(0.5, abs=0.08)
    assert 0.74 < min(ratios) < 0.8 and 1.25 < max(ratios) < 1.34
    assert np.mean([b.left + b.right for b in boxes]) == pytest.approx(1, abs=0.05)  # no side is preferred


def test_chance_depends_on_seed_epoch_and_clip_and_on_nothing_else():
    draws = {(s, e, i): chance(s, e, i).integers(1 << 40) for s in (0, 1) for e in (0, 1) for i in (0, 1)}
    assert len(set(draws.values())) == 8 and chance(1, 0, 1).integers(1 << 40) == draws[1, 0, 1]
    together = draw_augmentations("crop", [np.array([4, 2]), np.array([7])], 32, (5, 3), np.random.default_rng(0))
    alone = draw_augmentations("crop", [np.array([7])], 32, (5, 3), np.random.default_rng(1))
    assert together[1] == alone[0] and together[0][0] != together[0][1]


# ---------------------------------------------------------------------------------------------- stored pictures
@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of large, finely chequered pictures; every frame of its own size."""
    root = tmp_path_factory.mktemp("stored")
    for clip in ("a", "b"):
        (root / clip).mkdir()
        for number in range(1, 4):
            height, width = 150 + number, 180 + 2 * number
            picture = np.zeros((height, width, 3), np.uint8)
            picture[(np.indices((height, width)).sum(0) // 2) % 2 == 0] = (255, 40 * number, 0)
            Image.fromarray(picture).save(root / clip / f"{number}.png")
    (root / "train.txt").write_text("a 3 0\nb 3 1\n", encoding="ascii")
    return root


def test_a_part_is_cut_from_the_stored_picture_and_not_from_the_small_one(stored):
    source = open_clips(stored, "train", 1, Reading(40, fewest=1))
    box = Box(0.25, 0.5, 0.5, 0.75)
    part = source.frames(1, [0, 2], box)
    for place, number in enumerate((1, 3)):
        picture = np.asarray(Image.open(io.BytesIO((stored / f"b/{number}.png").read_bytes())))
        height, width = picture.shape[:2]
        area = picture[round(height / 2) : round(height * 0.75), round(width / 4) : round(width / 2)]
        np.testing.assert_array_equal(part[place], resize(area, 40))
    blurred = cut(source.frames(1, [0, 2]), box)
    assert part[..., 0].std() > 4 * blurred[..., 0].std()  # in the small one the chequers are grey


def test_a_cache_and_a_subset_hand_the_part_through_and_keep_whole_frames_whole(stored):
    source = open_clips(stored, "train", 1, Reading(40, fewest=1))
    cached = Subset(CachedClips(source), [1, 0])
    box = Box(0.0, 0.1, 0.6, 0.8)
    for _ in range(2):
        np.testing.assert_array_equal(cached.frames(0, [1, 1, 0], box), source.frames(1, [1, 1, 0], box))
        np.testing.assert_array_equal(cached.frames(0, [1, 0]), source.frames(1, [1, 0]))
