"""Open the source that a text names: a video file, a folder of frames or a camera."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ...clips import Sampling
from ...errors import BadInputError, UsageError, command
from .contract import FrameSource

MAX_DIGITS = 4  # of a camera's index
_NAME_ONE = "name a video file, a folder of frames, or a camera's index such as 0"


def open_source(text: str | os.PathLike[str], fps: float | None = None) -> FrameSource:
    """Open a source of frames.

    Args:
        text: digits alone are a camera's index (a file of that name is './0'); anything else is a path, either a
            folder of numbered images or a video file.
        fps: frames per second where the source carries no times of its own: a folder, or a video without
            timestamps. None: the rate of the default sampling. A camera and an ordinary video ignore it.

    Returns:
        The source, opened: what could be refused without decoding everything has been refused already.

    Raises:
        UsageError: the text is empty, or `fps` is not a sensible rate.
        BadInputError: it does not exist, is neither a file nor a folder, or it holds no frame.
        MachineError: no such camera, no permission for it, or OpenCV is not installed.
    """
    rate = Sampling.fps if fps is None else fps
    if not 0 < rate <= 1000:
        raise UsageError(f"{rate} frames per second is not possible.", next="give --fps a number over 0, up to 1000")
    text = os.fspath(text)
    if not text:
        raise UsageError("The source is empty.", cause="a shell variable that is not set", next=_NAME_ONE)
    if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS:
        from .video import Camera

        return Camera(text, rate)
    path = Path(text)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise _not_there(path, error) from error
    if stat.S_ISDIR(mode):
        from .folder import FrameFolder

        return FrameFolder(path, rate)
    if not stat.S_ISREG(mode):
        # Before OpenCV sees it: opening a FIFO would wait for a writer for ever.
        camera = path.name.removeprefix("video") if path.parent == Path("/dev") else ""
        raise BadInputError(
            f"{path} is neither a video file nor a folder of frames.",
            cause="it is a pipe, socket or device",
            next=command("logoformer", "run", "BUNDLE", camera) if camera.isdigit() else _NAME_ONE,
        )
    from .video import VideoFile

    return VideoFile(path, rate)


def _not_there(path: Path, error: OSError | ValueError) -> BadInputError:
    if isinstance(error, PermissionError):
        return BadInputError(
            f"{path} cannot be reached: permission denied.",
            cause="a folder on the way may not be entered by this user",
            next=command("namei", "-l", path),
        )
    why = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be opened: {error}"
    return BadInputError(f"{path} {why}.", next=_NAME_ONE)
