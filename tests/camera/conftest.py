"""Real videos and folders, and an engine double that looks at what it is given."""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from logoformer.clips import Sampling, check_color, check_frame
from logoformer.engine import Result
from logoformer.media.opencv import QUIET
from PIL import Image

os.environ.update(QUIET)  # before any test imports OpenCV

LABELS = ("red", "green", "blue")
RGB = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}


def solid(color: str, height: int = 48, width: int = 64) -> np.ndarray:
    """uint8 `[H, W, 3]` RGB of one colour."""
    return np.full((height, width, 3), RGB[color], np.uint8)


def textured(index: int, height: int = 96, width: int = 128) -> np.ndarray:
    """uint8 `[H, W, 3]`: noise that no codec can shrink, so that cutting the file cuts frames."""
    return np.random.default_rng(index).integers(0, 255, (height, width, 3), dtype=np.uint8)


class ColorStream:
    """Answers with the mean share of each colour channel over what was pushed last."""

    def __init__(self, engine: ColorEngine, hop: int, color: str, warmup: str) -> None:
        self.engine, self.hop, self.color, self.warmup = engine, hop, check_color(color), warmup
        self.skipped = self.resets = self.cleared = 0
        self.max_gap_s = 1.4
        self.times: list[float] = []
        self.sizes: list[tuple[int, ...]] = []
        self.closed = False
        self._kept: deque[np.ndarray] = deque(maxlen=engine.span)
        self._since = self._sequence = 0

    def push(self, frame: np.ndarray, time_s: float) -> Result | None:
        assert not self.closed
        check_frame(frame)
        assert not self.times or time_s > self.times[-1], "times must rise"
        self.times.append(time_s)
        self.sizes.append(frame.shape)
        if len(self.times) > 1 and time_s - self.times[-2] > self.max_gap_s:
            self._kept.clear()
            self.resets += 1
        rgb = frame if self.color == "rgb" else frame[:, :, ::-1]
        self._kept.append(rgb.reshape(-1, 3).mean(axis=0))
        self._since += 1
        if self._since < self.hop or (self.warmup == "wait" and len(self._kept) < self.engine.span):
            return None
        return self._answer()

    def reset(self) -> None:
        self._kept.clear()
        self._since = 0
        self.cleared += 1

    def flush(self) -> Result | None:
        return self._answer() if self._kept else None

    def _answer(self) -> Result:
        self._since = 0
        mean = np.mean(self._kept, axis=0)
        shares = (mean / mean.sum()).astype(np.float32)
        self._sequence += 1
        index = int(shares.argmax())
        return Result(LABELS[index], index, shares, {"double": 0.0}, 0.25, self.times[-1], self._sequence - 1)

    def __enter__(self) -> ColorStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.closed = True


class ColorEngine:
    """A double of `logoformer.engine.Runtime`."""

    def __init__(self, span: int = 8) -> None:
        self.span = span
        self.bundle = SimpleNamespace(labels=LABELS, sampling=Sampling())
        self.opened: list[ColorStream] = []

    def stream(self, hop: int = 4, *, color: str | None = None, warmup: str = "wait") -> ColorStream:
        self.opened.append(ColorStream(self, hop, color, warmup))
        return self.opened[-1]


@pytest.fixture
def engine() -> ColorEngine:
    return ColorEngine()


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes images `0.png`, `1.png`, ... and gives their folder."""

    def make(frames: list[np.ndarray], name: str = "frames", suffix: str = ".png") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for index, frame in enumerate(frames):
            Image.fromarray(frame).save(folder / f"{index}{suffix}")
        return folder

    return make


@pytest.fixture
def cv2() -> ModuleType:
    """OpenCV; a test that asks for it is skipped where it is not installed."""
    return pytest.importorskip("cv2", reason="OpenCV is not installed (the extra 'camera')")


@pytest.fixture
def frames_of(cv2: ModuleType) -> Callable[[Path], int]:
    """Counts the frames of a video."""
    return lambda path: int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT))


@pytest.fixture
def make_video(tmp_path: Path, cv2: ModuleType) -> Callable[..., Path]:
    """Writes RGB frames as a video with OpenCV and gives its path."""

    def make(frames: list[np.ndarray], name: str = "clip.mp4", fourcc: str = "mp4v", fps: float = 25.0) -> Path:
        path = tmp_path / name
        height, width = frames[0].shape[:2]
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*fourcc), fps, (width, height))
        assert writer.isOpened()
        for frame in frames:
            writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
        writer.release()
        return path

    return make


def boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    """The top-level boxes of an mp4: kind and the whole box."""
    found, place = [], 0
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        found.append((kind, data[place : place + length]))
        place += length
    return found


def index_first(data: bytes) -> bytes:
    """The same mp4 with its index (moov) before its frames, as files for the web are written."""
    parts = boxes(data)
    moov = bytearray(dict(parts)[b"moov"])
    at = moov.find(b"stco") + 8
    (count,) = struct.unpack(">I", moov[at : at + 4])
    for entry in range(count):
        place = at + 4 + 4 * entry
        (offset,) = struct.unpack(">I", moov[place : place + 4])
        moov[place : place + 4] = struct.pack(">I", offset + len(moov))
    return parts[0][1] + bytes(moov) + b"".join(box for kind, box in parts[1:] if kind != b"moov")


def hide_frames(data: bytes, seconds: float) -> bytes:
    """The same mp4 with an edit list that presents its first `seconds` only, as a cut without re-encoding does."""
    changed = bytearray(data)
    elst, tkhd = changed.find(b"elst") + 4, changed.find(b"tkhd") + 4
    length = struct.pack(">I", round(seconds * 1000))  # OpenCV writes a movie timescale of 1000
    changed[elst + 8 : elst + 12] = length
    changed[tkhd + 20 : tkhd + 24] = length
    return bytes(changed)


@pytest.fixture
def tools() -> SimpleNamespace:
    """The helpers above, for test modules (which importlib mode does not let import this file)."""
    return SimpleNamespace(
        solid=solid,
        textured=textured,
        index_first=index_first,
        hide_frames=hide_frames,
        boxes=boxes,
        Runtime=ColorEngine,
        labels=LABELS,
    )
