"""Reader of FERV39k as its authors deliver it, and as S2D redistributes its lists.

    ROOT/2_ClipsforFaceCrop/<Scene>/<Emotion>/<0000>/*.jpg
    ROOT/4_setups/All_scenes/train_All.csv       no header: "Scene/Emotion/0063 Angry"
    ROOT/Annotation/train.csv                    S2D: "path,id" and
    ROOT/label_index.txt                         "0 Angry", ...: alphabetical, not the numbers of other projects

Two numberings of the classes are in the wild. Here the *names* decide: both lists give the same classes, in the order
of `LABELS`, and a checkpoint that was trained on the other numbering is scored by its names (`listing.numbered_as`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...clips import DFEW_LABELS
from ...errors import BadInputError, UsageError, one_of
from .listing import SPLITS, Entry, Listing, read_lines, safe_place, unique_entries

FRAMES = "2_ClipsforFaceCrop"
LISTS = "4_setups/All_scenes"
S2D_LISTS = "Annotation"
S2D_INDEX = "label_index.txt"
LABELS = DFEW_LABELS  # Happy Sad Neutral Angry Surprise Disgust Fear, as Former-DFER numbers them
SCENES = (
    "Action", "Argue", "Business", "Conflict", "Contest", "Crime", "Crisis", "DailyLife", "ElegantArt", "Experiment",
    "History", "Interview", "Liveshow", "Medicine", "OfficialEvent", "ScholarReport", "School", "Social", "Speech",
    "Talkshow", "Terror", "War",
)  # fmt: skip


def ferv39k_listing(root: str | os.PathLike[str], split: str) -> Listing:
    """Reads one split, from either kind of list.

    Args:
        root: the folder that holds `2_ClipsforFaceCrop`.
        split: 'train' or 'test'.

    Raises:
        UsageError: there is no such split.
        BadInputError: no list, both kinds and they disagree, or a damaged list.
    """
    if split not in SPLITS:
        raise UsageError(f"FERV39k has no split {split!r}.", next=f"choose from {one_of(SPLITS)}")
    folder = Path(root)
    own, other = f"{LISTS}/{split}_All.csv", f"{S2D_LISTS}/{split}.csv"
    found = []
    for path, rows in ((own, _own_rows), (other, _s2d_rows)):
        if (folder / path).exists():
            shown = f"{folder}/{path}"
            found.append(Listing(folder, LABELS, unique_entries(_checked(rows(folder, path)), shown), shown))
    if not found:
        raise BadInputError(
            f"{folder} holds neither {own} nor {other}.",
            cause="the data set is not unpacked, or the folder above or below it was named",
            next=f"name the folder that holds {FRAMES}",
        )
    if len(found) == 2 and set(found[0].entries) != set(found[1].entries):
        raise BadInputError(
            f"{own} and {other} disagree on clips or classes.", next=f"remove the one of {folder} that is not meant"
        )
    return found[0]


def _own_rows(root: Path, path: str) -> Iterator[tuple[str, str, str]]:
    """(where it is listed, folder, class name) of each line of the authors' list."""
    for where, line in read_lines(root, path):
        words = line.split()
        if len(words) != 2:
            raise BadInputError(f"{where}: {line!r:.100} is not 'Scene/Emotion/0063 Angry'.")
        yield where, words[0], words[1]


def _s2d_rows(root: Path, path: str) -> Iterator[tuple[str, str, str]]:
    """(where it is listed, folder, class name) of each line of S2D's list."""
    names = _index(root)
    for where, line in read_lines(root, path):
        words = [word.strip() for word in line.split(",")]
        if where.endswith(", line 1") and words[:2] == ["path", "id"]:
            continue
        if len(words) != 2 or words[1] not in names:
            raise BadInputError(
                f"{where}: {line!r:.100} is not 'path,id' with an id of {S2D_INDEX}.",
                next=f"{S2D_INDEX} names {one_of(names)}",
            )
        yield where, words[0], names[words[1]]


def _index(root: Path) -> dict[str, str]:
    """Class name by number, from label_index.txt; either order of the two columns."""
    if not (root / S2D_INDEX).exists():
        raise BadInputError(
            f"{root} has lists with numbers but no {S2D_INDEX}: two numberings of FERV39k are in the wild.",
            next=f"add {S2D_INDEX}, one '0 Angry' a line",
        )
    names: dict[str, str] = {}
    for where, line in read_lines(root, S2D_INDEX):
        words = re.split(r"[\s,:]+", line)
        digits = [word for word in words if word.isascii() and word.isdigit()]
        rest = [word for word in words if word and word not in digits]
        if len(digits) != 1 or len(rest) != 1 or digits[0] in names:
            raise BadInputError(f"{where}: {line!r:.100} is not '0 Angry'.")
        names[digits[0]] = rest[0]
    if sorted(name.lower() for name in names.values()) != sorted(LABELS):
        raise BadInputError(f"{root}/{S2D_INDEX} names {one_of(names.values())}, not the classes of FERV39k.")
    return names


def _checked(rows: Iterable[tuple[str, str, str]]) -> Iterator[tuple[str, Entry]]:
    """The entries of rows whose folder and class name fit each other."""
    known = {name: number for number, name in enumerate(LABELS)}
    for where, path, name in rows:
        place = safe_place(path.removeprefix(FRAMES + "/"), where)
        if name.lower() not in known:
            raise BadInputError(f"{where}: unknown class {name!r:.50}.", next=f"classes: {one_of(LABELS)}")
        parts = place.split("/")
        if len(parts) != 3 or parts[1].lower() != name.lower():
            raise BadInputError(
                f"{where}: the folder {place!r:.100} and the class {name!r:.50} do not fit each other.",
                cause="a list with another numbering than its index says, or of another data set",
            )
        yield where, Entry(place, f"{FRAMES}/{place}", known[name.lower()])
