"""Video files and cameras as sources, through OpenCV."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...clips import Frame
from ...errors import BadInputError, MachineError, command, needing
from .container import has_exact_length, presented_seconds
from .contract import FrameSource, TimedFrame

DEVICES = Path("/dev")
SLACK_FRAMES = 2  # encoders and containers disagree by a frame at either end
SLACK_S = 1.0  # where only the whole file's duration is known, and its sound may outlast its picture
# FFmpeg, inside OpenCV, writes its own lines to stderr ("moov atom not found"), in the middle of ours. -8 is its
# AV_LOG_QUIET. Both variables are read once, when OpenCV starts; a value that the user set is left alone.
QUIET = {"OPENCV_FFMPEG_LOGLEVEL": "-8", "OPENCV_LOG_LEVEL": "FATAL"}


def load_cv2(purpose: str) -> Any:
    """Import the module cv2; `purpose` is the start of a sentence, should it be missing.

    Raises:
        MachineError: it is not installed.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with needing("cv2", "camera", purpose):
        import cv2
    return cv2


class VideoFile(FrameSource):
    """A video file, decoded once from front to back.

    Args:
        path: a regular file (the caller has looked).
        fps: the rate to assume where the container carries neither times nor a rate.

    Raises:
        BadInputError: not readable, not a video, or without a single frame. While iterating: the file is cut off or
            damaged; everything that could be decoded was delivered before.
        MachineError: OpenCV is not installed.
    """

    color = "bgr"

    def __init__(self, path: Path, fps: float) -> None:
        self.path: Path | None = path
        head = _head(path)
        cv2 = load_cv2("Reading a video")
        self._time_property = cv2.CAP_PROP_POS_MSEC
        # An absolute path cannot be taken for a URL or for a protocol of FFmpeg's ("concat:...").
        self._capture = cv2.VideoCapture(os.fspath(path.absolute()))
        declared = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = declared if 0 < declared <= 1000 else fps
        counted = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self._measure(path, head, int(counted) if 0 < counted < 2**31 else 0)
        self._clock = FrameClock(self.fps)
        # The first frame is decoded here, so that a file without any is refused before a runtime is loaded for it.
        self._first = self._read()
        if self._first is None:
            self.close()
            cut_off = "a recording that was cut off before its index was written"
            seen = cut_off if has_exact_length(head) else "another kind of file"
            raise BadInputError(
                f"No frame of {path} can be decoded as video.",
                cause=f"{seen}, or a codec that this OpenCV lacks",
                next=command("ffprobe", "-hide_banner", path),
            )

    def _measure(self, path: Path, head: bytes, counted: int) -> None:
        """Find the seconds of picture and the frames to expect; 0 and None where nobody knows."""
        if has_exact_length(head):
            self._expected_s = presented_seconds(path) or counted / self.fps
            self._slack_s = SLACK_FRAMES / self.fps
        else:
            self._expected_s = counted / self.fps
            self._slack_s = max(SLACK_S, SLACK_FRAMES / self.fps)
        # Of a recording with an edit list, OpenCV counts the hidden frames too; of one with a varying rate, `fps` may
        # be far too high. Either way the smaller number is the right one.
        self.count: int | None = min(counted, round(self._expected_s * self.fps)) or None

    def __iter__(self) -> Iterator[TimedFrame]:
        captured, self._first = self._first, None
        begin_s = end_s = captured.time_s if captured else 0.0
        seen, hole = 0, False
        while captured is not None:
            yield captured
            seen += 1
            end_s = captured.time_s + 1 / self.fps
            captured = self._read()
            for _ in range((self.count or 0) - seen):  # each failed read passes over one damaged packet
                if captured is not None:
                    break
                captured = self._read()
                hole = hole or captured is not None
        short = hole or self._expected_s - (end_s - begin_s) > self._slack_s
        if self.count is not None and seen < self.count - SLACK_FRAMES and short:
            raise BadInputError(
                f"{self.path} breaks off: {seen} of {self.count} frames could be decoded; all of them were used.",
                cause="a copy or a recording that was cut off, or damage inside the file",
                next="copy or record it again",
            )

    def _read(self) -> TimedFrame | None:
        good, frame = self._capture.read()
        if not good:
            return None
        return self._clock.stamp(frame, self.color, self._capture.get(self._time_property))

    def close(self) -> None:
        self._capture.release()


class FrameClock:
    """Clock that gives frames their index and strictly ascending times.

    The container's own times are used as long as they ascend. From the first that does not (some containers carry none
    and report 0 for ever) each frame is 1/fps later than the one before.
    """

    def __init__(self, fps: float) -> None:
        self._step_s = 1 / fps
        self._trusted = True
        self._last_s = -math.inf
        self._index = -1

    def stamp(self, frame: Frame, color: str, reported_ms: float) -> TimedFrame:
        """Stamp the next frame, which OpenCV places at `reported_ms`."""
        self._index += 1
        reported_s = reported_ms / 1000.0
        self._trusted = self._trusted and math.isfinite(reported_s) and reported_s > self._last_s
        if self._trusted:
            self._last_s = reported_s
        else:
            self._last_s = self._last_s + self._step_s if self._index else 0.0
        return TimedFrame(frame, color, self._last_s, self._index)


class Camera(FrameSource):
    """A camera of this machine; a frame's time is when it arrived, counted from the first.

    Args:
        index: the number in `/dev/video<index>`, as digits.
        fps: the rate to assume where the driver declares none.

    Raises:
        MachineError: there is no such camera, it may not be opened, it is busy, or OpenCV is not installed. While
            iterating: it stopped delivering.
    """

    color = "bgr"
    count: int | None = None
    path: Path | None = None

    def __init__(self, index: str, fps: float) -> None:
        self._device = DEVICES / f"video{index.lstrip('0') or '0'}"
        if not self._device.exists():
            raise _no_camera(f"There is no camera {index} ({self._device})")
        if not os.access(self._device, os.R_OK | os.W_OK):
            raise MachineError(
                f"The camera {self._device} may not be opened: permission denied.",
                cause="this user is not in the group that owns it, mostly 'video'",
                next="sudo usermod -aG video $USER, then log in again",
            )
        cv2 = load_cv2("Reading a camera")
        self._capture: Any = cv2.VideoCapture(int(index))
        if not self._capture.isOpened():
            raise _no_camera(
                f"The camera {self._device} could not be opened",
                "another program holds it, or it is the metadata half of a camera (mostly the odd numbers)",
            )
        declared = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = declared if 0 < declared <= 1000 else fps

    def __iter__(self) -> Iterator[TimedFrame]:
        began_s, time_s, index = 0.0, -math.inf, 0
        while True:
            good, frame = self._capture.read()
            if not good:
                break
            now_s = time.monotonic()
            began_s = now_s if index == 0 else began_s
            time_s = max(now_s - began_s, math.nextafter(time_s, math.inf))
            yield TimedFrame(frame, self.color, time_s, index)
            index += 1
        raise MachineError(
            f"The camera {self._device} stopped delivering after {index} frames.",
            cause="it was unplugged, or another program took it",
            next="look at the last lines of: sudo dmesg",
        )

    def close(self) -> None:
        self._capture.release()


def _head(path: Path) -> bytes:
    """The first 12 bytes, which name the container; also proves that the file may be read."""
    try:
        with path.open("rb") as stream:
            head = stream.read(12)
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror}.") from error
    if not head:
        raise BadInputError(f"{path} is empty.", cause="a recording or a copy that never began")
    return head


def _no_camera(what: str, cause: str = "") -> MachineError:
    found = sorted(DEVICES.glob("video[0-9]*"), key=lambda device: (len(device.name), device.name))
    names = ", ".join(str(device) for device in found) or "none"
    return MachineError(
        f"{what}; cameras found: {names}.",
        cause=cause or ("no camera is plugged in, or this container was given none" if not found else ""),
        next="v4l2-ctl --list-devices",
    )
