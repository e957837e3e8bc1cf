"""Recordings of an archive: video files and folders of frames."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
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


def list_archive(
    sources: Iterable[str | os.PathLike[str]], on_link: Callable[[Path], None] | None = None
) -> list[ArchiveItem]:
    """Every recording at or below the sources, once, in their order.

    A source that is named twice, on whatever way, is one. A linked file has a name of its own, and is a recording.

    Args:
        sources: files and folders.
        on_link: told each linked folder below them that was left out and leads to what is not looked at anyhow.

    Raises:
        BadInputError: nothing is at one of them.
    """
    found: dict[str, ArchiveItem] = {}
    links: dict[str, Path] = {}
    folders: set[str] = set()
    for source in map(Path, sources):
        folders.add(os.path.realpath(source))
        for path in find_recordings(source, lambda link: links.setdefault(_place(link), link)):
            shown = os.fspath(path.relative_to(source)) if path != source else source.absolute().name
            found.setdefault(os.path.realpath(path) if path.is_dir() else _place(path), ArchiveItem(path, shown))
    for link in links.values():
        if on_link is not None and not _is_reached(os.path.realpath(link), folders):
            on_link(link)
    return list(found.values())


def _place(path: Path) -> str:
    """Where a path lies, by its real folder; the last part may be a link."""
    return os.fspath(path.parent.resolve() / path.name)


def _is_reached(folder: str, sources: Iterable[str]) -> bool:
    """Whether a real folder is at or below one of the sources, and not hidden there."""
    ways = [Path(folder).relative_to(source).parts for source in sources if Path(folder).is_relative_to(source)]
    return any(not any(part.startswith(".") for part in way) for way in ways)


def find_recordings(source: Path, on_link: Callable[[Path], object] | None = None) -> Iterator[Path]:
    """Video files and folders of frames at or below a path, in natural order.

    Hidden ones are left out, and folders that are links: they may lead back, or out of the archive.

    Args:
        source: a file or a folder; may be a link itself.
        on_link: told each linked folder that is left out.

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
    links: list[Path] = []
    found = list(_below(source, links))
    if not found:
        raise BadInputError(
            f"{printable(source)} holds no video and no folder of frames.",
            cause="folders that are links are not followed"
            if links
            else f"files of other names than {one_of((*VIDEO_SUFFIXES, *IMAGE_SUFFIXES))}",
            next=f"name the linked folder itself: {printable(links[0])}" if links else command("ls", "-R", source),
        )
    if on_link is not None:
        for link in links:
            on_link(link)
    yield from found


def _below(folder: Path, links: list[Path]) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: natural_order(entry.name))
    except OSError as error:
        raise BadInputError(f"{printable(folder)} cannot be listed: {error.strerror}.") from error
    visible = [entry for entry in entries if not entry.name.startswith(".")]
    if any(entry.name.lower().endswith(IMAGE_SUFFIXES) and not entry.is_dir() for entry in visible):
        yield folder
    for entry in visible:
        if entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry.path), links)
        elif entry.is_dir():
            links.append(Path(entry.path))
        elif entry.name.lower().endswith(VIDEO_SUFFIXES):
            yield Path(entry.path)
