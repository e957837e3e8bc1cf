"""Folders with a sealed index: the rules that the bundle and its engines share.

Files are named by their content and never change; the index carries a digest over itself and is replaced last. Nothing
that an index says is believed before its fields were checked, and no file is used before it is what the index names.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..errors import INSTALL_NEWER, BadInputError, MachineError, RefusedError, UsageError
from .files import dump_json, parse_json, read_regular, sha256, writing_failed

MAX_COUNT = (1 << 31) - 1
SWEEP_AFTER_S = 3600.0
_HEX = re.compile(r"[0-9a-f]{64}")
_HOSTILE = "a damaged or hostile folder"
_T = TypeVar("_T")


# -------------------------------------------------------------------------------------------------------------- index
def seal(index: Mapping[str, Any]) -> bytes:
    """Serialises an index with a digest over everything else in it."""
    body = {key: value for key, value in index.items() if key != "digest"}
    return dump_json({**body, "digest": sha256(dump_json(body))})


def unseal(data: bytes, shown: str, format_name: str, version: int) -> dict[str, Any]:
    """Reads an index and proves that no bit of it changed.

    Args:
        data: the file's bytes.
        shown: how to name it.
        format_name: the value of `format` expected.
        version: the newest `schema_version` understood.

    Raises:
        RefusedError: not JSON, another format, a newer schema, or a digest that does not fit.
    """
    index = parse_json(data, shown)
    if not isinstance(index, dict) or index.get("format") != format_name:
        raise RefusedError(f"{shown} is not a {format_name} index.", cause="a file of another program")
    found = index.get("schema_version")
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise RefusedError(f"{shown} has no usable schema_version.", cause="a damaged file")
    if found > version:
        raise RefusedError(
            f"{shown} has schema version {found}; this program reads up to {version}.",
            cause="it was written by a newer logoformer",
            next=INSTALL_NEWER,
        )
    if seal(index) != data:  # also catches a flip in the white space
        raise RefusedError(f"{shown} does not match its own digest.", cause="a damaged copy, or a change by hand")
    return index


@contextlib.contextmanager
def reading_fields(shown: str) -> Iterator[None]:
    """Turn what the block raises for a missing or strange field into a refusal.

    Raises:
        RefusedError: instead of the block's KeyError, TypeError, ValueError, ..., or UsageError.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, UsageError) as error:
        raise RefusedError(
            f"{shown} lacks or garbles a field: {error!r}.", cause="an index that this program did not write"
        ) from error


# ------------------------------------------------------------------------------------------------------------- fields
def typed(value: Any, kind: type[_T]) -> _T:
    """The value, if it is of that type; True is no integer.

    Raises:
        TypeError: it is of another.
    """
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{value!r:.80} is not of type {kind.__name__}")
    return value


def count(value: Any) -> int:
    """An integer of 1 ... 2^31 - 1.

    Raises:
        TypeError: no integer.
        ValueError: out of range.
    """
    number = typed(value, int)
    if not 1 <= number <= MAX_COUNT:
        raise ValueError(f"{number} is out of range")
    return number


def hex256(value: Any) -> str:
    """256 bits as 64 hex digits: a SHA-256, or an Ed25519 key.

    Raises:
        TypeError: no string.
        ValueError: other characters, or another number of them.
    """
    text = typed(value, str)
    if not _HEX.fullmatch(text):
        raise ValueError(f"{text!r:.80} is not 64 hex digits")
    return text


def stored(entry: Mapping[str, Any], allowed: re.Pattern[str]) -> tuple[str, str, int]:
    """(path below the folder, SHA-256, bytes) of an entry `{file, sha256, size}`.

    Raises:
        ValueError: a path other than `allowed`, no digest, or no size.
        KeyError, TypeError: a field is missing or of another type.
    """
    file = typed(entry["file"], str)
    if not allowed.fullmatch(file):
        raise ValueError(f"the path {file!r:.200} is not one of this folder")
    return file, hex256(entry["sha256"]), count(entry["size"])


# -------------------------------------------------------------------------------------------------------------- files
def content_name(folder: str, stem: str, data: bytes, suffix: str) -> str:
    """`folder/stem.<hash8>suffix`, or `folder/<hash8>suffix` without a stem."""
    return f"{folder}/{stem + '.' if stem else ''}{sha256(data)[:8]}{suffix}"


def read_stored(root: str | os.PathLike[str], file: str, digest: str, size: int, limit: int) -> bytes:
    """Reads a file that an index names. Use these bytes; do not open the file again.

    Args:
        root: the folder of the index.
        file: path below it.
        digest: SHA-256 expected.
        size: bytes expected.
        limit: bytes read at most, whatever the index says.

    Raises:
        RefusedError: missing, a link, of another size, or of another hash.
    """
    shown = f"{os.fspath(root)}/{file}"
    try:
        data = read_regular(root, file, min(size, limit))
    except BadInputError as error:
        raise RefusedError(
            f"{shown} is named by the index but cannot be read: {error.what}",
            cause="an unfinished copy, or a deleted file",
        ) from error
    if len(data) != size or sha256(data) != digest:
        raise RefusedError(
            f"{shown} is not the file that the index names: {len(data)} bytes of {size}, SHA-256 differs.",
            cause="a damaged copy, or an exchanged file",
        )
    return data


@contextlib.contextmanager
def only_writer(folder: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Keep other writers of the folder out for the block.

    Readers need no lock: they always see a whole index.

    Args:
        folder: that will be written.
        wait_s: how long to wait for another writer.

    Raises:
        MachineError: another process is writing, or the folder may not be written.
        RefusedError: the lock is something other than a file.
    """
    lock = folder / ".lock"
    # Neither does a link lead elsewhere, nor a FIFO make this wait for a reader.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(lock, flags, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise RefusedError(f"{lock} is a symbolic link; links are not followed.", cause=_HOSTILE) from error
        raise writing_failed(error, folder) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise RefusedError(f"{lock} is not a regular file.", cause=_HOSTILE)
        _lock(descriptor, folder, time.monotonic() + wait_s)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path, give_up: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() >= give_up:
                raise MachineError(
                    f"{folder} is being written by another process.", next="wait for it, then run this again"
                ) from error
        except OSError as error:
            raise writing_failed(error, folder) from error
        time.sleep(0.02)


def sweep(
    root: Path, leftovers: Iterable[Path], ours: re.Pattern[str], named: set[str], named_before: set[str]
) -> None:
    """Remove files that no index has named for an hour.

    A reader of the last index may still want its files.

    Args:
        root: the folder of the index, which has been replaced: what cannot be removed is no failure.
        leftovers: files below it.
        ours: names that this program gives; other files are left alone.
        named: paths below the folder that the index names; a `.sig` belongs to the file that it signs.
        named_before: those that the index before it named; their hour begins now, not when they were written.
    """
    now = time.time()
    for item in leftovers:
        name = item.relative_to(root).as_posix().removesuffix(".sig")
        with contextlib.suppress(OSError):
            if name in named or not ours.fullmatch(item.name) or item.parent.is_symlink():
                continue
            if name in named_before:
                os.utime(item, follow_symlinks=False)
            elif now - item.lstat().st_mtime > SWEEP_AFTER_S:
                item.unlink()
