"""Reads DFEW as its authors deliver it.

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
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..clips import DFEW_LABELS, Clip, Frame, resize
from ..errors import BadInputError, UsageError, one_of
from ..files import read_regular
from .data import Indices

FRAMES = "Clip/clip_224x224"
LISTS = "EmoLabel_DataSplit"
SPLITS = ("train", "test")
FOLDS = (1, 2, 3, 4, 5)
HEADER = ("video_name", "label")

_MAX_LIST_BYTES = 16 << 20
_MAX_IMAGE_BYTES = 16 << 20
_MAX_IMAGE_SIDE = 4096
_IMAGES = (".jpg", ".jpeg", ".png")


def clip_name(number: int) -> str:
    """Folder of a clip: five digits."""
    return f"{number:05d}"


def list_path(split: str, fold: int) -> str:
    """Where the list of one fold and split stands, relative to the root.

    Raises:
        UsageError: there is no such fold or split.
    """
    if split not in SPLITS or fold not in FOLDS:
        raise UsageError(
            f"DFEW has no split {split!r} of fold {fold}.",
            next=f"choose a split from {one_of(SPLITS)} and a fold from 1 to 5",
        )
    return f"{LISTS}/{split}(single-labeled)/set_{fold}.csv"


def parse_list(data: bytes, shown: str) -> list[tuple[str, int]]:
    """Parses one list.

    Args:
        data: the CSV file.
        shown: how to name it in a message.

    Returns:
        (folder of the clip, class 0..6) in the file's order.

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
    entries: dict[str, int] = {}
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != 2 or not re.fullmatch(r"[0-9]{1,9}", row[0]) or not re.fullmatch(r"[0-9]{1,2}", row[1]):
            raise BadInputError(f"{shown}, entry {number}: {','.join(row)!r} is not 'video_name,label' in digits.")
        name, label = clip_name(int(row[0])), int(row[1])
        if not 1 <= label <= len(DFEW_LABELS):
            raise BadInputError(
                f"{shown}, entry {number}: label {label}; DFEW's labels are 1 to {len(DFEW_LABELS)}.",
                cause="a list that counts from 0, as some projects redistribute it: every class would be shifted"
                if label == 0
                else "a list of another data set",
                next="use the lists of DFEW's own EmoLabel_DataSplit folder",
            )
        if name in entries:
            raise BadInputError(f"{shown}, entry {number}: clip {name} is listed twice.")
        entries[name] = label - 1
    if not entries:
        raise BadInputError(f"{shown} lists no clips.")
    return list(entries.items())


class DfewClips:
    """One split of one fold, as a clip source.

    Args:
        root: the folder that holds `Clip` and `EmoLabel_DataSplit`.
        split: 'train' or 'test'.
        fold: 1 to 5.
        size: S, the side that frames are resized to.

    Raises:
        UsageError: there is no such fold or split.
        BadInputError: the list is missing or damaged.
    """

    labels: tuple[str, ...] = DFEW_LABELS

    def __init__(self, root: str | os.PathLike[str], split: str, fold: int = 1, size: int = 64) -> None:
        self.root = Path(root)
        self.size = size
        path = list_path(split, fold)
        if not (self.root / LISTS).is_dir():
            raise BadInputError(
                f"{self.root} does not hold {LISTS}.",
                cause="the data set is not unpacked, or the folder above or below it was named",
                next="name the folder that holds 'Clip' and 'EmoLabel_DataSplit'",
            )
        self._entries = parse_list(read_regular(self.root, path, _MAX_LIST_BYTES), f"{self.root}/{path}")
        self._names: dict[int, list[str]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def label(self, index: int) -> int:
        """Class of a clip, an index into `labels`."""
        return self._entries[index][1]

    def clip_id(self, index: int) -> str:
        """Folder of a clip."""
        return self._entries[index][0]

    def count(self, index: int) -> int:
        """Frames of a clip.

        Raises:
            BadInputError: its folder is missing or holds no images.
        """
        return len(self._frame_names(index))

    def frames(self, index: int, indices: Sequence[int] | Indices) -> Clip:
        """Reads the frames asked for, each file once: uint8 `[k, S, S, 3]`, RGB.

        Raises:
            BadInputError: a frame is missing or is not an image; the file is named.
            RefusedError: a link, a pipe or a huge file stands in its place.
        """
        names = self._frame_names(index)
        folder = self.root / FRAMES / self.clip_id(index)
        wanted = np.asarray(indices, np.int64)
        unique, back = np.unique(wanted, return_inverse=True)
        pixels = np.empty((len(unique), self.size, self.size, 3), np.uint8)
        for place, number in enumerate(unique):
            name = names[number]
            image = decode_image(read_regular(folder, name, _MAX_IMAGE_BYTES), f"{folder}/{name}")
            pixels[place] = resize(image, self.size)
        return pixels[back]

    def _frame_names(self, index: int) -> list[str]:
        if index not in self._names:
            folder = self.root / FRAMES / self.clip_id(index)
            try:
                found = [path.name for path in folder.iterdir() if path.name.lower().endswith(_IMAGES)]
            except OSError as error:
                raise BadInputError(
                    f"{folder} cannot be read: {error.strerror}.",
                    cause="the frames are not unpacked, or the list belongs to another release",
                ) from error
            if not found:
                raise BadInputError(f"{folder} holds no frames ({', '.join(_IMAGES)}).")
            self._names[index] = sorted(found, key=_natural)
        return self._names[index]


def decode_image(data: bytes, shown: str) -> Frame:
    """Decodes one image.

    Pillow decodes here and in the torch-free runtime: two JPEG decoders may differ by a grey level.

    Args:
        data: the file.
        shown: how to name it in a message.

    Returns:
        uint8 `[H, W, 3]`, RGB.

    Raises:
        BadInputError: not an image, a damaged one, or one of absurd size.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if max(image.size) > _MAX_IMAGE_SIDE:
                raise BadInputError(f"{shown} has {image.size[0]} x {image.size[1]} pixels; that is no face crop.")
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInputError(
            f"{shown} is not an image that can be decoded: {error}.", cause="a truncated copy or download"
        ) from error


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts frame 9 before frame 10 where names are not padded."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(part), part) if part.isascii() and part.isdigit() else (1, 0, part) for part in parts]
