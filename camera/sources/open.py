"""Open the source that a text names: file, folder, camera, URL or GStreamer pipeline."""

from __future__ import annotations

import math
import os
import re
import stat
from pathlib import Path

from ...clips import Sampling
from ...errors import BadInputError, UsageError, command
from .contract import FrameSource

_NAME_ONE = "name a video file, a folder of frames, a camera's index such as 0, or a URL such as rtsp://HOST/PATH"
_DEVICE = re.compile(r"(?:/dev/video)?([0-9]{1,4})", re.ASCII)
_CONNECTOR = re.compile(r"csi:([0-9])", re.ASCII)


def open_source(text: str | os.PathLike[str], fps: float | None = None, *, patient: bool = False) -> FrameSource:
    """Open a source of frames.

    Args:
        text: digits alone or `/dev/video<digits>` are a camera of this machine (a file of that name is './0');
            `rtsp://`, `rtsps://`, `http://` or `https://` a camera on the network; `gst:PIPELINE` what a GStreamer
            pipeline gives; `csi:<digits>` a Jetson's camera connector; anything else is a path, either a folder of
            numbered images or a video file.
        fps: frames per second where the source carries no times of its own: a folder, or a video without
            timestamps. None: the rate of the default sampling. A camera and an ordinary video ignore it.
        patient: of a live source: keep trying from the start and for ever. Otherwise the first connection must give
            a frame, and a later loss of more than 30 s ends the source.

    Returns:
        The source, opened: what could be refused without decoding everything has been refused already.

    Raises:
        UsageError: the text is empty, or `fps` is not a sensible rate.
        BadInputError: it does not exist, is neither a file nor a folder, or it holds no frame; a camera refuses the
            path or the password.
        MachineError: no such camera, no permission for it, it does not answer, or no decoder is installed.
    """
    rate = Sampling.fps if fps is None else fps
    if not 0 < rate <= 1000:
        raise UsageError(f"{rate} frames per second is not possible.", next="give --fps a number over 0, up to 1000")
    text = os.fspath(text)
    if not text:
        raise UsageError("The source is empty.", cause="a shell variable that is not set", next=_NAME_ONE)
    live = _open_live(text, rate, patient)
    if live is not None:
        return live
    path = Path(text)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise _not_there(text, error) from error
    if stat.S_ISDIR(mode):
        from .folder import FrameFolder

        return FrameFolder(path, rate)
    if not stat.S_ISREG(mode):
        # Before a decoder sees it: opening a FIFO would wait for a writer for ever.
        raise BadInputError(
            f"{path} is neither a video file nor a folder of frames.",
            cause="it is a pipe, socket or device",
            next=_NAME_ONE,
        )
    from .video import VideoFile

    return VideoFile(path, rate)


def _open_live(text: str, rate: float, patient: bool) -> FrameSource | None:
    """A source that is a camera by its text; None for a path."""
    from .device import camera_device, device_capture
    from .gstreamer import CSI, gst_capture, pipeline_name
    from .live import LiveSource, LiveTiming
    from .network import SCHEMES, safe_name, url_capture

    device, connector = _DEVICE.fullmatch(text), _CONNECTOR.fullmatch(text)
    if text.partition("://")[0].lower() in SCHEMES and "://" in text:
        make, name = url_capture(text), safe_name(text)
    elif text.startswith("gst:"):
        name = pipeline_name(text[4:])
        make = gst_capture(text[4:], name)
    elif connector:
        make, name = gst_capture(CSI.format(index=connector[1]), text), text
    elif device:
        make, name = device_capture(camera_device(device[1]), patient), str(camera_device(device[1]))
    else:
        return None
    source = LiveSource(make, name, rate, LiveTiming(patience_s=math.inf) if patient else LiveTiming())
    if not patient:
        source.require()
    return source


def _not_there(text: str, error: OSError | ValueError) -> BadInputError:
    from .network import explain_scheme

    path = Path(text)
    if isinstance(error, PermissionError):
        return BadInputError(
            f"{path} cannot be reached: permission denied.",
            cause="a folder on the way may not be entered by this user",
            next=command("namei", "-l", path),
        )
    if (explained := explain_scheme(text)) is not None:
        return explained
    why = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be opened: {error}"
    return BadInputError(f"{path} {why}.", next=_NAME_ONE)
