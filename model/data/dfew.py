"""Reader of DFEW as its authors deliver it.

    ROOT/Clip/clip_224x224/00001/*.jpg                       all frames of a clip
    ROOT/EmoLabel_DataSplit/train(single-labeled)/set_1.csv  video_name,label      five folds
    ROOT/EmoLabel_DataSplit/test(single-labeled)/set_1.csv

Labels count from 1 (happy) to 7 (fear). The folder's name is no promise: the images of some releases have 256 x 256
pixels, so sizes are read from the files. Nothing here is trusted: names are digits, links are not followed.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ...bundle.files import read_regular
from ...clips import DFEW_LABELS
from ...errors import BadInputError, UsageError, one_of
from .listing import MAX_LIST_BYTES, SPLITS, Entry, Listing, unique_entries

FRAMES = "Clip/clip_224x224"
LISTS = "EmoLabel_DataSplit"
FOLDS = (1, 2, 3, 4, 5)
HEADER = ("video_name", "label")


def clip_name(number: int) -> str:
    """Folder of a clip: five digits."""
    return f"{number:05d}"


def list_path(split: str, fold: int) -> str:
    """Path of the list of one fold and split, relative to the root.

    Raises:
        UsageError: there is no such fold or split.
    """
    if split not in SPLITS or fold not in FOLDS:
        raise UsageError(
            f"DFEW has no split {split!r} of fold {fold}.",
            next=f"choose a split from {one_of(SPLITS)} and a fold from 1 to 5",
        )
    return f"{LISTS}/{split}(single-labeled)/set_{fold}.csv"


def parse_list(data: bytes, shown: str) -> tuple[Entry, ...]:
    """Parses one list.

    Returns:
        The clips in the file's order, with classes 0..6.

    Raises:
        BadInputError: no header, a line of another form, a name that is not a number, a label outside 1..7, or a clip
            that is listed twice.
    """
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"{shown} is not a CSV file: {error}.") from error
    rows = [[cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)]
    if not rows or tuple(rows[0]) != HEADER:
        raise BadInputError(
            f"{shown} does not begin with the line {','.join(HEADER)!r}.", cause="a list of another data set or release"
        )

    def entries() -> Iterator[tuple[str, Entry]]:
        for number, row in enumerate(rows[1:], start=2):
            where = f"{shown}, entry {number}"
            if len(row) != 2 or not re.fullmatch(r"[0-9]{1,9}", row[0]) or not re.fullmatch(r"[0-9]{1,2}", row[1]):
                raise BadInputError(f"{where}: {','.join(row)!r} is not 'video_name,label' in digits.")
            name, label = clip_name(int(row[0])), int(row[1])
            if not 1 <= label <= len(DFEW_LABELS):
                raise BadInputError(
                    f"{where}: label {label}; DFEW's labels are 1 to {len(DFEW_LABELS)}.",
                    cause="a list that counts from 0, as some projects redistribute it: every class would be shifted"
                    if label == 0
                    else "a list of another data set",
                    next="use the lists of DFEW's own EmoLabel_DataSplit folder",
                )
            yield where, Entry(name, f"{FRAMES}/{name}", label - 1)

    return unique_entries(entries(), shown)


def dfew_listing(root: str | os.PathLike[str], split: str, fold: int = 1) -> Listing:
    """Reads one split of one fold.

    Args:
        root: the folder that holds `Clip` and `EmoLabel_DataSplit`.
        split: 'train' or 'test'.
        fold: 1 to 5.

    Raises:
        UsageError: there is no such fold or split.
        BadInputError: the list is missing or damaged.
    """
    folder, path = Path(root), list_path(split, fold)
    if not (folder / LISTS).is_dir():
        raise BadInputError(
            f"{folder} does not hold {LISTS}.",
            cause="the data set is not unpacked, or the folder above or below it was named",
            next="name the folder that holds 'Clip' and 'EmoLabel_DataSplit'",
        )
    shown = f"{folder}/{path}"
    entries = parse_list(read_regular(folder, path, MAX_LIST_BYTES), shown)
    return Listing(folder, DFEW_LABELS, entries, shown)
