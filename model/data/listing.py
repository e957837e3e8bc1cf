"""Entries of a data set's lists, and the clip source that reads their frames.

A reader of a data set turns its lists into a `Listing`; `ListedClips` makes a clip source of it. What is wrong with a
list is refused by the reader, loudly: a label that is off by one trains without complaint and scores nothing.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ...bundle.descriptors import opened_below
from ...bundle.files import read_regular, sha256
from ...clips import Clip, resize_image
from ...errors import BadInputError, LogoformerError, RefusedError, UsageError, one_of
from ...media.reader import VIDEO_SUFFIXES
from ...media.stills import MAX_IMAGE_BYTES, decode_still, still_names
from .clips import Box, ClipSource, ClipView, Indices, fingerprint
from .decoding import count_frames, read_frames

SPLITS = ("train", "test")
MAX_LIST_BYTES = 32 << 20
_END_BYTES = 1 << 16  # of a file at either end: training sets of videos are too large to be hashed whole
SHORT = ("former", "pad", "repeat", "drop")


@dataclass(frozen=True)
class Entry:
    """One clip of a list.

    Attributes:
        name: unique in its data set.
        place: folder of images, or a video file, below the root.
        label: index into the listing's labels.
        frames: how many the list promises; None where it says nothing.
    """

    name: str
    place: str
    label: int
    frames: int | None = None

    @property
    def is_video(self) -> bool:
        return self.place.lower().endswith(VIDEO_SUFFIXES)


@dataclass(frozen=True)
class Listing:
    """The clips of one split.

    Attributes:
        root: the data set's folder.
        labels: C class names.
        entries: the clips, in the list's order.
        source: the list's file, for messages.
        by_place: names are places of files, which change when the splits are parted anew, and may be those of other
            clips then; only the files tell.
    """

    root: Path
    labels: tuple[str, ...]
    entries: tuple[Entry, ...]
    source: str
    by_place: bool = False

    def fingerprint(self) -> str:
        """SHA-256 of the names and classes, in order."""
        return fingerprint((entry.name, entry.label) for entry in self.entries)


@dataclass(frozen=True)
class Reading:
    """Settings for reading clips.

    Attributes:
        size: S, the side that frames are resized to.
        short: what becomes of a clip with fewer frames than the model reads. 'former', as Former-DFER does: its first
            frames stand for the others; 'pad': its last frame repeats; 'repeat': it is played again; 'drop': it is left
            out, which is another test set than the published one.
        fewest: frames that the model reads; a clip below is short.
        max_damaged: frames that may be unreadable before the reading fails; the nearest readable one takes their place.
    """

    size: int
    short: str = "former"
    fewest: int = 16
    max_damaged: int = 0

    def __post_init__(self) -> None:
        if self.short not in SHORT:
            raise UsageError(f"Unknown policy {self.short!r} for short clips.", next=f"choose from {one_of(SHORT)}")
        if self.max_damaged < 0:
            raise UsageError(f"max_damaged counts frames; it cannot be {self.max_damaged}.")


class ListedClips:
    """A listing as a clip source, see `ClipSource`.

    Attributes:
        damaged: unreadable frames met so far, with the reason, by file.
        dropped: names of the clips that were left out because they are short.
        fingerprint: of the whole list, see `Listing.fingerprint`.

    Raises:
        BadInputError: with `short='drop'`, a clip's folder is missing.
    """

    def __init__(self, listing: Listing, reading: Reading) -> None:
        self.labels, self.size = listing.labels, reading.size
        self.root, self.reading = listing.root, reading
        self.fingerprint, self._by_place = listing.fingerprint(), listing.by_place
        self.damaged: dict[str, str] = {}
        self.dropped: tuple[str, ...] = ()
        self._entries = list(listing.entries)
        self._names: dict[str, str] = {}  # joined by '/', which no name holds: a sixth of the memory of a list
        self._lengths: dict[str, int] = {}
        if reading.short == "drop":
            short = {entry.name for entry in self._entries if self._length(entry) < reading.fewest}
            self._entries = [entry for entry in self._entries if entry.name not in short]
            self.dropped = tuple(sorted(short))

    def __len__(self) -> int:
        return len(self._entries)

    def label(self, index: int) -> int:
        return self._entries[index].label

    def clip_id(self, index: int) -> str:
        return self._entries[index].name

    def count(self, index: int) -> int:
        """Frames of a clip, as sampling counts them.

        Raises:
            BadInputError: its folder or file is missing or holds no images.
        """
        length = self._length(self._entries[index])
        return max(length, self.reading.fewest) if self.reading.short in ("pad", "repeat") else length

    def frames(self, index: int, indices: Sequence[int] | Indices, box: Box | None = None) -> Clip:
        """Reads the frames asked for, each once; with `box` that part of each.

        Returns:
            uint8 `[k, S, S, 3]`, RGB.

        Raises:
            BadInputError: more frames than `max_damaged` are missing or no images; the file is named.
            RefusedError: a link, a pipe or a huge file instead of a frame.
        """
        entry = self._entries[index]
        unique, back = np.unique(self._within(entry, indices), return_inverse=True)
        if entry.is_video:
            return read_frames(self.root, entry.place, unique, self.size, box)[back]
        pixels = np.empty((len(unique), self.size, self.size, 3), np.uint8)
        names, folder = self._frame_names(entry), os.fspath(self.root / entry.place)
        for place, number in enumerate(unique):
            image = self._image(folder, names, int(number))
            if box is not None:
                image = image.crop(box.pixels(image.width, image.height))
            pixels[place] = np.asarray(resize_image(image, self.size))
        return pixels[back]

    def files(self, index: int, indices: Sequence[int] | Indices) -> list[bytes]:
        """The encoded files of the frames asked for, each once; none for a video.

        Raises:
            BadInputError, RefusedError: as `frames`.
        """
        entry = self._entries[index]
        if entry.is_video:
            return []
        names, folder = self._frame_names(entry), os.fspath(self.root / entry.place)
        return [read_regular(folder, names[n], MAX_IMAGE_BYTES) for n in np.unique(self._within(entry, indices))]

    def content(self, index: int) -> str | None:
        """What tells the file of a clip from all others, whatever its name.

        Returns:
            SHA-256 of its size, its beginning and its end; None where the list's names tell, or it cannot be read.
        """
        if not self._by_place:
            return None
        with contextlib.suppress(OSError, RefusedError), opened_below(self.root, self._entries[index].place) as file:
            status = os.fstat(file)
            if stat.S_ISREG(status.st_mode):
                ends = os.pread(file, _END_BYTES, 0), os.pread(file, _END_BYTES, max(0, status.st_size - _END_BYTES))
                return sha256(b"%d\n%b%b" % (status.st_size, *ends))
        return None

    def _within(self, entry: Entry, indices: Sequence[int] | Indices) -> Indices:
        """Indices of frames that exist, by the policy for short clips."""
        length, wanted = self._length(entry), np.asarray(indices, np.int64)
        return wanted % length if self.reading.short == "repeat" else np.minimum(wanted, length - 1)

    def _image(self, folder: str, names: Sequence[str], number: int) -> Image.Image:
        """One picture at its full size, or the nearest one that can be read."""
        failure: LogoformerError | None = None
        for near in _nearest(number, len(names)):
            shown = f"{folder}/{names[near]}"
            try:
                if shown in self.damaged and self.reading.max_damaged:
                    continue
                return decode_still(read_regular(folder, names[near], MAX_IMAGE_BYTES), shown)
            except BadInputError as error:
                failure = failure or error
                self.damaged[shown] = error.what
                if not self.reading.max_damaged:
                    raise
                if len(self.damaged) > self.reading.max_damaged:
                    raise BadInputError(
                        f"{len(self.damaged)} frames cannot be read; {self.reading.max_damaged} are allowed. "
                        f"{error.what}",
                        cause="a truncated copy or download",
                        next="logoformer data-check lists every damaged frame",
                        log=list(self.damaged)[:10],
                    ) from error
        raise failure or BadInputError(f"{folder} holds no frame that can be read.")

    def _length(self, entry: Entry) -> int:
        if entry.place not in self._lengths:
            self._lengths[entry.place] = (
                count_frames(self.root, entry.place) if entry.is_video else len(self._frame_names(entry))
            )
        return self._lengths[entry.place]

    def _frame_names(self, entry: Entry) -> list[str]:
        if entry.place not in self._names:
            self._names[entry.place] = "/".join(still_names(self.root / entry.place))
        return self._names[entry.place].split("/")


class Relabelled(ClipView):
    """A source with a model's numbering of the same class names: names decide, never numbers."""

    def __init__(self, source: ClipSource, labels: tuple[str, ...]) -> None:
        super().__init__(source)
        self.labels = labels
        self._number = [labels.index(name) for name in source.labels]

    def label(self, index: int) -> int:
        return self._number[self.source.label(index)]


def numbered_as(source: ClipSource, labels: tuple[str, ...]) -> ClipSource:
    """The source with a model's numbering, where both have the same classes; else as it is."""
    same = set(source.labels) == set(labels) and tuple(source.labels) != tuple(labels)
    return Relabelled(source, tuple(labels)) if same else source


def read_lines(root: Path, path: str) -> list[tuple[str, str]]:
    """The lines of a list that are not empty, stripped, each behind where it is, for messages.

    Raises:
        BadInputError: missing, or no text.
        RefusedError: a link, or another kind of file.
    """
    data = read_regular(root, path, MAX_LIST_BYTES)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{root}/{path} is not a text file: {error}.") from error
    return [
        (f"{root}/{path}, line {number}", line.strip())
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    ]


def unique_entries(found: Iterable[tuple[str, Entry]], shown: str) -> tuple[Entry, ...]:
    """The clips of a list, in its order.

    Args:
        found: where it is listed, for messages, and the clip.
        shown: the list, for messages.

    Raises:
        BadInputError: a clip that is listed twice, or no clips.
    """
    entries: dict[str, Entry] = {}
    for where, entry in found:
        if entry.name in entries:
            raise BadInputError(f"{where}: clip {entry.name} is listed twice.")
        entries[entry.name] = entry
    if not entries:
        raise BadInputError(f"{shown} lists no clips.")
    return tuple(entries.values())


def safe_place(text: str, shown: str) -> str:
    """Checks that a path from a list lies below its root, and returns it.

    Raises:
        BadInputError: absolute, empty, or climbing out.
    """
    parts = text.replace("\\", "/").split("/")
    if not text or text.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\0" in text:
        raise BadInputError(
            f"{shown}: the path {text!r:.200} does not lie below the data set's folder.",
            cause="a list made on another machine, with absolute paths",
            next="make its paths relative to the folder that --data names",
        )
    return "/".join(parts)


def _nearest(number: int, count: int) -> Iterator[int]:
    """`number`, then the others from the nearest to the farthest, the earlier one first."""
    yield number
    for step in range(1, count):
        yield from (other for other in (number - step, number + step) if 0 <= other < count)
