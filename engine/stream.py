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
* *one writer*: frames are computed and answered one after the other on one thread (`thread_owner.py`), and a slot
  leaves the ring before it is written, so no slot is written while it can be read.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from numbers import Real
from time import perf_counter_ns

import numpy as np
import numpy.typing as npt

from ..clips import PATTERN_TOLERANCE_S, Frame, check_color, check_frame, pattern_ages, pick, window_order
from ..errors import BadInputError, UsageError, VerificationError, one_of, whole_number
from .core import Result, RuntimeCore
from .cuda.device_arrays import is_on_device
from .feeding import put_frame
from .sessions.contract import Session

WARMUPS = ("wait", "repeat")
RESETS_THAT_WARN = 3  # one after the other, without a frame kept beside another in between


class Ring:
    """Bookkeeping of one face's slots: which frame is in which, and its time. Holds no tokens.

    The arena of the `temporal` graph is cut into one stretch of R slots a face. Nothing is ever shifted: a new frame
    replaces the oldest, and `order` tells the graph where each place of the clip is found.

    Args:
        slots: R.
        offset: the first slot of this face in the arena.
        min_step_s: frames that follow closer than this are not kept, so that R slots reach over the span.
    """

    def __init__(self, slots: int, offset: int, min_step_s: float) -> None:
        self.slots, self.offset, self.min_step_s = slots, offset, min_step_s
        self._times: deque[float] = deque(maxlen=slots)  # of the frames that can be picked, oldest first
        self._next = 0

    def clear(self) -> None:
        """Forgets all frames."""
        self._times.clear()

    @property
    def kept(self) -> int:
        """How many frames can be picked."""
        return len(self._times)

    @property
    def newest_s(self) -> float:
        """When the newest frame was taken; minus infinity when there is none."""
        return self._times[-1] if self._times else -math.inf

    @property
    def reach_s(self) -> float:
        """Seconds from the oldest kept frame to the newest."""
        return self._times[-1] - self._times[0] if self._times else 0.0

    def wants(self, time_s: float) -> bool:
        """Whether a frame of this time is kept."""
        return time_s - self.newest_s >= self.min_step_s

    def claim(self) -> int:
        """The arena slot that the next frame goes into.

        The frame in it can no longer be picked from this moment on, also when the new one never arrives:
        a slot that may be half written is not read.
        """
        if len(self._times) == self.slots:
            self._times.popleft()
        return self.offset + self._next

    def file(self, time_s: float) -> None:
        """Files the frame whose tokens are now in the claimed slot."""
        self._times.append(float(time_s))
        self._next = (self._next + 1) % self.slots

    def pick(self, ages: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Arena slots of the training pattern, int64 `[T]`."""
        oldest = self._next - len(self._times)
        return self.offset + (oldest + pick(self._times, ages)) % self.slots


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
        hop = whole_number(hop, "hop")
        if warmup not in WARMUPS:
            raise UsageError(f"Unknown warmup {warmup!r}.", next=f"choose from {one_of(WARMUPS)}")
        if max_gap_s is not None and not max_gap_s > 0:
            raise UsageError(f"max_gap_s is {max_gap_s}; it is a pause in seconds, more than 0.")
        self.color = check_color(color)
        self.hop, self.warmup = hop, warmup
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
        natural = window_order(spec.frames, spec.grid, spec.window)  # [N]
        self._frame_of_place = natural // spec.tokens_per_frame
        self._cell_of_place = natural % spec.tokens_per_frame
        self._per_frame = spec.tokens_per_frame
        self._received_ns = 0  # when the newest kept frame was handed over
        self._since = 0
        self._sequence = 0
        self.skipped = 0
        self.resets = 0
        self._resets_in_a_row = 0
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "warm" if self.warm else "not warm yet"
        return f"<Stream of face {self._face}: hop {self.hop}, {self.color}, {state}>"

    @property
    def warm(self) -> bool:
        """Whether the ring reaches back over the whole training pattern."""
        return self._ring.reach_s >= self._warm_s

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
        with self._owner:
            self.check(frame, time_s)
            if not self.admit(time_s):
                return None
            put_frame(self._frame, frame, self._size, self.color)
            marks = {"preprocess": perf_counter_ns()}
            self._frame.run()
            self.file(self._frame, 0, time_s, started)
            marks["frame"] = perf_counter_ns()
            return self.answer(started, marks) if self.due else None

    def flush(self) -> Result | None:
        """Answers now from what the ring holds; None when it is empty.

        The first frame fills in for what is missing.

        Raises:
            UsageError, VerificationError, DeviceLostError: as `push` does.
        """
        with self._owner:
            self._open()
            return self.answer(perf_counter_ns(), {}) if self._ring.kept else None

    def reset(self) -> None:
        """Forgets all frames, as after a lost face. Hop counting starts anew; the sequence goes on."""
        with self._owner:
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
    def check(self, frame: Frame, time_s: float) -> None:
        """Refuses what `push` refuses; changes nothing."""
        self._open()
        if not is_on_device(frame):
            check_frame(frame)
        newest_s = self._ring.newest_s
        if not isinstance(time_s, Real):
            raise BadInputError(
                f"The frame's time is {time_s!r} ({type(time_s).__name__}); a number of seconds is expected.",
                next="float(time_s)",
            )
        if not math.isfinite(time_s) or time_s <= newest_s:
            raise BadInputError(
                f"The frame's time is {time_s} s, the one before was {newest_s} s; times must rise.",
                cause="a frame delivered twice, a clock that was set back, or another face's frame",
                next="call stream.reset() when the source starts again",
            )

    def admit(self, time_s: float) -> bool:
        """Empties the ring after a gap; whether a frame of this time is kept."""
        ring = self._ring
        if ring.kept and time_s - ring.newest_s > self.max_gap_s:
            pause_s = time_s - ring.newest_s
            self._clear()
            self.resets += 1
            self._resets_in_a_row += 1
            if self._resets_in_a_row == RESETS_THAT_WARN:
                self._warn_of_resets(pause_s)
        elif ring.kept:
            self._resets_in_a_row = 0
        if not ring.wants(time_s):
            self.skipped += 1
            return False
        return True

    def file(self, source: Session, index: int, time_s: float, received_ns: int) -> None:
        """Takes the tokens at `index` of the batch that `source` computed into the ring."""
        self._temporal.take(source, "tokens", "ring", self._ring.claim() * self._per_frame, index)
        self._ring.file(time_s)
        self._received_ns = received_ns
        self._since += 1

    @property
    def due(self) -> bool:
        """Whether an answer follows the frame that was just filed."""
        return self._since >= self.hop and (self.warmup == "repeat" or self.warm)

    def answer(self, started_ns: int, marks: dict[str, int]) -> Result:
        """Answers from what the ring holds."""
        slots = self._ring.pick(self._ages)  # [T]
        order = slots[self._frame_of_place] * self._per_frame + self._cell_of_place  # [N]
        # The card does not check indices, so the host does: the ring only knows slots of this face.
        first, last = self._ring.offset * self._per_frame, (self._ring.offset + self._ring.slots) * self._per_frame
        if order.min() < first or order.max() >= last:
            raise VerificationError(
                f"order reaches over the rows {order.min()}..{order.max()}; this face has {first}..{last - 1}. "
                "Nothing was run.",
                cause="a fault of logoformer or damaged memory",
                next="stream.reset(); report it if it comes again",
            )
        self._temporal.input("order")[:] = order
        self._temporal.run()
        marks["temporal"] = perf_counter_ns()
        probabilities = self._temporal.output("probabilities")[0]
        marks["postprocess"] = perf_counter_ns()
        self._since = 0
        result = self.runtime.result(
            probabilities, marks, started_ns, self._received_ns, self._ring.newest_s, self._sequence
        )
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
