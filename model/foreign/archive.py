"""The directory of a zip archive as torch.save writes it.

Only what torch.save writes is taken: entries that are stored, not compressed (so nothing expands), not encrypted, that
do not overlap, and whose two headers agree. Layout: PKWARE's APPNOTE.TXT 6.3.10, 4.3 and 4.5.3 (zip64).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from .source import ByteSource, DamagedError

MAX_DIRECTORY_BYTES = 64 << 20
MAX_ENTRIES = 200_000
_END, _END64, _LOCATOR64, _CENTRAL, _LOCAL = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x01\x02", b"PK\x03\x04"
_MOST_AT_THE_END = 22 + 0xFFFF + 20  # the last record with the longest comment, and zip64's locator before it


@dataclass(frozen=True)
class ArchiveEntry:
    """One file inside the archive.

    Attributes:
        name: its bytes; archives of strange names are read too.
        start: of its first byte in the archive.
        size: bytes.
        crc32: as the archive gives it.
    """

    name: bytes
    start: int
    size: int
    crc32: int


@dataclass(frozen=True)
class _Central:
    name: bytes
    flags: int
    method: int
    crc32: int
    packed: int
    size: int
    header: int


def read_directory(source: ByteSource, look: Callable[[list[bytes]], object]) -> Mapping[bytes, ArchiveEntry]:
    """The entries by name.

    Args:
        source: the archive.
        look: called with the names before the entries are checked; may refuse what they show.

    Raises:
        DamagedError: no zip archive, a truncated or compressed or encrypted one, or one that contradicts itself.
    """
    count, size, start, end = _find_directory(source)
    if size > MAX_DIRECTORY_BYTES or count > MAX_ENTRIES:
        raise DamagedError(f"its directory claims {count} entries in {size} bytes")
    if start + size > end:
        raise DamagedError("its directory runs past its own end", "a truncated copy")
    listed = _central_records(source.read(start, size), count)
    look([item.name for item in listed])
    entries = [_entry(source, item, start) for item in listed]
    ordered = sorted(zip(listed, entries, strict=True), key=lambda pair: pair[0].header)
    for (_, before), (item, after) in pairwise(ordered):
        if before.start + before.size > item.header:
            raise DamagedError(f"its entries {_shown(before.name)} and {_shown(after.name)} overlap", "a hostile file")
    found = {entry.name: entry for entry in entries}
    if len(found) != len(entries):
        raise DamagedError("it has two entries of one name", "a hostile file")
    return found


def _find_directory(source: ByteSource) -> tuple[int, int, int, int]:
    """(entries, bytes, offset of the directory, offset of the record that follows it)."""
    length = min(source.size, _MOST_AT_THE_END)
    base = source.size - length
    tail = source.read(base, length)
    place = tail.rfind(_END)
    while place >= 0:
        if len(tail) - place >= 22 and place + 22 + struct.unpack_from("<H", tail, place + 20)[0] == len(tail):
            break
        place = tail.rfind(_END, 0, place)
    if place < 0:
        raise DamagedError(
            "the directory at its end is missing", "a truncated copy: a download or a copy that did not finish"
        )
    disk, first, here, count, size, start = struct.unpack_from("<HHHHII", tail, place + 4)
    end = base + place
    if place >= 20 and tail[place - 20 : place - 16] == _LOCATOR64:
        record = struct.unpack_from("<Q", tail, place - 12)[0]
        fields = source.read(record, 56) if record + 56 <= source.size else b""
        if fields[:4] != _END64:
            raise DamagedError("its zip64 record is not where it should be", "a damaged copy")
        disk, first, here, count, size, start = struct.unpack_from("<IIQQQQ", fields, 16)
        end = record
    if disk or first or here != count:
        raise DamagedError("it is one part of an archive that was split", "a part of a larger download")
    return count, size, start, end


def _central_records(data: bytes, count: int) -> list[_Central]:
    found: list[_Central] = []
    at = 0
    for _ in range(count):
        if len(data) - at < 46 or data[at : at + 4] != _CENTRAL:
            raise DamagedError("its directory is damaged", "a damaged copy")
        flags, method, _, _, crc32, packed, size, name_bytes, extra_bytes, note_bytes = struct.unpack_from(
            "<HHHHIIIHHH", data, at + 8
        )
        header = struct.unpack_from("<I", data, at + 42)[0]
        name_at = at + 46
        extra_at = name_at + name_bytes
        at = extra_at + extra_bytes + note_bytes
        if at > len(data):
            raise DamagedError("its directory is damaged", "a damaged copy")
        wide = [value == 0xFFFFFFFF for value in (size, packed, header)]
        if any(wide):
            size, packed, header = _wide(data[extra_at : extra_at + extra_bytes], (size, packed, header))
        found.append(_Central(data[name_at:extra_at], flags, method, crc32, packed, size, header))
    return found


def _wide(extra: bytes, given: tuple[int, int, int]) -> tuple[int, int, int]:
    """Sizes and offset out of the zip64 field, where 32 bits did not suffice."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        body = extra[at + 4 : at + 4 + length]
        at += 4 + length
        if kind != 1:
            continue
        values = list(given)
        place = 0
        for n, value in enumerate(given):
            if value == 0xFFFFFFFF:
                if place + 8 > len(body):
                    break
                values[n] = struct.unpack_from("<Q", body, place)[0]
                place += 8
        else:
            return values[0], values[1], values[2]
    raise DamagedError("the zip64 field of an entry is missing", "a damaged copy")


def _entry(source: ByteSource, item: _Central, directory: int) -> ArchiveEntry:
    shown = _shown(item.name)
    if item.flags & 1:
        raise DamagedError(f"its entry {shown} is encrypted", "an archive with a password")
    if item.method != 0 or item.packed != item.size:
        raise DamagedError(
            f"its entry {shown} is compressed; torch.save compresses nothing",
            "the archive was unpacked and packed again, or a decompression bomb",
        )
    if item.header + 30 + len(item.name) > directory:
        raise DamagedError(f"its entry {shown} lies outside the file", "a truncated copy")
    local = source.read(item.header, 30 + len(item.name))
    _, flags, method, _, _, _, _, size, name_bytes, extra_bytes = struct.unpack_from("<HHHHHIIIHH", local, 4)
    start = item.header + 30 + name_bytes + extra_bytes
    same = local[:4] == _LOCAL and method == 0 and not flags & 1
    same = same and name_bytes == len(item.name) and local[30:] == item.name
    if not same or (size not in (item.size, 0xFFFFFFFF) and not flags & 8):
        raise DamagedError(f"the two headers of its entry {shown} contradict each other", "a damaged or hostile file")
    if start + item.size > directory:
        raise DamagedError(f"its entry {shown} lies outside the file", "a truncated copy")
    return ArchiveEntry(item.name, start, item.size, item.crc32)


def _shown(name: bytes) -> str:
    return repr(name[:80].decode("latin-1"))
