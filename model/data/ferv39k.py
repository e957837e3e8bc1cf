"""Reads FERV39k as its authors deliver it, and as S2D redistributes its lists.

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
from pathlib import Path

from ...bundle.files import read_regular
from ...clips import DFEW_LABELS
from ...errors import BadInputError, UsageError, one_of
from .listing import Entry, Listing, safe_place

FRAMES = "2_ClipsforFaceCrop"
LISTS = "4_setups/All_scenes"
S2D_LISTS = "Annotation"
S2D_INDEX = "label_index.txt"
SPLITS = ("train", "test")
LABELS = DFEW_LABELS  # Happy Sad Neutral Angry Surprise Disgust Fear, as Former-DFER numbers them
SCENES = (
    "Action", "Argue", "Business", "Conflict", "Contest", "Crime", "Crisis", "DailyLife", "ElegantArt", "Experiment",
    "History", "Interview", "Liveshow", "Medicine", "OfficialEvent", "ScholarReport", "School", "Social", "Speech",
    "Talkshow", "Terror", "War",
)  # fmt: skip
_MAX_LIST_BYTES = 32 << 20


def ferv39k_listing(root: str | os.PathLike[str], split: str) -> Listing:
    """One split, from whichever of the two kinds of list is there.

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
    if (folder / own).exists():
        found.append((own, _own_entries(folder, own)))
    if (folder / other).exists():
        found.append((other, _s2d_entries(folder, other)))
    if not found:
        raise BadInputError(
            f"{folder} holds neither {own} nor {other}.",
            cause="the data set is not unpacked, or the folder above or below it was named",
            next=f"name the folder that holds {FRAMES}",
        )
    if len(found) == 2 and {(e.place, e.label) for e in found[0][1]} != {(e.place, e.label) for e in found[1][1]}:
        raise BadInputError(
            f"{own} and {other} disagree on clips or classes.", next=f"remove the one of {folder} that is not meant"
        )
    source, entries = found[0]
    return Listing(folder, LABELS, tuple(entries), f"{folder}/{source}")


def _own_entries(root: Path, path: str) -> list[Entry]:
    rows = []
    for number, line in _lines(root, path):
        words = line.split()
        if len(words) != 2:
            raise BadInputError(f"{root}/{path}, line {number}: {line!r:.100} is not 'Scene/Emotion/0063 Angry'.")
        rows.append((number, words[0], words[1]))
    return _entries(rows, f"{root}/{path}")


def _s2d_entries(root: Path, path: str) -> list[Entry]:
    names = _index(root)
    rows = []
    for number, line in _lines(root, path):
        words = [word.strip() for word in line.split(",")]
        if number == 1 and words[:2] == ["path", "id"]:
            continue
        if len(words) != 2 or words[1] not in names:
            raise BadInputError(
                f"{root}/{path}, line {number}: {line!r:.100} is not 'path,id' with an id of {S2D_INDEX}.",
                next=f"{S2D_INDEX} names {one_of(names)}",
            )
        rows.append((number, words[0], names[words[1]]))
    return _entries(rows, f"{root}/{path}")


def _index(root: Path) -> dict[str, str]:
    """Class name by number, from label_index.txt; either order of the two columns."""
    if not (root / S2D_INDEX).exists():
        raise BadInputError(
            f"{root} has lists with numbers but no {S2D_INDEX}: two numberings of FERV39k are in the wild.",
            next=f"add {S2D_INDEX}, one '0 Angry' a line",
        )
    names: dict[str, str] = {}
    for number, line in _lines(root, S2D_INDEX):
        words = re.split(r"[\s,:]+", line)
        digits = [word for word in words if word.isdigit()]
        rest = [word for word in words if word and not word.isdigit()]
        if len(digits) != 1 or len(rest) != 1 or digits[0] in names:
            raise BadInputError(f"{root}/{S2D_INDEX}, line {number}: {line!r:.100} is not '0 Angry'.")
        names[digits[0]] = rest[0]
    if sorted(name.lower() for name in names.values()) != sorted(LABELS):
        raise BadInputError(f"{root}/{S2D_INDEX} names {one_of(names.values())}, not the classes of FERV39k.")
    return names


def _entries(rows: list[tuple[int, str, str]], shown: str) -> list[Entry]:
    """Checked entries of (line, path, class name)."""
    known = {name: number for number, name in enumerate(LABELS)}
    entries: dict[str, Entry] = {}
    for number, path, name in rows:
        place = safe_place(path.removeprefix(FRAMES + "/"), f"{shown}, line {number}")
        if name.lower() not in known:
            raise BadInputError(
                f"{shown}, line {number}: unknown class {name!r:.50}.", next=f"classes: {one_of(LABELS)}"
            )
        parts = place.split("/")
        if len(parts) != 3 or parts[1].lower() != name.lower():
            raise BadInputError(
                f"{shown}, line {number}: the folder {place!r:.100} and the class {name!r:.50} do not fit each other.",
                cause="a list with another numbering than its index says, or of another data set",
            )
        if place in entries:
            raise BadInputError(f"{shown}, line {number}: clip {place} is listed twice.")
        entries[place] = Entry(place, f"{FRAMES}/{place}", known[name.lower()])
    if not entries:
        raise BadInputError(f"{shown} lists no clips.")
    return list(entries.values())


def _lines(root: Path, path: str) -> list[tuple[int, str]]:
    data = read_regular(root, path, _MAX_LIST_BYTES)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{root}/{path} is not a text file: {error}.") from error
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
