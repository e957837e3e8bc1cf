"""Frames and packets that PyAV calls damaged, by a double of it: what is a hole, what a beginning."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest
from logoformer.errors import BadInputError
from logoformer.media import pyav
from logoformer.media.pyav import AvReader

GOOD, BAD_FRAME, BAD_PACKET, BROKEN, LOST = "good", "bad frame", "bad packet", "broken", "lost"


class FFmpegError(Exception):
    """The double's base of FFmpeg's errors."""


class Container:
    """An `av` container of one stream whose packets are what the test says."""

    format = SimpleNamespace(name="matroska,webm")
    duration = None

    def __init__(self, kinds: list[str]) -> None:
        context = SimpleNamespace(width=8, height=6, format=None)
        self.stream = SimpleNamespace(
            index=0, disposition=0, codec_context=context, average_rate=25, guessed_rate=25, frames=0, duration=None,
            metadata={}, time_base=Fraction(1, 25), start_time=0,
        )  # fmt: skip
        self.streams = SimpleNamespace(video=[self.stream])
        self._left = list(enumerate(kinds))

    def demux(self) -> Iterator[SimpleNamespace]:
        while self._left:
            number, kind = self._left.pop(0)
            if kind == LOST:
                raise FFmpegError
            yield self._packet(number, kind)

    def _packet(self, number: int, kind: str) -> SimpleNamespace:
        def decode() -> list[SimpleNamespace]:
            if kind == BROKEN:
                raise FFmpegError
            return [SimpleNamespace(pts=number, is_corrupt=kind == BAD_FRAME)]

        return SimpleNamespace(
            stream=self.stream, pos=None, size=10, pts=number, dts=number, is_corrupt=kind == BAD_PACKET, decode=decode
        )

    def close(self) -> None:
        """Nothing to close."""


def read(monkeypatch, kinds: list[str]) -> tuple[list[float], BadInputError | None]:
    """The times of the frames that are given, and the error after them."""
    monkeypatch.setattr(pyav, "load_av", lambda _: SimpleNamespace(FFmpegError=FFmpegError))
    monkeypatch.setattr(pyav, "open_container", lambda *_, **__: Container(kinds))
    times: list[float] = []
    try:
        with AvReader(Path("a.mkv"), os.open("/dev/null", os.O_RDONLY), 25.0) as reader:
            times.extend(frame.time_s for frame in reader)  # also those before an error
    except BadInputError as error:
        return times, error
    return times, None


@pytest.mark.parametrize("kind", [BAD_FRAME, BROKEN, LOST])
def test_damage_before_the_first_frame_is_how_a_recording_begins(monkeypatch, kind):
    times, error = read(monkeypatch, [kind, kind, GOOD, GOOD])
    assert len(times) == 2 and error is None


@pytest.mark.parametrize("kind", [BAD_FRAME, BROKEN, LOST])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_damage_after_it_is_a_hole_however_many_good_frames_follow(monkeypatch, kind, after):
    times, error = read(monkeypatch, [GOOD, kind, *[GOOD] * after])
    assert times == pytest.approx([0, *((2 + n) / 25 for n in range(after))])
    assert error is not None and "is damaged" in error.what


@pytest.mark.parametrize("after", [0, 2])
def test_a_packet_that_is_damaged_is_a_hole_though_its_frame_is_given(monkeypatch, after):
    times, error = read(monkeypatch, [GOOD, BAD_PACKET, *[GOOD] * after])
    assert len(times) == 2 + after and error is not None


def test_whole_packets_are_no_hole(monkeypatch):
    assert read(monkeypatch, [GOOD] * 5) == (pytest.approx([0, 0.04, 0.08, 0.12, 0.16]), None)
