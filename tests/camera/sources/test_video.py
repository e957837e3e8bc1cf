from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logoformer.camera.sources import video
from logoformer.camera.sources.contract import TimedFrame
from logoformer.camera.sources.open import open_source
from logoformer.camera.sources.video import Camera, FrameClock, VideoFile
from logoformer.errors import BadInputError, MachineError


def read(path: Path) -> tuple[list[TimedFrame], BadInputError | None]:
    """Everything that a video delivers, and the error after it."""
    delivered: list[TimedFrame] = []
    try:
        with open_source(path) as source:
            delivered.extend(source)
    except BadInputError as error:
        return delivered, error
    return delivered, None


# -------------------------------------------------------------------------------------------------------- whole videos
@pytest.mark.parametrize(
    ("name", "fourcc"), [("a.mp4", "mp4v"), ("a.avi", "MJPG"), ("a.mkv", "mp4v"), ("a.avi", "XVID")]
)
def test_a_whole_video_gives_all_its_frames_and_times(make_video, tools, name, fourcc):
    path = make_video([tools.textured(index) for index in range(40)], name, fourcc, fps=20.0)
    with open_source(path) as source:
        assert (source.fps, source.count, source.color, source.path) == (20.0, 40, "bgr", path)
    delivered, error = read(path)
    assert error is None
    assert [one.index for one in delivered] == list(range(40))
    assert [one.time_s for one in delivered] == pytest.approx([index / 20 for index in range(40)])
    assert {one.frame.shape for one in delivered} == {(96, 128, 3)}


def test_a_video_comes_in_bgr(make_video, tools):
    delivered, _ = read(make_video([tools.solid("red", 64, 64)] * 3))
    blue, green, red = delivered[0].frame[32, 32].astype(int)
    assert delivered[0].color == "bgr"
    assert red > 180 > 60 > max(blue, green)


def test_a_video_with_one_frame_is_a_video(make_video, tools):
    delivered, error = read(make_video([tools.solid("red")]))
    assert len(delivered) == 1
    assert error is None


def test_frames_hidden_by_an_edit_list_are_not_missed(make_video, tools, tmp_path):
    whole = make_video([tools.textured(index) for index in range(40)])
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(tools.hide_frames(whole.read_bytes(), 0.8))
    delivered, error = read(cut)
    assert len(delivered) == 20
    assert error is None
    assert VideoFile(cut, 25.0).count == 20


def test_a_link_that_the_user_named_is_followed(make_video, tools, tmp_path):
    link = tmp_path / "link.mp4"
    link.symlink_to(make_video([tools.solid("red")] * 4))
    assert len(read(link)[0]) == 4


def test_a_name_is_never_taken_for_a_protocol(make_video, tools, tmp_path, monkeypatch):
    make_video([tools.solid("red")] * 4).rename(tmp_path / "concat:a|b%03d.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(read(Path("concat:a|b%03d.mp4"))[0]) == 4


# ---------------------------------------------------------------------------------------------------- damaged videos
@pytest.mark.parametrize(("name", "fourcc"), [("a.avi", "MJPG"), ("a.avi", "XVID"), ("a.mkv", "MJPG")])
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_truncated_video_delivers_its_beginning_and_then_says_so(make_video, tools, tmp_path, name, fourcc, share):
    frames = [tools.textured(index) for index in range(100)]
    data = make_video(frames, name, fourcc).read_bytes()
    cut = tmp_path / f"cut{name}"
    cut.write_bytes(data[: int(len(data) * share)])
    delivered, error = read(cut)
    assert 3 < len(delivered) < 100 * share + 5
    assert error is not None
    assert error.exit_code == 3
    assert f"{len(delivered)} of 100 frames" in error.what
    assert error.next


def test_a_truncated_mp4_with_its_index_first_delivers_its_beginning(make_video, tools, tmp_path):
    data = tools.index_first(make_video([tools.textured(index) for index in range(40)]).read_bytes())
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    whole.write_bytes(data)
    cut.write_bytes(data[: len(data) // 2])
    assert (len(read(whole)[0]), read(whole)[1]) == (40, None)
    delivered, error = read(cut)
    assert 3 < len(delivered) < 30
    assert f"{len(delivered)} of 40 frames" in error.what


def test_a_truncated_mp4_without_its_index_is_bad_input(make_video, tools, tmp_path):
    data = make_video([tools.textured(index) for index in range(40)]).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInputError, match=r"No frame of .* can be decoded") as caught:
        open_source(cut)
    assert "before its index was written" in caught.value.cause


def test_a_hole_in_the_middle_is_passed_over_and_reported(make_video, tools, tmp_path):
    data = bytearray(make_video([tools.textured(index) for index in range(50)]).read_bytes())
    third = len(data) // 3
    data[third : 2 * third] = bytes((7 * value + 3) % 256 for value in data[third : 2 * third])
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data)
    delivered, error = read(broken)
    times = [one.time_s for one in delivered]
    assert 20 < len(delivered) < 45
    assert times[-1] == pytest.approx(1.96)  # the frames behind the hole keep their own times
    assert max(np.diff(times)) > 0.3
    assert f"{len(delivered)} of 50 frames" in error.what


@pytest.mark.parametrize("content", [b"", b"not a video", bytes(5000), b"\0\0\0\x1cftypisom" + bytes(3000)])
def test_what_is_no_video_is_bad_input_before_the_first_frame(tmp_path, content, cv2):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(BadInputError) as caught:
        open_source(path)
    assert caught.value.cause
    assert str(path) in caught.value.what


def test_a_video_without_frames_is_bad_input(make_video, tools, tmp_path):
    # The header of an avi, cut off before its first frame.
    data = make_video([tools.textured(0)] * 10, "a.avi", "MJPG").read_bytes()
    path = tmp_path / "cut.avi"
    path.write_bytes(data[: data.find(b"movi") + 4])
    with pytest.raises(BadInputError, match="No frame of"):
        open_source(path)


def test_a_video_that_may_not_be_read_is_named(make_video, tools, monkeypatch):
    path = make_video([tools.solid("red")])

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(BadInputError, match=r"clip\.mp4 cannot be read: Permission denied"):
        open_source(path)


# -------------------------------------------------------------------------------------- what OpenCV reports, by double
class Capture:
    """A `cv2.VideoCapture` that reports the numbers it is given and delivers as many frames as it has times."""

    def __init__(self, times_ms: list[float], fps: float = 25.0, count: float = 0.0, opened: bool = True) -> None:
        self.times_ms, self.fps, self.count, self.opened = list(times_ms), fps, count, opened
        self.now_ms = 0.0
        self.released = False

    def isOpened(self) -> bool:
        return self.opened

    def get(self, name: str) -> float:
        return {"fps": self.fps, "count": self.count, "ms": self.now_ms}[name]

    def read(self) -> tuple[bool, np.ndarray | None]:
        if not self.times_ms:
            return False, None
        self.now_ms = self.times_ms.pop(0)
        return True, np.zeros((4, 6, 3), np.uint8)

    def release(self) -> None:
        self.released = True


@pytest.fixture
def opencv(monkeypatch):
    """Puts a double in the place of cv2 and gives a function that sets what it will open."""

    def set_capture(capture: Capture) -> Capture:
        module = SimpleNamespace(
            VideoCapture=lambda _: capture, CAP_PROP_FPS="fps", CAP_PROP_FRAME_COUNT="count", CAP_PROP_POS_MSEC="ms"
        )
        monkeypatch.setattr(video, "load_cv2", lambda _: module)
        return capture

    return set_capture


@pytest.fixture
def some_file(tmp_path) -> Path:
    """A file of a container that does not count its frames."""
    path = tmp_path / "a.webm"
    path.write_bytes(b"\x1a\x45\xdf\xa3" + bytes(100))
    return path


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf"), 90000.0])
def test_a_senseless_rate_gives_way_to_the_default(opencv, some_file, fps):
    opencv(Capture([0.0, 0.0, 0.0], fps=fps))
    source = open_source(some_file, fps=10)
    assert source.fps == 10
    assert [one.time_s for one in source] == pytest.approx([0, 0.1, 0.2])


@pytest.mark.parametrize("count", [0.0, -192153584101141.0, 1e15, float("nan")])
def test_a_senseless_count_is_no_count(opencv, some_file, count):
    opencv(Capture([0.0, 40.0], count=count))
    source = open_source(some_file)
    assert source.count is None
    assert len(list(source)) == 2


def test_sound_that_outlasts_the_picture_is_no_damage(opencv, some_file):
    opencv(Capture([40.0 * index for index in range(100)], count=120.0))  # 0.8 s of sound more
    assert len(list(open_source(some_file))) == 100


def test_a_varying_rate_is_no_damage(opencv, some_file):
    # Declared 60 frames/s over 10 s, but the recorder made 20 a second.
    opencv(Capture([50.0 * index for index in range(200)], fps=60.0, count=600.0))
    assert len(list(open_source(some_file))) == 200


def test_a_last_frame_that_stands_for_long_is_no_damage(opencv, some_file):
    # A recorder of screens: every frame is there, and the last of them is shown for the rest of the time.
    some_file.write_bytes(b"RIFF____AVI ")
    opencv(Capture([20.0 * index for index in range(100)], count=100.0))
    assert len(list(open_source(some_file))) == 100


def test_a_missing_end_is_damage_in_any_container(opencv, some_file):
    opencv(Capture([40.0 * index for index in range(100)], count=200.0))
    with pytest.raises(BadInputError, match="100 of 200 frames"):
        list(open_source(some_file))


def test_closing_gives_the_file_back(opencv, some_file):
    capture = opencv(Capture([0.0]))
    with open_source(some_file):
        assert not capture.released
    assert capture.released


# ------------------------------------------------------------------------------------------------------------- times
def times(reported_ms: list[float], fps: float = 10.0) -> list[float]:
    clock = FrameClock(fps)
    return [clock.stamp(np.zeros((1, 1, 3), np.uint8), "bgr", value).time_s for value in reported_ms]


def test_ascending_times_are_kept_even_where_they_are_uneven():
    assert times([0.0, 33.0, 34.0, 500.0]) == pytest.approx([0, 0.033, 0.034, 0.5])


def test_times_that_stand_still_are_counted_instead():
    assert times([0.0, 0.0, 0.0, 0.0]) == pytest.approx([0, 0.1, 0.2, 0.3])


def test_from_the_first_time_that_falls_on_they_are_counted():
    assert times([0.0, 50.0, 20.0, 60.0, 5000.0]) == pytest.approx([0, 0.05, 0.15, 0.25, 0.35])


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=30), st.floats(0.1, 1000))
def test_whatever_is_reported_times_are_finite_and_ascend_strictly(reported, fps):
    stamps = times(
        [value if abs(value) < 1e12 or value != value or math.isinf(value) else 0.0 for value in reported], fps
    )
    assert all(math.isfinite(stamp) for stamp in stamps)
    assert all(later > earlier for earlier, later in pairwise(stamps))


# ------------------------------------------------------------------------------------------------------------ cameras
@pytest.fixture
def devices(tmp_path, monkeypatch) -> Path:
    """A folder in the place of /dev with three cameras in it."""
    folder = tmp_path / "dev"
    folder.mkdir()
    for index in (0, 2, 10):
        (folder / f"video{index}").touch()
    (folder / "video-helper").touch()
    monkeypatch.setattr(video, "DEVICES", folder)
    return folder


def test_a_camera_that_is_not_there_names_those_that_are(devices):
    with pytest.raises(MachineError, match="There is no camera 1") as caught:
        open_source("1")
    assert caught.value.exit_code == 6
    assert caught.value.what.endswith(f"cameras found: {devices}/video0, {devices}/video2, {devices}/video10.")
    assert caught.value.next


def test_no_camera_at_all_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "DEVICES", tmp_path)
    with pytest.raises(MachineError, match="cameras found: none") as caught:
        open_source("0")
    assert "no camera is plugged in" in caught.value.cause


def test_a_camera_without_permission_names_the_group(devices, monkeypatch):
    monkeypatch.setattr(video.os, "access", lambda *_: False)
    with pytest.raises(MachineError, match="permission denied") as caught:
        open_source("0")
    assert "video" in caught.value.next


def test_a_busy_camera_is_said_to_be_one(devices, opencv):
    opencv(Capture([], opened=False))
    with pytest.raises(MachineError, match="could not be opened") as caught:
        open_source("002")
    assert "another program" in caught.value.cause


def test_a_camera_stamps_arrival_and_ends_with_an_error_when_it_is_lost(devices, opencv, monkeypatch):
    clock = iter([100.0, 100.05, 100.05, 100.2])
    monkeypatch.setattr(video.time, "monotonic", lambda: next(clock))
    opencv(Capture([0.0] * 4, fps=30.0))
    source = open_source("0")
    assert isinstance(source, Camera)
    assert (source.fps, source.count, source.path) == (30.0, None, None)
    delivered: list[TimedFrame] = []
    with pytest.raises(MachineError, match="stopped delivering after 4 frames"):
        delivered.extend(source)
    stamps = [one.time_s for one in delivered]
    assert stamps == pytest.approx([0, 0.05, 0.05, 0.2])
    assert stamps[2] > stamps[1]
    assert [one.index for one in delivered] == [0, 1, 2, 3]


def test_a_camera_that_declares_no_rate_takes_the_given_one(devices, opencv):
    opencv(Capture([], fps=0.0))
    source = open_source("10", fps=12)
    assert source.fps == 12
