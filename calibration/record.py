"""Checks of the calibration set, and its record in the bundle.

A range is only as good as the clips that it was taken on, and a bad set gives no error: random or constant clips make
meaningless scales. So a set that cannot stand for the camera is refused, and the record in the bundle says which clips
were used, by name and by content, and which ranges they gave.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..bundle.files import sha256
from ..clips import Sampling
from ..errors import BadInputError, one_of
from .choose import ChosenClips
from .quantize import QuantizeConfig, Ranges

MIN_CLIPS = 64
FEW_CLIPS = 8


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

    Args:
        chosen: the clips.
        ranges: what they gave.
        config: how the graphs were quantized with them.
        source: data set, fold, split and seed.
        labels: names of the classes.
        preprocessing: of the bundle.
        sampling: of the bundle.
        tools: versions of what computed.
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
