"""Proof that clips which judge a model were not used to make it.

Two records tell: the fingerprint of the list that a model was trained on, and marks of its clips, which hold where the
lists were changed or put together anew. A mark says name and class of one clip; another data set whose clips have the
same names has other classes at them. Where names are places of files, as in folders of videos, a further mark says the
file: after a new split `train/happy/0001.mp4` may be another clip, and the same one may be `test/happy/0001.mp4`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..bundle.files import sha256
from ..bundle.sealed import reading_fields, typed
from ..clips import centre_indices
from ..errors import LogoformerError, RefusedError, UsageError, command, one_of

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..model.data.clips import ClipSource, Progress
    from ..model.data.listing import ListedClips

MARKS = "train_marks"
_BYTES = 5  # of a mark: of FERV39k's 31 088 training clips and 7 847 test clips two agree by chance once in 4500 times
# Another data set's classes agree by chance with those of known names. The same one is told by Cohen's kappa, the share
# of what chance leaves over (Educational and Psychological Measurement 20, 1960, 37-46), and by what chance can do.
_KAPPA = 0.25
_DEVIATIONS = 3.0
_SHOWN = 3
_SHARED = "a test split that holds clips of the training split, or splits that were put together anew"
_INSTEAD = "take these out of the test split, or name another data set with --data"
_FILE = "\0file"  # in the place of a name, which it never is


# --------------------------------------------------------------------------------------------------------- what is told
def clip_marks(source: ListedClips | ClipSource) -> str:
    """Marks of a source's clips: 5 bytes of SHA-256 each, sorted, in base64.

    Of name and class of every clip; of its file too, where names tell nothing (`model.data.clips.content_of`).
    """
    from ..model.data.clips import content_of

    marks = {_mark(source.clip_id(i), source.labels[source.label(i)]) for i in range(len(source))}
    contents = {_mark(_FILE, content) for i in range(len(source)) if (content := content_of(source, i)) is not None}
    return base64.b64encode(b"".join(sorted(marks | contents))).decode("ascii")


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
    return len(_seen(reading, data, source))


def _seen(reading: Mapping[str, Any], data: str | os.PathLike[str], source: ListedClips | ClipSource) -> list[str]:
    """Names of the clips of the source that a model was trained on."""
    return max(_marked(reading.get(MARKS), source), _listed(reading, data, source), key=len)


def _marked(marks: object, source: ListedClips | ClipSource) -> list[str]:
    """Clips of the source whose marks are known."""
    from ..model.data.clips import content_of

    known = _read_marks(marks)
    if not known:
        return []
    same, named = [], []
    for i in range(len(source)):
        name, own = source.clip_id(i), source.labels[source.label(i)]
        content = content_of(source, i)
        if content is not None:  # the name is a place, which any clip may have
            same += [name] if _mark(_FILE, content) in known else []
        elif found := [label for label in source.labels if _mark(name, label) in known]:
            named.append((name, own if own in found else found[0], own))
    alike = [name for name, learned, own in named if learned == own]
    return [*same, *(alike if alike and _of_one_data_set(named) else [])]


def _of_one_data_set(named: Sequence[tuple[str, str, str]]) -> bool:
    """Whether clips with known names are those of one data set, relabelled in part or mixed.

    Args:
        named: (name, class in training, class here).
    """
    count, alike = len(named), sum(learned == own for _, learned, own in named)
    then, now = Counter(learned for _, learned, _ in named), Counter(own for _, _, own in named)
    chance = sum(then[label] * now[label] for label in now) / count
    spread = math.sqrt(chance * (1 - chance / count))
    return alike == count or alike - chance >= max(_KAPPA * (count - chance), _DEVIATIONS * spread)


def _read_marks(marks: object) -> set[bytes]:
    try:
        data = base64.b64decode(marks if isinstance(marks, str) else "", validate=True)
    except binascii.Error:
        return set()
    return {data[start : start + _BYTES] for start in range(0, len(data) - _BYTES + 1, _BYTES)}


def _listed(reading: Mapping[str, Any], data: str | os.PathLike[str], source: ListedClips | ClipSource) -> list[str]:
    """Clips of the source that the training list holds, if it is one of this data set."""
    from ..model.data.datasets import find_layout, folds_of, open_listing

    if not reading.get("train_list"):
        return []
    try:
        folds = folds_of(data, find_layout(data))
    except LogoformerError:  # no data set that has lists
        return []
    for fold in folds:
        try:
            learned = open_listing(data, "train", fold)
        except LogoformerError:  # a data set without that list
            continue
        if learned.fingerprint() == reading["train_list"]:
            known = {entry.name for entry in learned.entries}
            return [name for i in range(len(source)) if (name := source.clip_id(i)) in known]
    return []


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
    if seen := _seen(reading, data, source):
        own = own_fold(reading, data)
        another = own not in (None, fold)
        trained = f"trained on fold {own}" if own is not None else "trained on clips that are listed here"
        raise RefusedError(
            f"{shown} was {trained}; {len(seen)} of the {len(source)} test clips of fold {fold} are "
            f"training clips of its own, such as {one_of(seen[:_SHOWN])}.",
            cause="checkpoints in another order than their folds, or --fold of another one" if another else _SHARED,
            next=f"score it with --fold {own}; several in the order of their folds"
            if another
            else f"score it on clips that it was not trained on: {_INSTEAD}",
        )


def trained_on(bundle: Bundle) -> Mapping[str, Any] | None:
    """What a bundle's checkpoint read, as its provenance says; None where it says nothing."""
    checkpoint = bundle.manifest.get("provenance", {}).get("checkpoint", {})
    extra = checkpoint.get("extra") if isinstance(checkpoint, Mapping) else None
    reading = extra.get("reading") if isinstance(extra, Mapping) else None
    return reading if isinstance(reading, Mapping) else None


def require_judge(
    bundle: Bundle, data: str | os.PathLike[str], fold: int, source: ClipSource, progress: Progress | None = None
) -> None:
    """Refuse a verdict by clips that the model was trained, fine-tuned or calibrated on.

    Args:
        bundle: what is judged; its provenance says what its checkpoint read, its calibration record which clips.
        data: the data set's folder.
        fold: whose test split judges.
        source: that split.
        progress: called with (stage, done, total).

    Raises:
        UsageError: clips are in both.
    """
    record = bundle.calibration() if "int8" in bundle.precisions else {}
    for how, read in (("trained", trained_on(bundle)), ("fine-tuned in INT8", record.get("qat"))):
        if isinstance(read, Mapping) and (seen := _seen(read, data, source)):
            own = own_fold(read, data)
            another = own is not None and own != fold
            raise UsageError(
                f"{bundle.path} was {how} on fold {read.get('fold')}; {len(seen)} of the {len(source)} test clips of "
                f"fold {fold} are among the clips it learned from, such as "
                f"{one_of(seen[:_SHOWN])}: they cannot judge it.",
                cause="--fold of another checkpoint" if another else _SHARED,
                next=command("logoformer", "verify", bundle.path, "--accuracy", "--data", data, "--fold", own)
                if another
                else f"judge it on clips that it was not trained on: {_INSTEAD}",
            )
    if same := _calibrated(record, bundle, source, progress):
        raise UsageError(
            f"{bundle.path} was calibrated on {len(same)} of the {len(source)} test clips of fold {fold}, such as "
            f"{one_of(same[:_SHOWN])}: they cannot judge it.",
            cause="INT8 was calibrated on another fold than the one that judges, or on copies of its clips",
            next=command("logoformer", "quantize", bundle.path, "--data", data, "--fold", str(fold)),
        )


def _calibrated(record: Mapping[str, Any], bundle: Bundle, source: ClipSource, progress: Progress | None) -> list[str]:
    """Clips of the source that INT8 was calibrated on, by their pixels.

    Those of the same names are looked at first.
    """
    with reading_fields(f"{bundle.path}, its calibration record,"):
        known = {typed(clip["id"], str): typed(clip["sha256"], str) for clip in record.get("clips", ())}
    pixels, note = set(known.values()), progress or (lambda *_: None)

    def same(i: int) -> bool:
        return sha256(source.frames(i, centre_indices(source.count(i), bundle.sampling)).tobytes()) in pixels

    names = [source.clip_id(i) for i in range(len(source))]
    if found := [name for i, name in enumerate(names) if name in known and same(i)]:
        return found
    for i, name in enumerate(names if known else ()):
        if name not in known and same(i):
            found.append(name)
        note("clips of the calibration", i + 1, len(names))
    return found
