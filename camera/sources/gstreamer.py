"""GStreamer pipelines, run by a `gst-launch-1.0` child.

It writes raw frames with their times into a pipe, which PyAV reads.

The child needs nothing of this Python: any plugin of the machine works (a Jetson's `nvarguscamerasrc`,
`nvv4l2decoder`), and a crash of one stays in the child.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ...errors import LogoformerError, MachineError, UsageError, command, missing_package
from ...media.pyav import open_container
from ...media.video import importable
from .decoder import AvCapture
from .live import Capture

PROGRAM = "gst-launch-1.0"
# Raw video in Matroska keeps each frame's time, to a millisecond.
TAIL = "videoconvert ! video/x-raw,format=I420 ! matroskamux streamable=true ! fdsink fd=1"
# The camera connector of a Jetson, as NVIDIA's own examples write it; the picture is copied out of the card's memory.
CSI = (
    "nvarguscamerasrc sensor-id={index} ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=30/1 ! nvvidconv ! "
    "video/x-raw,format=I420"
)
LOG_BYTES = 4096  # of the child's own lines, that a message quotes
MAX_LOG_BYTES = 1 << 20
_PROGRAM_S = 2.0  # for the child to end by itself


class GstCapture(AvCapture):
    """One run of a pipeline.

    Args:
        pipeline: elements joined by '!', without a sink.
        shown: its name, for messages.
    """

    def __init__(self, pipeline: str, shown: str) -> None:
        super().__init__(shown)
        self._pipeline = pipeline
        self._child: subprocess.Popen[bytes] | None = None
        self._aborted = False

    def connect(self) -> Any:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        words = [PROGRAM, "-q", *split_pipeline(self._pipeline), "!", *shlex.split(TAIL)]
        try:
            # A session of its own, so that Ctrl-C reaches this program alone, which then ends the child.
            self._child = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._log, start_new_session=True
            )
        except OSError as error:
            raise MachineError(f"{PROGRAM} could not be started: {error.strerror}.") from error
        if self._aborted:
            self.abort()
        pipe = self._child.stdout
        options = {"fd": str(pipe.fileno() if pipe else -1), "protocol_whitelist": "fd"}
        options |= {"fflags": "nobuffer", "analyzeduration": "0", "probesize": "1000000"}
        return open_container(self._av, "fd:", format="matroska", options=options)

    def packets(self, stream: Any) -> Iterator[Any]:
        for packet in super().packets(stream):
            # What the child says for days must not fill the disk. Its place in the file stays: the beginning is a hole.
            if os.fstat(self._log.fileno()).st_blocks * 512 > MAX_LOG_BYTES:
                os.ftruncate(self._log.fileno(), 0)
            yield packet

    def abort(self) -> None:
        self._aborted = True
        if self._child is not None:
            # The whole group: an element may have started programs of its own.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, signal.SIGKILL)

    def explain(self, error: Exception) -> LogoformerError:
        return self.reason()

    def reason(self) -> LogoformerError:
        """Why the child ended, by its own last lines and its exit status."""
        status = None
        if self._child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self._child.wait(_PROGRAM_S)
        lines = self._lines()
        ended = "still runs" if status is None else f"ended ({_status(status)})"
        return MachineError(
            f"{self.shown}: the pipeline {ended} and gives no frames.",
            cause=explain_lines(lines),
            next=f"try it alone: {PROGRAM} {_pasted(self._pipeline)} ! fakesink",
            log=lines,
        )

    def ended(self) -> LogoformerError:
        return self.reason()

    def close(self) -> None:
        super().close()
        if self._child is not None:
            self.abort()
            self._child.wait()
            if self._child.stdout is not None:
                self._child.stdout.close()
            self._child = None
            self._log.close()

    def _lines(self) -> list[str]:
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), LOG_BYTES, max(0, size - LOG_BYTES)).decode("utf-8", "replace")
        text = text.rpartition("\0")[2]
        return [scrub(line) for line in text.splitlines() if line.strip()][-6:]


def _pasted(pipeline: str) -> str:
    """The pipeline for a shell; a placeholder where one of its properties may be a password."""
    if re.search(r"://|@|pw|pass|user|auth|token|secret|key", pipeline, re.IGNORECASE):
        return "PIPELINE"
    return " ".join(word if word == "!" else command(word) for word in split_pipeline(pipeline))


def split_pipeline(text: str) -> list[str]:
    """The words of a pipeline, as a shell would split them.

    Raises:
        UsageError: empty, a quote that is not closed, or a sink at its end.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"The pipeline cannot be split into words: {error}.", next="close its quotes") from error
    if not words or "!" in (words[0], words[-1]):
        raise UsageError("The pipeline is empty or ends in '!'.", next="gst:'v4l2src device=/dev/video0'")
    if re.search(r"(?:^|! *)(?:app|fake|fd|file|auto\w*)sink\b[^!]*$", text):
        raise UsageError("The pipeline has a sink of its own.", next="leave out its last element; frames are read here")
    return words


def pipeline_name(text: str) -> str:
    """A pipeline's elements, without their settings, which may hold a password.

    >>> pipeline_name("rtspsrc location=rtsp://u:p@h/ ! decodebin")
    'gst:rtspsrc ! decodebin'
    """
    elements = [part.split()[0] for part in text.split("!") if part.strip()]
    return "gst:" + " ! ".join(re.sub(r"[=,].*", "", element) for element in elements)


def scrub(line: str) -> str:
    """A line of a log without what stands between '//' and '@', or behind a `...pw=`."""
    line = re.sub(r"//[^/@\s]*@", "//", line)
    return re.sub(r"(?i)((?:pw|password|passwd|token)\s*=\s*)\S+", r"\1...", line)


def explain_lines(lines: list[str]) -> str:
    """The likely cause, by what GStreamer wrote."""
    text = " ".join(lines)
    causes = {
        "no element": "a plugin that is not installed",
        "syntax error": "a mistake in the pipeline",
        "could not link": "elements that do not fit each other",
        "Could not open resource": "no such file or device",
        "Unauthorized": "a wrong password",
        "Not found": "a wrong path",
        "Could not connect": "nothing listens there",
        "nvargus": "the camera daemon of the Jetson: no camera, or it hangs (sudo systemctl restart nvargus-daemon)",
    }
    return next((cause for sign, cause in causes.items() if sign.lower() in text.lower()), "")


def gst_capture(pipeline: str, shown: str) -> Callable[[], Capture]:
    """What starts a pipeline; `shown` is its name, for messages.

    Raises:
        UsageError: it cannot be split into words, or has a sink.
        MachineError: GStreamer's program, or PyAV, is not installed.
    """
    split_pipeline(pipeline)
    if shutil.which(PROGRAM) is None:
        raise MachineError(
            f"A GStreamer pipeline needs the program {PROGRAM}, which is not installed here.",
            next="sudo apt-get install gstreamer1.0-tools",
        )
    if not importable("av"):
        raise missing_package("av", "camera", "Reading a GStreamer pipeline")
    return partial(GstCapture, pipeline, shown)


def _status(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"
