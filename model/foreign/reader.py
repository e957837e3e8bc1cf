"""Opening a checkpoint of another program: values, names, and tensors on demand.

Three formats: torch's zip archive, torch's format before 1.6 (pickles followed by storages), safetensors. Nothing of
the file is run. Only the bytes of tensors that are asked for are read; an optimizer's never are.
"""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import BadInputError, MachineError
from . import pickles
from .archive import read_directory
from .headers import read_header
from .inert import StoredBytes, StoredTensor, walk
from .legacy import read_legacy
from .machine import PickleError
from .names import refuse_code, worth_telling
from .paths import opened_file
from .pickles import Unpickled, unpickle
from .sniff import looks_like_safetensors, refuse_other_formats, refuse_other_zips
from .source import ByteSource, DamagedError
from .tensors import bytes_each, bytes_of, rebuild, storage_of

if TYPE_CHECKING:
    import torch

MAX_LEVELS = 200
_ROOT = re.compile(rb"([^/]+/)data\.pkl", re.DOTALL)


@dataclass(frozen=True)
class ForeignFile:
    """An open checkpoint of another program.

    Attributes:
        path: as it was given.
        size: bytes.
        format: 'torch', 'torch before 1.6' or 'safetensors'.
        content: what was saved: plain values, `Inert` and `StoredTensor`.
        names: classes and functions that it mentions, beyond those of every checkpoint; none was imported.
        metadata: texts beside the tensors of a safetensors file.
    """

    path: str
    size: int
    format: str
    content: Any
    names: tuple[str, ...]
    source: ByteSource = field(repr=False)
    places: Mapping[str, tuple[int, int, int | None]] = field(repr=False)  # key: (start, bytes, CRC-32 if known)
    metadata: Mapping[str, str] = field(default_factory=dict)
    _checked: set[str] = field(default_factory=set, init=False, repr=False)  # storages whose checksum was compared

    def read(self, tensor: StoredTensor) -> torch.Tensor:
        """A tensor's values, in memory of their own.

        Raises:
            BadInputError: the file is damaged there.
        """
        try:
            return self._read(tensor)
        except DamagedError as error:
            raise damaged(self.path, error) from error

    def _read(self, tensor: StoredTensor) -> torch.Tensor:
        import torch

        if tensor.storage is None or not tensor.readable:
            raise DamagedError(f"a tensor that is {tensor.shown} cannot be read")
        each = bytes_each(tensor.dtype)
        last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride, strict=True))
        span = last + 1 if tensor.count else 0  # values between the first and the last
        try:
            values = torch.empty(span, dtype=getattr(torch, tensor.dtype))
        except RuntimeError as error:  # torch's way to say that there is no memory
            raise MachineError(
                f"There is no memory for a tensor of {span * each} bytes of {self.path}.", next="end other programs"
            ) from error
        start, length, crc32 = self.places[tensor.storage.key]
        if span:
            view = memoryview(values.view(torch.uint8).numpy().data)
            self.source.read_into(start + tensor.offset * each, view)
            if crc32 is not None and tensor.storage.key not in self._checked:
                # Tensors may share a storage, and each cover a part of it: the checksum is of the whole.
                whole = zlib.crc32(view) if len(view) == length else self.source.crc32(start, length)
                if whole != crc32:
                    raise DamagedError(
                        f"the checksum of the tensor data {tensor.storage.key!r} does not fit",
                        "a damaged copy",
                    )
                self._checked.add(tensor.storage.key)
        return values.as_strided(tensor.shape, tensor.stride).contiguous()


@contextlib.contextmanager
def open_foreign(path: str | os.PathLike[str]) -> Iterator[ForeignFile]:
    """Opens a checkpoint of another program; tensors can be read until the block ends.

    Raises:
        BadInputError: missing, damaged, or a file of another kind.
        RefusedError: no regular file, a TorchScript archive, or a pickle that was made to run code.
    """
    with opened_file(path) as source:
        yield _open(os.fspath(path), source)


def _open(shown: str, source: ByteSource) -> ForeignFile:
    head = source.read(0, min(source.size, 1024))
    refuse_other_formats(shown, head, source.size)
    try:
        if looks_like_safetensors(head):
            content, metadata, places = read_header(source, shown)
            return ForeignFile(shown, source.size, "safetensors", content, (), source, places, metadata)
        return _open_archive(shown, source) if head.startswith(b"PK") else _open_legacy(shown, source)
    except DamagedError as error:
        raise damaged(shown, error) from error
    except PickleError as error:
        raise damaged(shown, DamagedError(f"its pickle is damaged: {error}", "a damaged or hostile file")) from error


def damaged(shown: str, error: DamagedError) -> BadInputError:
    """The error for a file whose content contradicts itself."""
    return BadInputError(f"{shown} cannot be read as a checkpoint: {error.what}.", cause=error.cause)


# ---------------------------------------------------------------------------------------------------------- zip archive
def _open_archive(shown: str, source: ByteSource) -> ForeignFile:
    entries = read_directory(source, lambda names: _root(shown, names))
    root = _root(shown, entries)
    order = entries.get(root + b"byteorder")
    if order is not None and source.read(order.start, min(order.size, 16)) != b"little":
        raise DamagedError("its numbers are not little-endian", "it was saved on another kind of machine")
    places: dict[str, tuple[int, int, int | None]] = {}

    def persistent(given: Any) -> StoredBytes:
        storage: StoredBytes = storage_of(given)
        entry = entries.get(root + b"data/" + storage.key.encode("utf-8", "surrogatepass"))
        if entry is None:
            raise DamagedError(f"the tensor data {storage.key[:80]!r} is missing", "a damaged or hostile file")
        if entry.size != bytes_of(storage):
            raise DamagedError(
                f"the tensor data {storage.key[:80]!r} has {entry.size} bytes where {bytes_of(storage)} are announced",
                "a damaged or hostile file",
            )
        places[storage.key] = (entry.start, entry.size, entry.crc32 or None)
        return storage

    pickled = entries[root + b"data.pkl"]
    if pickled.size > pickles.MAX_BYTES:
        raise DamagedError(f"its pickle has {pickled.size} bytes; at most {pickles.MAX_BYTES} are read")
    data = source.read(pickled.start, pickled.size)
    if pickled.crc32 and zlib.crc32(data) != pickled.crc32:  # 0 where torch was told to compute none
        raise DamagedError("the checksum of its pickle does not fit", "a damaged copy")
    found = unpickle(data, persistent, rebuild)
    return ForeignFile(shown, source.size, "torch", found.value, _checked(shown, found), source, places)


def _root(shown: str, names: Iterable[bytes]) -> bytes:
    """The folder inside the archive that holds data.pkl."""
    entries = list(names)
    refuse_other_zips(shown, [name.decode("latin-1") for name in entries])
    root: bytes = next(match[1] for name in entries if (match := _ROOT.fullmatch(name)))
    return root


def _checked(shown: str, found: Unpickled) -> tuple[str, ...]:
    """The names worth telling, after what was read was compared with the limits."""
    refuse_code(shown, found.names)
    try:
        for _ in walk(found.value, MAX_LEVELS):
            pass
    except ValueError as error:
        raise DamagedError(f"its content is {error}", "a hostile file") from error
    return worth_telling(found.names)


# -------------------------------------------------------------------------------------------------- torch before 1.6
def _open_legacy(shown: str, source: ByteSource) -> ForeignFile:
    found, places = read_legacy(source, shown)
    return ForeignFile(shown, source.size, "torch before 1.6", found.value, _checked(shown, found), source, places)
