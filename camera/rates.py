"""Rates of sources that are too low for what a model was trained on."""

from __future__ import annotations

from ..clips import Sampling
from ..errors import BadInputError
from .sources.contract import TimedFrame


class SourceRate:
    """Rate of a source, judged against what the model's pattern needs.

    Attributes:
        frames: that were pushed.
        alone: of them, the last ones in a row before each of which the history had been dropped.
    """

    def __init__(self) -> None:
        self.frames = self.alone = 0
        self._first_s = self._last_s = self._apart_s = 0.0
        self._resets = self._epochs = 0

    def add(self, captured: TimedFrame, resets: int) -> None:
        """Count a frame that was pushed; `resets` is the stream's count after it."""
        begins = self.frames == 0 or resets > self._resets
        self.alone = self.alone + 1 if begins else 0
        self._first_s = captured.time_s if self.frames == 0 else self._first_s
        self._apart_s, self._last_s = captured.time_s - self._last_s, captured.time_s
        self.frames, self._resets, self._epochs = self.frames + 1, resets, captured.epoch

    def too_low(self, name: str, allowed_s: float) -> BadInputError:
        """The error for a recording none of whose frames has a neighbour."""
        return BadInputError(
            f"The frames of {name} are {self._apart_s:g} s apart; over more than {allowed_s:g} s the history is "
            "dropped, so each answer would come from one frame.",
            cause="a time lapse, a wrong --fps, or a container with wrong times",
            next="give a recording of more frames a second, or a folder of frames with --fps",
        )

    def notes(self, sampling: Sampling) -> tuple[str, ...]:
        """What a person should know of it, in words."""
        if self.frames < 3 or self._epochs or self._last_s <= self._first_s:
            return ()
        rate, needed = (self.frames - 1) / (self._last_s - self._first_s), sampling.segments / sampling.span_s
        if rate >= needed:
            return ()
        return (
            f"{rate:.2g} frames a second are fewer than the {needed:.2g} that the model's pattern needs "
            f"({sampling.segments} moments in {sampling.span_s:g} s): frames are in its clips more than once",
        )
