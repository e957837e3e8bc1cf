"""A mark at the end of videos of this program, which tells them from other people's."""

from __future__ import annotations

import os
from pathlib import Path

MARK = b"made by logoformer"
# An empty box of ISO media, which every player skips.
MP4_END = (8 + len(MARK)).to_bytes(4, "big") + b"free" + MARK


def mark_video(path: str | os.PathLike[str]) -> None:
    """Appends the mark to a finished MP4."""
    with Path(path).open("ab") as stream:
        stream.write(MP4_END)


def has_mark(path: str | os.PathLike[str]) -> bool:
    """Whether the file ends with the mark."""
    try:
        with Path(path).open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - len(MP4_END)))
            return stream.read(len(MP4_END)) == MP4_END
    except OSError:
        return False
