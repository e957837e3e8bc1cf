"""A file's bytes by offset, from one open descriptor.

Read with `pread`, not mapped: a file that shrinks while it is mapped ends the process with a signal.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from typing import Any

_PIECE = 1 << 20


class DamagedError(ValueError):
    """What is wrong with a file's content, and why that may be.

    Args:
        what: follows "FILE cannot be read as ...: ".
        cause: the likely one.
    """

    def __init__(self, what: str, cause: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.cause = cause


@dataclass(frozen=True)
class ByteSource:
    """An open regular file.

    Attributes:
        descriptor: open for reading; not closed here.
        size: bytes, when it was opened.
    """

    descriptor: int
    size: int

    def read(self, start: int, count: int) -> bytes:
        """Exactly `count` bytes.

        Raises:
            DamagedError: the file has fewer.
        """
        if start < 0 or count < 0 or start + count > self.size:
            raise DamagedError("it refers to bytes behind its end", "a truncated copy")
        chunks = []
        while count:
            try:
                chunk = os.pread(self.descriptor, min(count, 1 << 26), start)
            except OSError as error:
                raise _failed(error) from error
            if not chunk:
                raise DamagedError("it became shorter while it was read", "another program writes it")
            chunks.append(chunk)
            start += len(chunk)
            count -= len(chunk)
        return b"".join(chunks)

    def crc32(self, start: int, count: int) -> int:
        """The CRC-32 of so many bytes, of which only a piece is in memory at a time.

        Raises:
            DamagedError: the file has fewer.
        """
        found = 0
        for at in range(start, start + count, _PIECE):
            found = zlib.crc32(self.read(at, min(_PIECE, start + count - at)), found)
        return found

    def read_into(self, start: int, target: memoryview[Any]) -> None:
        """Fill a writable buffer of bytes.

        Raises:
            DamagedError: the file has fewer.
        """
        if start < 0 or start + len(target) > self.size:
            raise DamagedError("it refers to bytes behind its end", "a truncated copy")
        done = 0
        while done < len(target):
            try:
                got = os.preadv(self.descriptor, [target[done : done + (1 << 26)]], start + done)
            except OSError as error:
                raise _failed(error) from error
            if not got:
                raise DamagedError("it became shorter while it was read", "another program writes it")
            done += got


def _failed(error: OSError) -> DamagedError:
    return DamagedError(f"the system cannot read it: {error.strerror}", "a disk or network drive that fails")
