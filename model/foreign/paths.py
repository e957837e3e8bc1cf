"""Opening a regular file, and what helps where something else stands at its path."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from ...bundle.descriptors import opened_below
from ...errors import BadInputError, RefusedError, command
from .source import ByteSource

WEIGHTS = (".pth", ".pt", ".bin", ".safetensors", ".ckpt", ".tar")


@contextlib.contextmanager
def opened_file(path: str | os.PathLike[str]) -> Iterator[ByteSource]:
    """An open regular file; its last component may not be a link.

    Raises:
        BadInputError: it is missing, a folder, or may not be read.
        RefusedError: a link, pipe, socket or device.
    """
    given = Path(path)
    _refuse_what_is_no_file(given)
    with contextlib.ExitStack() as stack:
        try:
            descriptor = stack.enter_context(opened_below(given.parent, given.name))
        except OSError as error:
            raise BadInputError(
                f"{given} cannot be opened: {error.strerror or error}.", next=command("ls", "-l", given)
            ) from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _no_regular_file(given)
        yield ByteSource(descriptor, status.st_size)


def _refuse_what_is_no_file(given: Path) -> None:
    try:
        status = given.lstat()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        why = getattr(error, "strerror", None) or str(error)
        url = looks_like_url(given)
        raise BadInputError(
            f"There is no file at {given}." if isinstance(error, FileNotFoundError) else f"{given}: {why}.",
            cause="a URL: nothing is downloaded here" if url else "a wrong name, or a download that lies elsewhere",
            next="download the file, and give its path" if url else command("ls", "-l", given.parent),
        ) from error
    if stat.S_ISLNK(status.st_mode):
        raise _link(given)
    if stat.S_ISDIR(status.st_mode):
        raise _folder(given)
    if not stat.S_ISREG(status.st_mode):
        raise _no_regular_file(given)
    if not os.access(given, os.R_OK):
        raise BadInputError(
            f"{given} may not be read by this user.",
            cause="another user downloaded or unpacked it",
            next=command("chmod", "u+r", given),
        )


def looks_like_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path that is not there was meant as a URL; a `Path` keeps one of its slashes."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", os.fspath(path)) is not None


def _no_regular_file(given: Path) -> RefusedError:
    return RefusedError(
        f"{given} is not a regular file.",
        cause="a pipe, socket or device in its place",
        next="write what comes out of it to a file, and give that",
    )


def resolved_link(path: str | os.PathLike[str]) -> Path | None:
    """The file that a symbolic link leads to; None where the path is no link or leads nowhere."""
    given = Path(path)
    try:
        return given.resolve(strict=True) if given.is_symlink() else None
    except (OSError, RuntimeError):  # RuntimeError: links in a circle, before Python 3.13
        return None


def _link(given: Path) -> RefusedError:
    target = resolved_link(given)
    if target is None:
        return RefusedError(
            f"{given} is a symbolic link that leads nowhere.",
            cause="what it pointed to was removed: a cache that was cleaned, a drive that is not mounted",
            next="download the file again",
        )
    return RefusedError(
        f"{given} is a symbolic link; links are not followed.",
        cause="a download cache (Hugging Face's consists of links), or a link to another drive",
        next=importing(target),
    )


def _folder(given: Path) -> BadInputError:
    try:
        names = sorted(item.name for item in given.iterdir())
    except OSError:
        names = []
    if {"config.json", "model.safetensors"} <= set(names):
        return BadInputError(
            f"{given} is a folder.",
            cause="it looks like a checkpoint of logoformer, which needs no import",
            next=command("logoformer", "export", given),
        )
    if "manifest.json" in names:
        return BadInputError(
            f"{given} is a folder.",
            cause="it looks like a bundle of logoformer: a checkpoint that was exported already",
            next=command("logoformer", "inspect", given),
        )
    if "data.pkl" in names:
        return BadInputError(
            f"{given} is a folder with the content of a torch archive.",
            cause="a .pth file that was unpacked: it is one file, although it is a zip archive",
            next="give the .pth file itself",
        )
    weights = [name for name in names if name.endswith(WEIGHTS)]
    held = f"{len(weights)} files of weights" if len(weights) > 1 else "one file of weights"
    return BadInputError(
        f"{given} is a folder; one file of weights is expected.",
        cause=f"it holds {held}" if weights else "it holds no file of weights",
        next=importing(given / weights[0]) if weights else command("ls", "-l", given),
    )


def importing(path: str | os.PathLike[str], *options: object) -> str:
    """The command that imports a file; whoever knows where the result goes replaces it."""
    return command("logoformer", "import", path, *options, "-o", "checkpoint")
