"""One face's stream: frames in, an answer every `hop` frames, each frame computed once.

The ring keeps the tokens of the last frames with their timestamps. An answer picks the training pattern out of it
(`clips.pick`), so the network sees a stream as it saw its training clips: spread over the same seconds, whatever the
camera's rate. Nothing is ever shifted; `order` says which ring row stands at each place.
"""

from __future__ import annotations

import math
from time import perf_counter_ns
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..clips import PATTERN_TOLERANCE_S, Frame, check_color, check_frame, pattern_ages, pick, to_input, window_order
from ..errors import BadInputError, UsageError, VerificationError, one_of
from .result import Result, make_result

if TYPE_CHECKING:
    from .engine import Engine

WARMUPS = ("wait", "repeat")


class Ring:
    """Which frame stands in which slot, and when it was taken. Holds no tokens.

    Args:
        slots: R.
        offset: the first slot of this face in the arena.
        min_step_s: frames that follow closer than this are not kept, so that R slots reach over the span.
    """

    def __init__(self, slots: int, offset: int, min_step_s: float) -> None:
        self.slots, self.offset, self.min_step_s = slots, offset, min_step_s
        self._times = np.zeros(slots)
        self.clear()

    def clear(self) -> None:
        self._next = 0
        self.kept = 0

    @property
    def newest_s(self) -> float:
        """When the newest frame was taken; minus infinity when there is none."""
        return float(self._times[self._next - 1]) if self.kept else -math.inf

    @property
    def reach_s(self) -> float:
        """Seconds from the oldest kept frame to the newest."""
        if not self.kept:
            return 0.0
        oldest = 0 if self.kept < self.slots else self._next
        return self.newest_s - float(self._times[oldest])

    def wants(self, time_s: float) -> bool:
        """Whether a frame of this time is kept."""
        return time_s - self.newest_s >= self.min_step_s

    def claim(self) -> int:
        """The arena slot that the next frame goes into. Not filed before `file` is called."""
        return self.offset + self._next

    def file(self, time_s: float) -> None:
        """Files the frame whose tokens now stand in the claimed slot."""
        self._times[self._next] = time_s
        self._next = (self._next + 1) % self.slots
        self.kept = min(self.kept + 1, self.slots)

    def pick(self, ages: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Arena slots of the training pattern, int64 `[T]`."""
        if self.kept < self.slots:
            return self.offset + pick(self._times[: self.kept], ages)
        ascending = np.concatenate([self._times[self._next :], self._times[: self._next]])
        return self.offset + (self._next + pick(ascending, ages)) % self.slots


class Stream:
    """Made by `Engine.stream`; one per face. Not thread-safe.

    Attributes:
        skipped: frames not kept because the camera is faster than the ring was made for.
        resets: times the ring was emptied because of a gap.
    """

    def __init__(
        self, engine: Engine, face: int, *, hop: int, color: str | None, warmup: str, max_gap_s: float | None
    ) -> None:
        if hop < 1:
            raise UsageError(f"hop is {hop}; it counts frames from one answer to the next, so at least 1.")
        if warmup not in WARMUPS:
            raise UsageError(f"Unknown warmup {warmup!r}.", next=f"choose from {one_of(WARMUPS)}")
        self.color = check_color(color)
        self.hop, self.warmup = hop, warmup
        bundle = engine.bundle
        spec, span_s = bundle.stream, bundle.sampling.span_s
        self.max_gap_s = span_s / 2 if max_gap_s is None else max_gap_s
        self._engine, self._face = engine, face
        self._size, self._labels = bundle.image_size, bundle.labels
        self._frame, self._temporal = engine.session("frame"), engine.session("temporal")
        self._ages = pattern_ages(bundle.sampling)
        # Frames closer than this are not kept, so a full ring always reaches over the pattern, at any frame rate.
        self._ring = Ring(spec.slots, face * spec.slots, float(self._ages.max()) / max(spec.slots - 1, 1))
        self._warm_s = float(self._ages.max()) - PATTERN_TOLERANCE_S
        natural = window_order(spec.frames, spec.grid, spec.window)  # [N]
        self._frame_of_place = natural // spec.tokens_per_frame
        self._cell_of_place = natural % spec.tokens_per_frame
        self._per_frame = spec.tokens_per_frame
        self._input: Frame = self._frame.input("frame")[0]  # [S, S, 3]
        self._since = 0
        self._sequence = 0
        self.skipped = 0
        self.resets = 0
        self._closed = False

    @property
    def warm(self) -> bool:
        """Whether the ring reaches back over the whole training pattern."""
        return self._ring.reach_s >= self._warm_s

    def push(self, frame: Frame, time_s: float) -> Result | None:
        """Takes the next frame of this face.

        Args:
            frame: uint8 `[H, W, 3]` in the stream's colour order; resized by `clips.resize` when it has another size.
            time_s: when it was taken, in seconds on any clock that only rises.

        Returns:
            An answer after every `hop` kept frames once the ring is warm (at once with warmup="repeat"), else None.

        Raises:
            BadInputError: a frame of another dtype or shape, or a time that does not rise.
            UsageError: the stream is closed.
        """
        started = perf_counter_ns()
        self._open()
        check_frame(frame)
        ring = self._ring
        if not math.isfinite(time_s) or time_s <= ring.newest_s:
            raise BadInputError(
                f"The frame's time is {time_s} s, the one before was {ring.newest_s} s; times must rise.",
                cause="a frame delivered twice, a clock that was set back, or another face's frame",
                next="call stream.reset() when the source starts again",
            )
        if time_s - ring.newest_s > self.max_gap_s and ring.kept:
            self.reset()
            self.resets += 1
        if not ring.wants(time_s):
            self.skipped += 1
            return None
        to_input(frame, self._size, self.color, self._input)
        marks = {"preprocess": perf_counter_ns()}
        self._frame.run()
        self._temporal.take(self._frame, "tokens", "ring", ring.claim() * self._per_frame)
        ring.file(time_s)
        marks["frame"] = perf_counter_ns()
        self._since += 1
        if self._since < self.hop or not (self.warm or self.warmup == "repeat"):
            return None
        return self._answer(started, marks)

    def flush(self) -> Result | None:
        """Answers now from what the ring holds, the first frame standing for what is missing; None when it is empty."""
        self._open()
        return self._answer(perf_counter_ns(), {}) if self._ring.kept else None

    def _answer(self, started: int, marks: dict[str, int]) -> Result:
        slots = self._ring.pick(self._ages)  # [T]
        order = slots[self._frame_of_place] * self._per_frame + self._cell_of_place  # [N]
        buffer = self._temporal.input("order")
        # The card does not check indices, so the host does: the ring only knows slots of this face.
        first, last = self._ring.offset * self._per_frame, (self._ring.offset + self._ring.slots) * self._per_frame
        if order.min() < first or order.max() >= last:
            raise VerificationError(f"order leaves the rows {first}..{last} of this face; nothing was run.")
        buffer[:] = order
        self._temporal.run()
        marks["temporal"] = perf_counter_ns()
        probabilities = self._temporal.output("probabilities")[0]
        marks["postprocess"] = perf_counter_ns()
        self._since = 0
        self._sequence += 1
        return make_result(self._labels, probabilities, marks, started, self._ring.newest_s, self._sequence - 1)

    def reset(self) -> None:
        """Forgets all frames, as after a lost face. Hop counting starts anew; the sequence goes on."""
        self._ring.clear()
        self._since = 0

    def close(self) -> None:
        """Gives the face's place in the arena back. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._engine.release(self._face)

    def _open(self) -> None:
        if self._closed or self._engine.closed:
            raise UsageError("This stream or its engine is closed.", next="engine.stream(...) opens a new one")

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
