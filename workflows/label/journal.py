"""The journal beside the output: what an interrupted run had answered."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from ...bundle.files import writing
from ...errors import LogoformerError, MachineError, RefusedError, UsageError, printable
from .entries import check_entry, parse_line
from .output import require_same_head


class Journal:
    """Lines of recordings that were answered; one process writes it.

    A line counts for the file that it was made from, by size and time of change. The last line of a process that was
    killed may be half: it is cut off. A line that was garbled does not count; its recording is answered anew.

    Args:
        output: the file that is written at the end; the journal is hidden beside it.
        head: provenance of the answers.
        overwrite: drop a journal of another provenance instead of refusing it; of one of the same, drop what failed.
    """

    def __init__(self, output: Path, head: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self._path, self._head = output.with_name(f".{output.name}.journal"), dict(head)
        self._overwrite = overwrite
        self._empty = True  # but for its head
        self._entries: dict[str, dict[str, Any]] = {}
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Journal:
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.is_symlink() or (self._path.exists() and not self._path.is_file()):
                raise UsageError(
                    f"{printable(self._path)} is a link, or no file; it was left alone.",
                    cause="something of yours in the place of the journal",
                    next="name another place with -o",
                )
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            self._file = os.fdopen(os.open(self._path, flags, 0o666), "a+b")
        try:
            self._read(self._file)
        except LogoformerError:
            self._file.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            if self._empty:  # a head alone is of no use, and would refuse a call of another bundle
                with contextlib.suppress(OSError):
                    self._path.unlink()
            self._file.close()

    @property
    def answered(self) -> bool:
        """Whether it holds answers, and not errors alone."""
        return any("answers" in entry for entry in self._entries.values())

    def holds(self, path: Path, mark: list[int]) -> bool:
        """Whether the recording was answered as it is now."""
        entry = self._entries.get(os.fspath(path))
        return entry is not None and entry.get("mark") == mark

    def entry(self, path: Path) -> dict[str, Any]:
        """What was answered."""
        return self._entries[os.fspath(path)]

    def add(self, path: Path, mark: list[int], found: Mapping[str, Any]) -> None:
        """Keeps what was answered."""
        self._append(self.recall(path, mark, found))
        self._empty = False

    def recall(self, path: Path, mark: list[int], found: Mapping[str, Any]) -> dict[str, Any]:
        """Takes what the output holds already; it is not written down a second time."""
        own = {"recording": os.fspath(path), "mark": mark}
        entry = {**own, **found, **own}
        self._entries[os.fspath(path)] = entry
        return entry

    def remove(self) -> None:
        """Removes the file."""
        with writing(self._path):
            self._path.unlink()
        self._empty = False  # gone: what lies there from now on is another run's

    def _read(self, file: IO[bytes]) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise MachineError(
                f"Another run writes {printable(self._path)}.", next="wait for it, or name another file with -o"
            ) from error
        file.seek(0)
        whole, _, _ = file.read().rpartition(b"\n")
        lines = whole.split(b"\n") if whole else []
        head = json.loads(json.dumps(self._head))
        if lines and self._overwrite and self._parsed(lines[0]) != head:
            whole, lines = b"", []
        if lines:
            require_same_head(self._path, self._parsed(lines[0]), head)
        for line in lines[1:]:
            try:
                entry = check_entry(self._parsed(line), head["labels"])
            except ValueError:
                continue
            self._empty = False
            if not self._overwrite or "error" not in entry:
                self._entries[entry["recording"]] = entry
        with writing(self._path):
            file.truncate(len(whole) + 1 if whole else 0)
        if not lines:
            self._append(self._head)

    def _append(self, line: Mapping[str, Any]) -> None:
        if self._file is not None:
            with writing(self._path):
                self._file.write(json.dumps(line, allow_nan=False).encode("ascii") + b"\n")
                self._file.flush()

    def _parsed(self, line: bytes) -> Any:
        with contextlib.suppress(RefusedError):
            return parse_line(line, printable(self._path))
        return None
