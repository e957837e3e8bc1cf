"""Augmentation: one random change for all frames of a clip.

What happens to a clip is decided by (seed, epoch, clip), not by its place in a batch. So the same clip looks the same
in whatever batch, process or order it is read, which is what makes a training on two processes equal to one on one.
'shift' is drawn for all clips of an epoch in their order, before the batches are shared out: the same holds.

'crop' takes its part from the picture as it is stored and draws that to the model's size. DFEW's faces have 224 pixels
and more: a part of a frame that was made small first would be a blurred one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...clips import Clip
from .clips import Box, ClipSource, Indices

AREA = (0.08, 1.0)  # Former-DFER's GroupRandomSizedCrop: share of the picture's area, and sides' ratio
RATIO = (3 / 4, 4 / 3)
_TRIES = 10


@dataclass(frozen=True)
class Augmentation:
    """One random change of a clip; call it to read the clip with it.

    Attributes:
        box: the part of the stored pictures; None is all of it.
        move: (top, left) of the clip in itself with S/16 pixels of border, 0 ... 2 * S/16; None leaves it.
        mirrored: left to right.
    """

    box: Box | None = None
    move: tuple[int, int] | None = None
    mirrored: bool = False

    def __call__(self, source: ClipSource, index: int, indices: Indices) -> Clip:
        """Reads frames of a clip: uint8 `[k, S, S, 3]`."""
        return self.change(source.frames(index, indices, self.box))

    def change(self, clip: Clip) -> Clip:
        """Changes frames of the model's size: uint8 `[T, S, S, 3]`, the same shape."""
        if self.move is not None:
            clip = shift(clip, *self.move)
        return mirror(clip) if self.mirrored else clip


def draw_augmentations(
    kind: str, groups: Sequence[Indices], size: int, when: tuple[int, int], rng: np.random.Generator
) -> list[list[Augmentation]]:
    """Draws the augmentation of each clip of an epoch.

    Args:
        kind: 'shift', 'crop' or 'none'.
        groups: the clips of each batch of the epoch.
        size: S.
        when: (seed, epoch).
        rng: of the epoch; 'shift' draws from it.
    """
    if kind == "shift":
        return [draw_shifts(len(group), size, rng) for group in groups]
    if kind == "crop":
        return [[draw_crop(chance(*when, int(index))) for index in group] for group in groups]
    return [[Augmentation()] * len(group) for group in groups]


def chance(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The random generator of one clip in one epoch."""
    return np.random.default_rng([seed, epoch, index, 1])


def mirror(clip: Clip) -> Clip:
    """Mirrors a clip left to right.

    Channel by channel: numpy copies backward pixels of three bytes four times slower.
    """
    out = np.empty_like(clip)
    for channel in range(clip.shape[3]):
        out[..., channel] = clip[:, :, ::-1, channel]
    return out


# -------------------------------------------------------------------------------------------------------------- shift
def draw_shifts(count: int, size: int, rng: np.random.Generator) -> list[Augmentation]:
    """Draws 'shift' for the clips of one batch."""
    moves = rng.integers(0, 2 * (size // 16) + 1, (count, 2))
    return [Augmentation(move=(int(top), int(left)), mirrored=bool(rng.random() < 0.5)) for top, left in moves]


def shift(clip: Clip, top: int, left: int) -> Clip:
    """Moves a clip by up to S/16 pixels each way, 0 ... 2 * S/16; the border repeats."""
    size = clip.shape[1]
    border = size // 16
    padded = np.pad(clip, ((0, 0), (border, border), (border, border), (0, 0)), mode="edge")
    return padded[:, top : top + size, left : left + size]


# --------------------------------------------------------------------------------------------------------------- crop
def draw_crop(rng: np.random.Generator) -> Augmentation:
    """Draws 'crop' for one clip, by Former-DFER's rule.

    A random part of the picture, its shape a little distorted, mirrored half the time.

    A picture that ten draws do not fit is taken whole instead. Area and ratio are those of the picture as a square, as
    which the network sees it; faces of this field's sets are square.
    """
    for _ in range(_TRIES):
        area = rng.uniform(*AREA)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        width, height = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if width <= 1 and height <= 1:
            left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
            return Augmentation(Box(left, top, left + width, top + height), mirrored=bool(rng.random() < 0.5))
    return Augmentation(mirrored=bool(rng.random() < 0.5))
