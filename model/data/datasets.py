"""Recognition of the data set in a folder, and the readers of the plain kinds.

* DFEW and FERV39k: see `dfew.py` and `ferv39k.py`;
* `<dir> <frames> <label>` or `<dir> <label>`, one clip a line, labels from 0 (Former-DFER's annotation folder and its
  descendants): `LISTS/train.txt`, `LISTS/test.txt`, or `..._set_1_train.txt` for the folds of DFEW;
* MAFW: `split/single/no_caption/set_1/train.txt` with lines `00025.mp4 anger`;
* folders: `ROOT/train/<class>/*.mp4`, `ROOT/test/<class>/*.mp4`; the folders' names are the classes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ...clips import DFEW_LABELS
from ...errors import BadInputError, UsageError, one_of
from . import dfew, ferv39k
from .clips import ClipSource, check_source
from .folders import folder_listing
from .listing import (
    Entry,
    ListedClips,
    Listing,
    Reading,
    numbered_as,
    read_lines,
    safe_place,
    unique_entries,
)

LAYOUTS = ("dfew", "ferv39k", "mafw", "lists", "folders")
FOLDED = ("dfew", "mafw")  # five folds; the others have one split

_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
MAFW_LISTS = "split/single/no_caption"
MAFW_CLIPS = ("data/clips", "clips", "data")
# MAE-DFER's order; MAFW's lists hold names, so no numbering has to be guessed.
MAFW_LABELS = (
    "anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise", "contempt", "anxiety", "helplessness",
    "disappointment",
)  # fmt: skip


def find_layout(root: str | os.PathLike[str]) -> str:
    """One of `LAYOUTS`, by what the folder holds.

    Raises:
        BadInputError: none of them, or no folder.
    """
    folder = Path(root)
    for layout, sign in (("dfew", dfew.LISTS), ("ferv39k", ferv39k.FRAMES), ("mafw", MAFW_LISTS)):
        if (folder / sign).is_dir():
            return layout
    if list_of(folder, "train", 1) or list_of(folder, "test", 1):
        return "lists"
    if (folder / "train").is_dir() or (folder / "test").is_dir():
        return "folders"
    raise BadInputError(
        f"{folder} holds no data set that is known here.",
        cause="it is not unpacked, or the folder above or below it was named",
        next="name the folder that holds EmoLabel_DataSplit (DFEW), 2_ClipsforFaceCrop (FERV39k), split/single (MAFW), "
        "train.txt and test.txt, or train/<class>/*.mp4; `logoformer synth -o faces` draws one",
    )


def list_of(folder: Path, split: str, fold: int) -> str | None:
    """Name of the plain list of a split; None where there is none.

    `train.txt`, or `<anything>set_<fold>_train.txt`, or `<anything>_train.txt`.

    Raises:
        BadInputError: several lists of one kind.
    """
    for pattern in (f"{split}.txt", f"*set_{fold}_{split}.txt", f"*_{split}.txt"):
        found = sorted(
            path.name
            for path in folder.glob(pattern)
            if ("set_" not in path.name or f"set_{fold}_" in path.name) and not path.name.startswith(".")
        )
        if len(found) > 1:
            raise BadInputError(
                f"{folder} holds several lists for {split!r}, fold {fold}: {one_of(found[:4])}.",
                cause="the lists of several data sets lie in one folder",
                next="give each data set a folder with its own lists",
            )
        if found:
            return found[0]
    return None


def folds_of(root: str | os.PathLike[str], layout: str) -> tuple[int, ...]:
    """The folds that a data set has: five, or one where there is one split."""
    five = layout in FOLDED
    if layout == "lists":
        five = any(any(Path(root).glob(f"*set_{fold}_test.txt")) for fold in range(2, 6))
    return dfew.FOLDS if five else (1,)


def open_listing(root: str | os.PathLike[str], split: str, fold: int = 1, *, layout: str = "auto") -> Listing:
    """The clips of one split.

    Args:
        root: the data set's folder.
        split: 'train' or 'test'.
        fold: 1 to 5, where the data set has folds.
        layout: one of `LAYOUTS`, or 'auto'.

    Raises:
        UsageError: an unknown layout, split or fold.
        BadInputError: the data set is not there, or a list is damaged.
    """
    if layout == "auto":
        layout = find_layout(root)
    if fold != 1 and layout in ("ferv39k", "folders"):
        raise UsageError(f"There is no fold {fold}: this data set ({layout}) has one split.", next="leave the fold out")
    if layout == "dfew":
        return dfew.dfew_listing(root, split, fold)
    if layout == "ferv39k":
        return ferv39k.ferv39k_listing(root, split)
    if layout == "mafw":
        return mafw_listing(root, split, fold)
    if layout == "lists":
        path = list_of(Path(root), split, fold)
        if path is None:
            raise BadInputError(f"{root} has no list for {split!r}, fold {fold}.", next=f"write {root}/{split}.txt")
        return list_listing(root, path)
    if layout == "folders":
        return folder_listing(root, split)
    raise UsageError(f"Unknown layout {layout!r}.", next=f"choose from {one_of(LAYOUTS)}")


def open_clips(root: str | os.PathLike[str], split: str, fold: int, reading: Reading) -> ListedClips:
    """The clips of one split as a clip source; see `open_listing`."""
    return ListedClips(open_listing(root, split, fold), reading)


def clips_for(root: str | os.PathLike[str], split: str, fold: int, size: int, labels: tuple[str, ...]) -> ClipSource:
    """The clips of one split in the size and class numbering of a trained model.

    Raises:
        BadInputError: the classes are others; and as `open_listing`.
    """
    source = numbered_as(open_clips(root, split, fold, Reading(size)), labels)
    check_source(source, labels, size)
    return source


# ------------------------------------------------------------------------------------------------------------ readers
def list_listing(root: str | os.PathLike[str], path: str) -> Listing:
    """Reads a plain list of frame folders, its classes in DFEW's order.

    Args:
        root: the folder that the list's paths start from.
        path: of the list below it.

    Raises:
        BadInputError: a line of another form, a label out of range, labels that count from 1, a clip listed
            twice, a label that is not the class that its folder names.
    """
    folder, shown, labels = Path(root), f"{root}/{path}", DFEW_LABELS
    rows = []
    for where, line in read_lines(folder, path):
        words = line.split()
        if len(words) not in (2, 3) or not all(_NUMBER.fullmatch(word) for word in words[1:]):
            raise BadInputError(f"{where}: {line!r:.100} is not '<dir> [<frames>] <label>'.")
        rows.append((where, words[0], int(words[1]) if len(words) == 3 else None, int(words[-1])))
    found = {row[3] for row in rows}
    highest = max(found, default=0)
    if highest >= len(labels):
        counts_from_one = highest == len(labels) and 0 not in found
        raise BadInputError(
            f"{shown} has the label {highest}; {len(labels)} classes are numbered 0 to {len(labels) - 1}.",
            cause="a list that counts from 1: every class would be shifted"
            if counts_from_one
            else "a list of another data set",
            next="subtract 1 from its labels" if counts_from_one else f"classes: {one_of(labels)}",
        )

    def entries() -> Iterator[tuple[str, Entry]]:
        for where, text, frames, label in rows:
            place = safe_place(text.rstrip("/"), where)
            named = {part.lower() for part in place.split("/")}.intersection(labels)
            if named and labels[label] not in named:
                raise BadInputError(
                    f"{where}: the folder {place!r:.100} and the label {label} ({labels[label]}) do not fit "
                    "each other.",
                    cause="a list with another numbering: FERV39k's are in the wild in DFEW's order and alphabetically",
                    next=f"number the classes {', '.join(f'{n} {name}' for n, name in enumerate(labels))}",
                )
            yield where, Entry(place, place, label, frames)

    return Listing(folder, labels, unique_entries(entries(), shown), shown)


def mafw_listing(root: str | os.PathLike[str], split: str, fold: int = 1) -> Listing:
    """Reads one split of one fold of MAFW's single-labelled clips, as videos.

    Raises:
        BadInputError: the list or the clips' folder is missing, or a line is damaged.
    """
    folder, path = Path(root), f"{MAFW_LISTS}/set_{fold}/{split}.txt"
    clips = next((place for place in MAFW_CLIPS if (folder / place).is_dir()), None)
    if clips is None:
        raise BadInputError(f"{folder} holds none of the folders {one_of(MAFW_CLIPS)}.", cause="clips are not unpacked")
    known = {name: number for number, name in enumerate(MAFW_LABELS)}
    shown = f"{folder}/{path}"

    def entries() -> Iterator[tuple[str, Entry]]:
        for where, line in read_lines(folder, path):
            words = line.split()
            if len(words) != 2 or words[1].lower() not in known:
                raise BadInputError(f"{where}: {line!r:.100} is not '00025.mp4 anger'.")
            place = safe_place(words[0], where)
            yield where, Entry(place, f"{clips}/{place}", known[words[1].lower()])

    return Listing(folder, MAFW_LABELS, unique_entries(entries(), shown), shown)
