"""The header of a safetensors file: names, types, shapes and places, without the values."""

from __future__ import annotations

import math
from typing import Any

from ...bundle.files import parse_json
from ...errors import RefusedError
from .inert import StoredBytes, StoredTensor
from .source import ByteSource, DamagedError
from .tensors import MAX_AXES

MAX_HEADER_BYTES = 4 << 20
_DTYPES = {
    "F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2), "I64": ("int64", 8),
    "I32": ("int32", 4), "I16": ("int16", 2), "I8": ("int8", 1), "U8": ("uint8", 1), "BOOL": ("bool", 1),
    "U16": ("uint16", 2), "U32": ("uint32", 4), "U64": ("uint64", 8), "C64": ("complex64", 8),
    "F8_E4M3": ("float8_e4m3fn", 1), "F8_E5M2": ("float8_e5m2", 1), "F8_E8M0": ("float8_e8m0fnu", 1),
}  # fmt: skip


def read_header(
    source: ByteSource, shown: str
) -> tuple[dict[str, StoredTensor], dict[str, str], dict[str, tuple[int, int, int | None]]]:
    """Tensors by name, metadata, and where each tensor lies.

    Raises:
        DamagedError: truncated, or contradicting itself.
    """
    length = int.from_bytes(source.read(0, 8), "little")
    if length > source.size - 8:
        raise DamagedError(f"its header claims {length} bytes, the file has {source.size}", "a truncated copy")
    if length > MAX_HEADER_BYTES:
        raise DamagedError(f"its header has {length} bytes; at most {MAX_HEADER_BYTES} are read", "a hostile file")
    try:
        header = parse_json(source.read(8, length), f"the header of {shown}")
    except RefusedError as error:
        raise DamagedError(error.what.removesuffix("."), "a damaged or hostile file") from error
    if not isinstance(header, dict):
        raise DamagedError("its header is no JSON object", "a damaged file")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise DamagedError("the metadata of its header are no texts", "a damaged file")
    content: dict[str, StoredTensor] = {}
    places: dict[str, tuple[int, int, int | None]] = {}
    room = source.size - 8 - length
    for name, entry in header.items():
        tensor, begin, end = _tensor(name, entry)
        if end > room:
            raise DamagedError(f"the tensor {name[:80]!r} lies behind the end of the file", "a truncated copy")
        content[name] = tensor
        places[name] = (8 + length + begin, end - begin, None)
    spans = sorted((start, size) for start, size, _ in places.values())
    at = 8 + length
    for start, size in spans:
        if start != at:
            raise DamagedError("its tensors overlap or leave gaps", "a damaged or hostile file")
        at = start + size
    if at != source.size:
        raise DamagedError(f"its tensors end at byte {at}, the file at byte {source.size}", "a damaged copy")
    return content, metadata, places


def _tensor(name: str, entry: Any) -> tuple[StoredTensor, int, int]:
    where = f"the tensor {name[:80]!r} of its header"
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= set(entry):
        raise DamagedError(f"{where} is not described", "a damaged file")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    lists = isinstance(dtype, str) and isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2
    if not lists or len(shape) > MAX_AXES or not all(type(n) is int and n >= 0 for n in (*shape, *offsets)):
        raise DamagedError(f"{where} has sizes or offsets that are none", "a damaged or hostile file")
    begin, end = offsets
    if begin > end:
        raise DamagedError(f"{where} ends before it begins", "a damaged or hostile file")
    if dtype not in _DTYPES:
        return StoredTensor("wrapped", dtype, tuple(shape)), begin, end
    kind, each = _DTYPES[dtype]
    count = math.prod(shape)
    if end - begin != count * each:
        raise DamagedError(
            f"{where} has {end - begin} bytes for {count} values of {dtype}", "a damaged or hostile file"
        )
    stride = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    return StoredTensor("dense", kind, tuple(shape), stride, 0, StoredBytes(name, kind, count)), begin, end
