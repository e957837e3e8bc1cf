"""Doubles for what watches: a runtime whose work takes scripted time, sources whose frames are scripted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from logoformer.camera.sources.contract import FrameSource, SourceStatus, TimedFrame
from logoformer.clips import Sampling, check_color
from logoformer.engine import Result

LABELS = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")


class VirtualClock:
    """Seconds that pass only when somebody says so."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.due: list[tuple[float, Callable[[], None]]] = []  # what happens at a time, ascending

    def __call__(self) -> float:
        return self.now_s

    def pass_(self, seconds: float) -> None:
        """Lets time pass; what is due meanwhile happens at its own time."""
        end = self.now_s + seconds
        while self.due and self.due[0][0] <= end:
            at, act = self.due.pop(0)
            self.now_s = max(self.now_s, at)
            act()
        self.now_s = end


class ScriptedStream:
    """Answers every `hop` frames; `answer_of` makes the probabilities of a crop."""

    def __init__(self, runtime: ScriptedRuntime, hop: int, color: str, warmup: str) -> None:
        self.runtime, self.hop, self.color, self.warmup = runtime, hop, check_color(color), warmup
        self.skipped = self.resets = self.sequence = 0
        self.crops: list[tuple[float, np.ndarray]] = []  # since the last reset
        self.since = 0
        self.closed = False
        runtime.opened.append(self)

    def push(self, frame: np.ndarray, time_s: float) -> Result | None:
        assert not self.closed
        assert not self.crops or time_s > self.crops[-1][0], "times must rise"
        self.crops.append((time_s, frame))
        self.since += 1
        self.runtime.spend(self.runtime.frame_s)
        if self.since < self.hop or (self.warmup == "wait" and time_s - self.crops[0][0] < self.runtime.warm_s):
            return None
        return self.flush()

    def flush(self) -> Result | None:
        if not self.crops:
            return None
        self.since = 0
        self.runtime.spend(self.runtime.answer_s)
        shares = self.runtime.answer_of(self.crops)
        index = int(shares.argmax())
        self.sequence += 1
        return Result(LABELS[index], index, shares, {}, 0.0, self.crops[-1][0], self.sequence - 1)

    def reset(self) -> None:
        self.crops, self.since = [], 0

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.runtime.free += 1


class ScriptedRuntime:
    """A double of `logoformer.Runtime`.

    Args:
        places: faces of the arena.
        frame_s, answer_s: what a frame and an answer cost.
        spend: passes that time; None: none passes.
        warm_s: seconds of frames before the first answer.
    """

    def __init__(
        self, places: int = 4, frame_s: float = 0.0, answer_s: float = 0.0, spend: Any = None, warm_s: float = 0.0
    ) -> None:
        self.frame_s, self.answer_s, self.warm_s = frame_s, answer_s, warm_s
        self.spend: Callable[[float], None] = spend or (lambda seconds: None)
        self.labels, self.backend, self.precision = LABELS, "scripted", "fp32"
        self.frame_batches = self.temporal_batches = ()
        self.bundle = SimpleNamespace(
            labels=LABELS,
            sampling=Sampling(),
            stream=SimpleNamespace(faces=places),
            path="face.bundle",
            image_size=16,
            alignment=None,
        )
        self.free = places
        self.opened: list[ScriptedStream] = []
        self.steps: list[int] = []  # faces of each
        self.fail_next: Exception | None = None

    def session(self, graph: str, batch: int = 1) -> None:
        """There is none to open."""

    def stream(self, hop: int = 4, *, color: str | None = None, warmup: str = "wait") -> ScriptedStream:
        assert self.free > 0, "no place in the arena"
        self.free -= 1
        return ScriptedStream(self, hop, color or "", warmup)

    def step(self, frames: Mapping[ScriptedStream, tuple[np.ndarray, float]]) -> dict[ScriptedStream, Result | None]:
        if self.fail_next is not None:
            failure, self.fail_next = self.fail_next, None
            raise failure
        self.steps.append(len(frames))
        return {stream: stream.push(frame, time_s) for stream, (frame, time_s) in frames.items()}

    def answer_of(self, crops: Sequence[tuple[float, np.ndarray]]) -> np.ndarray:
        """Probabilities that follow the newest crop's brightness, so that they can be told apart."""
        place = int(crops[-1][1].mean()) % len(LABELS)
        shares = np.full(len(LABELS), 0.05, np.float32)
        shares[place] = 0.7
        return shares


class ScriptedSource(FrameSource):
    """Gives the frames it was told to; a live one waits for `give`, a file has them all."""

    color = "rgb"
    path = None

    def __init__(self, frames: Sequence[TimedFrame] = (), *, live: bool = False, name: str = "source") -> None:
        self.live, self.name, self.fps = live, name, 25.0
        self.count = None if live else len(frames)
        self._frames = list(frames)
        self._changed = threading.Condition()
        self.closed = False
        self.state, self.reason = "live", ""
        self.dropped = self.reconnects = 0
        if not live:
            self.status = None  # type: ignore[assignment]

    def give(self, *frames: TimedFrame) -> None:
        """More frames of a live source."""
        with self._changed:
            self._frames += frames
            self._changed.notify_all()

    def fail(self, error: Exception) -> None:
        """Breaks after what was given."""
        self._error: Exception | None = error
        with self._changed:
            self._changed.notify_all()

    def status(self) -> SourceStatus:  # type: ignore[no-redef]
        return SourceStatus(self.state, self.reason, 0, 0, self.dropped, self.reconnects, None, None)

    def __iter__(self) -> Iterator[TimedFrame]:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._frames or self.closed or not self.live or getattr(self, "_error", None)
                )
                if self.closed:
                    return
                if not self._frames:
                    if error := getattr(self, "_error", None):
                        raise error
                    return
                frame = self._frames.pop(0)
            yield frame

    def close(self) -> None:
        with self._changed:
            self.closed = True
            self._changed.notify_all()


def flat(index: int, *, level: int | None = None, fps: float = 25.0, epoch: int = 0, size: tuple[int, int] = (48, 64),
         captured_s: float | None = None) -> TimedFrame:  # fmt: skip
    """A frame of one grey level: its index, unless told."""
    pixels = np.full((*size, 3), (index if level is None else level) % 256, np.uint8)
    return TimedFrame(pixels, "rgb", index / fps, index, epoch, captured_s)


def wait_for(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Waits until it is so; fails after a time that no working machine needs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never became so"
        time.sleep(0.005)
