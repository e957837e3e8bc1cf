"""A stratified, seeded choice of clips.

Ranges taken on one class, or on the first clips of a list, are ranges of that class. Here the classes take turns, each
in an order that the seed shuffles, and the choice is recorded by name and by content.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..bundle.files import sha256
from ..clips import Sampling, centre_indices
from ..errors import BadInputError

if TYPE_CHECKING:
    from ..model.data.clips import ClipSource, Progress


@dataclass(frozen=True)
class ChosenClips:
    """The choice and its record.

    Attributes:
        clips: uint8 `[N, T, S, S, 3]`, RGB.
        ids: names, in order.
        labels: class indices, in order.
        sha256: of the pixels, in order.
    """

    clips: npt.NDArray[np.uint8]
    ids: tuple[str, ...]
    labels: tuple[int, ...]
    sha256: str


def choose(
    source: ClipSource, sampling: Sampling, count: int, seed: int = 0, progress: Progress | None = None
) -> ChosenClips:
    """Chooses and reads clips.

    Args:
        source: where from.
        sampling: the test pattern is read (no chance).
        count: N; fewer when the source has fewer.
        seed: of the order inside each class.
        progress: called with (stage, done, total).

    Raises:
        BadInputError: the source is empty, or all chosen clips are the same.
    """
    picked = turns([source.label(index) for index in range(len(source))], count, seed)
    if not picked:
        raise BadInputError("The data set has no clips.", cause="a wrong split or an empty list")
    clips = []
    for done, index in enumerate(picked):
        if progress is not None:
            progress("choose clips", done, len(picked))
        clips.append(source.frames(index, centre_indices(source.count(index), sampling)))
    if progress is not None:
        progress("choose clips", len(picked), len(picked))
    stacked = np.stack(clips)
    if len(picked) > 1 and (stacked == stacked[:1]).all():
        raise BadInputError(f"All {len(picked)} chosen clips are identical.", cause="a data set of copies")
    return ChosenClips(
        stacked,
        tuple(source.clip_id(index) for index in picked),
        tuple(source.label(index) for index in picked),
        sha256(stacked.tobytes()),
    )


def turns(labels: Sequence[int], count: int, seed: int) -> list[int]:
    """Indices of `count` clips, the classes taking turns, each class in its own shuffled order.

    >>> sorted(turns([0, 0, 0, 1], 2, seed=1))[-1]
    3
    """
    rng = np.random.default_rng(seed)
    queues = []
    for label in sorted(set(labels)):
        members = [index for index, own in enumerate(labels) if own == label]
        queues.append([members[place] for place in rng.permutation(len(members))])
    picked: list[int] = []
    while len(picked) < count and any(queues):
        for queue in queues:
            if queue and len(picked) < count:
                picked.append(queue.pop(0))
    return picked
