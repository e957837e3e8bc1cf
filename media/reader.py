"""Contract of every decoder of video files, and the rule of damage.

Every frame that can be decoded is delivered. Where the file was cut off or is damaged inside, a `BadInputError` follows
them: a recording is never shortened without a word. How many reads are tried depends on what is in the file, never on
what its header promises.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..clips import Frame
from ..errors import BadInputError, command
from .clock import FrameClock

VIDEO_SUFFIXES = (
    ".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts", ".m2ts", ".3gp",
    ".ogv",
)  # fmt: skip
SLACK_FRAMES = 2  # encoders and containers disagree by a frame at either end
SLACK_S = 1.0  # where only the whole file's duration is known, and its sound may outlast its picture
FAILED_READS = 64  # one after the other, before the rest of a file is given up
MAX_RATE = 1000.0  # frames per second; a declared rate beyond is a mistake of the container


class DecodedFrame(ABC):
    """One frame of a video.

    Pixels are converted when asked for, which most readers do for few frames.

    Attributes:
        time_s: seconds from the first frame, strictly ascending.
        index: its place among the frames delivered, from 0.
    """

    time_s: float
    index: int

    @abstractmethod
    def rgb(self) -> Frame:
        """The upright pixels, uint8 `[H, W, 3]`, RGB.

        To be called before the next frame is asked for.

        Raises:
            BadInputError: grey of more than 8 bits.
        """


@dataclass(frozen=True)
class DeclaredLength:
    """What a container says of its length.

    Attributes:
        frames: number of frames, 0 where it says nothing.
        seconds: of the picture, 0 where it says nothing.
        slack_s: how far the seconds may be off in a whole file.
    """

    frames: int
    seconds: float
    slack_s: float


class VideoReader(ABC):
    """Reader of one file. A subclass decodes; what counts as damage is decided here.

    Attributes:
        path: the file.
        fps: frames per second, as declared, or the caller's.
        count: frames to expect, or None where nobody knows.
    """

    def __init__(self, path: Path, descriptor: int, fps: float) -> None:
        self.path, self._descriptor = path, descriptor
        self._holes = 0  # frames lost between two that were delivered
        # A decoder that is freed while another thread reads in it ends the process; so does a read after that.
        self._decoder = threading.Lock()
        try:
            self.fps, self._length = self._open(fps)
            self.count = self._expected()
            self._frames = self._stamped()
            # Decoded here, so that a file without any frame is refused before a runtime is loaded for it.
            self._first = self._next()
            if self._first is None:
                raise self._no_frame()
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[DecodedFrame]:
        """Give all frames, once; ends early where the file is given back meanwhile, on any thread.

        Raises:
            BadInputError: after the last frame, where the file is cut off or damaged.
        """
        first, self._first = self._first, None
        if first is None:
            return
        seen, begin_s = 1, first.time_s
        end_s = begin_s + 1 / self.fps
        yield first
        while (frame := self._next()) is not None:
            seen += 1
            end_s = frame.time_s + 1 / self.fps
            yield frame
        if self._descriptor < 0:
            return
        missing_s = self._length.seconds - (end_s - begin_s)
        few = self.count is None or seen < self.count - SLACK_FRAMES
        if self._holes or (few and missing_s > self._length.slack_s):
            of = f"{seen} of {self.count}" if self.count else f"{seen}"
            raise BadInputError(
                f"{self.path} breaks off or is damaged: {of} frames could be decoded.",
                cause=self.cause_of_loss,
                next="copy or record it again",
            )

    cause_of_loss = "a copy or a recording that was cut off, or damage inside the file"

    def close(self) -> None:
        """Give the file back, after a read that another thread is in. A second call does nothing."""
        with self._decoder:
            if self._descriptor >= 0:
                self._release()
                os.close(self._descriptor)
                self._descriptor = -1

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @abstractmethod
    def _open(self, fps: float) -> tuple[float, DeclaredLength]:
        """Open the descriptor; gives the declared rate, or `fps`, and the declared length."""

    @abstractmethod
    def _decode(self) -> Iterator[tuple[DecodedFrame, float | None]]:
        """Every frame that can be decoded, and its time in seconds; counts `_holes`."""

    @abstractmethod
    def _release(self) -> None: ...

    def _next(self) -> DecodedFrame | None:
        """The next frame; None after the last, and once the file was given back."""
        with self._decoder:
            return next(self._frames, None) if self._descriptor >= 0 else None

    def _stamped(self) -> Iterator[DecodedFrame]:
        clock = FrameClock(self.fps)
        for index, (frame, reported_s) in enumerate(self._decode()):
            frame.index, frame.time_s = index, clock.stamp(reported_s)
            yield frame

    def _expected(self) -> int | None:
        """Frames to expect; of two different answers the smaller one.

        A count may include frames that an edit list hides; a rate may be far too high where frames come unevenly.
        """
        by_time = round(self._length.seconds * self.fps)
        return min(self._length.frames or by_time, by_time or self._length.frames) or None

    def _no_frame(self) -> BadInputError:
        return BadInputError(
            f"No frame of {self.path} can be decoded as video.",
            cause="a recording that was cut off before its index was written, another kind of file, or an unknown "
            "codec",
            next=command("ffprobe", "-hide_banner", self.path),
        )
