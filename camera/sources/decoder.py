"""Connections that PyAV decodes, however they are opened."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import Any

from ...errors import BadInputError, LogoformerError
from ...media.pyav import load_av, to_rgb
from ...media.reader import MAX_RATE
from .live import Arrived, Capture


class AvCapture(Capture):
    """A connection through PyAV. A subclass says how it is opened and what a failure means.

    Attributes:
        shown: the source's name, for messages.
    """

    own_times = True  # whether the frames' own times are used

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self._av = load_av("Reading a camera")
        self._container: Any = None

    @abstractmethod
    def connect(self) -> Any:
        """An opened `av` container."""

    @abstractmethod
    def explain(self, error: Exception) -> LogoformerError:
        """The reason of a failure, for the person at the camera."""

    def open(self) -> None:
        try:
            self._container = self.connect()
        except (self._av.FFmpegError, ValueError, OSError) as error:
            raise self.explain(error) from error
        if not self._container.streams.video:
            raise BadInputError(f"{self.shown} answers, but sends no video.", cause="the URL of a sound stream")
        stream = self._container.streams.video[0]
        # Frame threads would hold back as many frames as there are threads.
        stream.codec_context.thread_type, stream.codec_context.thread_count = "NONE", 1
        declared = float(stream.average_rate or stream.guessed_rate or 0)
        self.fps = declared if 0 < declared <= MAX_RATE else None

    def read(self) -> Iterator[Arrived | None]:
        stream = self._container.streams.video[0]
        for packet in self.packets(stream):
            try:
                frames = packet.decode()
            except (self._av.FFmpegError, ValueError):  # ValueError: a codec that this FFmpeg does not know
                yield None
                continue
            for frame in frames:
                if frame.is_corrupt:
                    yield None
                    continue
                own_s = frame.time if self.own_times else None
                yield Arrived(partial(to_rgb, frame, self.shown), own_s, (frame.width, frame.height))

    def packets(self, stream: Any) -> Iterator[Any]:
        """Packets as they arrive; ends where the stream ends.

        Raises:
            LogoformerError: see `explain`.
        """
        try:
            yield from self._container.demux(stream)
        except (self._av.FFmpegError, OSError) as error:
            raise self.explain(error) from error

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None
