"""Duration of a video file by its container.

OpenCV gives a frame count only, and for an mp4 that count includes the frames that an edit list hides: a recording cut
with a stream copy would look truncated although nothing is missing. The presented duration is in the track header.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAX_BOXES = 4096  # over the whole walk; a hostile file could hold one every eight bytes


def has_exact_length(head: bytes) -> bool:
    """Whether a container, by its first 12 bytes, counts its video frames.

    mp4/mov and avi do. Others (Matroska, MPEG) give the duration of the whole file, in which the sound may outlast the
    picture.
    """
    return head[4:8] == b"ftyp" or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")


def presented_seconds(path: Path) -> float | None:
    """The duration of the first video track of an mp4/mov file, edit list applied.

    Args:
        path: a regular file.

    Returns:
        Seconds, or None where the file is of another kind, fragmented, or damaged.

    Source: ISO/IEC 14496-12, boxes `moov/mvhd` (8.2.2), `trak/tkhd` (8.3.2), `trak/mdia/hdlr` (8.4.3).
    """
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        budget = iter(range(MAX_BOXES))
        for kind, start, end in _boxes(stream, 0, size, budget):
            if kind == b"moov":
                return _movie_seconds(stream, start, end, budget)
    return None


def _movie_seconds(stream: BinaryIO, start: int, end: int, budget: Iterator[int]) -> float | None:
    timescale = 0
    for kind, first, last in _boxes(stream, start, end, budget):
        if kind == b"mvhd":
            # version and flags 4, then creation and modification times: 4 bytes each, or 8 in version 1
            timescale = _number(stream, first + (20 if _number(stream, first, 1) else 12), 4)
        if kind == b"trak":
            duration = _video_track_duration(stream, first, last, budget)
            if duration and timescale:
                return duration / timescale
    return None


def _video_track_duration(stream: BinaryIO, start: int, end: int, budget: Iterator[int]) -> int:
    duration, is_video = 0, False
    for kind, first, last in _boxes(stream, start, end, budget):
        if kind == b"tkhd":
            wide = _number(stream, first, 1)
            # after version and flags: two times, the track's number, four reserved bytes
            duration = _number(stream, first + (28 if wide else 20), 8 if wide else 4)
        if kind == b"mdia":
            for inner, at, _ in _boxes(stream, first, last, budget):
                if inner == b"hdlr":
                    stream.seek(at + 8)
                    is_video = stream.read(4) == b"vide"
    return duration if is_video else 0


def _boxes(stream: BinaryIO, start: int, end: int, budget: Iterator[int]) -> Iterator[tuple[bytes, int, int]]:
    """The boxes between two places of the file: kind, start and end of the content."""
    place = start
    while place + 8 <= end and next(budget, None) is not None:
        stream.seek(place)
        length, kind = struct.unpack(">I4s", stream.read(8))
        header = 8
        if length == 1:  # the real length follows in 64 bits
            length, header = _number(stream, place + 8, 8), 16
        elif length == 0:  # up to the end of the file
            length = end - place
        if length < header:
            return
        yield kind, place + header, min(place + length, end)
        place += length


def _number(stream: BinaryIO, place: int, size: int) -> int:
    """An unsigned big-endian number; 0 where the file ends before it."""
    stream.seek(place)
    return int.from_bytes(stream.read(size), "big")
