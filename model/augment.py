"""Augmentation: every frame of a clip is treated alike, and chance belongs to the clip.

What happens to a clip is decided by (seed, epoch, clip), not by its place in a batch. So the same clip looks the same
in whatever batch, process or order it is read, which is what makes a training on two processes equal to one on one.
'shift' is drawn for all clips of an epoch in their order, before the batches are shared out: the same holds.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..clips import Clip

AREA = (0.08, 1.0)  # Former-DFER's GroupRandomSizedCrop: share of the picture's area, and sides' ratio
RATIO = (3 / 4, 4 / 3)
_TRIES = 10


def chance(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The source of chance of one clip in one epoch."""
    return np.random.default_rng([seed, epoch, index, 1])


def draw_shifts(count: int, size: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """How 'shift' moves the clips of one batch: int64 `[count, 3]`, (top, left, whether mirrored)."""
    moves = rng.integers(0, 2 * (size // 16) + 1, (count, 2))
    mirrored = [int(rng.random() < 0.5) for _ in range(count)]
    return np.column_stack([moves, np.array(mirrored, np.int64)])


def augment(clip: Clip, kind: str, rng: np.random.Generator, move: npt.NDArray[np.int64] | None = None) -> Clip:
    """Augments one clip.

    Args:
        clip: uint8 `[T, S, S, 3]`.
        kind: 'shift', 'crop' or 'none'.
        rng: the source of chance.
        move: of 'shift', one row of `draw_shifts`; drawn by `rng` when it is not given.

    Returns:
        The same shape.
    """
    if kind == "none":
        return clip
    if kind == "shift":
        top, left, mirrored = draw_shifts(1, clip.shape[1], rng)[0] if move is None else move
        changed = shift(clip, int(top), int(left))
    else:
        changed, mirrored = sized_crop(clip, rng), rng.random() < 0.5
    return changed[:, :, ::-1] if mirrored else changed


def shift(clip: Clip, top: int, left: int) -> Clip:
    """Moves a clip by up to S/16 pixels each way, 0 ... 2 * S/16; the border repeats."""
    size = clip.shape[1]
    room = size // 16
    padded = np.pad(clip, ((0, 0), (room, room), (room, room), (0, 0)), mode="edge")
    return padded[:, top : top + size, left : left + size]


def sized_crop(clip: Clip, rng: np.random.Generator) -> Clip:
    """Former-DFER's rule: a random part of the picture, its shape a little distorted, drawn to the whole size.

    A picture that ten draws do not fit is cropped to its central square instead.
    """
    frames, size = clip.shape[0], clip.shape[1]
    top, left, height, width = _box(size, rng)
    if (height, width) == (size, size):
        return clip
    out: npt.NDArray[np.uint8] = np.empty_like(clip)
    box = (left, top, left + width, top + height)
    for index in range(frames):
        image = Image.fromarray(np.ascontiguousarray(clip[index]))
        out[index] = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))
    return out


def _box(size: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random part of a square picture."""
    for _ in range(_TRIES):
        area = size * size * rng.uniform(*AREA)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= size and 0 < height <= size:
            return int(rng.integers(0, size - height + 1)), int(rng.integers(0, size - width + 1)), height, width
    return 0, 0, size, size
