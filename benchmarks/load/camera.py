"""Stages of a frame from a source to an answer.

They are capture, detect, track, align, frame and answer.

The parts of `watch` run one after the other on one thread, so that each can be timed; `watch` itself runs capture to
align beside the model. After each frame one product of two 256 x 256 matrices is timed too: a stage as so many products
can be compared between machines, and with one that is busy with something else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ...camera.faces.blaze import RefinedDetector
from ...camera.faces.crop import face_crop
from ...camera.faces.finder import FaceFinder
from ...camera.faces.tracker import Tracker
from ...camera.sources.contract import FrameSource
from ...clips import Frame
from ...errors import BadInputError
from .closed import Progress

if TYPE_CHECKING:
    from ...camera.faces.contract import Corners, Detection
    from ...camera.faces.tracker import Seen
    from ...engine import Runtime

STAGES = ("capture", "detect", "track", "align", "frame", "answer")
FINDING = ("detect", "track", "align")  # what watching adds to reading and answering
MATRIX = 256
WARMUP = 20  # frames


@dataclass(frozen=True)
class StageTime:
    """One stage over the frames of a run, milliseconds a frame.

    Attributes:
        name: of the stage; 'answer' is per answer.
        p50_ms, p99_ms, mean_ms: of the frames after the warm-up.
        products: median over the median of a matrix product beside it.
    """

    name: str
    p50_ms: float
    p99_ms: float
    mean_ms: float
    products: float


@dataclass(frozen=True)
class CameraStages:
    """Times of all stages.

    Attributes:
        frames: that were timed.
        faces: found in a frame, mean.
        every: frames from one look at the whole frame to the next.
        size: width and height of the frames.
        product_ms: median of a product of two 256 x 256 matrices, float32.
        stages: one for each of `STAGES`.
        finding: detect, track and align of a frame together.
    """

    frames: int
    faces: float
    every: int
    size: tuple[int, int]
    product_ms: float
    stages: tuple[StageTime, ...]
    finding: StageTime

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """A table: stage, median, 99th percentile, products; with a head."""
        body = [
            (one.name, f"{one.p50_ms:.2f}", f"{one.p99_ms:.2f}", f"{one.products:.1f}")
            for one in (*self.stages, self.finding)
        ]
        return [("stage", "p50 ms", "p99 ms", "p50 / matrix product"), *body]


class _Timed:
    """Seconds spent in each stage of the present frame."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.spent = dict.fromkeys(STAGES, 0.0)

    def run(self, stage: str, work: Callable[[], Any]) -> Any:
        began = self.clock()
        try:
            return work()
        finally:
            self.spent[stage] += self.clock() - began

    def take(self) -> dict[str, float]:
        spent, self.spent = self.spent, dict.fromkeys(STAGES, 0.0)
        return spent


class _TimedDetector:
    """A detector whose calls are timed; implements `Detector` and `Refiner`."""

    def __init__(self, inner: RefinedDetector, timed: _Timed) -> None:
        self._inner, self._timed = inner, timed

    def detect(self, rgb: Frame) -> list[Detection]:
        found: list[Detection] = self._timed.run("detect", lambda: self._inner.detect(rgb))
        return found

    def refine(self, rgb: Frame, box: Corners) -> Detection | None:
        found: Detection | None = self._timed.run("detect", lambda: self._inner.refine(rgb, box))
        return found


class _TimedTracker(Tracker):
    """A tracker whose calls are timed."""

    timed: _Timed

    def update(self, found: Sequence[Detection], time_s: float) -> list[Seen]:
        seen: list[Seen] = self.timed.run("track", lambda: super(_TimedTracker, self).update(found, time_s))
        return seen


def camera_stages(
    runtime: Runtime,
    source: FrameSource,
    *,
    frames: int = 500,
    hop: int = 4,
    every: int = 5,
    clock: Callable[[], float] = time.perf_counter,
    progress: Progress | None = None,
) -> CameraStages:
    """Times the stages of up to so many frames of a recording.

    The first faces of the arena are answered for.

    Args:
        runtime: answers; faces are cut as its bundle says.
        source: a video or a folder with faces, opened by the caller.
        frames: after `WARMUP` untimed ones.
        hop: frames from one answer to the next.
        every: frames from one look at the whole frame to the next.
        clock: seconds.
        progress: called with ("camera", frames done, frames).

    Raises:
        BadInputError: fewer frames than the warm-up, or no face in any.
    """
    timed, tracker = _Timed(clock), _TimedTracker()
    tracker.timed = timed
    finder = FaceFinder(_TimedDetector(RefinedDetector(None), timed), every=every, tracker=tracker)
    matrix = np.random.default_rng(0).random((MATRIX, MATRIX), np.float32)
    alignment, size = runtime.bundle.alignment, runtime.bundle.image_size
    streams: dict[int, Any] = {}
    spent: list[dict[str, float]] = []
    answers: list[float] = []
    products: list[float] = []
    seen_faces, shape = 0, (0, 0)
    reader = iter(source)
    for index in range(WARMUP + frames):
        captured = timed.run("capture", lambda: next(reader, None))
        if captured is None:
            break
        shape = (int(captured.frame.shape[1]), int(captured.frame.shape[0]))
        began = clock()
        found = finder.find(captured.frame, captured.color, captured.time_s, captured.epoch)
        # What is neither detection nor tracking (sharpness, size, doubt) is part of finding the face: of detecting it.
        timed.spent["detect"] += clock() - began - timed.spent["detect"] - timed.spent["track"]
        for gone in found.gone:
            if gone in streams:
                streams.pop(gone).close()
        answered = 0.0
        for face in found.faces:
            crop = timed.run("align", partial(face_crop, captured.frame, face, alignment, size))
            if face.id not in streams and len(streams) < runtime.bundle.stream.faces:
                streams[face.id] = runtime.stream(hop=hop, color=captured.color, warmup="repeat")
            if face.id in streams:
                began = clock()
                result = streams[face.id].push(crop, captured.time_s)
                taken = clock() - began
                if result is None:
                    timed.spent["frame"] += taken
                else:  # the frame graph is in it; what it takes alone is known from the other frames
                    answered += taken
        began = clock()
        np.dot(matrix, matrix)
        product = clock() - began
        this = timed.take()
        if index < WARMUP:
            continue
        spent.append(this)
        products.append(product)
        seen_faces += len(found.faces)
        if answered:
            answers.append(answered)
        if progress is not None:
            progress("camera", len(spent), frames)
    for stream in streams.values():
        stream.close()
    if not spent or not seen_faces or not answers:
        raise BadInputError(
            f"{source.name} has {len(spent)} frames after the first {WARMUP} and {seen_faces} faces in them; nothing "
            "can be timed.",
            next="logoformer synth --kind scene -o scene.mp4",
        )
    product_ms = 1e3 * float(np.median(products))
    finding = [sum(one[name] for name in FINDING) for one in spent]
    values = {name: [one[name] for one in spent] for name in STAGES[:-2]}
    values["frame"] = [one["frame"] for one in spent if one["frame"]] or [0.0]
    values["answer"] = answers
    return CameraStages(
        frames=len(spent),
        faces=seen_faces / len(spent),
        every=every,
        size=shape,
        product_ms=product_ms,
        stages=tuple(_stage(name, values[name], product_ms) for name in STAGES),
        finding=_stage(" + ".join(FINDING), finding, product_ms),
    )


def _stage(name: str, seconds: Sequence[float], product_ms: float) -> StageTime:
    p50, p99 = (1e3 * float(value) for value in np.percentile(seconds, (50, 99)))
    return StageTime(name, p50, p99, 1e3 * float(np.mean(seconds)), p50 / product_ms)
