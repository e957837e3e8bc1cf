"""Accuracy on a synthetic street, by the boxes that were drawn and by those that were found.

The same frames go three ways at once: crops of the squares in which the faces were drawn; found faces that are aligned
as the bundle says; found faces in squares with a margin. At the end of each labelled span each way has one answer, or
none where the face was not found.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..camera.faces.crop import face_crop
from ..camera.faces.finder import FaceFinder, TrackedFace
from ..clips import Frame
from ..engine import Runtime, load

if TYPE_CHECKING:
    from ..camera.faces.contract import Detector
    from ..engine import Result, Stream

WAYS = ("given", "aligned", "square")
_BEFORE_S = 0.4  # a stream gets frames from so long before a clip begins
Span = Mapping[str, Any]
Truth = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class SceneScore:
    """Answers at the ends of labelled spans, and what the finder did on the way.

    Attributes:
        confusion: by way, int64 `[C, C + 1]`: rows the label, columns the answer, the last one none.
        mixed: clips that were answered though they held frames of two people.
        changes: how often a person's id changed.
        frames: frames read.
    """

    confusion: Mapping[str, npt.NDArray[np.int64]]
    mixed: int
    changes: int
    frames: int

    @property
    def spans(self) -> int:
        """Spans that were read."""
        return int(self.confusion["given"].sum())

    def uar(self, way: str) -> float:
        """Unweighted average recall."""
        counts = self.confusion[way]
        support = counts.sum(1)
        return float((counts.diagonal()[support > 0] / support[support > 0]).mean()) if support.any() else 0.0

    def __add__(self, other: SceneScore) -> SceneScore:
        total = {way: self.confusion[way] + other.confusion[way] for way in WAYS}
        return SceneScore(total, self.mixed + other.mixed, self.changes + other.changes, self.frames + other.frames)

    def to_json(self) -> dict[str, Any]:
        return {
            "uar": {way: self.uar(way) for way in WAYS},
            "spans": self.spans,
            "unanswered": {way: int(self.confusion[way][:, -1].sum()) for way in WAYS},
            "mixed": self.mixed,
            "id_changes": self.changes,
            "frames": self.frames,
        }


class FaceStreams:
    """A stream for each face; the one that waits longest makes room for a new one."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._open: OrderedDict[int, Stream] = OrderedDict()

    def push(self, face: int, crop: Frame, time_s: float, reset: bool = False) -> None:
        """Hands a crop, RGB, to the stream of a face."""
        if face not in self._open:
            if len(self._open) == self.runtime.bundle.stream.faces:
                self._open.popitem(last=False)[1].close()
            self._open[face] = self.runtime.stream(hop=1 << 30, color="rgb")
        elif reset:
            self._open[face].reset()
        self._open.move_to_end(face)
        self._open[face].push(crop, time_s)

    def answer(self, face: int | None) -> Result | None:
        """What the face's clip shows now; None for a face that is not known."""
        return None if face is None or face not in self._open else self._open[face].flush()

    def close(self, faces: Iterable[int] | None = None) -> None:
        """Ends the streams of faces; None: all."""
        for face in list(self._open) if faces is None else faces:
            if face in self._open:
                self._open.pop(face).close()


def score_scene(
    bundle: str | os.PathLike[str],
    frames: Iterable[tuple[Frame, Truth]],
    spans: Iterable[Span],
    fps: float,
    *,
    detector: Detector | None = None,
) -> SceneScore:
    """Streams a scene each of `WAYS` and takes the answers at the end of every span.

    Args:
        bundle: with an alignment.
        frames: uint8 `[H, W, 3]`, RGB, and the faces in it as `FaceTruth.to_json` gives them.
        spans: `{"face", "end_s", "label"}`, by the time of its end.
        fps: of the frames.
        detector: of the finder; None takes that of the package.
    """
    waiting = list(spans)
    finder = FaceFinder(detector)
    id_of: dict[int, int] = {}
    seen: dict[int, list[tuple[float, int]]] = {}  # by id, of its present clip: when, and who it was
    to_reset: set[int] = set()
    mixed = changes = count = 0
    with ExitStack() as stack:
        runtimes = {way: stack.enter_context(load(bundle, threads=1)) for way in WAYS}
        one = runtimes["given"].bundle
        labels, size = one.labels, one.image_size
        confusion = {way: np.zeros((len(labels), len(labels) + 1), np.int64) for way in WAYS}
        streams = {way: FaceStreams(runtimes[way]) for way in WAYS}
        for way in WAYS:
            stack.callback(streams[way].close)
        for index, (frame, truth) in enumerate(frames):
            time_s, count = index / fps, count + 1
            # What is older than a clip is in no answer: between two spans nothing has to be computed.
            due = bool(waiting) and time_s >= waiting[0]["end_s"] - one.sampling.span_s - _BEFORE_S
            for known in truth if due else ():
                streams["given"].push(known["face"], _square(frame, known, size), time_s)
            found = finder.find(frame, "rgb", time_s)
            who = who_is_who(found.faces, truth)
            for face in found.faces:
                to_reset |= {face.id} if face.reset else set()
                for way, alignment in (("aligned", one.alignment), ("square", None)) if due else ():
                    crop = face_crop(frame, face, alignment, size)
                    streams[way].push(face.id, crop, time_s, face.id in to_reset)
                to_reset -= {face.id} if due else set()
                person = who.get(face.id)
                if person is None:
                    continue
                changes += id_of.get(person, face.id) != face.id
                id_of[person] = face.id
                kept = [] if face.reset else seen.get(face.id, [])
                seen[face.id] = [*((t, p) for t, p in kept if time_s - t <= one.sampling.span_s), (time_s, person)]
                mixed += len({p for _, p in seen[face.id]}) > 1
            for way in ("aligned", "square"):
                streams[way].close(found.gone)
            while waiting and time_s >= waiting[0]["end_s"] - 1.5 / fps:
                span = waiting.pop(0)
                by_id = {person: number for number, person in who.items()}
                faces = {"given": span["face"], **dict.fromkeys(("aligned", "square"), by_id.get(span["face"]))}
                for way in WAYS:
                    answer = streams[way].answer(faces[way])
                    confusion[way][labels.index(span["label"]), -1 if answer is None else answer.index] += 1
    return SceneScore(confusion, mixed, changes, count)


def _square(frame: Frame, truth: Mapping[str, Any], size: int) -> Frame:
    """The square in which a face was drawn, in the model's size."""
    left, top, right, bottom = truth["crop"]
    face = TrackedFace(0, (left, top, right, bottom), {}, 1.0, False)
    return face_crop(frame, face, None, size, margin=1.0)


def who_is_who(faces: Iterable[TrackedFace], truth: Truth) -> dict[int, int]:
    """Id of each found face -> the person whose eyes and mouth are nearest, if they are near."""
    who = {}
    for face in faces:
        middle = np.mean([face.points[name] for name in ("left_eye", "right_eye", "mouth")], axis=0)
        best = min(truth, key=lambda t: _distance(t, middle), default=None)
        if best is not None and _distance(best, middle) < (face.box[2] - face.box[0]) / 2:
            who[face.id] = int(best["face"])
    return who


def _distance(truth: Mapping[str, Any], middle: npt.NDArray[np.float64]) -> float:
    places = np.mean([truth[name] for name in ("left_eye", "right_eye", "mouth")], axis=0)
    return float(np.linalg.norm(places - middle))
