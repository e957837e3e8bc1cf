"""The format of torch.save before version 1.6.

`torch/serialization.py`, `_legacy_save`: magic number, protocol version, a description of the machine, the object, a
list of storage keys; then of each storage its number of values (int64) and the values.
"""

from __future__ import annotations

import struct
from typing import Any

from ...errors import BadInputError
from .inert import StoredBytes
from .names import refuse_code
from .pickles import MAX_BYTES, Unpickled, unpickle
from .source import ByteSource, DamagedError
from .tensors import bytes_of, rebuild, storage_of

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001


def read_legacy(source: ByteSource, shown: str) -> tuple[Unpickled, dict[str, tuple[int, int, int | None]]]:
    """The object, and where each storage lies.

    Raises:
        BadInputError: a pickle that torch did not write.
        DamagedError: truncated, or contradicting itself.
        PickleError: the same, inside a pickle.
    """
    storages: dict[str, StoredBytes] = {}

    def persistent(given: Any) -> Any:
        found = storage_of(given, legacy=True)
        if isinstance(found, StoredBytes):
            known = storages.setdefault(found.key, found)
            if (known.dtype, known.count) != (found.dtype, found.count):
                raise DamagedError(f"the tensor data {found.key[:80]!r} is described twice, differently")
        return found

    data = source.read(0, min(source.size, MAX_BYTES))
    first = unpickle(data, persistent, rebuild)
    if first.value != MAGIC:
        refuse_code(shown, first.names)
        raise BadInputError(
            f"{shown} is a pickle, but none that torch.save wrote.",
            cause="arrays or objects that Python's pickle module saved",
            next="load it where you trust it, and save its tensors with safetensors.torch.save_file",
        )
    protocol = unpickle(data, persistent, rebuild, first.end)
    if protocol.value != PROTOCOL:
        raise DamagedError("its protocol version is unknown", "a damaged file")
    told = unpickle(data, persistent, rebuild, protocol.end)
    if not isinstance(told.value, dict) or told.value.get("little_endian") is not True:
        raise DamagedError("its numbers are not little-endian", "it was saved on another kind of machine")
    content = unpickle(data, persistent, rebuild, told.end)
    listed = unpickle(data, persistent, rebuild, content.end)
    keys = listed.value
    if type(keys) is not list or len(keys) != len(storages):
        raise DamagedError("its list of tensor data does not fit its tensors", "a damaged or hostile file")
    places: dict[str, tuple[int, int, int | None]] = {}
    at = listed.end
    for key in keys:
        storage = storages[key] if type(key) is str and key in storages else None
        if storage is None or key in places:
            raise DamagedError("its list of tensor data does not fit its tensors", "a damaged or hostile file")
        if struct.unpack("<q", source.read(at, 8))[0] != storage.count:
            raise DamagedError(
                f"the tensor data {key[:80]!r} has another size than announced", "a damaged or hostile file"
            )
        size = bytes_of(storage)
        if at + 8 + size > source.size:
            raise DamagedError("it ends inside its tensor data", "a truncated copy")
        places[key] = (at + 8, size, None)
        at += 8 + size
    return content, places
