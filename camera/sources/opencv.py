"""OpenCV, imported late, its own log lines switched off."""

from __future__ import annotations

import os
from typing import Any

from ...errors import missing_package

# FFmpeg, inside OpenCV, writes its own lines to stderr ("moov atom not found"), in the middle of ours. -8 is its
# AV_LOG_QUIET. Both variables are read once, when OpenCV starts; a value that the user set is left alone.
QUIET = {"OPENCV_FFMPEG_LOGLEVEL": "-8", "OPENCV_LOG_LEVEL": "FATAL"}


def load_cv2(purpose: str) -> Any:
    """Import the module cv2.

    Args:
        purpose: what it is wanted for, as the start of a sentence.

    Raises:
        MachineError: it is not installed.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import cv2
    except ImportError as error:
        raise missing_package("cv2", "camera", purpose) from error
    return cv2
