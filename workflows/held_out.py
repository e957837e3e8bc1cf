"""Proof that clips which judge a model were not used to make it.

Two records tell: the fingerprint of the list that a model was trained on, and marks of its clips, which hold where the
lists were changed or put together anew. A mark says name and class of one clip; another data set whose clips have the
same names has other classes at them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..bundle.files import sha256
from ..clips import Sampling, centre_indices
from ..errors import LogoformerError, RefusedError, UsageError, command

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..model.data.clips import ClipSource
    from ..model.data.listing import ListedClips

MARKS = "train_marks"
_BYTES = 5  # of a mark: of FERV39k's 31 088 training clips and 7 847 test clips two agree by chance once in 4500 times
_ALIKE = 0.9  # of the clips with a known name that have its class too: below, it is another data set


# --------------------------------------------------------------------------------------------------------- what is told
def clip_marks(source: ListedClips | ClipSource) -> str:
    """Marks of a source's clips: 5 bytes of SHA-256 of name and class, sorted, in base64."""
    marks = sorted({_mark(source.clip_id(i), source.labels[source.label(i)]) for i in range(len(source))})
    return base64.b64encode(b"".join(marks)).decode("ascii")


def without_marks(reading: Mapping[str, Any]) -> dict[str, Any]:
    """What was read, as it is shown to people."""
    return {key: value for key, value in reading.items() if key != MARKS}


def _mark(name: str, label: str) -> bytes:
    return hashlib.sha256(f"{name}\n{label}".encode("utf-8", "surrogateescape")).digest()[:_BYTES]


# --------------------------------------------------------------------------------------------------------- what is seen
def seen_in_training(
    reading: Mapping[str, Any], data: str | os.PathLike[str], fold: int, source: ListedClips | ClipSource
) -> int:
    """Count the clips of a source that a model was trained on.

    Args:
        reading: of what was trained: `fold` and `train_list` (its fingerprint), and `train_marks` since 0.2.
        data: the data set's folder.
        fold: whose test split the source is.
        source: that split.

    Returns:
        0 as well where it was trained on another data set.
    """
    return max(_marked(reading.get(MARKS), source), _listed(reading, data, source))


def _marked(marks: object, source: ListedClips | ClipSource) -> int:
    """Clips of the source whose marks are known."""
    known = _read_marks(marks)
    if not known:
        return 0
    named = alike = 0
    for i in range(len(source)):
        name, own = source.clip_id(i), source.labels[source.label(i)]
        found = [label for label in source.labels if _mark(name, label) in known]
        named += bool(found)
        alike += own in found
    return alike if alike >= _ALIKE * named else 0


def _read_marks(marks: object) -> set[bytes]:
    try:
        data = base64.b64decode(marks if isinstance(marks, str) else "", validate=True)
    except binascii.Error:
        return set()
    return {data[start : start + _BYTES] for start in range(0, len(data) - _BYTES + 1, _BYTES)}


def _listed(reading: Mapping[str, Any], data: str | os.PathLike[str], source: ListedClips | ClipSource) -> int:
    """Clips of the source that the training list holds, if it is one of this data set."""
    from ..model.data.datasets import find_layout, folds_of, open_listing

    if not reading.get("train_list"):
        return 0
    try:
        folds = folds_of(data, find_layout(data))
    except LogoformerError:  # no data set that has lists
        return 0
    for fold in folds:
        try:
            learned = open_listing(data, "train", fold)
        except LogoformerError:  # a data set without that list
            continue
        if learned.fingerprint() == reading["train_list"]:
            known = {entry.name for entry in learned.entries}
            return sum(source.clip_id(i) in known for i in range(len(source)))
    return 0


def own_fold(reading: Mapping[str, Any] | None, data: str | os.PathLike[str]) -> int | None:
    """The fold that a model was trained on; None where it was another data set."""
    from ..model.data.datasets import open_listing

    fold = (reading or {}).get("fold")
    if not isinstance(fold, int) or not (reading or {}).get("train_list"):
        return None
    try:
        listing = open_listing(data, "train", fold)
    except LogoformerError:
        return None
    return fold if reading and listing.fingerprint() == reading["train_list"] else None


# ------------------------------------------------------------------------------------------------------------- refusals
def require_unseen(
    shown: str, reading: Mapping[str, Any], data: str | os.PathLike[str], fold: int, source: Any
) -> None:
    """Refuse a checkpoint's score on its own training clips: it would mean nothing.

    Raises:
        RefusedError: clips of the fold are among those that the checkpoint was trained on.
    """
    if seen := seen_in_training(reading, data, fold, source):
        own = own_fold(reading, data)
        trained = f"trained on fold {own}" if own is not None else "trained on clips that are listed here"
        raise RefusedError(
            f"{shown} was {trained}; {seen} of the {len(source)} test clips of fold {fold} are "
            "training clips of its own.",
            cause="checkpoints in another order than their folds, or --fold of another one",
            next=f"score it with --fold {own}; several in the order of their folds"
            if own not in (None, fold)
            else "score it on clips that it was not trained on: name another data set with --data",
        )


def trained_on(bundle: Bundle) -> Mapping[str, Any] | None:
    """What a bundle's checkpoint read, as its provenance says; None where it says nothing."""
    checkpoint = bundle.manifest.get("provenance", {}).get("checkpoint", {})
    extra = checkpoint.get("extra") if isinstance(checkpoint, Mapping) else None
    reading = extra.get("reading") if isinstance(extra, Mapping) else None
    return reading if isinstance(reading, Mapping) else None


def require_judge(bundle: Bundle, data: str | os.PathLike[str], fold: int, source: ClipSource) -> None:
    """Refuse a verdict by clips that the model was trained, fine-tuned or calibrated on.

    Args:
        bundle: what is judged; its provenance says what its checkpoint read, its calibration record which clips.
        data: the data set's folder.
        fold: whose test split judges.
        source: that split.

    Raises:
        UsageError: clips are in both.
    """
    record = bundle.calibration() if "int8" in bundle.precisions else {}
    for how, read in (("trained", trained_on(bundle)), ("fine-tuned in INT8", record.get("qat"))):
        if isinstance(read, Mapping) and (seen := seen_in_training(read, data, fold, source)):
            own = own_fold(read, data)
            another = own is not None and own != fold
            raise UsageError(
                f"{bundle.path} was {how} on fold {read.get('fold')}; {seen} of the {len(source)} test clips of fold "
                f"{fold} are among the clips it learned from: they cannot judge it.",
                cause="--fold of another checkpoint" if another else "a test list that holds clips of a training list",
                next=command("logoformer", "verify", bundle.path, "--accuracy", "--data", data, "--fold", own)
                if another
                else "judge it on clips that it was not trained on: name another data set with --data",
            )
    if seen := _calibrated(record, bundle.sampling, source):
        raise UsageError(
            f"{bundle.path} was calibrated on {seen} of the {len(source)} test clips of fold {fold}: "
            "they cannot judge it.",
            cause="INT8 was calibrated on another fold than the one that judges",
            next=command("logoformer", "quantize", bundle.path, "--data", data, "--fold", str(fold)),
        )


def _calibrated(record: Mapping[str, Any], sampling: Sampling, source: ClipSource) -> int:
    """Clips of the source that INT8 was calibrated on, by name and by their pixels."""
    known = {clip["id"]: clip["sha256"] for clip in record.get("clips", ())}
    found = 0
    for i in range(len(source)):
        if (name := source.clip_id(i)) in known:
            pixels = source.frames(i, centre_indices(source.count(i), sampling))
            found += sha256(pixels.tobytes()) == known[name]
    return found
