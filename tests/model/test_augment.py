"""Augmentation: all frames alike, and chance that belongs to the clip."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logoformer.model import augment as augmenting
from logoformer.model.augment import augment, chance


def still(size: int = 32, frames: int = 3) -> np.ndarray:
    frame = np.random.default_rng(0).integers(0, 256, (size, size, 3)).astype(np.uint8)
    return np.broadcast_to(frame, (frames, size, size, 3)).copy()


@pytest.mark.parametrize("kind", ["shift", "crop"])
def test_all_frames_of_a_clip_are_treated_alike(kind):
    clip = still()
    results = [augment(clip, kind, chance(1, 0, index)) for index in range(64)]
    assert all(r.shape == clip.shape and r.dtype == np.uint8 and (r == r[:1]).all() for r in results)
    assert len({r.tobytes() for r in results}) > 20
    assert augment(clip, "none", chance(1, 0, 0)) is clip


def test_shift_moves_by_two_pixels_at_most_and_mirrors_half():
    clip = still()
    centre = clip[0, 2:-2, 2:-2]

    def holds_centre(view):
        return any((view[y : y + 28, x : x + 28] == centre).all() for y in range(5) for x in range(5))

    results = [augment(clip, "shift", chance(1, 0, index)) for index in range(64)]
    plain = sum(holds_centre(r[0]) for r in results)
    mirrored = sum(holds_centre(r[0, :, ::-1]) for r in results)
    assert plain + mirrored == 64 and min(plain, mirrored) > 16


@given(st.integers(8, 224), st.integers(0, 1000))
def test_the_random_part_lies_inside(size, seed):
    top, left, height, width = augmenting._box(size, np.random.default_rng(seed))
    assert top >= 0 and left >= 0 and height > 0 and width > 0
    assert top + height <= size and left + width <= size


def test_the_random_part_covers_the_range_of_areas():
    shares, ratios = [], []
    for seed in range(400):
        _, _, height, width = augmenting._box(100, np.random.default_rng(seed))
        shares.append(height * width / 1e4)
        ratios.append(width / height)
    assert min(shares) < 0.15 and max(shares) > 0.85 and np.mean(shares) == pytest.approx(0.5, abs=0.08)
    assert 0.7 < min(ratios) < 0.8 and 1.25 < max(ratios) < 1.42


def test_chance_depends_on_seed_epoch_and_clip_and_on_nothing_else():
    draws = {(s, e, i): chance(s, e, i).integers(1 << 40) for s in (0, 1) for e in (0, 1) for i in (0, 1)}
    assert len(set(draws.values())) == 8 and chance(1, 0, 1).integers(1 << 40) == draws[1, 0, 1]
