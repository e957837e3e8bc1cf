"""BlazeFace, the face detectors of this package.

back-256 looks at whole frames, front-128 at a face that is known.

Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs" (arXiv 1907.05047). Each network
gives, for each of 896 anchors, a score and 16 numbers: the offset of the box's middle, its width and height, and the
offsets of six points, all in pixels of its input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...clips import Frame
from ...engine.sessions.contract import Session
from .boxes import Floats, group_boxes, weighted_mean
from .contract import Corners, Detection, Detector, Refiner
from .networks import open_stored
from .pictures import View, fitted, square_around, square_part

# A candidate is a face if front-128, looking closer, agrees. On the pictures of tests/camera/faces the faces score 0.76
# and more, what is none 0.70 and less; by back-256 alone a cat (0.78) is more of a face than some faces (0.57).
CANDIDATE_THRESHOLD = 0.5
THRESHOLD = 0.73
KNOWN_THRESHOLD = 0.5  # where a face was a moment ago
GROW = 2.0  # side of the part that front-128 sees, in boxes: the distance of a selfie, which it was trained on
_SAME_FACE = 0.3  # overlap of the boxes that one network gives for one face
_TWICE = 0.5  # overlap of two finds of one face
_POINTS = {"left_eye": 0, "right_eye": 1, "nose": 2, "mouth": 3}  # then both ears


@dataclass(frozen=True)
class BlazeFile:
    """One of the two networks.

    Attributes:
        name: of the file.
        size: S, side of its input.
        layers: (stride of a grid in pixels, anchors in each of its cells).
    """

    name: str
    size: int
    layers: tuple[tuple[int, int], ...]

    def anchors(self) -> Floats:
        """Middles of the anchors in pixels of the input, `[896, 2]`."""
        found = []
        for stride, count in self.layers:
            along = (np.arange(self.size // stride) + 0.5) * stride
            grid = np.stack(np.meshgrid(along, along), -1).reshape(-1, 2)  # x, y; row after row
            found.append(np.repeat(grid, count, axis=0))
        return np.concatenate(found)


BACK = BlazeFile("blazeface-back-256.onnx", 256, ((16, 2), (32, 6)))
FRONT = BlazeFile("blazeface-front-128.onnx", 128, ((8, 2), (16, 6)))


class BlazeFace:
    """One BlazeFace network.

    Args:
        file: which.
        threshold: least score of a face.
        session: the network, opened; None opens it in ONNX Runtime with one thread.

    Raises:
        MachineError: ONNX Runtime is not installed.
        RefusedError: the file is not the one that was packed.
    """

    def __init__(
        self, file: BlazeFile = BACK, threshold: float = CANDIDATE_THRESHOLD, session: Session | None = None
    ) -> None:
        self.file, self.threshold = file, threshold
        self._session = session or open_stored(file.name)
        (self._input,) = self._session.inputs
        specs = self._session.outputs.values()
        # Each grid has an output of scores and one of boxes; the finer grid comes first, it has more anchors.
        self._scores, self._boxes = (
            [s.name for s in sorted(specs, key=lambda s: -s.shape[1]) if s.shape[2] == width] for width in (1, 16)
        )
        self._anchors = file.anchors()

    def detect(self, rgb: Frame) -> list[Detection]:
        """Every face of a frame, uint8 `[H, W, 3]`, RGB; the surest first."""
        return self._run(fitted(rgb, self.file.size, self.file.size))

    def refine(self, rgb: Frame, box: Corners) -> Detection | None:
        """The face near a box; None where there is none.

        Of several faces around the box the one counts whose middle is nearest to the box's.
        """
        view = square_part(rgb, square_around(box, GROW), self.file.size)
        if view is None:
            return None
        x, y, width = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, max(box[2] - box[0], 1.0)

        def distance(found: Detection) -> float:
            return float(np.hypot(found.centre[0] - x, found.centre[1] - y))

        near = [found for found in self._run(view) if distance(found) < width / 2]
        return min(near, key=distance, default=None)

    def close(self) -> None:
        """Frees the network."""
        self._session.close()

    def _run(self, view: View) -> list[Detection]:
        buffer = self._session.input(self._input)
        height, width = view.pixels.shape[:2]
        if (height, width) != buffer.shape[1:3]:
            buffer.fill(0.0)  # grey around the picture
        inside = buffer[0, view.top : view.top + height, view.left : view.left + width]
        np.multiply(view.pixels, 1.0 / 127.5, out=inside, dtype=np.float32, casting="unsafe")
        inside -= 1.0
        self._session.run()
        logits = np.concatenate([self._session.output(name)[0, :, 0] for name in self._scores])  # [896]
        sure = logits > np.log(self.threshold / (1.0 - self.threshold))
        if not sure.any():
            return []
        raw = np.concatenate([self._session.output(name)[0] for name in self._boxes])[sure].astype(np.float64)
        scores = 1.0 / (1.0 + np.exp(-logits[sure].astype(np.float64)))
        pairs = raw.reshape(len(raw), 8, 2)  # middle, size, six points
        anchors = self._anchors[sure]
        middle, half = pairs[:, 0] + anchors, pairs[:, 1] / 2
        rows = np.concatenate([middle - half, middle + half, (pairs[:, 2:] + anchors[:, None]).reshape(-1, 12)], 1)
        rows = rows / view.scale + np.tile(view.origin, 8)  # pixels of the frame
        faces = []
        for group in group_boxes(rows[:, :4], scores, _SAME_FACE):
            mean = weighted_mean(rows[group], scores[group])
            left, top, right, bottom = (float(value) for value in mean[:4])
            points = {name: (float(mean[4 + 2 * place]), float(mean[5 + 2 * place])) for name, place in _POINTS.items()}
            faces.append(Detection((left, top, right, bottom), float(scores[group[0]]), points))
        return faces


class RefinedDetector:
    """A detector of whole frames whose every face is looked at again by front-128.

    That decides whether it is one, and gives box and points: so these come from one network, whichever detector found
    the face, and whether it was looked for in the whole frame or near its last place.

    Args:
        detector: finds candidates; None: back-256 of this package.
        threshold: least score of a face by front-128.
        closer: looks again; None: front-128 of this package. Its own threshold is that of a face known before.
    """

    def __init__(
        self, detector: Detector | None = None, threshold: float = THRESHOLD, closer: Refiner | None = None
    ) -> None:
        self.detector: Detector = detector or BlazeFace(BACK)
        self.closer: Refiner = closer or BlazeFace(FRONT, KNOWN_THRESHOLD)
        self.threshold = threshold

    def detect(self, rgb: Frame) -> list[Detection]:
        """Every face of a frame, uint8 `[H, W, 3]`, RGB; the surest first."""
        looked = (self.closer.refine(rgb, candidate.box) for candidate in self.detector.detect(rgb))
        return distinct([found for found in looked if found is not None and found.score >= self.threshold])

    def refine(self, rgb: Frame, box: Corners) -> Detection | None:
        """The face near a box; None where there is none."""
        return self.closer.refine(rgb, box)


def distinct(faces: Sequence[Detection]) -> list[Detection]:
    """Each face once, the surest first: two searches may have ended at one face."""
    if len(faces) < 2:
        return list(faces)
    boxes, scores = np.array([face.box for face in faces]), np.array([face.score for face in faces])
    return [faces[group[0]] for group in group_boxes(boxes, scores, _TWICE)]
