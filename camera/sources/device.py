"""Cameras of this machine: Video4Linux through PyAV."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import LogoformerError, MachineError
from ...media.pyav import open_container
from ...media.video import importable
from .decoder import AvCapture
from .fallback import CvCapture
from .live import Capture

DEVICES = Path("/dev")
POLL_S = 0.002  # between two looks for a frame; the driver's own waiting cannot be interrupted
NEXT = "v4l2-ctl --list-devices"


def camera_device(index: str) -> Path:
    """`/dev/video<index>`."""
    return DEVICES / f"video{index.lstrip('0') or '0'}"


def require_device(device: Path) -> None:
    """Refuse a camera that is not there or may not be opened.

    Raises:
        MachineError: names the cameras that there are.
    """
    if not device.exists():
        found = sorted(DEVICES.glob("video[0-9]*"), key=lambda path: (len(path.name), path.name))
        names = ", ".join(str(path) for path in found) or "none"
        raise MachineError(
            f"There is no camera {device}; cameras found: {names}.",
            cause="it was unplugged" if found else "no camera is plugged in, or this container was given none",
            next=NEXT,
        )
    if not os.access(device, os.R_OK | os.W_OK):
        raise MachineError(
            f"The camera {device} may not be opened: permission denied.",
            cause="this user is not in the group that owns it, mostly 'video'",
            next="sudo usermod -aG video $USER, then log in again",
        )


class DeviceCapture(AvCapture):
    """A camera by its device file, in the driver's own format and size.

    The device is opened without blocking: FFmpeg would otherwise wait inside the driver, where nothing ends it, for a
    camera that stopped delivering.

    Args:
        device: such as `/dev/video0`.
    """

    def __init__(self, device: Path) -> None:
        super().__init__(str(device))
        self._device, self._ended = device, False

    def connect(self) -> Any:
        require_device(self._device)
        options = {"fflags": "nonblock+nobuffer"}
        return open_container(self._av, str(self._device), format="v4l2", options=options, timeout=(3.0, 2.5))

    def packets(self, stream: Any) -> Iterator[Any]:
        packets = self._container.demux(stream)
        while not self._ended:
            try:
                packet = next(packets)
            except BlockingIOError:
                time.sleep(POLL_S)
                packets = self._container.demux(stream)
                continue
            except StopIteration:
                return
            except (self._av.FFmpegError, OSError) as error:
                raise self.explain(error) from error
            yield packet

    def abort(self) -> None:
        self._ended = True

    def explain(self, error: Exception) -> LogoformerError:
        return explain_device(error, self._device)


def explain_device(error: Exception, device: Path) -> LogoformerError:
    """The reason why a camera of this machine cannot be read."""
    number = getattr(error, "errno", None)
    if number == errno.ENODEV or not device.exists():
        return MachineError(f"The camera {device} is gone.", cause="it was unplugged", next="sudo dmesg | tail")
    if number == errno.EBUSY:
        return MachineError(
            f"The camera {device} is busy.", cause="another program holds it", next=f"fuser -v {device}"
        )
    return MachineError(
        f"The camera {device} could not be opened.",
        cause="another program holds it, or it is the metadata half of a camera (mostly the odd numbers)",
        next=NEXT,
    )


def device_capture(device: Path, patient: bool = False) -> Callable[[], Capture]:
    """What makes a connection to a camera of this machine.

    Args:
        device: such as `/dev/video0`.
        patient: a camera that is not there yet, or may not be opened yet, is looked for at each connection only.

    Raises:
        MachineError: it is not there, or may not be opened.
    """
    if not patient:
        require_device(device)
    if importable("av"):
        return partial(DeviceCapture, device)
    return partial(CvCapture, int(device.name.removeprefix("video")), str(device))
