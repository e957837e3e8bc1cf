"""Cameras of this machine, by doubles: what is missing, busy or unplugged; reads that do not block."""

from __future__ import annotations

import errno
import itertools
import math
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from logoformer.camera.sources import decoder, device, fallback
from logoformer.camera.sources.open import open_source
from logoformer.errors import MachineError


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture
def devices(tmp_path, monkeypatch) -> Path:
    """A folder in the place of /dev with three cameras in it."""
    folder = tmp_path / "dev"
    folder.mkdir()
    for index in (0, 2, 10):
        (folder / f"video{index}").touch()
    (folder / "video-helper").touch()
    monkeypatch.setattr(device, "DEVICES", folder)
    return folder


@pytest.mark.parametrize("text", ["1", "/dev/video1", "0001"])
def test_a_camera_that_is_not_there_names_those_that_are(devices, text):
    with pytest.raises(MachineError, match="There is no camera") as caught:
        open_source(text)
    assert caught.value.exit_code == 6
    assert caught.value.what.endswith(f"cameras found: {devices}/video0, {devices}/video2, {devices}/video10.")
    assert caught.value.next


def test_no_camera_at_all_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "DEVICES", tmp_path)
    with pytest.raises(MachineError, match="cameras found: none") as caught:
        open_source("0")
    assert "no camera is plugged in" in caught.value.cause


def test_a_camera_without_permission_names_the_group(devices, monkeypatch):
    monkeypatch.setattr(device.os, "access", lambda *_: False)
    with pytest.raises(MachineError, match="permission denied") as caught:
        open_source("0")
    assert "video" in caught.value.next


# --------------------------------------------------------------------------------------------- PyAV's V4L2, by a double
class FFmpegError(Exception):
    """The double's base of FFmpeg's errors."""


class NoFrameYet(FFmpegError, BlockingIOError):
    """What FFmpeg answers where no frame is there yet."""


class Unplugged(FFmpegError, OSError):
    """What a driver answers for a camera that was pulled out."""


class Frame:
    """A frame of the double."""

    width, height, is_corrupt, side_data = 8, 6, False, {}
    format = SimpleNamespace(name="yuyv422")

    def __init__(self, number: int) -> None:
        self.number, self.time = number, 1000.0 + number / 30

    def to_ndarray(self, format: str) -> np.ndarray:
        assert format == "rgb24"
        return np.full((6, 8, 3), self.number, np.uint8)


class Driver:
    """A double of PyAV with one camera: each read gives what the script says."""

    def __init__(self, script: list, fail: Exception | None = None) -> None:
        self.script, self.fail, self.opened, self.closed = iter(script), fail, [], 0
        self.FFmpegError = FFmpegError
        context = SimpleNamespace()
        self.stream = SimpleNamespace(average_rate=30, guessed_rate=30, codec_context=context)
        self.streams = SimpleNamespace(video=[self.stream])

    def open(self, *words, **options):
        self.opened.append((words, options))
        if self.fail:
            raise self.fail
        return self

    def demux(self, _stream):
        for step in self.script:
            if isinstance(step, Exception):
                raise step
            yield SimpleNamespace(decode=lambda step=step: [Frame(step)])

    def close(self):
        self.closed += 1


@pytest.fixture
def camera(devices, monkeypatch):
    """Puts a double in the place of PyAV."""

    def use(*script, fail: Exception | None = None) -> Driver:
        driver = Driver(list(script), fail)
        monkeypatch.setattr(decoder, "load_av", lambda _: driver)
        monkeypatch.setattr(device, "importable", lambda _: True)
        return driver

    return use


def test_frames_of_a_camera_come_with_the_drivers_times(camera, devices):
    driver = camera(NoFrameYet(), 1, NoFrameYet(), NoFrameYet(), 2, 3, *[NoFrameYet()] * 10_000)
    with open_source("0") as source:
        seen = {one.index: one for one in itertools.takewhile(lambda one: one.index < 2, source)}
        assert source.fps == 30 and source.name == f"{devices}/video0"
    assert all(one.frame[0, 0, 0] == index + 1 for index, one in seen.items())
    (words, options), *_ = driver.opened
    assert words == (f"{devices}/video0",) and options["format"] == "v4l2"
    # Without it FFmpeg waits inside the driver, where no time-out and no `close` reaches it.
    assert "nonblock" in options["options"]["fflags"]
    assert driver.closed >= 1


def test_a_camera_that_is_pulled_out_is_lost_with_its_reason_and_comes_back(camera, devices):
    camera(1, Unplugged(errno.ENODEV, "No such device"), 2, *[NoFrameYet()] * 10_000)
    with open_source("/dev/video0") as source:
        reasons = set()
        for one in source:
            reasons.add(source.status().reason)
            if one.epoch == 1:
                break
    assert one.frame[0, 0, 0] == 2


def test_a_camera_that_is_gone_says_so(camera, devices):
    camera(1, Unplugged(errno.ENODEV, "No such device"), fail=None)
    with open_source("0", patient=True) as source:
        (devices / "video0").unlink()
        limit = threading.Event()
        for _ in range(3000):
            if "There is no camera" in source.status().reason or "is gone" in source.status().reason:
                break
            limit.wait(0.005)
        assert source.status().state == "lost" and "camera" in source.status().reason


def test_a_patient_source_waits_for_a_camera_that_is_missing_at_the_start(camera, devices):
    driver = camera(1, 2, 3, *[NoFrameYet()] * 10_000)
    (devices / "video0").unlink()
    with open_source("0", patient=True) as source:
        assert source.timing.patience_s == math.inf
        limit = threading.Event()
        for _ in range(6000):
            if source.status().state == "lost":
                break
            limit.wait(0.005)
        assert source.status().reason.startswith(f"There is no camera {devices}/video0;") and not driver.opened
        (devices / "video0").touch()
        assert next(iter(source)).epoch == 0 and source.status().state == "live"


def test_without_pyav_a_patient_source_waits_too(devices, monkeypatch):
    double = CvDouble(0, opened=False)
    monkeypatch.setattr(fallback, "load_cv2", lambda _: double)
    monkeypatch.setattr(device, "importable", lambda _: False)
    (devices / "video0").unlink()
    with open_source("0", patient=True) as source:
        limit = threading.Event()
        for _ in range(6000):
            if len(double.targets) > 1:
                break
            limit.wait(0.005)
        double.frames, double.opened = 3, True
        assert next(iter(source)).epoch == 0


def test_a_busy_camera_is_said_to_be_one(camera):
    camera(fail=Unplugged(errno.EBUSY, "Device or resource busy"))
    with pytest.raises(MachineError, match="is busy") as caught:
        open_source("002")
    assert caught.value.cause == "another program holds it"


def test_what_is_no_camera_is_said_to_be_none(camera):
    camera(fail=Unplugged(errno.ENOTTY, "Inappropriate ioctl for device"))
    with pytest.raises(MachineError, match="could not be opened") as caught:
        open_source("2")
    assert "metadata half" in caught.value.cause


# -------------------------------------------------------------------------------------------------- OpenCV, by a double
class CvDouble:
    """A double of cv2 whose capture gives as many frames as it is told, then fails."""

    CAP_FFMPEG, CAP_PROP_FPS, CAP_PROP_OPEN_TIMEOUT_MSEC, CAP_PROP_READ_TIMEOUT_MSEC, COLOR_BGR2RGB = 1, 5, 53, 54, 4

    def __init__(self, frames: int, opened: bool = True) -> None:
        self.frames, self.opened, self.targets, self.released = frames, opened, [], 0

    def VideoCapture(self, *words):
        self.targets.append(words)
        return self

    def isOpened(self) -> bool:
        return self.opened

    def get(self, _property) -> float:
        return 15.0

    def read(self):
        self.frames -= 1
        return (True, np.full((6, 8, 3), (1, 2, 3), np.uint8)) if self.frames >= 0 else (False, None)

    def cvtColor(self, pixels, _code):
        return pixels[:, :, ::-1]

    def release(self) -> None:
        self.released += 1


@pytest.mark.parametrize("text", ["0", "rtsp://u:secret@127.0.0.1:1/x"])
def test_without_pyav_opencv_reads_cameras(devices, monkeypatch, text):
    double = CvDouble(3)
    monkeypatch.setattr(fallback, "load_cv2", lambda _: double)
    monkeypatch.setattr("logoformer.camera.sources.device.importable", lambda _: False)
    monkeypatch.setattr("logoformer.camera.sources.network.importable", lambda _: False)
    with open_source(text) as source:
        one = next(iter(source))
        assert one.frame[0, 0].tolist() == [3, 2, 1] and source.fps == 15 and "secret" not in source.name
    # A time-out when opening: OpenCV's own is 30 s.
    assert double.targets[0] == ((0,) if text == "0" else (text, 1, [53, 3000, 54, 2500]))
    assert double.released >= 1
    closed = CvDouble(0, opened=False)
    monkeypatch.setattr(fallback, "load_cv2", lambda _: closed)
    with pytest.raises(MachineError, match="cannot be opened"):
        open_source(text)
