"""The calibration set: a stratified, seeded choice of clips, its checks, its record.

A range is only as good as the clips that it was taken on, and a bad set gives no error. Ranges taken on one class, or
on the first clips of a list, are ranges of that class: here the classes take turns, each in an order that the seed
shuffles. Random or constant clips make meaningless scales: a set that cannot stand for the camera is refused. The
record says which clips were used, by name and by content, and which ranges they gave.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..bundle.files import sha256
from ..clips import Sampling, centre_indices
from ..errors import BadInputError, one_of
from .quantize import QuantizeConfig, Ranges

if TYPE_CHECKING:
    from ..model.data.clips import ClipSource, Progress

MIN_CLIPS = 64
FEW_CLIPS = 8


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
    note = progress or (lambda *_: None)
    picked = turns([source.label(index) for index in range(len(source))], count, seed)
    if not picked:
        raise BadInputError("The data set has no clips.", cause="a wrong split or an empty list")
    clips = []
    for done, index in enumerate(picked):
        note("choose clips", done, len(picked))
        clips.append(source.frames(index, centre_indices(source.count(index), sampling)))
    note("choose clips", len(picked), len(picked))
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
    rounds = zip_longest(*queues)
    return [index for one in rounds for index in one if index is not None][: max(count, 0)]


def check_set(chosen: ChosenClips, *, few: bool = False) -> None:
    """Refuses a set that cannot stand for the camera.

    Args:
        chosen: the clips.
        few: accept fewer than `MIN_CLIPS`, but at least `FEW_CLIPS`.

    Raises:
        BadInputError: too few clips, one class only, constant clips, or copies.
    """
    needed = FEW_CLIPS if few else MIN_CLIPS
    if len(chosen.clips) < needed:
        allow = f", or pass --few for as few as {FEW_CLIPS}" if not few else ""
        raise BadInputError(
            f"{len(chosen.clips)} calibration clips; at least {needed} are needed.",
            cause="a range of few clips is cut off by the next ones",
            next=f"give a larger data set, raise --calibration-clips{allow}",
        )
    if len(set(chosen.labels)) < 2:
        raise BadInputError(
            f"All {len(chosen.labels)} calibration clips are of class {chosen.labels[0]}.",
            cause="a data set of one class: its ranges would be the ranges of that class",
            next="give a data set with all classes",
        )
    flat = chosen.clips.reshape(len(chosen.clips), -1)
    constant = [name for name, low, high in zip(chosen.ids, flat.min(1), flat.max(1), strict=True) if low == high]
    if constant:
        raise BadInputError(
            f"{len(constant)} calibration clips have one colour in all pixels: {one_of(constant[:5])}.",
            cause="images that did not decode, or a placeholder",
            next="remove these clips from the data set's list",
        )
    first: dict[str, str] = {}
    copies = []
    for name, digest in zip(chosen.ids, clip_hashes(chosen), strict=True):
        if digest in first:
            copies.append(f"{name} = {first[digest]}")
        first.setdefault(digest, name)
    if copies:
        raise BadInputError(
            f"{len(copies)} calibration clips are copies of others: {'; '.join(copies[:5])}.",
            cause="a data set that was padded, or merged with itself",
            next="remove the copies from the data set's list",
        )


def clip_hashes(chosen: ChosenClips) -> tuple[str, ...]:
    """SHA-256 of the pixels of each clip."""
    return tuple(sha256(clip.tobytes()) for clip in chosen.clips)


def calibration_record(
    chosen: ChosenClips,
    ranges: Ranges,
    config: QuantizeConfig,
    *,
    source: str,
    labels: Sequence[str],
    preprocessing: Mapping[str, Any],
    sampling: Sampling,
    tools: Mapping[str, str],
) -> dict[str, Any]:
    """Make the bundle's calibration record; equal for equal clips, seed and tools.

    `source` names data set, fold, split and seed; `tools` are the versions of what computed.
    """
    counts = Counter(chosen.labels)
    rows = zip(chosen.ids, chosen.labels, clip_hashes(chosen), strict=True)
    return {
        "source": source,
        "count": len(chosen.ids),
        "sha256": chosen.sha256,
        "classes": {name: counts.get(index, 0) for index, name in enumerate(labels)},
        "clips": [{"id": name, "label": label, "sha256": digest} for name, label, digest in rows],
        "preprocessing": dict(preprocessing),
        "sampling": sampling.to_json(),
        "quantize": {**asdict(config), "exclude": list(config.exclude)},
        "ranges": dict(ranges),
        "tools": dict(tools),
    }
