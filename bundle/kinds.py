"""What a file is by its first bytes, in words, where another kind was expected."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import RefusedError
from .descriptors import opened_below

HEAD_BYTES = 512
EMPTY = "empty"
# (place, bytes, what it is); the first that fits counts.
_KINDS = (
    (0, b"\x89PNG", "a picture (PNG)"),
    (0, b"\xff\xd8\xff", "a picture (JPEG)"),
    (0, b"GIF8", "a picture (GIF)"),
    (4, b"ftyp", "a video (MP4)"),
    (0, b"\x1aE\xdf\xa3", "a video (Matroska)"),
    (0, b"RIFF", "a picture, sound or video (RIFF)"),
    (0, b"PK\x03\x04", "a zip archive, as field kits and checkpoints of PyTorch are"),
    (0, b"PK", "a zip archive"),
    (0, b"\x1f\x8b", "compressed with gzip"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PAR1", "a table (Parquet)"),
    (0, b"\x93NUMPY", "an array of numpy"),
    (0, b"\x7fELF", "a program"),
    (0, b"ftrt", "a TensorRT engine"),
    (0, b"vtrt", "a TensorRT-RTX engine"),
    (0, b"version https://git-lfs", "a pointer of Git LFS; the content was not fetched"),
    (5, b"\0\0\0{", "weights (safetensors)"),
)


def file_kind(head: bytes) -> str:
    r"""What a file that begins so is; '' where it may be JSON.

    >>> file_kind(b"\x89PNG...")
    'a picture (PNG)'
    """
    for place, mark, what in _KINDS:
        if head[place : place + len(mark)] == mark:
            return what
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        return EMPTY
    if text[:1] == b"<":
        return "a web page or another XML document"
    if text[:1] in b'{["-0123456789' or text.startswith((b"true", b"false", b"null")):
        return ""
    return "text" if b"\0" not in head and all(byte >= 32 or byte in b"\t\r\n\x1b" for byte in head) else "no text"


def refuse_other_kinds(path: str | os.PathLike[str], what: str, next: str) -> None:
    """Refuses a file that is of another kind by its first bytes.

    What cannot be read is left to its reader.

    Args:
        path: of a file that the user named.
        what: it should be, such as 'report of logoformer bench'.
        next: the command that makes one.

    Raises:
        RefusedError: says what it is.
    """
    given = Path(path)
    try:
        with opened_below(given.parent, given.name) as descriptor:
            mode = os.fstat(descriptor).st_mode
            kind = file_kind(os.pread(descriptor, HEAD_BYTES, 0)) if stat.S_ISREG(mode) else ""
    except OSError:
        return
    if kind:
        cause = "a copy or download that never began" if kind == EMPTY else "another file was named"
        raise RefusedError(f"{given} is no {what}: it is {kind}.", cause=cause, next=next)
