"""The loop over all cameras: one frame of each in a round, all their faces in one step.

Each camera has a thread that reads and finds faces (`feeder.py`). The loop runs on the thread that owns the runtime,
the one that calls `turn`. Between them lie the inboxes, bounded for live cameras by the overload policy.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ...errors import LogoformerError, UsageError, printable, whole_number
from ..answers.contract import FaceAnswer, FaceEvent, FaceFrame, FaceRuntime
from ..answers.smoothing import AnswerConfig
from ..answers.streams import AnswerStreams
from ..sources.contract import LOST, FrameSource
from .board import Board, CameraState
from .counts import AgeMeter, RateMeter
from .feeder import CameraSetup, Feeder
from .inboxes import Inboxes
from .overload import Overload, Plan

TELL_S = 0.2  # the state is told at least this often
END_S = 1.5  # that the threads of the cameras have to end


class LoadPolicy(Protocol):
    """Decides what gives way; see `Overload`."""

    plan: Plan

    def arrived(self, crops: int, now_s: float) -> None: ...

    def worked(self, crops: int, answers: int, busy_s: float) -> None: ...

    def decide(self, now_s: float) -> Plan: ...


@dataclass(frozen=True)
class Turn:
    """What one round gave.

    Attributes:
        frames: by camera. The last of a source comes again, where only its end brought an answer.
        answers: by camera, to its frame.
        held: by camera, the newest answer of each face.
        events: changes of state, in order.
    """

    frames: Mapping[int, FaceFrame]
    answers: Mapping[int, Sequence[FaceAnswer]]
    held: Mapping[int, Mapping[int, FaceAnswer]]
    events: Sequence[FaceEvent]


class _Camera:
    """What the loop counts of a camera."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.worked, self.answered = RateMeter(clock), RateMeter(clock)
        self.ages = AgeMeter()
        self.age_ms: float | None = None
        self.unserved = self.not_finite = 0
        self.state = ""
        self.last: FaceFrame | None = None
        self.ended = False


class Pipeline:
    """Cameras, their faces and their answers.

    Args:
        runtime: answers; the thread that calls `turn` owns it.
        cameras: with sources that are open; closed by `close`.
        hop: kept frames from one answer to the next.
        warmup: see `Runtime.stream`.
        config: how answers are read.
        facts: shown with the state.
        policy: what gives way under overload.
        clock: seconds, as `time.monotonic`.

    Raises:
        UsageError: no camera, a wrong hop, or more cameras than the bundle has places.
    """

    def __init__(
        self,
        runtime: FaceRuntime,
        cameras: Sequence[CameraSetup],
        hop: int = 4,
        warmup: str = "wait",
        config: AnswerConfig | None = None,
        facts: Mapping[str, object] | None = None,
        policy: LoadPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not cameras:
            raise UsageError("No source was given.", next="name a video, a folder of frames or a camera such as 0")
        hop = whole_number(hop, "hop")
        self._runtime, self._hop, self._clock = runtime, hop, clock
        self.names = unique_names([shown_name(setup.source) for setup in cameras])
        self._streams = AnswerStreams(runtime, self.names, hop, warmup, config or AnswerConfig(), clock)
        self._policy: LoadPolicy = policy or Overload(hop)
        self._policy_lock = threading.Lock()
        self.board = Board(self.names, facts or {})
        self._inboxes = Inboxes([setup.source.live for setup in cameras], self._policy.plan.depth)
        self._feeders = [Feeder(number, setup, self.take, self._inboxes.end) for number, setup in enumerate(cameras)]
        self._cameras = [_Camera(clock) for _ in cameras]
        self._told_s = -TELL_S
        self._closed = False

    def start(self) -> None:
        """Opens what the first answer would have to wait for, and starts the cameras."""
        for batch in sorted({1, *self._runtime.frame_batches}):
            self._runtime.session("frame", batch)
        for batch in sorted({1, *self._runtime.temporal_batches}):
            self._runtime.session("temporal", batch)
        for feeder in self._feeders:
            feeder.start()

    def take(self, number: int, seen: FaceFrame) -> bool:
        """Takes the next frame of a camera, as its thread hands it on; from any thread.

        A recording's frame waits until there is room.

        Returns:
            False where no frame will be worked off any more.
        """
        self.board.show(number, seen)
        if self._feeders[number].live:
            with self._policy_lock:
                self._policy.arrived(len(seen.faces), self._clock())
        return self._inboxes.put(number, seen)

    @property
    def finished(self) -> bool:
        """Whether every source has ended and all its frames were worked off."""
        return self._closed or all(camera.ended for camera in self._cameras)

    def turn(self, timeout_s: float = TELL_S) -> Turn:
        """Works off one frame of each camera that has one; waits for the first.

        Raises:
            LogoformerError: of the runtime, or of a source that broke when it was the last one.
        """
        frames = self._inboxes.take(timeout_s)
        began_s = self._clock()
        events: list[FaceEvent] = []
        answers: dict[int, list[FaceAnswer]] = {}
        if frames and not self._closed:
            self._plan(began_s)
            for number in frames:
                events += self._begun(number)
            done = self._streams.advance(frames)
            answers, events = dict(done.answers), events + done.events
            given = sum(len(own) for own in answers.values())
            with self._policy_lock:
                self._policy.worked(sum(len(seen.faces) for seen in frames.values()), given, self._clock() - began_s)
            for number, seen in frames.items():
                self._count(number, seen, answers.get(number, ()), done.unserved.get(number, 0), done.failed)
        held = {number: self._streams.held(number) for number in frames}
        for number, camera in enumerate(self._cameras):
            events += self._follow(number) + self._left(number)
            if not camera.ended and self._inboxes.finished(number):
                camera.ended = True
                last = camera.last
                if last is not None and not camera.answered.total:
                    answers[number] = self._streams.flush(number, last)
                    self._count(number, last, answers[number], camera.unserved, False)
                    frames[number], held[number] = last, self._streams.held(number)
                events += self._streams.end(number, time.time() if last is None else last.captured_at)
        if events or answers or self._clock() - self._told_s >= TELL_S:
            self._tell()
        if self.finished and not self._closed:
            self._raise_failure()
        return Turn(frames, answers, held, events)

    def close(self) -> None:
        """Ends the cameras' threads and gives every stream back. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._inboxes.close()
        for feeder in self._feeders:
            feeder.end()
        deadline = time.monotonic() + END_S
        for feeder in self._feeders:
            if feeder.ident is not None:
                feeder.join(max(0.0, deadline - time.monotonic()))
        self._streams.close()
        self.board.close()

    # ----------------------------------------------------------------------------------------------------------- parts
    def _plan(self, now_s: float) -> None:
        before = self._policy.plan
        with self._policy_lock:
            plan = self._policy.decide(now_s)
        if plan != before:
            self._inboxes.set_depth(plan.depth)
            for number, feeder in enumerate(self._feeders):
                if feeder.live:  # of a file every frame is used, and every answer given
                    self._streams.set_hop(number, plan.hop)

    def _count(
        self, number: int, seen: FaceFrame, answers: Sequence[FaceAnswer], unserved: int, not_finite: bool
    ) -> None:
        camera = self._cameras[number]
        camera.worked.count()
        camera.unserved, camera.last = unserved, seen
        camera.not_finite += not_finite
        for answer in answers:
            camera.answered.count()
            camera.ages.add(answer.age_ms)
            camera.age_ms = answer.age_ms

    def _follow(self, number: int) -> list[FaceEvent]:
        """Notes a change of the source's state; an end counts once its frames are worked off."""
        camera, (state, reason) = self._cameras[number], self._feeders[number].state
        if state == camera.state or (state in ("ended", "failed") and not self._inboxes.finished(number)):
            return []
        return [self._enter(number, state, reason)]

    def _left(self, number: int) -> list[FaceEvent]:
        """Ends the faces of a camera that is away, once no frame waits: it may be away for days."""
        if self._cameras[number].state != LOST or self._inboxes.waiting(number):
            return []
        return self._streams.end(number, time.time(), "the camera is away")

    def _begun(self, number: int) -> list[FaceEvent]:
        """The first frame of a source, which is news before what is in it."""
        if self._cameras[number].state:
            return []
        return [self._enter(number, "live" if self._feeders[number].live else "playing", "")]

    def _enter(self, number: int, state: str, reason: str) -> FaceEvent:
        camera = self._cameras[number]
        event = FaceEvent("source", self.names[number], None, time.time(), state, camera.state, reason)
        camera.state = state
        return event

    def _tell(self) -> None:
        self._told_s = self._clock()
        cameras = range(len(self._cameras))
        self.board.tell(tuple(self._state(n) for n in cameras), {n: self._streams.held(n) for n in cameras})

    def _state(self, number: int) -> CameraState:
        camera, feeder = self._cameras[number], self._feeders[number]
        status = feeder.status if feeder.live else None
        state, reason = feeder.state
        ages = camera.ages.percentiles_ms()
        dropped = {"overload": self._inboxes.dropped(number)}
        if status is not None:
            dropped = {"capture": int(status.dropped), **dropped}
        return CameraState(
            name=self.names[number],
            state=state,
            reason=reason,
            live=feeder.live,
            epoch=feeder.epoch,
            reconnects=int(status.reconnects) if status is not None else 0,
            size=feeder.size,
            captured_hz=feeder.rate.hz,
            worked_hz=camera.worked.hz,
            answers_hz=camera.answered.hz,
            frames=feeder.rate.total,
            answers=camera.answered.total,
            dropped=dropped,
            skipped=dict(feeder.skipped),
            unserved=camera.unserved,
            not_finite=camera.not_finite,
            hop=self._policy.plan.hop if feeder.live else self._hop,
            wanted_hop=self._hop,
            age_ms=camera.age_ms,
            age_p50_ms=ages[0] if ages else None,
            age_p99_ms=ages[1] if ages else None,
            age_under=tuple(camera.ages.under),
            age_sum_s=camera.ages.sum_s,
            find_ms=None if feeder.find_s is None else 1e3 * feeder.find_s,
            frame_age_s=None if feeder.newest_s is None else time.monotonic() - feeder.newest_s,
            faces=self._streams.view(number),
        )

    def _raise_failure(self) -> None:
        """A source that broke ends the watch with its error once all others have ended."""
        failures = [feeder.failure for feeder in self._feeders if feeder.failure is not None]
        for failure in sorted(failures, key=lambda failure: isinstance(failure, LogoformerError)):
            raise failure


def shown_name(source: FrameSource) -> str:
    """A short name of a source that every program can take: of a file that of the file alone."""
    return printable(source.name if source.path is None else source.path.name) or "source"


def unique_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of sources, told apart by a number where two are the same.

    >>> unique_names(["a", "b", "a"])
    ('a', 'b', 'a (2)')
    """
    given: list[str] = []
    for name in names:
        taken, count = name, 1
        while taken in given:
            count += 1
            taken = f"{name} ({count})"
        given.append(taken)
    return tuple(given)
