"""OpenCV: loading, and video files where PyAV is not installed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..clips import Frame
from ..errors import BadInputError, needing
from .reader import FAILED_READS, MAX_RATE, SLACK_FRAMES, SLACK_S, DeclaredLength, DecodedFrame, VideoReader
from .stills import MAX_PIXELS

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


class CvFrame(DecodedFrame):
    """A frame that OpenCV has grabbed."""

    def __init__(self, capture: Any, cv2: Any, shown: str, decoder: threading.Lock) -> None:
        self._capture, self._cv2, self._shown, self._decoder = capture, cv2, shown, decoder

    def rgb(self) -> Frame:
        with self._decoder:
            good, pixels = self._capture.retrieve()
        if not good:
            raise BadInputError(f"Frame {self.index} of {self._shown} cannot be decoded.", next="copy it again")
        return np.asarray(self._cv2.cvtColor(pixels, self._cv2.COLOR_BGR2RGB), np.uint8)


class CvReader(VideoReader):
    """A video file through OpenCV.

    It reports no damage inside a packet, and counts the frames that an edit list hides as if they were missing.
    """

    _capture: Any = None
    cause_of_loss = (
        "a copy or a recording that was cut off, damage inside it, or frames hidden by an edit list, which OpenCV "
        "counts and PyAV does not (pip install 'logoformer[camera]')"
    )

    def _open(self, fps: float) -> tuple[float, DeclaredLength]:
        cv2 = self._cv2 = load_cv2("Reading a video")
        name = f"/proc/self/fd/{self._descriptor}"  # OpenCV crashes on a name that is no UTF-8
        for backend in (cv2.CAP_FFMPEG, cv2.CAP_GSTREAMER):
            self._capture = cv2.VideoCapture(name, backend)
            if self._capture.isOpened():
                break
        else:
            raise self._no_frame()
        # 4.11, which is what numpy 1 resolves to, does not rotate by itself; given when opening, it makes that fail.
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        width, height = (self._capture.get(p) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > MAX_PIXELS:
            raise BadInputError(f"{self.path} has {width:.0f} x {height:.0f} pixels; {MAX_PIXELS} are read.")
        declared = self._capture.get(cv2.CAP_PROP_FPS)
        rate = declared if 0 < declared <= MAX_RATE else fps
        counted = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        frames = int(counted) if 0 < counted < 2**31 else 0
        slack_s = SLACK_FRAMES / rate
        if not _counts_frames(os.pread(self._descriptor, 12, 0)):
            slack_s = max(SLACK_S, slack_s)
        return rate, DeclaredLength(frames, frames / rate, slack_s)

    def _decode(self) -> Iterator[tuple[DecodedFrame, float | None]]:
        failed, most = 0, FAILED_READS
        while failed <= most:
            if not self._capture.grab():
                failed += 1  # it passes over a damaged packet, or the end is reached
                continue
            self._holes += failed
            failed = 0
            reported_s = self._capture.get(self._cv2.CAP_PROP_POS_MSEC) / 1000
            yield CvFrame(self._capture, self._cv2, str(self.path), self._decoder), reported_s

    def _release(self) -> None:
        if self._capture is not None:
            self._capture.release()


def _counts_frames(head: bytes) -> bool:
    """Whether a container, by its first 12 bytes, counts its video frames: mp4/mov and avi do.

    Others (Matroska, MPEG) give the duration of the whole file, in which the sound may outlast the picture.
    """
    return head[4:8] == b"ftyp" or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
