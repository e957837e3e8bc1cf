"""PyAV: loading, video files, and the conversion of its frames."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..clips import Frame
from ..errors import BadInputError, needing
from .reader import FAILED_READS, MAX_RATE, SLACK_FRAMES, SLACK_S, DeclaredLength, DecodedFrame, VideoReader
from .stills import MAX_PIXELS

# Demuxers that count their frames or write the duration of each track.
_COUNTED = ("mov,mp4", "avi")
_TIMED = ("matroska", "flv", "asf")
_DEEP_GREY = ("gray9", "gray10", "gray12", "gray14", "gray16", "gray32", "grayf")
_UNSPECIFIED = 2  # in each table of ISO/IEC 23091-2
_ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC, avformat.h


def load_av(purpose: str) -> Any:
    """Import the module av; `purpose` is the start of a sentence, should it be missing.

    PyAV itself keeps FFmpeg's lines off stderr.

    Raises:
        MachineError: it is not installed.
    """
    with needing("av", "camera", purpose):
        import av
    return av


def open_container(av: Any, name: str, **options: Any) -> Any:
    """`av.open` for reading, whatever bytes the file's own texts (title, author) hold.

    PyAV up to 18 raises UnicodeDecodeError on one that is no UTF-8 unless told; 19 has no such parameter and does not.
    """
    try:
        return av.open(name, metadata_errors="replace", **options)
    except TypeError:
        return av.open(name, **options)


def to_rgb(frame: Any, shown: str) -> Frame:
    """The upright pixels of an `av.VideoFrame`, uint8 `[H, W, 3]`, RGB.

    The frame's own colour matrix and range are used; 10 and 12 bits of a video, whose white is defined, become 8.

    Raises:
        BadInputError: grey of more than 8 bits, or an absurd size.
    """
    name = frame.format.name
    if name.startswith(_DEEP_GREY):
        raise _deep(shown, name)
    if frame.width * frame.height > MAX_PIXELS:
        raise BadInputError(f"{shown} has {frame.width} x {frame.height} pixels; {MAX_PIXELS} are read.")
    return upright(_converted(frame, shown), _display_matrix(frame))


def _converted(frame: Any, shown: str) -> Frame:
    av = load_av("Reading a video")
    pixels: Frame
    try:
        try:
            pixels = frame.to_ndarray(format="rgb24")
        except (av.FFmpegError, ValueError):
            # A colour space that no standard knows, mostly from a damaged header: as if none were stated.
            frame.colorspace = frame.color_primaries = frame.color_trc = _UNSPECIFIED
            pixels = frame.to_ndarray(format="rgb24")
        return pixels
    except (av.FFmpegError, ValueError) as error:
        raise BadInputError(f"A frame of {shown} cannot be converted to RGB: {error}.") from error


def _deep(shown: str, name: str) -> BadInputError:
    return BadInputError(
        f"{shown} has more than 8 bits per channel (format {name}).",
        cause="a depth or infrared camera, whose white is not known",
        next="convert it to 8 bits",
    )


def upright(pixels: Frame, matrix: tuple[int, ...] | None) -> Frame:
    """Turn and mirror pixels as a container's display matrix says.

    Args:
        pixels: uint8 `[H, W, 3]`.
        matrix: the nine numbers a b u, c d v, x y w of ISO/IEC 14496-12, 6.2.2: a point (p, q) is shown at
            (ap + cq, bp + dq). Only multiples of 90 degrees are obeyed. None leaves the pixels.

    Returns:
        uint8, contiguous.
    """
    if matrix is None:
        return pixels
    a, b, _, c, d = matrix[:5]
    if abs(b) > abs(a):  # columns become rows
        pixels, right, down = pixels.transpose(1, 0, 2), c, b
    else:
        right, down = a, d
    pixels = pixels[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]
    return np.ascontiguousarray(pixels)


def _display_matrix(frame: Any) -> tuple[int, ...] | None:
    try:
        data = bytes(frame.side_data["DISPLAYMATRIX"])
    except (KeyError, ValueError):  # ValueError: beside it is data of a kind that this PyAV does not know
        return None
    return struct.unpack("=9i", data) if len(data) == 36 else None


class AvFrame(DecodedFrame):
    """A frame of PyAV's."""

    def __init__(self, frame: Any, shown: str) -> None:
        self._frame, self._shown = frame, shown

    def rgb(self) -> Frame:
        return to_rgb(self._frame, self._shown)


class AvReader(VideoReader):
    """A video file through PyAV."""

    _container: Any = None

    def _open(self, fps: float) -> tuple[float, DeclaredLength]:
        av = self._av = load_av("Reading a video")
        # By descriptor: no name reaches FFmpeg, and no other protocol may be used by what the file holds.
        options = {"fd": str(self._descriptor), "protocol_whitelist": "fd"}
        try:
            self._container = open_container(av, "fd:", options=options)
        except (av.FFmpegError, ValueError) as error:
            raise self._no_frame() from error
        kind = self._container.format.name
        streams = self._container.streams.video
        streams = [stream for stream in streams if not int(stream.disposition) & _ATTACHED_PICTURE]
        if not streams:
            raise BadInputError(
                f"{self.path} holds no video.", cause="sound alone, or sound with a cover picture", next="name a video"
            )
        self._stream = stream = streams[0]
        self._is_still = kind.endswith("_pipe") or kind == "image2"
        self._counts = kind.startswith(_COUNTED)
        context = stream.codec_context
        if context is None:
            raise self._no_frame()
        # One thread: what is decoded of a damaged file must not depend on the machine's cores.
        context.thread_type, context.thread_count = "NONE", 1
        if (context.width or 0) * (context.height or 0) > MAX_PIXELS:
            raise BadInputError(f"{self.path} has {context.width} x {context.height} pixels; {MAX_PIXELS} are read.")
        # Not `pix_fmt`, which ends the process of PyAV 17 where the format is not known.
        if context.format is not None and context.format.name.startswith(_DEEP_GREY):
            raise _deep(str(self.path), context.format.name)
        declared = float(stream.average_rate or stream.guessed_rate or 0)
        rate = declared if 0 < declared <= MAX_RATE else fps
        return rate, self._declared(kind, rate)

    def _declared(self, kind: str, rate: float) -> DeclaredLength:
        stream = self._stream
        frames, slack_s = stream.frames or 0, SLACK_FRAMES / rate
        if kind.startswith(_COUNTED):
            seconds = float(stream.duration * stream.time_base) if stream.duration else 0.0
            if kind == "avi":  # of a file that was cut off, FFmpeg shortens the duration and keeps the count
                seconds = max(seconds, frames / rate)
            return DeclaredLength(frames, seconds, slack_s)
        if not kind.startswith(_TIMED):
            return DeclaredLength(0, 0.0, 0.0)  # what FFmpeg reports is computed from the packets that are there
        exact = _clock_time(stream.metadata.get("DURATION", ""))
        if exact:
            return DeclaredLength(0, exact, slack_s)
        return DeclaredLength(0, (self._container.duration or 0) / 1e6, max(SLACK_S, slack_s))

    def _decode(self) -> Iterator[tuple[DecodedFrame, float | None]]:
        stream, base = self._stream, float(self._stream.time_base or 0)
        start = None if stream.start_time is None else stream.start_time * base
        lost = seen = 0  # lost: since the last good frame; before the first it is how a recording begins, not a hole
        held: DecodedFrame | None = None  # of what may be a still picture, the first, until there is a second
        for frame in self._raw_frames():
            if frame is None or frame.is_corrupt:
                lost += 1
                continue
            self._holes += lost if seen else 0
            seen, lost = seen + 1, 0
            time_s = None if frame.pts is None else frame.pts * base
            if time_s is not None:
                start = time_s if start is None or time_s < start else start
                time_s -= start
            decoded = AvFrame(frame, str(self.path))
            if self._is_still and seen == 1:
                held, held_s = decoded, time_s
                continue
            if held is not None:
                yield held, held_s
                held = None
            yield decoded, time_s
        self._holes += lost if seen else 0
        if held is not None:
            raise BadInputError(
                f"{self.path} is a still picture, not a video.",
                next=f"name the folder that holds it: {self.path.parent}",
            )

    def _raw_frames(self) -> Iterator[Any]:
        """Frames as decoded, None for each packet that could not be."""
        failed = 0
        # All streams, for what lies between two packets of the picture.
        packets, coverage = self._container.demux(), _Coverage(self.fps)
        while failed < FAILED_READS:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except self._av.FFmpegError:
                # A read that failed ends PyAV's generator; behind the damage a new one goes on.
                failed += 1
                yield None
                packets = self._container.demux()
                continue
            if packet.stream.index != self._stream.index:  # `stream_index` is 0 in the packets that flush a decoder
                coverage.add(packet)
                continue
            if coverage.add(packet, self._stream.time_base) and not self._counts:
                yield None
            if not packet.size and packet.pts is not None:
                continue  # "as before": an AVI's way of repeating a frame
            failed = 0
            try:
                yield from packet.decode()
            except (self._av.FFmpegError, ValueError):  # ValueError: a codec that this FFmpeg does not know
                yield None
                continue
            if packet.is_corrupt:
                yield None

    def _release(self) -> None:
        if self._container is not None:
            self._container.close()


class _Coverage:
    """Bytes and time between the packets of a container that does not count its frames.

    A demuxer passes over damage without a word. What it passed over are bytes of no packet and, at the same place, a
    time without frames. Either alone is normal: an index in the middle, a rate that varies.
    """

    def __init__(self, fps: float) -> None:
        self._longest_s = 2.5 / fps
        self._end = 0  # of the last packet, in the file
        self._unseen = self._bytes = self._packets = 0
        self._time_s: float | None = None

    def add(self, packet: Any, base: Any = None) -> bool:
        """Count a packet; whether frames were lost before it.

        `base` is given for the picture's packets alone: seconds of one unit of their times.
        """
        if packet.pos is None or packet.pos < 0:
            return False
        self._unseen += max(0, packet.pos - self._end)
        self._end = max(self._end, packet.pos + packet.size)
        if base is None:
            return False
        stamp = packet.pts if packet.dts is None else packet.dts
        time_s = self._time_s if stamp is None else float(stamp * base)
        usual = self._bytes / max(self._packets, 1)
        gap_s = 0.0 if time_s is None or self._time_s is None else time_s - self._time_s
        lost = bool(self._packets) and gap_s > self._longest_s and self._unseen > max(usual, 64)
        self._unseen, self._time_s = 0, time_s
        self._bytes, self._packets = self._bytes + packet.size, self._packets + 1
        return lost


def _clock_time(text: str) -> float:
    """Seconds of '00:01:02.500000000', as Matroska's tags write it; 0 for anything else."""
    parts = text.split(":")
    try:
        hours, minutes, seconds = (float(part) for part in parts)
    except ValueError:
        return 0.0
    total = hours * 3600 + minutes * 60 + seconds
    return total if 0 < total < 1e9 else 0.0
