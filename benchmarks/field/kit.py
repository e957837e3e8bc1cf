"""The file of a field kit: a zip of `kit.json`, sealed, and a JSON file for each result.

The same content gives the same bytes. A digest tells damage and a careless change from health; it is no proof of who
measured, which nothing in a file could be.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...bundle.files import parse_json, read_file, sha256, write_atomic
from ...bundle.kinds import HEAD_BYTES, file_kind
from ...bundle.sealed import seal, unseal
from ...engine.machine.environment import Gpu
from ...errors import RefusedError, command
from ..report import fields
from ..sensors.machine import Machine

FORMAT = "logoformer-field-kit"
SCHEMA_VERSION = 1
INDEX = "kit.json"
MAX_FILE_BYTES = 16 << 20
MAX_KIT_BYTES = 64 << 20
DONE, NOT_RUN, FAILED, TOO_LONG = "done", "not run", "failed", "took too long"
END_OF_ZIP, MAX_ZIP_END = b"PK\x05\x06", 22 + 0xFFFF  # its record, and the longest comment behind that
_MAKING = command("logoformer", "fieldtest", "BUNDLE", "-o", "kit.zip")
_DAY = (1980, 1, 1, 0, 0, 0)  # the zip's own times say nothing


@dataclass(frozen=True)
class KitStep:
    """What became of one step.

    Attributes:
        name: of the plan.
        command: with names in place of paths.
        needs_gpu: whether it can do nothing without one.
        limit_s: seconds that it might take.
        status: `DONE`; `NOT_RUN`, the machine lacks something; `FAILED`; `TOO_LONG`, it was ended.
        exit_code: None when it was ended.
        seconds: wall clock.
        peak_rss_mib: the most memory that its process held.
        why: what it said when it was not done.
        next: the command that it advised.
        result: the file with what it gave; empty when it was not done.
    """

    name: str
    command: str
    needs_gpu: bool
    limit_s: int
    status: str
    exit_code: int | None
    seconds: float
    peak_rss_mib: float
    why: str
    next: str
    result: str


@dataclass(frozen=True)
class KitFile:
    """A file of the kit."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class FieldKit:
    """Index of a kit.

    Attributes:
        created: day, UTC.
        logoformer: version.
        machine: that it ran on.
        gpu: None where there is none.
        power_mode: of a Jetson; empty elsewhere.
        backend, precision: that was wanted on the GPU.
        preset: of the bundle's model.
        graphs: SHA-256 by 'graph.precision'.
        steps: in order.
        files: results.
    """

    created: str
    logoformer: str
    machine: Machine
    gpu: Gpu | None
    power_mode: str
    backend: str
    precision: str
    preset: str
    graphs: Mapping[str, str]
    steps: tuple[KitStep, ...]
    files: tuple[KitFile, ...]


def kit_files(results: Mapping[str, bytes]) -> tuple[KitFile, ...]:
    """Index entries of files."""
    return tuple(KitFile(name, sha256(data), len(data)) for name, data in sorted(results.items()))


def write_kit(path: str | os.PathLike[str], kit: FieldKit, results: Mapping[str, bytes]) -> None:
    """Writes the zip, whole or not at all.

    Args:
        path: of the zip.
        kit: its index, whose `files` are those of `results`.
        results: by name.

    Raises:
        MachineError: it may not be written.
    """
    buffer = io.BytesIO()
    index = seal({"format": FORMAT, "schema_version": SCHEMA_VERSION, **asdict(kit)})
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {INDEX: index, **dict(sorted(results.items()))}.items():
            archive.writestr(zipfile.ZipInfo(name, _DAY), data, zipfile.ZIP_DEFLATED)
    write_atomic(path, buffer.getvalue())


def read_kit(path: str | os.PathLike[str]) -> tuple[FieldKit, dict[str, Any]]:
    """Reads a kit; sizes, hashes and the index's form are checked, nothing of what it says.

    Returns:
        The index, and the results by file name, parsed.

    Raises:
        BadInputError: there is no such file.
        RefusedError: no kit, a damaged one, one that was changed, or one of another version.
    """
    shown = os.fspath(path)
    if Path(path).is_dir():
        raise RefusedError(
            f"{shown} is a folder; a kit is one zip file.",
            cause="the folder that a field test works in until it is done, or a kit that was unpacked",
            next=command("logoformer", "fieldtest", "BUNDLE", "-o", shown.removesuffix(".part")),
        )
    held = _members(read_file(path, MAX_KIT_BYTES), shown)
    if INDEX not in held:
        raise RefusedError(
            f"{shown} is no field kit: a zip archive without {INDEX}.",
            cause="another archive, or a kit that was unpacked and packed again",
            next=_MAKING,
        )
    index = unseal(held.pop(INDEX), f"{shown}: {INDEX}", FORMAT, SCHEMA_VERSION)
    named = {name: value for name, value in index.items() if name not in ("format", "schema_version", "digest")}
    try:
        kit = fields.read(FieldKit, named)
    except (TypeError, ValueError) as error:
        raise RefusedError(f"{shown} lacks or garbles a field: {error}.", cause="a kit of another program") from error
    if {one.name for one in kit.files} != set(held) or len(kit.files) != len(held):
        raise RefusedError(f"{shown} holds other files than its index names.", cause="it was changed by hand")
    wrong = [one.name for one in kit.files if (len(held[one.name]), sha256(held[one.name])) != (one.size, one.sha256)]
    if wrong:
        raise RefusedError(f"{shown}: {', '.join(wrong)} is not what the index names.", cause="it was changed by hand")
    return kit, {name: parse_json(data, f"{shown}: {name}", max_bytes=MAX_FILE_BYTES) for name, data in held.items()}


def _members(data: bytes, shown: str) -> dict[str, bytes]:
    """Every file of a zip, none of them larger than it says or than a kit's may be."""
    zipped = data.startswith(b"PK\x03\x04")
    if not zipped:
        kind = file_kind(data[:HEAD_BYTES]) or "text, perhaps JSON"
        raise RefusedError(f"{shown} is no field kit: it is {kind}.", cause="another file was named", next=_MAKING)
    if END_OF_ZIP not in data[-MAX_ZIP_END:]:
        raise RefusedError(
            f"{shown} is cut off after {len(data)} bytes: the end of the zip is missing.",
            cause="a copy or download that broke off, or a full disk",
            next="copy it again from where it was made, and compare the sizes",
        )
    found: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for item in archive.infolist():
                size = sum(map(len, found.values())) + item.file_size
                if item.filename in found or item.file_size > MAX_FILE_BYTES or size > MAX_KIT_BYTES:
                    raise RefusedError(f"{shown}: {item.filename!r:.80} is there twice, or too large.")
                with archive.open(item) as file:
                    found[item.filename] = file.read(MAX_FILE_BYTES)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, OSError) as error:
        raise RefusedError(
            f"{shown} cannot be unpacked: {error}.",
            cause="a damaged copy",
            next="copy it again from where it was made, and compare the sizes",
        ) from error
    return found
