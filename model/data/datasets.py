"""Recognition of the data set in a folder, and its readers."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import BadInputError, UsageError, one_of
from . import dfew, ferv39k
from .clip_lists import MAFW_LISTS, folder_listing, list_listing, mafw_listing
from .clips import ClipSource, check_source
from .listing import ListedClips, Listing, Reading, numbered_as

LAYOUTS = ("dfew", "ferv39k", "mafw", "lists", "folders")
FOLDED = ("dfew", "mafw")  # five folds; the others have one split


def find_layout(root: str | os.PathLike[str]) -> str:
    """One of `LAYOUTS`, by what the folder holds.

    Raises:
        BadInputError: none of them, or no folder.
    """
    folder = Path(root)
    signs = {
        "dfew": folder / dfew.LISTS,
        "ferv39k": folder / ferv39k.FRAMES,
        "mafw": folder / MAFW_LISTS,
    }
    for layout, sign in signs.items():
        if sign.is_dir():
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
            path.name for path in folder.glob(pattern) if "set_" not in path.name or f"set_{fold}_" in path.name
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
    if layout == "lists":
        five = any(any(Path(root).glob(f"*set_{fold}_test.txt")) for fold in range(2, 6))
        return (1, 2, 3, 4, 5) if five else (1,)
    return (1, 2, 3, 4, 5) if layout in FOLDED else (1,)


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
