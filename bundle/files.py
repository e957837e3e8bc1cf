"""Atomic writing, guarded reading, and JSON with limits.

Writing is atomic: a temporary file in the same folder, fsync, rename. Reading is suspicious: only regular files, no
symbolic link on the way, a size limit, and the bytes that were checked are the bytes that are used (no second open).
JSON is parsed with limits, because `json.loads` accepts NaN, duplicate keys, five-thousand-digit integers and nesting
deep enough to end the process.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import BadInputError, MachineError, RefusedError, command
from .descriptors import opened_below
from .kinds import HEAD_BYTES, file_kind

FORBIDDEN = (errno.EACCES, errno.EPERM)
MAX_JSON_BYTES = 4 << 20
MAX_JSON_DEPTH = 32
MAX_INT_CHARACTERS = 20  # of an int64 with its sign; longer ones are not even converted


def sha256(data: bytes | memoryview) -> str:
    """Hex SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


# ------------------------------------------------------------------------------------------------------------ reading
def read_regular(root: str | os.PathLike[str], name: str, max_bytes: int, *, private: bool = False) -> bytes:
    """Reads `root/name` without following any link below `root`.

    Args:
        root: an existing folder; itself may be reached through a link (the user named it).
        name: a relative POSIX path without `..`.
        max_bytes: more is refused before it is read.
        private: also refuse what somebody else owns or may write: for files whose word is taken.

    Returns:
        The whole file.

    Raises:
        RefusedError: it is a link, FIFO, device or folder, the name climbs out, the file is too large, or it is
            not private.
        BadInputError: it does not exist, or it may not be read.
    """
    shown = f"{os.fspath(root)}/{name}"
    try:
        with opened_below(root, name) as descriptor:
            if private:
                require_private(os.fstat(descriptor), shown)
            return _read_descriptor(descriptor, shown, max_bytes)
    except OSError as error:
        raise _reading_failed(error, shown) from error


def read_file(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Read one file that the user named; its last component may not be a link.

    Raises:
        RefusedError: not a regular file, or larger than `max_bytes`.
        BadInputError: it is missing or may not be read.
    """
    given = Path(path)
    return read_regular(given.parent, given.name, max_bytes)


def require_private(status: os.stat_result, shown: str) -> None:
    """Refuses what this user does not own, or what others may write.

    Raises:
        RefusedError: says who may write it, and how to end that.
    """
    if status.st_uid != os.geteuid():
        raise RefusedError(
            f"{shown} belongs to user {status.st_uid}, not to user {os.geteuid()} who runs this.",
            cause="a file that another user put there, or a program run once with sudo",
            next=f"look at it, then remove it: {command('rm', '-r', shown)}",
        )
    if status.st_mode & 0o022:
        raise RefusedError(
            f"{shown} may be written by other users (mode {stat.S_IMODE(status.st_mode):04o}).",
            cause="its permissions were changed, or it was copied without them",
            next=f"if only you wrote it: {command('chmod', 'go-w', shown)}",
        )


def _read_descriptor(descriptor: int, shown: str, max_bytes: int) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError(f"{shown} is not a regular file.", cause="a pipe, device, socket or folder in its place")
    if status.st_size > max_bytes:
        raise RefusedError(f"{shown} has {status.st_size} bytes; at most {max_bytes} are read.")
    chunks, done, most = [], 0, max_bytes + 1  # one more than allowed: a file that grows while it is read is noticed
    size = status.st_size
    # By offset: a descriptor that is kept open is read from its beginning again and again. At one go: chunks that are
    # joined are there twice for a moment, and an engine has a hundred megabytes.
    while done < most and (chunk := os.pread(descriptor, min(most, size + 1) - done, done)):
        chunks.append(chunk)
        done += len(chunk)
        size = max(size, done + (1 << 16))  # one that grows
    if done == most:
        raise RefusedError(f"{shown} grew past {max_bytes} bytes while it was read.")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _reading_failed(error: OSError, shown: str) -> Exception:
    if error.errno in (errno.ELOOP, errno.EMLINK):
        return RefusedError(f"{shown} is a symbolic link; links are not followed.")
    if error.errno == errno.ENOTDIR:
        return RefusedError(f"{shown}: a folder was expected on the way.", cause="a link or a file in its place")
    if error.errno == errno.ENOENT:
        return BadInputError(f"{shown} does not exist.")
    if error.errno == errno.ENXIO:
        return RefusedError(f"{shown} is not a regular file.", cause="a socket or device in its place")
    step = command("ls", "-l", shown) if error.errno in FORBIDDEN else ""
    return BadInputError(f"{shown} cannot be read: {error.strerror}.", next=step)


def natural_order(name: str) -> tuple[list[str | int], str]:
    """A sort key for file names that reads runs of digits as numbers.

    >>> sorted(["10.jpg", "9.jpg", "a2.png", "a1.png"], key=natural_order)
    ['9.jpg', '10.jpg', 'a1.png', 'a2.png']
    """
    # Split with a group alternates text, digits, text: equal places always hold equal types.
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def foreign_paths(folder: str | os.PathLike[str], made: re.Pattern[str]) -> Iterator[str]:
    """Paths below a folder that its writer does not make; a link is foreign whatever its name.

    Args:
        folder: that is to be replaced as a whole.
        made: matches every path, relative and with slashes, that the writer makes, folders included.
    """
    for place, folders, files in os.walk(folder):
        for name in sorted((*folders, *files)):
            path = Path(place, name)
            inside = path.relative_to(folder).as_posix()
            if path.is_symlink() or not made.fullmatch(inside):
                yield inside


# ------------------------------------------------------------------------------------------------------------ writing
@contextlib.contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `target`, renamed to it when the block ends well.

    For writers that want a path (a video writer, torch). On any error, `KeyboardInterrupt` included, the temporary
    file is removed and `target` is what it was.

    Raises:
        MachineError: the disk is full or the folder may not be written.
    """
    final = Path(target)
    with writing(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = final.parent / f".part-{os.urandom(8).hex()}{final.suffix}"
        # The kernel applies the umask here. Asking for it (os.umask) would set it for every thread of the process.
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    try:
        with writing(final):
            yield temporary
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(final)
            _sync_folder(final.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary folder beside `target` and renames it there when the block ends well.

    A folder cannot replace a full folder in one step: the old one is moved aside first, and a process killed in that
    moment leaves it there, under a hidden name, with nothing lost. On any other error, `KeyboardInterrupt` included,
    it is put back.

    Raises:
        MachineError: the disk is full or the folder may not be written; `target` is unchanged.
    """
    final = Path(target)
    with writing(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}-"))
    try:
        with writing(final):
            yield part
            part.chmod(0o755)
            if final.exists():
                aside = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}-old-"))
                try:
                    final.replace(aside / "was")
                    part.replace(final)
                finally:  # an interrupt may come before, between and after the two
                    _settle(part, final, aside)
            else:
                part.replace(final)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _settle(part: Path, final: Path, aside: Path) -> None:
    """Removes the old folder once the new one is in its place, or else puts the old one back.

    Raises:
        OSError: it cannot be put back; it lies in `aside`, with nothing lost.
    """
    if not part.exists():
        shutil.rmtree(aside, ignore_errors=True)
        return
    with contextlib.suppress(FileNotFoundError):  # it was not moved, or could not be, as a mount point
        (aside / "was").replace(final)
    aside.rmdir()


def write_atomic(target: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Writes bytes so that a reader sees the old file or the new one, never a part.

    Raises:
        MachineError: the disk is full or the folder may not be written; `target` is unchanged.
    """
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def require_space(
    target: str | os.PathLike[str], needed_bytes: int, what: str, advice: str = "name another place with -o"
) -> None:
    """Refuses before work is done for a disk that cannot hold its result.

    Args:
        target: where it will be written; it need not exist.
        needed_bytes: about its size.
        what: 'the bundle', 'the engines'.
        advice: what to do.

    Raises:
        MachineError: the disk has less left.
    """
    path = Path(target)
    existing = next((place for place in (path, *path.absolute().parents) if place.exists()), path)
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise MachineError(
            f"The disk of {path} has {free >> 20} MiB left; {what} may need {-(-needed_bytes >> 20)} MiB.",
            cause="the disk is full",
            next=f"free space, or {advice}",
        )


def require_place(folder: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Refuses before work is done for a folder in which no file can be made.

    Args:
        folder: it exists, or something else is in its place.
        target: what will be written, as the error names it.

    Raises:
        MachineError: it is no folder, or this user may not write there.
    """
    with writing(target):
        if not Path(folder).is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(folder, os.W_OK | os.X_OK):  # asked, not tried: what is refused leaves nothing behind
            number = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
            raise OSError(number, os.strerror(number))


@contextlib.contextmanager
def writing(target: str | os.PathLike[str]) -> Iterator[None]:
    """Turns an OSError of the block into `writing_failed`."""
    try:
        yield
    except OSError as error:
        raise writing_failed(error, target) from error


def writing_failed(error: OSError, target: str | os.PathLike[str]) -> MachineError:
    """Names what stopped a write."""
    causes = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the quota is used up",
        errno.EROFS: "it is read-only",
        errno.EEXIST: "a file or a link that leads nowhere is in the place of a folder",
        errno.ENOTDIR: "a file is in the place of a folder",
        errno.ENOENT: "its folder was taken away meanwhile",
    }
    step = "free space or name another place"
    if error.errno in FORBIDDEN:
        step = f"{command('ls', '-ld', Path(target).parent)} shows who may; change that or name another place"
    elif error.errno in (errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.ENOENT):
        step = "name another place"
    return MachineError(
        f"{os.fspath(target)} could not be written: {error.strerror or error}.",
        cause=causes.get(error.errno or 0, ""),
        next=f"{step}; nothing that stood there before was changed",
    )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --------------------------------------------------------------------------------------------------------------- JSON
def dump_json(value: object) -> bytes:
    """The one way this project writes JSON: sorted keys, two spaces, no NaN, a final newline."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")


def parse_json(data: bytes, shown: str, *, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Parses JSON that somebody else may have written.

    Raises:
        RefusedError: too large, too deep, not UTF-8, not JSON, a duplicate key, NaN or Infinity, or an integer
            that does not fit 64 bits.
    """

    def refuse(why: str) -> RefusedError:
        kind = file_kind(data[:HEAD_BYTES])
        cause = f"another file in its place: it is {kind}" if kind else "a damaged or hostile file"
        return RefusedError(f"{shown} is not JSON that can be trusted: {why}.", cause=cause)

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) != len(items):
            raise refuse("a key stands twice in one object")
        return result

    def integer(digits: str) -> int:
        if len(digits) > MAX_INT_CHARACTERS:
            raise refuse(f"an integer of {len(digits)} digits")
        value = int(digits)
        if not -(2**63) <= value < 2**63:
            raise refuse(f"the integer {digits} does not fit 64 bits")
        return value

    def real(digits: str) -> float:  # also called for NaN and Infinity
        value = float(digits)
        if not math.isfinite(value):
            raise refuse(f"the number {digits}")
        return value

    if len(data) > max_bytes:
        raise refuse(f"{len(data)} bytes, at most {max_bytes} are read")
    if _depth(data) > MAX_JSON_DEPTH:
        raise refuse(f"nested deeper than {MAX_JSON_DEPTH} levels")
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=pairs, parse_int=integer, parse_float=real, parse_constant=real)
    except UnicodeDecodeError as error:
        raise refuse("not UTF-8") from error
    except ValueError as error:
        raise refuse(str(error)) from error
    return value


def _depth(data: bytes) -> int:
    """The deepest nesting of brackets outside strings, found without recursion."""
    depth = deepest = 0
    in_string = False
    for found in re.finditer(rb'\\.|["\[\]{}]', data, re.DOTALL):  # an escaped byte, a quote, a bracket
        mark = found[0]
        if mark == b'"':
            in_string = not in_string
        elif not in_string and mark in (b"[", b"{"):
            depth += 1
            deepest = max(deepest, depth)
        elif not in_string and mark in (b"]", b"}"):
            depth -= 1
    return deepest
