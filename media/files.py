"""Opening of media files: any name that the file system allows, regular files only.

A decoder gets an open descriptor and never a name. FFmpeg would take a name such as `concat:a|b` for a protocol, and
OpenCV ends the process on one that is no UTF-8.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ..bundle.descriptors import opened_below
from ..errors import BadInputError, RefusedError, command

PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<MPD", b"[playlist]", b"<?xml")  # texts that name other files to be opened


def open_media(path: Path, *, follow_links: bool) -> int:
    """Open one file for reading.

    Args:
        path: its name, of any bytes.
        follow_links: whether the last part may be a link: yes where a person named it, no inside a data set.

    Returns:
        A descriptor, to be closed by the caller.

    Raises:
        BadInputError: missing, empty, may not be read, or a playlist, which names other files.
        RefusedError: a link, pipe, device or folder.
    """
    try:
        if follow_links:
            # O_NONBLOCK: opening a FIFO for reading would otherwise wait for a writer for ever.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        else:
            with opened_below(path.parent, path.name) as below:
                descriptor = os.dup(below)
    except (OSError, ValueError) as error:
        raise _not_opened(path, error) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise RefusedError(f"{path} is not a regular file.", cause="a link, pipe or folder in its place")
        head = os.pread(descriptor, 64, 0)
        if not head:
            raise BadInputError(
                f"{path} is empty.", cause="a recording or a copy that never began", next="copy or record it again"
            )
        if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(PLAYLISTS):
            raise BadInputError(
                f"{path} is a playlist: a text that names other files.", next="name the video that it points to"
            )
    except OSError as error:
        os.close(descriptor)
        raise _not_opened(path, error) from error
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def ascii_name(path: Path) -> Iterator[str]:
    """A name of ASCII letters for a file that OpenCV writes.

    It crashes on a name of other bytes that are no UTF-8.

    Args:
        path: its own name must be ASCII; that of its folder may be any.

    Raises:
        OSError: the folder is not there.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _not_opened(path: Path, error: OSError | ValueError) -> BadInputError | RefusedError:
    if not isinstance(error, OSError):
        return BadInputError(f"{path} cannot be opened: {error}.")
    if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO):
        return RefusedError(f"{path} is not a regular file.", cause="a link, pipe or folder in its place")
    if error.errno == errno.ENOENT:
        return BadInputError(f"{path} does not exist.")
    step = command("ls", "-l", path) if error.errno in (errno.EACCES, errno.EPERM) else ""
    return BadInputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.", next=step)
