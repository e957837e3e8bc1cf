"""npz files without pickle: read with limits, written so that equal arrays give equal bytes."""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import RefusedError

MAX_ARRAYS = 64
# Of other methods, zipfile does not limit what one call expands to.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What zipfile, zlib and numpy's header parser were seen to raise on damaged bytes.
_DAMAGED = (
    ValueError, OSError, EOFError, RuntimeError, SyntaxError, TypeError, MemoryError, OverflowError, TokenError,
    zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip


def load_npz(data: bytes, shown: str, max_expanded_bytes: int) -> dict[str, npt.NDArray[Any]]:
    """Reads an npz without pickle and with a limit on what it expands to.

    The limit is on all arrays together, by the archive's own word; none is let expand past its word.

    Returns:
        Arrays by name; read-only, as they lie in the expanded bytes.

    Raises:
        RefusedError: not an npz, objects inside, or larger than allowed once expanded.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            expanded = sum(info.file_size for info in members)
            if expanded > max_expanded_bytes or len(members) > MAX_ARRAYS:
                raise RefusedError(
                    f"{shown} expands from {len(data)} to {expanded} bytes in {len(members)} arrays; "
                    f"at most {max_expanded_bytes} in {MAX_ARRAYS} are allowed.",
                    cause="a decompression bomb",
                )
            return {info.filename.removesuffix(".npy"): _read_npy(_expand(archive, info)) for info in members}
    except _DAMAGED as error:
        raise RefusedError(f"{shown} is not a plain npz: {error}.", cause="a damaged or hostile file") from error


def _expand(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    # Never more of it than it declares: `ZipFile.read` would expand up to 2 GiB and cut off afterwards.
    if info.compress_type not in _METHODS:
        raise ValueError(f"compression method {info.compress_type}")
    with archive.open(info) as member:
        return member.read(info.file_size)


def _read_npy(data: bytes) -> npt.NDArray[Any]:
    # The header must declare exactly the bytes that follow, so nothing is allocated on its word.
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("an npy of another version than 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    body = memoryview(data)[stream.tell() :]
    if dtype.hasobject or fortran or math.prod(shape) * dtype.itemsize != len(body):
        raise ValueError("an array of objects, in Fortran order, or of another size than its header says")
    return np.frombuffer(body, dtype).reshape(shape)


def dump_npz(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """`np.savez_compressed` without the time of day, so that equal arrays give equal bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, array in arrays.items():
            part = io.BytesIO()
            np.lib.format.write_array(part, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            archive.writestr(info, part.getvalue(), zipfile.ZIP_DEFLATED)
    return stream.getvalue()
