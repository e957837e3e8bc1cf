"""What answers are made of, what they are, and what takes them.

Boxes are left, top, right, bottom in pixels of the source's frame.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ...clips import Frame

if TYPE_CHECKING:
    from ...bundle import Bundle
    from ...engine import Result

Box = tuple[float, float, float, float]
UNCERTAIN = "uncertain"


@dataclass(frozen=True, eq=False)
class FaceCrop:
    """A face in one frame, as the model will see it.

    Attributes:
        id: of the person, as the tracker says; lasts while the face is followed.
        box: in the frame.
        score: of the detector, 0..1.
        pixels: uint8 `[h, w, 3]` in the frame's colour order; resized by the stream when it has another size.
        reset: the history of this id may be another person's and must go.
    """

    id: int
    box: Box
    score: float
    pixels: Frame
    reset: bool = False


@dataclass(frozen=True, eq=False)
class FaceFrame:
    """One frame of a source with the faces in it.

    Attributes:
        picture: uint8 `[H, W, 3]`, the whole frame.
        color: the order of its channels and of the crops', 'rgb' or 'bgr'.
        time_s: the source's own time, strictly ascending.
        index: its place in the source.
        epoch: one more after every reconnect; no clip spans two.
        captured_s: when it arrived, on the clock that ages are taken from (`time.monotonic()`).
        captured_at: the same as seconds since 1970, UTC.
        faces: usable faces.
        gone: ids given up since the frame before.
        skipped: faces that are not usable, by reason.
    """

    picture: Frame
    color: str
    time_s: float
    index: int
    epoch: int
    captured_s: float
    captured_at: float
    faces: tuple[FaceCrop, ...] = ()
    gone: tuple[int, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class FaceAnswer:
    """One answer for one face.

    Attributes:
        source: name of the source.
        face: id of the face.
        box: in the newest frame.
        score: of the detector, 0..1.
        result: the runtime's own answer, as `Stream.push` gives it: not smoothed, not gated.
        label: the label held after smoothing, hysteresis and gate; 'uncertain' where no class is likely enough.
        probabilities: float32 `[C]`, smoothed; they sum to 1.
        labels: the C class names.
        changed: whether `label` is another than in the answer before.
        index: of the newest frame in its source.
        epoch: of the newest frame.
        captured_at: when the newest frame was taken, seconds since 1970, UTC.
        age_ms: from that moment to this answer.
    """

    source: str
    face: int
    box: Box
    score: float
    result: Result
    label: str
    probabilities: npt.NDArray[np.float32]
    labels: tuple[str, ...]
    changed: bool
    index: int
    epoch: int
    captured_at: float
    age_ms: float

    @property
    def time_s(self) -> float:
        """The source's time of the newest frame, seconds."""
        return float(self.result.time_s or 0.0)

    @property
    def confidence(self) -> float:
        """Smoothed probability of the held label; of the likeliest class while uncertain."""
        place = self.labels.index(self.label) if self.label in self.labels else int(self.probabilities.argmax())
        return float(self.probabilities[place])

    @property
    def uncertain(self) -> bool:
        """Whether no class is likely enough."""
        return self.label == UNCERTAIN

    def to_json(self) -> dict[str, Any]:
        """The fields of `run`'s line, label and probabilities smoothed, and those of a face."""
        return {
            "source": self.source,
            "face": self.face,
            "time_s": round(self.time_s, 6),
            "utc": utc(self.captured_at),
            "label": self.label,
            "confidence": round(self.confidence, 6),
            "probabilities": {
                name: round(float(share), 6) for name, share in zip(self.labels, self.probabilities, strict=True)
            },
            "raw_label": self.result.label,
            "box": [round(float(side), 1) for side in self.box],
            "age_ms": round(self.age_ms, 3),
            "frame": self.index,
            "epoch": self.epoch,
            "sequence": int(self.result.sequence),
        }


@dataclass(frozen=True)
class FaceEvent:
    """A change of state.

    Attributes:
        kind: 'appeared', 'expression' or 'gone' of a face; 'source' where a source's state changed.
        source: name of the source.
        face: id of the face; None of a source.
        at: when, seconds since 1970, UTC.
        state: the label from now on; of a source its state.
        before: what it was; "" where there was nothing.
        reason: in words, where one is known.
    """

    kind: str
    source: str
    face: int | None
    at: float
    state: str = ""
    before: str = ""
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `event` is the kind."""
        shown: dict[str, Any] = {"event": self.kind, "source": self.source, "utc": utc(self.at)}
        if self.face is not None:
            shown["face"] = self.face
        shown |= {"state": self.state, "before": self.before}
        return shown | ({"reason": self.reason} if self.reason else {})


class FaceStream(Protocol):
    """The stream of one face: an `engine.Stream`, or one that a server answers."""

    color: str
    skipped: int
    resets: int

    @property
    def hop(self) -> int: ...

    @hop.setter
    def hop(self, hop: int) -> None: ...

    def reset(self) -> None: ...

    def flush(self) -> Result | None: ...

    def close(self) -> None: ...


class FaceRuntime(Protocol):
    """What answers: an `engine.Runtime`, or a server (`serving.remote.TritonRuntime`)."""

    bundle: Bundle
    backend: str
    precision: str
    frame_batches: tuple[int, ...]
    temporal_batches: tuple[int, ...]

    @property
    def labels(self) -> tuple[str, ...]: ...

    def session(self, graph: str, batch: int = 1) -> object: ...

    def stream(self, hop: int = 4, *, color: str | None = None, warmup: str = "wait") -> FaceStream: ...

    def step(self, frames: Mapping[Any, tuple[Frame, float]]) -> Mapping[Any, Result | None]: ...


class AnswerSink:
    """What takes answers, on the thread that iterates the watch; a subclass takes what it wants."""

    def answers(self, seen: FaceFrame, given: Sequence[FaceAnswer]) -> None:
        """Takes the answers to one frame of one source, at least one."""

    def event(self, event: FaceEvent) -> None:
        """Takes a change of state."""

    def frame(self, source: str, seen: FaceFrame, held: Mapping[int, FaceAnswer]) -> None:
        """Takes every frame that was worked on, with the newest answer of each of its faces."""

    def close(self) -> None:
        """Finishes what is open. A second call does nothing."""


class CallbackSink(AnswerSink):
    """Calls functions.

    Args:
        on_answer: called with each answer.
        on_event: called with each change of state.
    """

    def __init__(
        self,
        on_answer: Callable[[FaceAnswer], None] | None = None,
        on_event: Callable[[FaceEvent], None] | None = None,
    ) -> None:
        self._on_answer, self._on_event = on_answer, on_event

    def answers(self, seen: FaceFrame, given: Sequence[FaceAnswer]) -> None:
        if self._on_answer is not None:
            for answer in given:
                self._on_answer(answer)

    def event(self, event: FaceEvent) -> None:
        if self._on_event is not None:
            self._on_event(event)


def utc(at: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC with milliseconds.

    >>> utc(0.25)
    '1970-01-01T00:00:00.250Z'
    """
    moment = datetime.datetime.fromtimestamp(at, datetime.timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
