"""Opening of files below a folder without following links, and folders that keep files open."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ..errors import RefusedError


class HeldFolder(os.PathLike[str]):
    """A folder some of whose files are kept open, to be read also after they were replaced.

    The files are closed with the object. `read_regular` and `read_stored` take one wherever they take a folder.

    Attributes:
        absolute: the path to open; a change of the working directory does not matter to it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._shown, self.absolute = os.fspath(path), Path.cwd() / path
        self._descriptors: dict[str, int] = {}
        weakref.finalize(self, _close, self._descriptors)

    def __fspath__(self) -> str:
        """The path as it was given; messages show it."""
        return self._shown

    def __repr__(self) -> str:
        return f"HeldFolder({self._shown!r}: {len(self._descriptors)} files)"

    def hold(self, name: str) -> None:
        """Keeps a file open; one that cannot be opened is left to the reader, who says why.

        Raises:
            RefusedError: the name leaves the folder.
        """
        if name in self._descriptors:
            return
        with contextlib.suppress(OSError), opened_below(self, name) as descriptor:
            self._descriptors[name] = os.dup(descriptor)

    def held(self, name: str) -> int | None:
        """The descriptor of a file that is kept open, else None."""
        return self._descriptors.get(name)


def _close(descriptors: dict[str, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)


@contextlib.contextmanager
def opened_below(root: str | os.PathLike[str], name: str) -> Iterator[int]:
    """A descriptor of `root/name` for reading; no link below `root` is followed.

    Args:
        root: an existing folder; itself may be reached through a link (the user named it).
        name: a relative POSIX path without `..`.

    Raises:
        RefusedError: the name climbs out of the folder.
        OSError: as `os.open`; ELOOP for a link.
    """
    if isinstance(root, HeldFolder) and (kept := root.held(name)) is not None:
        yield kept
        return
    parts = PurePosixPath(name).parts
    if (
        not parts
        or name.startswith("/")
        or any(part in ("..", ".", "") for part in name.split("/"))
        or "\0" in f"{os.fspath(root)}{name}"
    ):
        raise RefusedError(f"The path {name!r} leaves its folder.", cause="a damaged or hostile index")
    opened: list[int] = []
    try:
        at = root.absolute if isinstance(root, HeldFolder) else root
        opened.append(os.open(at, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        for part in parts[:-1]:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            opened.append(os.open(part, flags, dir_fd=opened[-1]))
        # O_NONBLOCK: opening a FIFO for reading would otherwise wait for a writer for ever.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        opened.append(os.open(parts[-1], flags, dir_fd=opened[-1]))
        yield opened[-1]
    finally:
        for descriptor in opened:
            os.close(descriptor)
