"""Media files made by PyAV and Pillow: small, of any codec, container, depth and rotation, whole or damaged."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image


def grey_steps(count: int, height: int = 32, width: int = 48) -> list[np.ndarray]:
    """Frames uint8 `[H, W, 3]` whose grey tells their number: the number times 5."""
    return [np.full((height, width, 3), 5 * index % 256, np.uint8) for index in range(count)]


def noise(count: int, height: int = 32, width: int = 48) -> list[np.ndarray]:
    """Frames that no codec can shrink, so that cutting a file cuts frames."""
    return list(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def quarters(height: int = 32, width: int = 48) -> np.ndarray:
    """A frame whose four quarters differ: red, green, blue, white from the upper left, row by row."""
    frame = np.zeros((height, width, 3), np.uint8)
    h, w = height // 2, width // 2
    frame[:h, :w], frame[:h, w:], frame[h:, :w], frame[h:, w:] = (250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 250)
    return frame


def write_video(
    path: Path | str,
    frames: Sequence[np.ndarray],
    codec: str = "mpeg4",
    *,
    fps: float = 25,
    pix_fmt: str = "yuv420p",
    container: str | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    rotation: int = 0,
    times: Sequence[float] | None = None,
    sound_s: float = 0,
) -> Path:
    """Writes frames uint8 `[H, W, 3]` RGB as a video; `times` in seconds makes their rate vary."""
    import av

    # Through a descriptor's path: PyAV's own opening refuses a name that is no UTF-8.
    with open(path, "wb") as stream:  # noqa: PTH123
        name = container or {"mkv": "matroska", "ts": "mpegts", "mpg": "mpeg"}.get(
            os.fspath(path).rpartition(".")[2], os.fspath(path).rpartition(".")[2]
        )
        with av.open(stream, "w", format=name, options=container_options or {}) as out:
            video = out.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options or {})
            video.height, video.width = frames[0].shape[:2]
            video.pix_fmt = pix_fmt
            if times is not None:
                video.time_base = video.codec_context.time_base = Fraction(1, 1000)
            if rotation:
                video.set_display_rotation(rotation)
            sound = out.add_stream("aac" if name in ("mp4", "mov") else "mp2", rate=44100) if sound_s else None
            for number, pixels in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                if times is not None:
                    frame.pts, frame.time_base = round(times[number] * 1000), Fraction(1, 1000)
                out.mux(video.encode(frame))
            out.mux(video.encode(None))
            if sound is not None:
                _encode_silence(out, sound, sound_s)
    return Path(os.fspath(path))


def write_song(path: Path) -> Path:
    """Writes an mp3 with a cover picture."""
    import av

    with av.open(str(path), "w") as out:
        sound, cover = out.add_stream("libmp3lame", rate=44100), out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        _encode_silence(out, sound, 1.0)
        out.mux(cover.encode(av.VideoFrame.from_ndarray(quarters(32, 32), format="rgb24")))
        out.mux(cover.encode(None))
    return path


def _encode_silence(out, stream, seconds: float) -> None:
    import av

    step = 1152
    for start in range(0, int(44100 * seconds), step):
        quiet = av.AudioFrame.from_ndarray(np.zeros((1, step * 2), np.int16), format="s16", layout="stereo")
        quiet.rate, quiet.pts = 44100, start
        out.mux(stream.encode(quiet))
    out.mux(stream.encode(None))


def image_bytes(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """An encoded picture."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(image: Image.Image, orientation: int, kind: str = "JPEG") -> bytes:
    """A picture with an EXIF orientation, its pixels as they are."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return image_bytes(image, kind, exif=exif.tobytes())


def riff_chunks_lie(data: bytes, frames: int) -> bytes:
    """An AVI whose headers claim that many frames."""
    changed = bytearray(data)
    avih, strh = data.find(b"avih"), data.find(b"strh")
    changed[avih + 8 + 16 : avih + 8 + 20] = frames.to_bytes(4, "little")  # dwTotalFrames
    changed[strh + 8 + 32 : strh + 8 + 36] = frames.to_bytes(4, "little")  # dwLength
    return bytes(changed)


def scrambled(data: bytes, begin: float, end: float) -> bytes:
    """Data with a stretch, in shares of its length, that became noise."""
    first, last = int(len(data) * begin), int(len(data) * end)
    other = np.random.default_rng(1).integers(0, 256, last - first, dtype=np.uint8).tobytes()
    return data[:first] + other + data[last:]
