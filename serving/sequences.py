"""Streams of one model instance by correlation id: opened, restored, advanced, forgotten.

Triton decides which sequences an instance holds and frees one that was idle for too long without telling the model. So
the model forgets by the same rule, and where that is not enough gives up the stream that was silent for longest: what
Triton still holds was used later.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..clips import Frame
from ..engine.core import Result
from ..engine.runtime import Runtime
from ..engine.step import Job, advance
from ..engine.stream import Stream
from ..errors import LogoformerError, UsageError, printable

_log = logging.getLogger(__name__)
NOT_HELD = "This server holds no sequence"  # by these words a client knows that it must open it again


@dataclass(frozen=True)
class History:
    """What a stream held before, see `Stream.replay`.

    Attributes:
        frames: uint8 `[N, H, W, 3]`, RGB.
        times: float64 `[N]`, seconds.
        since: phase of the hop.
    """

    frames: npt.NDArray[np.uint8]
    times: npt.NDArray[np.float64]
    since: int


@dataclass(frozen=True)
class FrameCall:
    """One request of one sequence.

    Attributes:
        sequence: its correlation id, a number or a text.
        start, end: whether it is the first or the last.
        frame: uint8 `[H, W, 3]`, RGB.
        time_s: when it was taken.
        history: given with `start`, where the sequence goes on elsewhere.
        hop: kept frames from one answer to the next, from now on; None leaves it as it is.
        flush: answer after this frame in any case, as `Stream.flush` does.
    """

    sequence: int | str
    start: bool
    end: bool
    frame: Frame
    time_s: float
    history: History | None = None
    hop: int | None = None
    flush: bool = False


@dataclass(frozen=True)
class FrameReply:
    """What became of it.

    Attributes:
        result: the answer, where one was due.
        kept: whether the stream keeps the frame.
        since: phase of the hop after it.
    """

    result: Result | None
    kept: bool
    since: int


class StreamTable:
    """The streams that a model instance holds.

    Args:
        runtime: that answers.
        hop, warmup: of every stream, see `Runtime.stream`.
        idle_s: a stream without a frame for so long is forgotten.
        clock: seconds, rising.

    Attributes:
        evicted: streams given up for newer ones before they were idle for so long.
    """

    def __init__(
        self, runtime: Runtime, hop: int, warmup: str, idle_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._runtime, self._hop, self._warmup = runtime, hop, warmup
        self._idle_s, self._clock = idle_s, clock
        self._streams: dict[int | str, Stream] = {}
        self._used_s: dict[int | str, float] = {}  # the same sequences, the one that was silent for longest first
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._streams)

    def step(self, calls: Sequence[FrameCall]) -> list[FrameReply | Exception]:
        """Advances each call's stream by its frame, those of different streams together.

        An error of one leaves the others alone.
        """
        outcomes: dict[int, FrameReply | Exception] = {}
        waiting: dict[int | str, tuple[int, Job]] = {}  # {sequence: (place of its call, job)}
        for place, call in enumerate(calls):
            # A sequence's frames go one after the other, and a new one may take the place of an old one.
            if call.start or call.sequence in waiting:
                outcomes |= self._advance(waiting)
                waiting = {}
            try:
                stream = self._stream_of(call)
            except Exception as error:
                outcomes[place] = error
                if call.start or call.end:  # for Triton it began anew, or ended
                    self.forget(call.sequence)
                continue
            waiting[call.sequence] = place, Job(stream, call.frame, call.time_s, time.perf_counter_ns())
            if call.end or call.flush:
                outcomes |= self._advance(waiting)
                waiting = {}
            if call.flush:
                outcomes[place] = self._flush(call, outcomes[place])
            if call.end:
                self.forget(call.sequence)
        outcomes |= self._advance(waiting)
        return [outcomes[place] for place in range(len(calls))]

    def _advance(self, waiting: dict[int | str, tuple[int, Job]]) -> dict[int, FrameReply | Exception]:
        skipped = {place: job.stream.skipped for place, job in waiting.values()}
        try:
            with self._runtime.owner.lock(), self._runtime.owner:
                advance(self._runtime, [job for _, job in waiting.values()])
        except Exception as error:  # the device is lost, say: nobody gets an answer
            return {place: error for place, _ in waiting.values()}
        outcomes: dict[int, FrameReply | Exception] = {}
        for place, job in waiting.values():
            if isinstance(job.outcome, Exception):
                outcomes[place] = job.outcome
            else:
                kept = job.stream.skipped == skipped[place]
                outcomes[place] = FrameReply(job.outcome, kept, job.stream.since)
        return outcomes

    def _flush(self, call: FrameCall, outcome: FrameReply | Exception) -> FrameReply | Exception:
        """The outcome of a call that wants an answer in any case."""
        if isinstance(outcome, Exception) or outcome.result is not None:
            return outcome
        try:
            result = self._streams[call.sequence].flush()
        except Exception as error:
            return error
        return FrameReply(result, outcome.kept, self._streams[call.sequence].since)

    def _stream_of(self, call: FrameCall) -> Stream:
        if call.start:
            self.forget(call.sequence)
            self._make_room()
            stream = self._runtime.stream(self._hop, color="rgb", warmup=self._warmup)
            if call.history is not None:
                try:
                    stream.replay(list(call.history.frames), call.history.times.tolist(), call.history.since)
                except LogoformerError:
                    stream.close()
                    raise
            self._streams[call.sequence] = stream
        elif call.sequence not in self._streams:
            raise UsageError(
                f"{NOT_HELD} {call.sequence}.",
                cause="it was idle for too long, or the server was started again",
                next="send the frame with sequence_start=True, and the frames that the stream kept as its history",
            )
        self._used_s.pop(call.sequence, None)
        self._used_s[call.sequence] = self._clock()
        stream = self._streams[call.sequence]
        if call.hop is not None:
            stream.hop = call.hop
        return stream

    def _make_room(self) -> None:
        now = self._clock()
        for sequence, used_s in list(self._used_s.items()):
            if now - used_s > self._idle_s:
                self.forget(sequence)
        if len(self._streams) >= self._runtime.bundle.stream.faces:
            oldest, used_s = next(iter(self._used_s.items()))
            told = "sequence %s is given up for a new one, %.1f s after its last frame"
            _log.warning(told, printable(oldest), now - used_s)
            self.forget(oldest)
            self.evicted += 1

    def forget(self, sequence: int | str) -> None:
        """Closes a sequence's stream, where one is held."""
        self._used_s.pop(sequence, None)
        stream = self._streams.pop(sequence, None)
        if stream is not None:
            stream.close()
