"""An overlay video of a watch: every frame that was worked on, with boxes, labels and bars."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ...bundle.files import atomic_path, writing_failed
from ...errors import MachineError, UsageError, command, needing
from ...media.marks import mark_video
from .contract import AnswerSink, FaceAnswer, FaceFrame
from .drawing import draw_frame, draw_readings, to_image

TICKS = 90_000  # of the video's clock, a second
PANEL_SHARE = 0.42  # width of the panel over the width of the picture
CODECS = (("libx264", {"preset": "veryfast", "crf": "20"}), ("mpeg4", {"qscale": "3"}))


def name_mp4(target: Path) -> str:
    """The option that names an .mp4 in the place of another file."""
    return command("-o", target.parent / f"{target.stem or 'answers'}.mp4")


class OverlaySink(AnswerSink):
    """Writes an .mp4 that appears at `target` when the sink is closed after at least one frame.

    Frames keep their own times. The size of the first frame decides; later ones are fitted into it.

    Args:
        target: the file, an .mp4.
        labels: the C class names.

    Attributes:
        frames: how many were written.
        kept: whether the file is at `target`.

    Raises:
        UsageError: another kind of file, or a folder.
        MachineError: PyAV is not installed.
    """

    def __init__(self, target: Path, labels: Sequence[str]) -> None:
        if target.suffix.lower() != ".mp4":
            raise UsageError(f"The overlay video is an .mp4; {target} is named otherwise.", next=name_mp4(target))
        if target.is_dir():
            raise UsageError(f"{target} is a folder; the overlay video needs a file name.")
        with needing("av", "camera", "Writing an overlay video"):
            import av
        self._av: Any = av
        self.target, self._labels = target, tuple(labels)
        self.frames, self.kept = 0, False
        self._stack = contextlib.ExitStack()
        self._container: Any = None
        self._stream: Any = None
        self._size = (0, 0)
        self._zero_s = 0.0
        self._last_tick = -1

    def frame(self, source: str, seen: FaceFrame, held: Mapping[int, FaceAnswer]) -> None:
        if self._container is None:
            self._open(seen)
        picture = draw_frame(seen, held)
        if picture.size != self._size:
            fitted = to_image(np.zeros((self._size[1], self._size[0], 3), np.uint8), "rgb")
            picture.thumbnail(self._size)
            fitted.paste(picture, ((self._size[0] - picture.width) // 2, (self._size[1] - picture.height) // 2))
            picture = fitted
        panel = draw_readings(
            (self._panel, self._size[1]), self._labels, [held[face] for face in sorted(held)], f"{seen.time_s:.2f} s"
        )
        pixels = np.concatenate([np.asarray(picture), np.asarray(panel)], axis=1)
        tick = max(round((seen.time_s - self._zero_s) * TICKS), self._last_tick + 1)
        self._last_tick = tick
        frame = self._av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = tick, Fraction(1, TICKS)
        with self._writing():
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        self.frames += 1

    def close(self) -> None:
        container, self._container = self._container, None
        if container is None:
            return
        # Leaving the stack gives the file its name; an interrupt here takes away what is there of it.
        with self._stack, self._writing():
            for packet in self._stream.encode():
                container.mux(packet)
            container.close()
            mark_video(self._part)
        self.kept = True

    def _open(self, seen: FaceFrame) -> None:
        shown = draw_frame(seen, {}).size
        self._size = (_even(shown[0]), _even(shown[1]))
        self._panel = _even(max(160, self._size[0] * PANEL_SHARE))
        self._zero_s = seen.time_s
        self._part = self._stack.enter_context(atomic_path(self.target))
        with self._writing():
            self._container = self._av.open(os.fspath(self._part), "w", format="mp4")
            codec, options = next((name, o) for name, o in CODECS if name in self._av.codecs_available)
            self._stream = self._container.add_stream(codec, rate=30, options=dict(options))
            self._stream.width, self._stream.height = self._size[0] + self._panel, self._size[1]
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, TICKS)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (self._av.FFmpegError, OSError) as error:
            self._container = None
            if error.errno == errno.ENOENT:
                failure = writing_failed(error, self.target)
            else:
                failure = MachineError(
                    f"The overlay video {self.target} cannot be written: {error}.",
                    cause="the disk is full, or a limit on file sizes was reached",
                    next="free space or name another place",
                )
            self._stack.__exit__(type(failure), failure, None)  # takes away what is there of it
            raise failure from error


def _even(size: float) -> int:
    """The nearest even number, at least 2: H.264 stores colour at half the resolution."""
    return max(2, 2 * round(size / 2))
