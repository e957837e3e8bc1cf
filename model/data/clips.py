"""Clip sources, and batches of their clips.

A clip source is anything with the five methods of `ClipSource`: a data set on disk (`listing.py`), the synthetic faces
(`synthetic/recordings.py`). It delivers only the frames asked for: a training step looks at 8 or 16 of a hundred.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ...bundle.files import sha256
from ...clips import Clip, Sampling, centre_indices, random_indices, resize, view_indices
from ...errors import BadInputError, one_of

Indices = npt.NDArray[np.int64]
Pick = Callable[[int, int], Indices]  # (number of the clip, its frames) -> the frames to take
Batch = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]  # clips [B, T, S, S, 3], labels [B]
Progress = Callable[[str, int, int], None]

ORDERS = ("forward", "reversed", "shuffled")
_BATCHES_AHEAD = 2


class Box(NamedTuple):
    """A part of a picture, in shares of its sides.

    The pictures of a clip may differ in size.
    """

    left: float
    top: float
    right: float
    bottom: float

    def pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) in whole pixels, at least one each way."""
        left, top = min(round(self.left * width), width - 1), min(round(self.top * height), height - 1)
        return left, top, max(left + 1, round(self.right * width)), max(top + 1, round(self.bottom * height))


def cut(clip: Clip, box: Box) -> Clip:
    """Cuts a part of each picture and resizes it to the whole size: uint8 `[k, S, S, 3]`."""
    left, top, right, bottom = box.pixels(clip.shape[2], clip.shape[1])
    return np.stack([resize(frame[top:bottom, left:right], clip.shape[1]) for frame in clip])


class ClipSource(Protocol):
    """Labelled recordings of one size."""

    labels: tuple[str, ...]
    size: int

    def __len__(self) -> int: ...

    def label(self, index: int) -> int:
        """Class of a clip, an index into `labels`."""

    def clip_id(self, index: int) -> str:
        """Name of a clip."""

    def count(self, index: int) -> int:
        """Frames of a clip."""

    def frames(self, index: int, indices: Sequence[int] | Indices, box: Box | None = None) -> Clip:
        """Frames of a clip, uint8 `[k, S, S, 3]`, RGB; `box` takes a part of each stored picture."""


Read = Callable[[ClipSource, int, Indices], Clip]  # (source, number of the clip, frames) -> the clip as it is shown


class ClipView:
    """A clip source that shows another one; a subclass writes what it changes. See `ClipSource`."""

    def __init__(self, source: ClipSource) -> None:
        self.source, self.labels, self.size = source, source.labels, source.size

    def __len__(self) -> int:
        return len(self.source)

    def place(self, index: int) -> int:
        """Number of a clip in the source."""
        return index

    def label(self, index: int) -> int:
        return self.source.label(self.place(index))

    def clip_id(self, index: int) -> str:
        return self.source.clip_id(self.place(index))

    def count(self, index: int) -> int:
        return self.source.count(self.place(index))

    def frames(self, index: int, indices: Sequence[int] | Indices, box: Box | None = None) -> Clip:
        return self.source.frames(self.place(index), indices, box)

    def content(self, index: int) -> str | None:
        """What tells the file of a clip from all others; see `content_of`."""
        return content_of(self.source, self.place(index))


def content_of(source: ClipSource, index: int) -> str | None:
    """What tells the file of a clip from all others, whatever its name, or None."""
    told = getattr(source, "content", None)
    return None if told is None else told(index)


class CachedClips(ClipView):
    """Keeps the frames of another source in memory once they were decoded.

    What is kept are whole frames at the model's size. A part of a picture (`box`, see `augment.py`) is read from the
    source each time and not kept.

    Args:
        source: the other one.
        max_bytes: of pixels that are kept; later clips are read again each time.
    """

    def __init__(self, source: ClipSource, max_bytes: int = 3 << 30) -> None:
        super().__init__(source)
        self._left = max_bytes
        self._kept: dict[int, tuple[Clip, npt.NDArray[np.bool_]]] = {}

    def count(self, index: int) -> int:
        kept = self._kept.get(index)
        return self.source.count(index) if kept is None else len(kept[0])

    def frames(self, index: int, indices: Sequence[int] | Indices, box: Box | None = None) -> Clip:
        """Frames of a clip, uint8 `[k, S, S, 3]`; only those not seen before are decoded."""
        wanted = np.asarray(indices, np.int64)
        if box is not None:
            return self.source.frames(index, wanted, box)
        if index not in self._kept:
            shape = (self.source.count(index), self.size, self.size, 3)
            if self._left < np.prod(shape):
                return self.source.frames(index, wanted)
            self._left -= int(np.prod(shape))
            # Pages that are never written cost nothing.
            self._kept[index] = (np.empty(shape, np.uint8), np.zeros(shape[0], np.bool_))
        pixels, known = self._kept[index]
        missing = np.unique(wanted[~known[wanted]])
        if len(missing):
            pixels[missing] = self.source.frames(index, missing)
            known[missing] = True
        return pixels[wanted]


def check_source(source: ClipSource, labels: Sequence[str], size: int) -> None:
    """Refuses clips that a model was not made for, before any time is spent.

    Raises:
        BadInputError: no clips, another size, or other classes; the message names both sides.
    """
    if len(source) == 0:
        raise BadInputError("There are no clips to read.", cause="an empty fold, or a limit of zero clips")
    if source.size != size:
        raise BadInputError(
            f"The clips have {source.size} x {source.size} pixels, the model reads {size} x {size}.",
            next=f"open the data with size={size}",
        )
    if tuple(source.labels) != tuple(labels):
        raise BadInputError(
            f"The classes of the data are {one_of(source.labels)}, those of the model {one_of(labels)}.",
            cause="data sets number their classes differently; the same index would mean another expression",
        )


def fingerprint(clips: Iterable[tuple[str, int]]) -> str:
    """SHA-256 of a list's names and classes, in order, wherever the list lies."""
    return sha256("\n".join(f"{name} {label}" for name, label in clips).encode("utf-8", "surrogateescape"))


def random_pick(sampling: Sampling, seed: int, epoch: int) -> Pick:
    """Training's rule: a random frame of each segment, drawn by (seed, epoch, clip)."""

    def pick(index: int, count: int) -> Indices:
        return random_indices(count, sampling, np.random.default_rng([seed, epoch, index]))

    return pick


def centre_pick(sampling: Sampling, order: str = "forward", seed: int = 0) -> Pick:
    """Evaluation's rule: the centre frame of each segment.

    `order` hands them over as they come, backwards, or in a random order of each clip's own.
    """

    def pick(index: int, count: int) -> Indices:
        chosen = centre_indices(count, sampling)
        if order == "reversed":
            return chosen[::-1]
        if order == "shuffled":
            return np.random.default_rng([seed, index]).permutation(chosen)
        return chosen

    return pick


def view_pick(sampling: Sampling, view: int) -> Pick:
    """One of the views that the sampling's own rule takes of a recording."""

    def pick(index: int, count: int) -> Indices:
        return view_indices(count, sampling)[view]

    return pick


def batches(
    source: ClipSource, groups: Sequence[Indices], pick: Pick, reads: Sequence[Sequence[Read]] | None = None
) -> Iterator[Batch]:
    """Reads batches, a few of them ahead, on as many threads as there are cores.

    Args:
        source: where the clips come from.
        groups: the clips of each batch.
        pick: which frames of a clip.
        reads: for each clip of each batch, how it is read (augmentation); None reads it as it is.

    Yields:
        clips uint8 `[B, T, S, S, 3]` and labels int64 `[B]`, in the order of `groups`.
    """

    def one(index: int, read: Read | None) -> Clip:
        chosen = pick(index, source.count(index))
        return source.frames(index, chosen) if read is None else read(source, index, chosen)

    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0)), thread_name_prefix="clips") as pool:

        def submit(number: int) -> list[Future[Clip]]:
            group = groups[number]
            how: Sequence[Read | None] = [None] * len(group) if reads is None else reads[number]
            return [pool.submit(one, int(index), read) for index, read in zip(group, how, strict=True)]

        pending = [submit(number) for number in range(min(_BATCHES_AHEAD, len(groups)))]
        try:
            for number, group in enumerate(groups):
                if number + _BATCHES_AHEAD < len(groups):
                    pending.append(submit(number + _BATCHES_AHEAD))
                clips = np.stack([future.result() for future in pending.pop(0)])
                yield clips, np.array([source.label(int(index)) for index in group], np.int64)
        finally:
            pool.shutdown(cancel_futures=True)


def in_order(count: int, batch: int) -> list[Indices]:
    """Groups 0..count-1 into batches, the last one smaller."""
    return [np.arange(start, min(start + batch, count)) for start in range(0, count, batch)]


def at_random(count: int, batch: int, rng: np.random.Generator) -> list[Indices]:
    """Groups 0..count-1 into full batches in a random order, without the remainder."""
    order = rng.permutation(count)
    batch = min(batch, count)
    return [order[start : start + batch] for start in range(0, count - batch + 1, batch)]


def balanced(labels: Sequence[int], batch: int, rng: np.random.Generator) -> list[Indices]:
    """Groups clips into full batches with every class equally often.

    As many batches as `at_random` would give. A class with few clips repeats them, each as often as the others of its
    class before any comes again.
    """
    count, classes = len(labels), sorted(set(labels))
    members = {c: np.flatnonzero(np.asarray(labels) == c) for c in classes}
    waiting: dict[int, list[int]] = {c: [] for c in classes}
    batch = min(batch, count)
    drawn: list[int] = []
    while len(drawn) < count // batch * batch:
        for c in rng.permutation(classes):
            if not waiting[c]:
                waiting[c] = [int(i) for i in rng.permutation(members[c])]
            drawn.append(waiting[c].pop())
    order = np.array(drawn[: count // batch * batch], np.int64)
    return list(order.reshape(-1, batch))


class Subset(ClipView):
    """A selection of another source's clips by their numbers there, in the order given."""

    def __init__(self, source: ClipSource, indices: Sequence[int] | Indices) -> None:
        super().__init__(source)
        self.indices = [int(index) for index in indices]

    def __len__(self) -> int:
        return len(self.indices)

    def place(self, index: int) -> int:
        return self.indices[index]


def split(source: ClipSource, share: float, seed: int) -> tuple[Subset, Subset]:
    """Cuts a source in two, class by class.

    Args:
        source: to be cut.
        share: of each class's clips that the second part gets, at least one where the class has two.
        seed: of the choice.

    Returns:
        (the larger part, the held-out part), each in the source's order.
    """
    rng = np.random.default_rng([seed, 0x5EED])
    labels = np.array([source.label(index) for index in range(len(source))], np.int64)
    held = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        take = max(1, round(share * len(members))) if len(members) > 1 else 0
        held[rng.permutation(members)[:take]] = True
    return Subset(source, np.flatnonzero(~held)), Subset(source, np.flatnonzero(held))
