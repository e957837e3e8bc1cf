"""A table of odd media: each makes a video file or a folder of pictures, and says what every reader must make of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from media_files import (
    grey_steps,
    image_bytes,
    noise,
    quarters,
    riff_chunks_lie,
    scrambled,
    turned,
    write_song,
    write_video,
)
from PIL import Image

COUNT = 8


@dataclass(frozen=True)
class Odd:
    """One odd medium.

    Attributes:
        make: writes it into a folder and gives its path.
        frames: how many every reader gets; None: every reader refuses it; -1: as many as `run` gets, of a container
            that says nothing of its length.
    """

    make: Callable[[Path], Path]
    frames: int | None


def video(name: str, codec: str, **options: object) -> Callable[[Path], Path]:
    frames = options.pop("frames", None)
    return lambda folder: write_video(folder / name, frames or grey_steps(COUNT, 16, 24), codec, **options)


def damaged(name: str, codec: str, change: Callable[[bytes], bytes], count: int = 30, **options: object):
    def make(folder: Path) -> Path:
        frames = noise(count, 16, 24)
        path = write_video(folder / name, frames, codec, **{"fps": 10, **options})
        path.write_bytes(change(path.read_bytes()))
        return path

    return make


def raw(name: str | bytes, content: bytes | Callable[[], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / os.fsdecode(name)
        path.write_bytes(content() if callable(content) else content)
        return path

    return make


def named(name: bytes) -> Callable[[Path], Path]:
    return lambda folder: write_video(folder / os.fsdecode(name), grey_steps(COUNT, 16, 24), "mpeg4", container="mp4")


def pictures(files: Callable[[], dict[str | bytes, bytes]]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        place = folder / "clip"
        place.mkdir()
        for name, data in files().items():
            (place / os.fsdecode(name)).write_bytes(data)
        return place

    return make


def steps(kind: str = "PNG", mode: str = "RGB", suffix: str = "png", count: int = 4, **options: object):
    """Pictures of rising grey in a mode."""

    def files() -> dict[str | bytes, bytes]:
        images = [Image.fromarray(frame).convert(mode) for frame in grey_steps(count, 16, 24)]
        return {f"{number}.{suffix}": image_bytes(image, kind, **options) for number, image in enumerate(images)}

    return pictures(files)


def photos(orientation: int, kind: str = "JPEG"):
    return pictures(
        lambda: {f"{n}.jpg": turned(Image.fromarray(quarters(16, 24 + 8 * n)), orientation, kind) for n in range(3)}
    )


def beside(*extra: str | bytes, data: bytes | None = None):
    """Two good pictures and other files beside them."""

    def files() -> dict[str | bytes, bytes]:
        good = {f"0000{n}.jpg": image_bytes(Image.fromarray(f), "JPEG") for n, f in enumerate(grey_steps(2, 16, 24))}
        return good | dict.fromkeys(extra, good["00001.jpg"] if data is None else data)

    return pictures(files)


def instead(data: bytes, name: str = "00001.jpg"):
    """Two frames, both of which every reader looks at; the second is something else."""
    return pictures(lambda: {"00000.jpg": image_bytes(Image.fromarray(quarters()), "JPEG"), name: data})


def linked(folder: Path) -> Path:
    place = beside()(folder)
    (place / "00001.jpg").unlink()
    (place / "00001.jpg").symlink_to(place / "00000.jpg")
    return place


def large(width: int, height: int) -> bytes:
    return image_bytes(Image.new("1", (width, height)))


def cut(share: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(len(data) * share)]


def hole(begin: float, end: float) -> Callable[[bytes], bytes]:
    return lambda data: scrambled(data, begin, end)


MJPEG = {"pix_fmt": "yuvj420p"}
BIG = {"options": {"g": "1", "b": "20M"}}
FRAGMENTS = {"container_options": {"movflags": "frag_keyframe+empty_moov+default_base_moof"}}
UNEVEN = [0, 0.1, 0.15, 0.5, 0.6, 0.9, 1.0, 1.1]

TABLE: dict[str, Odd] = {
    # ------------------------------------------------------------------------------------------- codecs and containers
    "mpeg4 in mp4": Odd(video("a.mp4", "mpeg4"), COUNT),
    "h264 with frames out of order": Odd(video("a.mp4", "libx264", options={"bf": "3"}), COUNT),
    "h264 in mov": Odd(video("a.mov", "libx264"), COUNT),
    "h264 at full colour": Odd(video("a.mkv", "libx264", pix_fmt="yuv444p"), COUNT),
    "mpeg4 in mkv": Odd(video("a.mkv", "mpeg4"), COUNT),
    "mkv without a duration": Odd(video("a.mkv", "mpeg4", container_options={"live": "1"}), COUNT),
    "vp8": Odd(video("a.webm", "libvpx"), COUNT),
    "vp9": Odd(video("a.webm", "libvpx-vp9"), COUNT),
    "mjpeg in avi": Odd(video("a.avi", "mjpeg", **MJPEG), COUNT),
    "mpeg4 in avi": Odd(video("a.avi", "mpeg4"), COUNT),
    "flash": Odd(video("a.flv", "flv1"), COUNT),
    "transport stream": Odd(video("a.ts", "mpeg2video"), COUNT),
    "programme stream": Odd(video("a.mpg", "mpeg1video"), COUNT),
    "phone of 2005": Odd(video("a.3gp", "mpeg4", container="3gp"), COUNT),
    "windows media": Odd(video("a.wmv", "wmv2", container="asf"), COUNT),
    "m4v": Odd(video("a.m4v", "mpeg4", container="mp4"), COUNT),
    "fragments": Odd(video("a.mp4", "libx264", **FRAGMENTS), COUNT),
    "sound that is longer": Odd(video("a.mp4", "mpeg4", sound_s=1.0), COUNT),
    "uneven times": Odd(video("a.mkv", "mpeg4", times=UNEVEN), COUNT),
    "one frame": Odd(video("a.mp4", "mpeg4", frames=grey_steps(1, 16, 24)), 1),
    "one frame for hours": Odd(video("a.mp4", "mpeg4", frames=grey_steps(1, 16, 24), fps=0.001), 1),
    # ------------------------------------------------------------------------------------------------ depths and sizes
    "grey": Odd(video("a.mkv", "ffv1", pix_fmt="gray"), COUNT),
    "grey of 16 bits": Odd(video("a.mkv", "ffv1", pix_fmt="gray16le"), None),
    "grey of 10 bits": Odd(video("a.mkv", "ffv1", pix_fmt="gray10le"), None),
    "10 bits": Odd(video("a.mkv", "ffv1", pix_fmt="yuv420p10le"), COUNT),
    "with alpha": Odd(video("a.mkv", "ffv1", pix_fmt="yuva420p"), COUNT),
    "png in mov": Odd(video("a.mov", "png", pix_fmt="rgba"), COUNT),
    "one pixel": Odd(video("a.mkv", "ffv1", frames=grey_steps(3, 1, 1)), 3),
    "odd sides": Odd(video("a.mkv", "ffv1", frames=grey_steps(3, 15, 23)), 3),
    "turned by 90": Odd(video("a.mp4", "libx264", frames=[quarters(16, 32)] * 3, rotation=90), 3),
    "turned by 180": Odd(video("a.mp4", "libx264", frames=[quarters(16, 32)] * 3, rotation=180), 3),
    "turned by 270": Odd(video("a.mov", "libx264", frames=[quarters(16, 32)] * 3, rotation=270), 3),
    # ---------------------------------------------------------------------------------------------------------- damage
    "avi cut": Odd(damaged("a.avi", "mjpeg", cut(0.6), **MJPEG), None),
    "avi cut early": Odd(damaged("a.avi", "mpeg4", cut(0.3), **BIG), None),
    "mkv cut": Odd(damaged("a.mkv", "mjpeg", cut(0.6), **MJPEG), None),
    "webm cut": Odd(damaged("a.webm", "libvpx", cut(0.5)), None),
    "flv cut": Odd(damaged("a.flv", "flv1", cut(0.5), **BIG), None),
    "mp4 cut before its index": Odd(damaged("a.mp4", "mpeg4", cut(0.5)), None),
    "mp4 cut behind its index": Odd(
        damaged("a.mp4", "mpeg4", cut(0.6), container_options={"movflags": "faststart"}, **BIG), None
    ),
    "fragments cut inside a frame": Odd(damaged("a.mp4", "mpeg4", cut(0.62), **BIG, **FRAGMENTS), None),
    "fragments cut between frames": Odd(damaged("a.mp4", "mpeg4", cut(0.6), **BIG, **FRAGMENTS), -1),
    "transport stream cut": Odd(damaged("a.ts", "mpeg2video", cut(0.6)), -1),
    "hole in a transport stream": Odd(damaged("a.ts", "mpeg2video", hole(0.4, 0.6)), None),
    "hole in a programme stream": Odd(damaged("a.mpg", "mpeg1video", hole(0.4, 0.6), fps=25), None),
    "hole in windows media": Odd(damaged("a.wmv", "wmv2", hole(0.4, 0.6), container="asf"), None),
    "hole in flash": Odd(damaged("a.flv", "flv1", hole(0.4, 0.6), **BIG), None),
    "hole in vp8": Odd(damaged("a.webm", "libvpx", hole(0.4, 0.6)), None),
    "hole at the beginning of an avi": Odd(damaged("a.avi", "mjpeg", hole(0.4, 0.5), **MJPEG), None),
    "hole in the middle of an avi": Odd(damaged("a.avi", "mjpeg", hole(0.5, 0.7), **MJPEG), None),
    "hole at the end of an avi": Odd(damaged("a.avi", "mjpeg", hole(0.6, 0.85), **MJPEG), None),
    "hole at the beginning of an mp4": Odd(damaged("a.mp4", "mjpeg", hole(0.1, 0.3), **MJPEG), None),
    "hole in the middle of an mp4": Odd(damaged("a.mp4", "mjpeg", hole(0.4, 0.6), **MJPEG), None),
    "hole at the end of an mp4": Odd(damaged("a.mp4", "mjpeg", hole(0.6, 0.85), **MJPEG), None),
    "hole in an mkv": Odd(damaged("a.mkv", "mjpeg", hole(0.4, 0.6), **MJPEG), None),
    "hole in h264": Odd(damaged("a.mp4", "libx264", hole(0.3, 0.6)), None),
    # ------------------------------------------------------------------------------------------------------------ lies
    "avi of two thousand million frames": Odd(
        damaged("a.avi", "mjpeg", lambda data: riff_chunks_lie(data, 2_000_000_000), count=8, **MJPEG), None
    ),
    "song with a cover": Odd(lambda folder: write_song(folder / "a.mp3").rename(folder / "a.mp4"), None),
    "photo under a video's name": Odd(raw("a.mp4", lambda: image_bytes(Image.fromarray(quarters()), "JPEG")), None),
    "drawing under a video's name": Odd(raw("a.mkv", lambda: image_bytes(Image.fromarray(quarters()))), None),
    "nothing": Odd(raw("a.mp4", b""), None),
    "zeros": Odd(raw("a.mp4", bytes(4096)), None),
    "a page": Odd(raw("a.mp4", b"<html>404</html>"), None),
    "a playlist": Odd(raw("a.mp4", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n"), None),
    "a list to join": Odd(raw("a.avi", b"ffconcat version 1.0\nfile /etc/passwd\n"), None),
    "a header and nothing": Odd(raw("a.mp4", b"\0\0\0\x1cftypisom" + bytes(500)), None),
    # ----------------------------------------------------------------------------------------------------------- names
    "name that is no text": Odd(named(b"v\xe9.mp4"), COUNT),
    "name of other letters": Odd(named("笑い ü.mp4".encode()), COUNT),
    "name of a protocol": Odd(named(b"concat:a|b%03d.mp4"), COUNT),
    "name of two lines": Odd(named(b"a\nb.mp4"), COUNT),
    "name of an option": Odd(named(b"-i 'x'.mp4"), COUNT),
    # -------------------------------------------------------------------------------------------------------- pictures
    "jpg": Odd(steps("JPEG", suffix="jpg"), 4),
    "progressive jpg": Odd(steps("JPEG", suffix="jpg", progressive=True), 4),
    "grey jpg": Odd(steps("JPEG", "L", "jpeg"), 4),
    "four inks": Odd(steps("JPEG", "CMYK", "jpg"), 4),
    "palette": Odd(steps(mode="P"), 4),
    "palette with a hole": Odd(steps(mode="P", transparency=0), 4),
    "grey with alpha": Odd(steps(mode="LA"), 4),
    "colour with alpha": Odd(steps(mode="RGBA"), 4),
    "black and white": Odd(steps(mode="1"), 4),
    "bmp": Odd(steps("BMP", suffix="bmp"), 4),
    "webp": Odd(steps("WEBP", suffix="WEBP", lossless=True), 4),
    "grey png of 16 bits": Odd(
        pictures(lambda: {"0.png": image_bytes(Image.fromarray(np.full((8, 8), 4000, np.uint16)))}), None
    ),
    "many frames in no padding": Odd(steps(count=12), 12),
    **{f"photo turned as {n}": Odd(photos(n), 3) for n in (3, 5, 6, 8)},
    "drawing turned": Odd(pictures(lambda: {"0.png": turned(Image.fromarray(quarters(16, 40)), 6, "PNG")}), 1),
    "a Mac's shadow files": Odd(beside("._00000.jpg", "._00001.jpg", ".DS_Store", data=b"\0\5\26\7shadow"), 2),
    "other files": Odd(beside("Thumbs.db", "labels.txt", "desktop.ini", data=b"x"), 2),
    "a copy by a file manager": Odd(beside("00001 (1).jpg"), None),
    "a copy by another one": Odd(beside("00001 - Copy.jpg"), None),
    "each in two formats": Odd(beside("00000.png", "00001.png"), None),
    "a frame that is cut": Odd(instead(image_bytes(Image.fromarray(noise(1)[0]), "JPEG")[:400]), None),
    "a page among the frames": Odd(instead(b"<html>"), None),
    "an empty frame": Odd(instead(b""), None),
    "an animation under a photo's name": Odd(instead(image_bytes(Image.new("RGB", (24, 16), (9, 9, 9)), "GIF")), None),
    "a bomb": Odd(instead(large(7000, 7000), "00001.png"), None),
    "a link": Odd(linked, None),
    "frames whose names are no text": Odd(beside(b"\xe9.jpg", b"\xff2.jpg"), 4),
    "no pictures": Odd(pictures(lambda: {"readme.txt": b"x"}), None),
}
