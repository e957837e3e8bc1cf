"""Data sets of videos in one folder a class: `ROOT/train/<class>/*.mp4`, and `test` alike."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ...bundle.files import natural_order
from ...clips import DFEW_LABELS
from ...errors import BadInputError, one_of
from ...media.reader import VIDEO_SUFFIXES
from .listing import SPLITS, Entry, Listing

# Folders that programs leave behind; none is a class. Nor is one whose name begins with a dot.
LITTER = ("__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information")
_SHOWN = 4


def folder_listing(root: str | os.PathLike[str], split: str) -> Listing:
    """Reads videos that lie in one folder a class.

    The classes are those of `train` and `test` together, in DFEW's order where they are DFEW's, else alphabetical.
    Hidden files and folders, and what programs leave behind (`LITTER`), are passed over.

    Raises:
        BadInputError: no videos; a class whose files are all of kinds that are not read, or two classes that differ in
            case only: the model would be another one than the folders say.
    """
    folder = Path(root)
    if not (folder / split).is_dir():
        raise BadInputError(f"{folder} holds no folder {split!r}.", next=f"put videos into {folder}/{split}/<class>/")
    names = {name for part in SPLITS for name in _classes(folder / part)}
    _check_names(folder, names)
    labels = DFEW_LABELS if names <= set(DFEW_LABELS) else tuple(sorted(names))
    entries = []
    for number, name in enumerate(labels):
        videos, others = _files(folder / split / name)
        if others and not videos:
            raise BadInputError(
                f"{folder / split / name} holds no video that is read ({', '.join(VIDEO_SUFFIXES)}), but "
                f"{len(others)} other entries such as {one_of(others[:_SHOWN])}.",
                cause="videos of another kind, or clips as folders of frames",
                next="convert them; list folders of frames in a train.txt: a line '<folder> <label>' for each",
            )
        entries += [Entry(f"{split}/{name}/{video}", f"{split}/{name}/{video}", number) for video in videos]
    if not entries:
        raise BadInputError(f"{folder}/{split} holds no videos ({', '.join(VIDEO_SUFFIXES)}) in folders of classes.")
    return Listing(folder, labels, tuple(entries), f"{folder}/{split}", by_place=True)


def unread_entries(root: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """What lies beside the videos and is not read: (folder, what in words)."""
    for split in SPLITS:
        place = Path(root) / split
        for name in _classes(place):
            _, others = _files(place / name)
            if others:
                yield os.fspath(place / name), f"{len(others)} entries, such as {one_of(others[:_SHOWN])}"
        loose = [name for name in _visible(place) if name.lower().endswith(VIDEO_SUFFIXES)]
        if loose:
            yield os.fspath(place), f"{len(loose)} videos in no class, such as {one_of(loose[:_SHOWN])}"


def _classes(place: Path) -> list[str]:
    return [name for name in _visible(place) if (place / name).is_dir()]


def _files(place: Path) -> tuple[list[str], list[str]]:
    """Names of the videos of a class, clip 9 before clip 10, and of all else that is seen."""
    names = sorted(_visible(place), key=natural_order)
    is_video = {name: name.lower().endswith(VIDEO_SUFFIXES) and not (place / name).is_dir() for name in names}
    return [name for name in names if is_video[name]], [name for name in names if not is_video[name]]


def _visible(place: Path) -> list[str]:
    if not place.is_dir():
        return []
    try:
        return [name for name in os.listdir(place) if not name.startswith(".") and name not in LITTER]  # noqa: PTH208
    except OSError as error:
        raise BadInputError(f"{place} cannot be listed: {error.strerror}.") from error


def _check_names(folder: Path, names: set[str]) -> None:
    lower: dict[str, str] = {}
    for name in sorted(names):
        other = lower.setdefault(name.lower(), name)
        if other != name:
            raise BadInputError(
                f"{folder} holds the classes {other!r} and {name!r}, which differ in case only.",
                cause="one expression, written in two ways in train and test",
                next="rename one of them",
            )
