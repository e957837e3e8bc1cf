"""Readers of the plain lists of this field, of MAFW's lists and of folders of videos.

* `<dir> <frames> <label>` or `<dir> <label>`, one clip a line, labels from 0 (Former-DFER's annotation folder and its
  descendants): `LISTS/train.txt`, `LISTS/test.txt`, or `..._set_1_train.txt` for the folds of DFEW;
* MAFW: `split/single/no_caption/set_1/train.txt` with lines `00025.mp4 anger`;
* folders: `ROOT/train/<class>/*.mp4`, `ROOT/test/<class>/*.mp4`; the folders' names are the classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...clips import DFEW_LABELS
from ...errors import BadInputError, one_of
from .decoding import VIDEO_SUFFIXES, natural
from .listing import Entry, Listing, read_lines, safe_place, unique_entries

MAFW_LISTS = "split/single/no_caption"
MAFW_CLIPS = ("data/clips", "clips", "data")
# MAE-DFER's order; MAFW's lists hold names, so no numbering has to be guessed.
MAFW_LABELS = (
    "anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise", "contempt", "anxiety", "helplessness",
    "disappointment",
)  # fmt: skip


def list_listing(root: str | os.PathLike[str], path: str, labels: Sequence[str] = DFEW_LABELS) -> Listing:
    """Reads a plain list of frame folders.

    Args:
        root: the folder that the list's paths start from.
        path: of the list below it.
        labels: names of the classes 0, 1, ...

    Raises:
        BadInputError: a line of another form, a label out of range, labels that count from 1, a clip listed
            twice, a label that is not the class that its folder names.
    """
    folder, shown = Path(root), f"{root}/{path}"
    rows = []
    for number, line in read_lines(folder, path):
        words = line.split()
        if len(words) not in (2, 3) or not all(word.isascii() and word.isdigit() for word in words[1:]):
            raise BadInputError(f"{shown}, line {number}: {line!r:.100} is not '<dir> [<frames>] <label>'.")
        rows.append((number, words[0], int(words[1]) if len(words) == 3 else None, int(words[-1])))
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
        for number, text, frames, label in rows:
            where = f"{shown}, line {number}"
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

    return Listing(folder, tuple(labels), unique_entries(entries(), shown), shown)


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
        for number, line in read_lines(folder, path):
            where, words = f"{shown}, line {number}", line.split()
            if len(words) != 2 or words[1].lower() not in known:
                raise BadInputError(f"{where}: {line!r:.100} is not '00025.mp4 anger'.")
            place = safe_place(words[0], where)
            yield where, Entry(place, f"{clips}/{place}", known[words[1].lower()])

    return Listing(folder, MAFW_LABELS, unique_entries(entries(), shown), shown)


def folder_listing(root: str | os.PathLike[str], split: str) -> Listing:
    """Reads videos that lie in one folder a class.

    The classes are those of all splits, in DFEW's order where they are DFEW's, else alphabetical.

    Raises:
        BadInputError: no videos.
    """
    folder = Path(root)
    if not (folder / split).is_dir():
        raise BadInputError(f"{folder} holds no folder {split!r}.", next=f"put videos into {folder}/{split}/<class>/")
    names = {c.name for part in folder.iterdir() if part.is_dir() for c in part.iterdir() if c.is_dir()}
    labels = DFEW_LABELS if names <= set(DFEW_LABELS) else tuple(sorted(names))
    entries = []
    for number, name in enumerate(labels):
        place = folder / split / name
        if not place.is_dir():
            continue
        videos = [f.name for f in place.iterdir() if f.name.lower().endswith(VIDEO_SUFFIXES)]
        entries += [
            Entry(f"{name}/{video}", f"{split}/{name}/{video}", number) for video in sorted(videos, key=natural)
        ]
    if not entries:
        raise BadInputError(f"{folder}/{split} holds no videos ({', '.join(VIDEO_SUFFIXES)}) in folders of classes.")
    return Listing(folder, labels, tuple(entries), f"{folder}/{split}")
