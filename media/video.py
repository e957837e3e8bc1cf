"""Video files: by PyAV, or by OpenCV where PyAV is not installed."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from ..errors import missing_package
from .files import open_media
from .opencv import CvReader
from .pyav import AvReader
from .reader import VideoReader


def open_video(
    path: str | os.PathLike[str], fps: float, *, follow_links: bool = True, extra: str = "camera"
) -> VideoReader:
    """Open a video file.

    Args:
        path: a regular file.
        fps: the rate to assume where the container carries neither times nor a rate.
        follow_links: see `open_media`.
        extra: of pyproject, named where no decoder is installed.

    Raises:
        BadInputError: missing, not a video, a still picture, sound with a cover, or without a single frame.
        RefusedError: not a regular file.
        MachineError: neither PyAV nor OpenCV is installed.
    """
    place = Path(path)
    descriptor = open_media(place, follow_links=follow_links)
    if importable("av"):
        return AvReader(place, descriptor, fps)
    if importable("cv2"):
        return CvReader(place, descriptor, fps)
    os.close(descriptor)
    raise missing_package("av", extra, "Reading a video")


def importable(module: str) -> bool:
    """Whether a module is installed; it is not imported."""
    if module in sys.modules:
        return sys.modules[module] is not None
    return importlib.util.find_spec(module) is not None
