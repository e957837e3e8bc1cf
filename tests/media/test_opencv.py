"""What OpenCV reports of a file, by a double: senseless rates and counts, sound, uneven times, reads that fail."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from logoformer.errors import BadInputError
from logoformer.media import opencv
from logoformer.media.files import open_media
from logoformer.media.opencv import CvReader
from logoformer.media.reader import FAILED_READS


class Capture:
    """A `cv2.VideoCapture` that reports the numbers it is given and delivers as many frames as it has times."""

    def __init__(
        self, times_ms: list[float | None], fps: float = 25.0, count: float = 0.0, opened: bool = True
    ) -> None:
        self.times_ms, self.fps, self.count, self.opened = list(times_ms), fps, count, opened
        self.now_ms = 0.0
        self.reads = 0
        self.released = False
        self.settings: dict[str, float] = {}

    def isOpened(self) -> bool:
        return self.opened

    def get(self, name: str) -> float:
        return {"fps": self.fps, "count": self.count, "ms": self.now_ms, "w": 6, "h": 4}[name]

    def set(self, name: str, value: float) -> None:
        self.settings[name] = value

    def grab(self) -> bool:
        self.reads += 1
        time_ms = self.times_ms.pop(0) if self.times_ms else None  # None: a packet that cannot be decoded
        self.now_ms = self.now_ms if time_ms is None else time_ms
        return time_ms is not None

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.zeros((4, 6, 3), np.uint8)

    def release(self) -> None:
        self.released = True


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Opens a file of a container that does not count its frames, through a double of OpenCV."""
    path = tmp_path / "a.webm"
    path.write_bytes(b"\x1a\x45\xdf\xa3" + bytes(100))

    def open_double(capture: Capture, fps: float = 25.0, file: Path = path) -> CvReader:
        module = SimpleNamespace(
            VideoCapture=lambda *_: capture, CAP_PROP_FPS="fps", CAP_PROP_FRAME_COUNT="count", CAP_PROP_POS_MSEC="ms",
            CAP_PROP_FRAME_WIDTH="w", CAP_PROP_FRAME_HEIGHT="h", CAP_PROP_ORIENTATION_AUTO="turn", CAP_FFMPEG=1,
            CAP_GSTREAMER=2,
        )  # fmt: skip
        monkeypatch.setattr(opencv, "load_cv2", lambda _: module)
        return CvReader(file, open_media(file, follow_links=True), fps)

    return open_double


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf"), 90000.0])
def test_a_senseless_rate_gives_way_to_the_default(read, fps):
    reader = read(Capture([0.0, 0.0, 0.0], fps=fps), fps=10)
    assert reader.fps == 10
    assert [frame.time_s for frame in reader] == pytest.approx([0, 0.1, 0.2])


@pytest.mark.parametrize("count", [0.0, -192153584101141.0, 1e15, float("nan")])
def test_a_senseless_count_is_no_count(read, count):
    reader = read(Capture([0.0, 40.0], count=count))
    assert reader.count is None
    assert len(list(reader)) == 2


def test_sound_that_outlasts_the_picture_is_no_damage(read):
    assert len(list(read(Capture([40.0 * index for index in range(100)], count=120.0)))) == 100  # 0.8 s of sound more


def test_a_varying_rate_is_no_damage(read):
    # Declared 60 frames/s over 10 s, but the recorder made 20 a second.
    assert len(list(read(Capture([50.0 * index for index in range(200)], fps=60.0, count=600.0)))) == 200


def test_a_last_frame_that_stands_for_long_is_no_damage(read, tmp_path):
    # A recorder of screens: every frame is there, and the last of them is shown for the rest of the time.
    path = tmp_path / "a.avi"
    path.write_bytes(b"RIFF____AVI ")
    assert len(list(read(Capture([20.0 * index for index in range(100)], count=100.0), file=path))) == 100


def test_a_missing_end_is_damage_in_any_container(read):
    with pytest.raises(BadInputError, match="100 of 200 frames") as caught:
        list(read(Capture([40.0 * index for index in range(100)], count=200.0)))
    assert "edit list" in caught.value.cause  # which OpenCV does not know


def test_failed_reads_are_bounded_by_what_is_there_not_by_what_is_claimed(read):
    capture = Capture([40.0 * index for index in range(10)], count=2_000_000_000.0)
    with pytest.raises(BadInputError, match="10 of 2000000000 frames"):
        list(read(capture))
    assert capture.reads <= 10 + FAILED_READS + 1


def test_a_packet_that_fails_between_two_frames_is_a_hole(read):
    with pytest.raises(BadInputError, match="damaged: 4"):
        list(read(Capture([0.0, 40.0, None, None, 160.0, 200.0])))


def test_rotation_is_asked_for_and_the_file_is_given_back(read):
    capture = Capture([0.0])
    with read(capture):
        assert capture.settings == {"turn": 1} and not capture.released
    assert capture.released
