"""Newest picture and state of each camera, for any thread to read.

Writers replace whole values and readers wait for a newer one; a reader that is slow misses what came in between.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..answers.contract import FaceAnswer, FaceFrame
from ..answers.streams import FaceView


@dataclass(frozen=True)
class CameraState:
    """State of one camera.

    Attributes:
        name: safe to show.
        state: 'connecting', 'live', 'lost', 'ended' or 'failed'; 'playing' of a file.
        reason: in words, where one is known.
        live: whether frames that come too fast are dropped; a file's are all used.
        epoch: connections so far, less one.
        reconnects: of a live source.
        size: width and height of the newest frame.
        captured_hz: frames a second that came from the source.
        worked_hz: frames a second that were worked off.
        answers_hz: answers a second.
        frames: that came from the source.
        answers: given so far.
        dropped: frames by cause: 'capture' (finding faces takes longer than a frame), 'overload' (answering does).
        skipped: faces that were not usable, by reason.
        unserved: faces of the newest frame that have no place in the bundle's arena.
        not_finite: rounds whose answers were thrown away.
        hop: kept frames from one answer to the next at present.
        wanted_hop: that was asked for.
        age_ms: of the newest answer.
        age_p50_ms, age_p99_ms: of the last answers.
        age_under: answers under each bound of `counts.AGE_BOUNDS_S`, the last over all of them.
        age_sum_s: of all answers.
        find_ms: of the last frames, mean: detecting, tracking and cutting.
        frame_age_s: since the newest frame; None before the first.
        faces: with a stream.
    """

    name: str
    state: str
    reason: str
    live: bool
    epoch: int = 0
    reconnects: int = 0
    size: tuple[int, int] | None = None
    captured_hz: float = 0.0
    worked_hz: float = 0.0
    answers_hz: float = 0.0
    frames: int = 0
    answers: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    unserved: int = 0
    not_finite: int = 0
    hop: int = 0
    wanted_hop: int = 0
    age_ms: float | None = None
    age_p50_ms: float | None = None
    age_p99_ms: float | None = None
    age_under: tuple[int, ...] = ()
    age_sum_s: float = 0.0
    find_ms: float | None = None
    frame_age_s: float | None = None
    faces: tuple[FaceView, ...] = ()


@dataclass(frozen=True, eq=False)
class Shown:
    """The newest frame of a camera with what is known of its faces.

    Attributes:
        number: counts the frames shown, from 1.
        seen: the frame; None before the first.
        held: newest answer by face.
    """

    number: int
    seen: FaceFrame | None
    held: Mapping[int, FaceAnswer]


class Board:
    """Newest picture and state of each camera.

    Args:
        names: of the cameras.
        facts: of the whole watch, shown as they are.

    Attributes:
        told_s: when the state was last told, on `time.monotonic()`: old when the loop that answers hangs.
        closed: whether the watch has ended.
    """

    def __init__(self, names: tuple[str, ...], facts: Mapping[str, object]) -> None:
        self.names, self.facts = names, dict(facts)
        self._lock = threading.RLock()  # entered itself: see ThreadOwner on Ctrl-C between a lock and its body
        self._changed = threading.Condition(self._lock)
        self._shown = [Shown(0, None, {}) for _ in names]
        self._states = tuple(CameraState(name, "connecting", "", True) for name in names)
        self._version = 0
        self.told_s = time.monotonic()
        self.closed = False

    def show(self, camera: int, seen: FaceFrame) -> None:
        """Takes the newest frame of a camera."""
        with self._lock:
            before = self._shown[camera]
            self._shown[camera] = Shown(before.number + 1, seen, before.held)
            self._changed.notify_all()

    def tell(self, states: tuple[CameraState, ...], held: Mapping[int, Mapping[int, FaceAnswer]]) -> None:
        """Takes the state of all cameras, and the newest answers by camera and face."""
        with self._lock:
            self._states = states
            self._version += 1
            self.told_s = time.monotonic()
            for camera, answers in held.items():
                before = self._shown[camera]
                self._shown[camera] = Shown(before.number, before.seen, answers)
            self._changed.notify_all()

    def picture(self, camera: int, after: int, timeout_s: float) -> Shown:
        """A frame newer than number `after`, or the same again after the time-out."""
        with self._lock:
            self._changed.wait_for(lambda: self.closed or self._shown[camera].number > after, timeout_s)
            return self._shown[camera]

    def state(self, after: int = 0, timeout_s: float = 0.0) -> tuple[int, tuple[CameraState, ...]]:
        """A state newer than version `after`, or the same again; with its version."""
        with self._lock:
            self._changed.wait_for(lambda: self.closed or self._version > after, timeout_s)
            return self._version, self._states

    def close(self) -> None:
        """Lets go of everyone who waits."""
        with self._lock:
            self.closed = True
            self._changed.notify_all()
