"""The stream of one face: an answer every `hop` frames, each frame computed once.

The ring keeps the tokens of the last frames with their timestamps (`Ring`). An answer picks the training pattern out
of it (`clips.pick`), so the network sees a stream as it saw its training clips: spread over the same seconds, whatever
the camera's rate.

What is defined, and tested:

* *time*: seconds on a clock of the caller that only rises. A time that does not rise is refused and changes nothing.
* *skipped*: a frame that follows closer than the ring's step is not kept and gives no answer.
* *gap*: a pause of more than `max_gap_s` empties the ring before the frame is kept: two scenes never mix in a clip.
* *hop*: kept frames from one answer to the next. With warmup="wait" an answer waits until the ring reaches over the
  training pattern; frames counted meanwhile stay counted, so the first answer comes with the frame that fills it.
* *reset*: forgets all frames and the hop count; `sequence` goes on.
* *replay*: what the ring holds follows from the frames of the last span. Whoever keeps them makes the same state again,
  in another process or on another machine.
* *one writer*: frames are computed and answered one after the other on one thread (`thread_owner.py`), and a slot
  leaves the ring before it is written, so no slot is written while it can be read.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from time import perf_counter_ns

import numpy as np
import numpy.typing as npt

from ..clips import PATTERN_TOLERANCE_S, Frame, check_color, check_frame, pattern_ages, window_order
from ..errors import BadInputError, UsageError, VerificationError, one_of, seconds_above_zero, whole_number
from .core import Result, RuntimeCore
from .cuda.device_arrays import is_on_device
from .feeding import check_time, put_frame
from .ring import Ring
from .sessions.contract import Session

WARMUPS = ("wait", "repeat")
RESETS_THAT_WARN = 3  # one after the other, without a frame kept beside another in between


class Stream:
    """Made by `Runtime.stream`; one per face. One thread, that of its runtime.

    Attributes:
        runtime: that answers.
        skipped: frames not kept because the camera is faster than the ring was made for.
        resets: times the ring was emptied because of a gap.
    """

    def __init__(
        self, runtime: RuntimeCore, *, hop: int, color: str | None, warmup: str, max_gap_s: float | None
    ) -> None:
        self.hop = hop
        if warmup not in WARMUPS:
            raise UsageError(f"Unknown warmup {warmup!r}.", next=f"choose from {one_of(WARMUPS)}")
        if max_gap_s is not None:
            max_gap_s = seconds_above_zero(max_gap_s, "max_gap_s")
        self.color = check_color(color)
        self.warmup = warmup
        bundle = runtime.bundle
        spec, span_s = bundle.stream, bundle.sampling.span_s
        self.max_gap_s = span_s / 2 if max_gap_s is None else max_gap_s
        self.runtime, self._owner = runtime, runtime.owner
        self._size = bundle.image_size
        self._frame, self._temporal = runtime.session("frame"), runtime.session("temporal")
        self._face = runtime.take_face()
        self._ages = pattern_ages(bundle.sampling)
        # Frames closer than this are not kept, so a full ring always reaches over the pattern, at any frame rate.
        self._ring = Ring(spec.slots, self._face * spec.slots, float(self._ages.max()) / max(spec.slots - 1, 1))
        self._warm_s = float(self._ages.max()) - PATTERN_TOLERANCE_S
        self._own = frozenset(range(self._ring.offset, self._ring.offset + spec.slots))
        self._per_frame = spec.tokens_per_frame
        self._windows = window_order(spec.frames, spec.grid, spec.window)  # [N]
        integer = self._temporal.inputs["order"].dtype
        self._rows_of_slot = np.arange(spec.rows, dtype=integer).reshape(-1, self._per_frame)  # of the whole arena
        self._natural = np.empty((spec.frames, self._per_frame), integer)  # rows in order of time, row, column
        self._begun = (self._temporal, 0, 0, 0.0, 0)  # session and place of the answer, received_ns, newest_s, since
        self._received_ns = 0  # when the newest kept frame was handed over
        self._since = self._sequence = 0
        self.skipped = self.resets = self._resets_in_a_row = 0
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "warm" if self.warm else "not warm yet"
        return f"<Stream of face {self._face}: hop {self.hop}, {self.color}, {state}>"

    @property
    def hop(self) -> int:
        """Kept frames from one answer to the next; may be set at any time.

        Raises:
            UsageError: what is set is no whole number of at least 1.
        """
        return self._hop

    @hop.setter
    def hop(self, hop: int) -> None:
        self._hop = whole_number(hop, "hop")

    @property
    def warm(self) -> bool:
        """Whether the ring reaches back over the whole training pattern."""
        return self._ring.reach_s >= self._warm_s

    @property
    def since(self) -> int:
        """Frames kept since the last answer, gap or reset: the phase of `hop`, which `replay` takes."""
        return self._since

    def push(self, frame: Frame, time_s: float) -> Result | None:
        """Takes the next frame of this face.

        Args:
            frame: uint8 `[H, W, 3]` in the stream's colour order; resized by `clips.resize` when it has another size;
                or an array on the card (DLPack, `__cuda_array_interface__`): exactly `[S, S, 3]`, RGB, taken as it is.
            time_s: when it was taken, in seconds on any clock that only rises.

        Returns:
            An answer after every `hop` kept frames once the ring is warm (at once with warmup="repeat"), else None.

        Raises:
            BadInputError: a frame of another dtype or shape, or a time that does not rise.
            UsageError: the stream is closed, or the call came from another thread than the runtime's.
            VerificationError: the answer is not finite; no label was made of it.
            DeviceLostError: the device is gone, now or at an earlier call.
        """
        started = perf_counter_ns()
        with self._owner.lock(), self._owner:
            self.check(frame, time_s)
            if not self.admit(time_s):
                return None
            put_frame(self._frame, frame, self._size, self.color)
            marks = {"preprocess": perf_counter_ns()}
            row, followed = self.claim(time_s)
            self._frame.run_into(self._temporal, "tokens", "ring", (row,), followed=followed)
            self.file(time_s, started)
            marks["frame"] = perf_counter_ns()
            if not self.due:
                return None
            self.begin()
            return self.finish(started, marks)

    def flush(self) -> Result | None:
        """Answers now from what the ring holds; None when it is empty.

        The first frame fills in for what is missing.

        Raises:
            UsageError, VerificationError, DeviceLostError: as `push` does.
        """
        with self._owner.lock(), self._owner:
            self._open()
            if not self._ring.kept:
                return None
            started = perf_counter_ns()
            self.begin()
            return self.finish(started, {})

    def replay(self, frames: Sequence[Frame], times: Sequence[float], since: int) -> None:
        """Takes over from another stream by filling the ring with the frames that it holds.

        What is pushed after it is answered as the other stream would have answered it, bit for bit where both run the
        same backend on the same device; `sequence` goes on as here. What this stream held is forgotten; nothing is
        answered.

        Args:
            frames: those that the other stream kept, as in `push`; the last `bundle.stream.slots` of them are enough.
                Frames between them that it skipped may be among them.
            times: of each frame, as the other stream got them.
            since: `since` of the other stream.

        Raises:
            BadInputError: as `push`, for any of the frames; then nothing was changed.
            UsageError: not a time for each frame, a number below 0, or as `push`.
            DeviceLostError: as `push`.
        """
        since = whole_number(since, "since", 0)
        if len(frames) != len(times):
            raise UsageError(
                f"{len(frames)} frames and {len(times)} times were given.", next="stream.replay(frames, times, since)"
            )
        started = perf_counter_ns()
        with self._owner.lock(), self._owner:
            newest_s = -math.inf
            for frame, time_s in zip(frames, times, strict=True):
                self.check(frame, time_s, newest_s)
                newest_s = time_s
            self._clear()
            for index in self._kept_of(times):
                put_frame(self._frame, frames[index], self._size, self.color)
                row, _ = self.claim(times[index])
                self._frame.run_into(self._temporal, "tokens", "ring", (row,))
                self.file(times[index], started)
            self._since, self._resets_in_a_row = since, 0

    def _kept_of(self, times: Sequence[float]) -> Sequence[int]:
        """Which frames of these times would be in the ring after the last of them."""
        kept: list[int] = []
        for index, time_s in enumerate(times):
            pause_s = time_s - times[kept[-1]] if kept else math.inf
            if kept and pause_s > self.max_gap_s:
                kept = []
            if not kept or pause_s >= self._ring.min_step_s:
                kept.append(index)
        return kept[-self._ring.slots :]

    def reset(self) -> None:
        """Forgets all frames, as after a lost face. Hop counting starts anew; the sequence goes on."""
        with self._owner.lock(), self._owner:
            self._clear()

    def close(self) -> None:
        """Gives the face's place in the arena back. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self.runtime.release_face(self._face)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ------------------------------------------------------------- for `step.advance`, the owner being entered
    def check(self, frame: Frame, time_s: float, newest_s: float | None = None) -> None:
        """Refuses what `push` refuses, after a frame of `newest_s` or else the ring's newest."""
        self._open()
        if not is_on_device(frame):
            check_frame(frame)
        newest_s = self._ring.newest_s if newest_s is None else newest_s
        if type(time_s) is not float:
            check_time(time_s)
        if not math.isfinite(time_s) or time_s <= newest_s:
            raise BadInputError(
                f"The frame's time is {time_s} s, the one before was {newest_s} s; times must rise.",
                cause="a frame delivered twice, a clock that was set back, or another face's frame",
                next="call stream.reset() when the source starts again",
            )

    def admit(self, time_s: float) -> bool:
        """Empties the ring after a gap; whether a frame of this time is kept."""
        ring = self._ring
        if ring.kept:
            pause_s = time_s - ring.newest_s
            if pause_s > self.max_gap_s:
                self._clear()
                self.resets += 1
                self._resets_in_a_row += 1
                if self._resets_in_a_row == RESETS_THAT_WARN:
                    self._warn_of_resets(pause_s)
            else:
                self._resets_in_a_row = 0
        if not ring.wants(time_s):
            self.skipped += 1
            return False
        return True

    def claim(self, time_s: float) -> tuple[int, bool]:
        """The arena row of the next frame's tokens, and whether an answer will follow it."""
        row = self._ring.claim() * self._per_frame
        oldest_s = self._ring.oldest_s if self._ring.kept else time_s
        warm = self.warmup == "repeat" or time_s - oldest_s >= self._warm_s
        return row, warm and self._since + 1 >= self._hop

    def file(self, time_s: float, received_ns: int) -> None:
        """Files the frame whose tokens are, or soon will be, in the row that was claimed."""
        self._ring.file(time_s)
        self._received_ns = received_ns
        self._since += 1

    @property
    def due(self) -> bool:
        """Whether an answer follows the frame that was just filed."""
        return self._since >= self.hop and (self.warmup == "repeat" or self.warm)

    def begin(self) -> None:
        """Begins an answer from what the ring holds; `finish` gives it, before another one begins."""
        self.aim()
        self.write_order(self._temporal.input("order"))
        self._temporal.start()
        self.begun(self._temporal, 0)

    def aim(self) -> None:
        """Chooses the frames that the next answer is made of."""
        slots = self._ring.pick(self._ages)  # [T]
        # The card does not check indices, so the host does: the ring only knows slots of this face.
        if not self._own.issuperset(chosen := slots.tolist()):
            raise VerificationError(
                f"order reaches over the slots {min(chosen)}..{max(chosen)} of the ring; this face has "
                f"{min(self._own)}..{max(self._own)}. Nothing was run.",
                cause="a fault of logoformer or damaged memory",
                next="stream.reset(); report it if it comes again",
            )
        # mode="clip" writes without a buffer in between; nothing is left to clip.
        self._rows_of_slot.take(slots, 0, self._natural, "clip")  # [T, n]

    def write_order(self, order: npt.NDArray[np.int32]) -> None:
        """Writes where the chosen frames are in the ring, `[N]`."""
        self._natural.take(self._windows, None, order, "clip")

    def begun(self, session: Session, place: int) -> None:
        """Notes that the answer was begun, as one of those that a session gives together."""
        self._begun = (session, place, self._received_ns, self._ring.newest_s, self._since)
        self._since = 0

    def finish(self, started_ns: int, marks: dict[str, int]) -> Result:
        """The answer that was begun; waits for it."""
        session, place, received_ns, newest_s, since = self._begun
        try:
            session.wait()
        except BaseException:
            self._since += since  # it is still owed
            raise
        marks["temporal"] = perf_counter_ns()
        probabilities = session.output("probabilities")[place]
        marks["postprocess"] = perf_counter_ns()
        result = self.runtime.result(probabilities, marks, started_ns, received_ns, newest_s, self._sequence)
        self._sequence += 1
        return result

    def _warn_of_resets(self, pause_s: float) -> None:
        span_s = self.runtime.bundle.sampling.span_s
        warnings.warn(
            f"Each of the last {RESETS_THAT_WARN} frames came more than {self.max_gap_s:g} s after the one before "
            f"(the last: {pause_s:g} s), so the history is dropped each time and no clip holds more than one frame. "
            "Are these times in seconds? Or too few frames arrive (a slow source, or a queue that drops them): clips "
            f"of this model reach over {span_s:g} s.",
            RuntimeWarning,
            stacklevel=4,
        )

    def _clear(self) -> None:
        self._ring.clear()
        self._since = 0

    def _open(self) -> None:
        if self._closed:
            raise UsageError("This stream is closed.", next="runtime.stream(...) opens a new one")
