"""Recordings of an archive: video files and folders of frames."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...bundle.files import natural_order
from ...errors import BadInputError, command, one_of, printable
from ...media.reader import VIDEO_SUFFIXES
from ...media.stills import IMAGE_SUFFIXES


@dataclass(frozen=True)
class ArchiveItem:
    """A recording of an archive.

    Attributes:
        path: the source as it was given, and the way from there.
        shown: the way from the source alone, or the source's own name: the same wherever the archive lies.
    """

    path: Path
    shown: str

    def mark(self) -> list[int]:
        """Files, bytes and newest change: tells a recording from a later one of the same name.

        Empty where it went away.
        """
        try:
            files = [self.path] if not self.path.is_dir() else [one for one in self.path.iterdir() if one.is_file()]
            stats = [file.stat() for file in files]
        except OSError:
            return []
        return [len(files), sum(one.st_size for one in stats), max((one.st_mtime_ns for one in stats), default=0)]


def list_archive(sources: Iterable[str | os.PathLike[str]]) -> list[ArchiveItem]:
    """Every recording at or below the sources, once, in their order.

    Raises:
        BadInputError: nothing is at one of them.
    """
    found: dict[Path, ArchiveItem] = {}
    for source in map(Path, sources):
        for path in find_recordings(source):
            shown = os.fspath(path.relative_to(source)) if path != source else source.absolute().name
            found.setdefault(path, ArchiveItem(path, shown))
    return list(found.values())


def find_recordings(source: Path) -> Iterator[Path]:
    """Video files and folders of frames at or below a path, in natural order.

    Hidden ones are left out.

    Raises:
        BadInputError: nothing is there.
    """
    if not source.is_dir():
        if not source.exists():
            if re.match(r"[A-Za-z][\w+.-]*:/", os.fspath(source)):  # a Path has one slash of two
                raise BadInputError(
                    "An archive is files and folders; a stream by its URL is none.",
                    cause="a camera or a stream in the place of recordings",
                    next=command("logoformer", "watch", "BUNDLE", "URL"),
                )
            raise BadInputError(f"{printable(source)} does not exist.", next=command("ls", source.parent))
        yield source
        return
    found = list(_below(source))
    if not found:
        raise BadInputError(
            f"{printable(source)} holds no video and no folder of frames.",
            cause=f"files of other names than {one_of((*VIDEO_SUFFIXES, *IMAGE_SUFFIXES))}",
            next=command("ls", "-R", source),
        )
    yield from found


def _below(folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: natural_order(entry.name))
    except OSError as error:
        raise BadInputError(f"{printable(folder)} cannot be listed: {error.strerror}.") from error
    visible = [entry for entry in entries if not entry.name.startswith(".")]
    if any(entry.name.lower().endswith(IMAGE_SUFFIXES) and not entry.is_dir() for entry in visible):
        yield folder
    for entry in visible:
        if entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry.path))
        elif entry.name.lower().endswith(VIDEO_SUFFIXES):
            yield Path(entry.path)
