"""One stream for each face of each camera, within the bundle's ring arena."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...clips import Frame, pattern_ages
from ...errors import UsageError, VerificationError, command
from .contract import Box, FaceAnswer, FaceCrop, FaceEvent, FaceFrame, FaceRuntime, FaceStream
from .smoothing import AnswerConfig, HeldLabel, Smoother

if TYPE_CHECKING:
    from ...engine import Result


@dataclass
class _Face:
    """What is kept of a face that has a stream."""

    stream: FaceStream
    smoother: Smoother
    held: HeldLabel
    opened: int  # a count: the greatest was opened last
    began_s: float
    answer: FaceAnswer | None = None
    box: Box = (0.0, 0.0, 0.0, 0.0)
    pixels: Frame | None = None
    color: str = "rgb"


@dataclass(frozen=True)
class Advance:
    """What one round gave.

    Attributes:
        answers: by camera, the answers to its frame.
        events: changes of state, in order.
        unserved: by camera, faces of its frame that have no place in the arena.
        failed: whether the answers of this round were not finite and were thrown away.
    """

    answers: Mapping[int, list[FaceAnswer]]
    events: list[FaceEvent]
    unserved: Mapping[int, int]
    failed: bool = False


@dataclass(frozen=True, eq=False)
class FaceView:
    """A face with a stream, for who looks on.

    Attributes:
        id: of the face.
        box: in its newest frame.
        answer: its newest answer, None before the first.
        warm: how far the ring reaches over the training pattern, 0..1.
        crop: uint8 `[h, w, 3]`, what the model saw last.
        color: the order of its channels.
    """

    id: int
    box: Box
    answer: FaceAnswer | None
    warm: float
    crop: Frame | None
    color: str


@dataclass
class _Camera:
    name: str
    hop: int
    epoch: int | None = None
    faces: dict[int, _Face] = field(default_factory=dict)
    time_s: float = 0.0


class AnswerStreams:
    """Streams by camera and face.

    Each camera is sure of an equal share of the arena. What others leave free it may take too, and gives back, the face
    that came last first, when they need it.

    Args:
        runtime: whose streams are opened; all calls come from its thread.
        names: of the cameras.
        hop: kept frames from one answer to the next.
        warmup: see `Runtime.stream`.
        config: how answers are read.
        clock: ages are taken from it, seconds.

    Raises:
        UsageError: more cameras than places in the arena.
    """

    def __init__(
        self,
        runtime: FaceRuntime,
        names: tuple[str, ...],
        hop: int,
        warmup: str,
        config: AnswerConfig,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        bundle = runtime.bundle
        self._places = bundle.stream.faces
        if len(names) > self._places:
            raise UsageError(
                f"{len(names)} sources, and this bundle has room for {self._places} faces at once.",
                cause="it was exported for fewer",
                next=command("logoformer", "export", "CHECKPOINT", "-o", bundle.path, "--faces", len(names)),
            )
        self._runtime, self._warmup, self._config, self._clock = runtime, warmup, config, clock
        self._cameras = [_Camera(name, hop) for name in names]
        self._share = self._places // len(names) if names else 0
        self._reach_s = float(pattern_ages(bundle.sampling).max())
        self._opened = 0
        self._skipped = self._resets = 0  # of streams that are closed

    @property
    def skipped(self) -> int:
        """Crops that were not kept, because they came faster than the model's ring keeps them."""
        return self._skipped + sum(stream.skipped for stream in self._open_streams())

    @property
    def resets(self) -> int:
        """Times a ring was emptied because of a pause."""
        return self._resets + sum(stream.resets for stream in self._open_streams())

    def set_hop(self, camera: int, hop: int) -> None:
        """Sets the frames from one answer to the next of all faces of a camera, from now on."""
        known = self._cameras[camera]
        if known.hop != hop:
            known.hop = hop
            for face in known.faces.values():
                face.stream.hop = hop

    def advance(self, frames: Mapping[int, FaceFrame]) -> Advance:
        """Pushes one frame of each of several cameras, all their faces in one step.

        Args:
            frames: by camera.

        Raises:
            BadInputError: a frame's time does not rise.
            DeviceLostError: the device is gone.
        """
        events: list[FaceEvent] = []
        unserved: dict[int, int] = {}
        pushed: dict[FaceStream, tuple[Frame, float]] = {}
        places: dict[FaceStream, tuple[int, FaceCrop]] = {}
        for number, seen in frames.items():
            self._begin(number, seen, events)
        for number, seen in frames.items():
            for crop in sorted(seen.faces, key=_area, reverse=True):
                face = self._face(number, seen, crop, events)
                if face is not None:
                    face.box, face.pixels, face.color = crop.box, crop.pixels, seen.color
                    pushed[face.stream] = (crop.pixels, seen.time_s)
                    places[face.stream] = (number, crop)
        for number, seen in frames.items():
            unserved[number] = sum(crop.id not in self._cameras[number].faces for crop in seen.faces)
        # A place that was taken back in this round has a closed stream.
        alive = set(map(id, self._open_streams()))
        pushed = {stream: given for stream, given in pushed.items() if id(stream) in alive}
        try:
            results = self._runtime.step(pushed) if pushed else {}
        except VerificationError:
            return Advance({}, events, unserved, failed=True)
        answers: dict[int, list[FaceAnswer]] = {}
        for stream, result in results.items():
            if result is not None:
                number, crop = places[stream]
                answer = self._read(number, crop, frames[number], result, events)
                answers.setdefault(number, []).append(answer)
        return Advance(answers, events, unserved)

    def flush(self, camera: int, seen: FaceFrame) -> list[FaceAnswer]:
        """Answers faces that never had an answer, from what their rings hold."""
        given = []
        for crop in seen.faces:
            face = self._cameras[camera].faces.get(crop.id)
            if face is not None and face.answer is None and (result := face.stream.flush()) is not None:
                given.append(self._read(camera, crop, seen, result, []))
        return given

    def view(self, camera: int) -> tuple[FaceView, ...]:
        """The faces of a camera that have a stream."""
        known = self._cameras[camera]
        shown = []
        for number, face in known.faces.items():
            warm = 1.0 if self._reach_s == 0 else min(1.0, (known.time_s - face.began_s) / self._reach_s)
            shown.append(FaceView(number, face.box, face.answer, warm, face.pixels, face.color))
        return tuple(shown)

    def held(self, camera: int) -> dict[int, FaceAnswer]:
        """The newest answer of each face of a camera."""
        faces = self._cameras[camera].faces
        return {number: face.answer for number, face in faces.items() if face.answer is not None}

    def end(self, camera: int, at: float, reason: str = "") -> list[FaceEvent]:
        """Closes all streams of a camera whose source has ended, or is away."""
        events: list[FaceEvent] = []
        for number in list(self._cameras[camera].faces):
            self._close(camera, number, at, events, reason)
        return events

    def close(self) -> None:
        """Gives every place back."""
        for camera in self._cameras:
            for face in camera.faces.values():
                self._close_stream(face.stream)
            camera.faces.clear()

    # -------------------------------------------------------------------------------------------------------- one face
    def _begin(self, number: int, seen: FaceFrame, events: list[FaceEvent]) -> None:
        """Forgets what lies before a reconnect, and the faces that are gone."""
        camera = self._cameras[number]
        gone = set(seen.gone)
        if camera.epoch is not None and camera.epoch != seen.epoch:
            gone |= set(camera.faces) - {crop.id for crop in seen.faces}
            for face in camera.faces.values():
                self._reset(face, seen.time_s)
        camera.epoch, camera.time_s = seen.epoch, seen.time_s
        for number_of_face in sorted(gone & set(camera.faces)):
            self._close(number, number_of_face, seen.captured_at, events)

    def _face(self, number: int, seen: FaceFrame, crop: FaceCrop, events: list[FaceEvent]) -> _Face | None:
        camera = self._cameras[number]
        face = camera.faces.get(crop.id)
        if face is not None and face.stream.color != seen.color:  # the camera came back with another format
            self._close_stream(face.stream)
            face.stream = self._stream(camera.hop, seen.color)
            self._reset(face, seen.time_s)
        if face is not None:
            if crop.reset:
                self._reset(face, seen.time_s)
            return face
        if not self._make_room(number, seen.captured_at, events):
            return None
        self._opened += 1
        face = _Face(
            self._stream(camera.hop, seen.color),
            Smoother(self._config.smooth_s),
            HeldLabel(self._runtime.labels, self._config.gate, self._config.margin),
            self._opened,
            seen.time_s,
        )
        camera.faces[crop.id] = face
        events.append(FaceEvent("appeared", camera.name, crop.id, seen.captured_at))
        return face

    def _stream(self, hop: int, color: str) -> FaceStream:
        return self._runtime.stream(hop=hop, color=color, warmup=self._warmup)

    def _close_stream(self, stream: FaceStream) -> None:
        self._skipped += stream.skipped
        self._resets += stream.resets
        stream.close()

    def _open_streams(self) -> list[FaceStream]:
        return [face.stream for camera in self._cameras for face in camera.faces.values()]

    def _make_room(self, number: int, at: float, events: list[FaceEvent]) -> bool:
        if sum(len(camera.faces) for camera in self._cameras) < self._places:
            return True
        if len(self._cameras[number].faces) >= self._share:
            return False
        greedy = max(range(len(self._cameras)), key=lambda other: len(self._cameras[other].faces))
        faces = self._cameras[greedy].faces
        last = max(faces, key=lambda face: faces[face].opened)
        self._close(greedy, last, at, events, reason="its place went to a face of another camera")
        return True

    def _reset(self, face: _Face, time_s: float) -> None:
        face.stream.reset()
        face.smoother.reset()
        face.held.reset()
        face.began_s, face.answer = time_s, None

    def _close(self, number: int, gone: int, at: float, events: list[FaceEvent], reason: str = "") -> None:
        face = self._cameras[number].faces.pop(gone)
        self._close_stream(face.stream)
        before = face.answer.label if face.answer else ""
        events.append(FaceEvent("gone", self._cameras[number].name, gone, at, before=before, reason=reason))

    def _read(
        self, number: int, crop: FaceCrop, seen: FaceFrame, result: Result, events: list[FaceEvent]
    ) -> FaceAnswer:
        camera = self._cameras[number]
        face = camera.faces[crop.id]
        smooth = face.smoother.add(result.probabilities, seen.time_s)
        label = face.held.update(smooth)
        before = face.answer.label if face.answer else ""
        face.answer = FaceAnswer(
            source=camera.name,
            face=crop.id,
            box=crop.box,
            score=crop.score,
            result=result,
            label=label,
            probabilities=smooth,
            labels=self._runtime.labels,
            changed=label != before,
            index=seen.index,
            epoch=seen.epoch,
            captured_at=seen.captured_at,
            age_ms=1e3 * (self._clock() - seen.captured_s),
        )
        if label != before:
            events.append(FaceEvent("expression", camera.name, crop.id, seen.captured_at, label, before))
        return face.answer


def _area(crop: FaceCrop) -> float:
    left, top, right, bottom = crop.box
    return (right - left) * (bottom - top)
