"""From a frame to its faces: detection, tracking, and what is fit to be read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...clips import Frame, check_color, check_frame
from ...errors import whole_number
from .blaze import RefinedDetector, distinct
from .boxes import Floats, overlap
from .contract import Corners, Detection, Detector, Point, Refiner
from .steady import SteadyPoints
from .tracker import Tracker
from .usable import CROSSING, Limits, reason_to_skip

_WHOLE_FRAME_S = 0.3  # the whole frame is looked at at least this often, however few frames come
_KNOWN_S = 0.5  # how long a face that is not seen is looked for near its last place
_UNCONFIRMED_S = 2.0  # a track that the detector of whole frames has not seen for so long is no face
_SAME_FACE = 0.3

_Find = tuple[Detection, bool]  # a face, and whether the detector of whole frames saw it


@dataclass(frozen=True)
class TrackedFace:
    """A face that can be read.

    Attributes:
        id: the same for one face as long as it is tracked; never used again.
        box: left, top, right, bottom in pixels of the frame.
        points: eyes, nose and mouth, see `contract.POINTS`; steadied, see `SteadyPoints`.
        score: of the detector, 0..1.
        reset: the id may have stood for another face until now: its clip begins anew with this frame.
    """

    id: int
    box: Corners
    points: Mapping[str, Point]
    score: float
    reset: bool


@dataclass(frozen=True)
class FoundFaces:
    """The faces of one frame.

    Attributes:
        faces: that can be read, by id.
        skipped: how many cannot, by reason ('crossing', 'small', 'cut_off', 'blurred').
        gone: ids that were given up; they do not come again.
    """

    faces: tuple[TrackedFace, ...]
    skipped: Mapping[str, int]
    gone: tuple[int, ...]


class FaceFinder:
    """Finds and tracks the faces of one camera.

    The detector looks at the whole frame now and then; between, a smaller network looks for each known face near where
    it is expected.

    Args:
        detector: for whole frames; None: the networks of this package, see `RefinedDetector`. One that has no `refine`
            is wrapped in that.
        every: frames from one look at the whole frame to the next; 1 looks at each.
        limits: what a face needs to be read.
        tracker: gives the ids.

    Raises:
        UsageError: `every` is no whole number of at least 1.
        MachineError: ONNX Runtime is not installed.
    """

    def __init__(
        self,
        detector: Detector | None = None,
        *,
        every: int = 5,
        limits: Limits | None = None,
        tracker: Tracker | None = None,
    ) -> None:
        self.every = whole_number(every, "every")
        found = detector if isinstance(detector, Refiner) else RefinedDetector(detector)
        self._detector: Detector = found
        self._refiner: Refiner = found
        self._limits = limits or Limits()
        self._tracker = tracker or Tracker()
        self._steady = SteadyPoints()
        self._epoch: int | None = None
        self._since, self._looked_s = 0, -math.inf
        self._confirmed_s: dict[int, float] = {}  # when the detector of whole frames saw a face last
        self._to_reset: set[int] = set()  # faces whose clip has to begin anew once they can be read

    def find(self, frame: Frame, color: str, time_s: float, epoch: int = 0) -> FoundFaces:
        """The faces of the next frame.

        Args:
            frame: uint8 `[H, W, 3]`.
            color: 'rgb' or 'bgr'.
            time_s: later than the last frame's.
            epoch: of the source, see `TimedFrame`; when it changes, nobody is known any more.

        Raises:
            BadInputError: no frame, or its time is not later.
            UsageError: another color.
        """
        check_frame(frame)
        rgb = frame if check_color(color) == "rgb" else frame[..., ::-1]
        gone = self._begin(epoch)
        found = self._whole_frame(rgb, time_s) if self._is_due(time_s) else self._known_faces(rgb, time_s)
        seen = self._tracker.update([face for face, _ in found], time_s)
        gone += self._tracker.gone
        for one, (_, confirmed) in zip(seen, found, strict=True):
            if confirmed:
                self._confirmed_s[one.id] = time_s
        gone += self._drop_unconfirmed(time_s)
        self._steady.forget(gone)
        for number in gone:
            self._confirmed_s.pop(number, None)
            self._to_reset.discard(number)
        faces, skipped = [], Counter[str]()
        for one in sorted(seen, key=lambda s: s.id):
            if one.id not in self._confirmed_s:
                continue
            if one.reset:
                self._to_reset.add(one.id)
            face = one.found
            points = self._steady.follow(one.id, face, time_s, one.reset)
            reason = CROSSING if one.doubtful else reason_to_skip(rgb, face, self._limits)
            if reason is not None:
                skipped[reason] += 1
                continue
            faces.append(TrackedFace(one.id, face.box, points, face.score, one.id in self._to_reset))
            self._to_reset.discard(one.id)
        return FoundFaces(tuple(faces), dict(skipped), gone)

    def _begin(self, epoch: int) -> tuple[int, ...]:
        """Forgets everybody where the source was opened anew; the ids that this ends."""
        before, self._epoch = self._epoch, epoch
        if before is None or before == epoch:
            return ()
        self._looked_s = -math.inf
        self._tracker.clear()
        return self._tracker.gone

    def _is_due(self, time_s: float) -> bool:
        """Whether the whole frame is looked at."""
        self._since += 1
        if self._since < self.every and time_s - self._looked_s < _WHOLE_FRAME_S:
            return False
        self._since, self._looked_s = 0, time_s
        return True

    def _whole_frame(self, rgb: Frame, time_s: float) -> list[_Find]:
        faces = self._detector.detect(rgb)
        # A face that is turned away is missed by the detector before it is missed by the closer look.
        missed = [box for box in self._expected(time_s) if not faces or _overlaps([box], faces).max() < _SAME_FACE]
        return [*((face, True) for face in faces), *self._look(rgb, missed, faces)]

    def _known_faces(self, rgb: Frame, time_s: float) -> list[_Find]:
        return self._look(rgb, self._expected(time_s), [])

    def _look(self, rgb: Frame, boxes: Sequence[Corners], known: Sequence[Detection]) -> list[_Find]:
        """Looks near each box; what is known already is not given again."""
        looked = (self._refiner.refine(rgb, box) for box in boxes)
        found = distinct([face for face in looked if face is not None])
        if known and found:
            new = _overlaps([face.box for face in found], known).max(axis=1) < _SAME_FACE
            found = [face for face, is_new in zip(found, new, strict=True) if is_new]
        return [(face, False) for face in found]

    def _expected(self, time_s: float) -> list[Corners]:
        return [t.predict(time_s) for t in self._tracker.tracks if time_s - t.seen_s <= _KNOWN_S]

    def _drop_unconfirmed(self, time_s: float) -> tuple[int, ...]:
        """Gives up tracks that only the closer look has seen for long: it follows anything round."""
        seen_s = self._confirmed_s
        old = [t.id for t in self._tracker.tracks if time_s - seen_s.get(t.id, -math.inf) > _UNCONFIRMED_S]
        return self._tracker.drop(old)


def _overlaps(boxes: Sequence[Corners], faces: Sequence[Detection]) -> Floats:
    return overlap(np.array(boxes), np.array([face.box for face in faces]))
