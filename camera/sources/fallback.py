"""Live cameras through OpenCV, where PyAV is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from ...clips import Frame
from ...errors import LogoformerError, MachineError
from ...media.opencv import load_cv2
from ...media.reader import MAX_RATE
from .live import Arrived, Capture

OPEN_MS, READ_MS = 3000, 2500
FAILED = 10  # reads one after the other; each waits for `READ_MS` or returns at once


class CvCapture(Capture):
    """A camera through OpenCV. It gives no reason for a failure, and no times.

    Args:
        target: a URL, or the number of a camera of this machine.
        shown: its name, for messages.
    """

    def __init__(self, target: str | int, shown: str) -> None:
        self._cv2 = load_cv2("Reading a camera")
        self._target, self.shown, self._capture, self._ended = target, shown, None, False

    _capture: Any

    def open(self) -> None:
        cv2 = self._cv2
        if isinstance(self._target, str):
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_MS]
            self._capture = cv2.VideoCapture(self._target, cv2.CAP_FFMPEG, limits)
        else:
            self._capture = cv2.VideoCapture(self._target)
        if not self._capture.isOpened():
            raise MachineError(
                f"{self.shown} cannot be opened.",
                cause="it is not there, is held by another program, or refuses; OpenCV does not say which",
                next="pip install 'logoformer[camera]' brings PyAV, which does",
            )
        declared = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = declared if 0 < declared <= MAX_RATE else None

    def read(self) -> Iterator[Arrived | None]:
        failed = 0
        while not self._ended and failed < FAILED:
            good, pixels = self._capture.read()
            if not good:
                failed += 1
                yield None
                continue
            failed = 0
            yield Arrived(partial(self._rgb, pixels), None, (pixels.shape[1], pixels.shape[0]))

    def _rgb(self, pixels: Any) -> Frame:
        return np.asarray(self._cv2.cvtColor(pixels, self._cv2.COLOR_BGR2RGB), np.uint8)

    def ended(self) -> LogoformerError:
        return MachineError(f"{self.shown} stopped delivering.", cause="it was unplugged, or another program took it")

    def abort(self) -> None:
        self._ended = True

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
