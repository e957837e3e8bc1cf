"""Face detectors in files of their own: YuNet, SCRFD and RetinaFace.

All three look at a picture through grids of stride 8, 16 and 32 and give scores, boxes and five points for each cell
(YuNet, one anchor) or for each of two anchors in a cell (SCRFD, RetinaFace). They are told apart by the number and the
shapes of what they give. None is shipped: their weights have licences of their own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...bundle import TensorSpec
from ...bundle.files import read_file
from ...bundle.onnx_graph import read_interface
from ...clips import Frame
from ...engine.sessions.contract import Session
from ...errors import RefusedError
from .blaze import CANDIDATE_THRESHOLD
from .boxes import Floats, group_boxes
from .contract import Detection
from .networks import MAX_BYTES, check_static, open_network
from .pictures import fitted

STRIDES = (8, 16, 32)
_SAME_FACE = 0.4
_EXPECTED = (
    "one input float32 [1, 3, H, W], sides multiples of 32, and of YuNet 12 outputs (for each stride 2 of scores, "
    "boxes, points), of SCRFD with points 9 (scores, boxes, points), of RetinaFace 3 (boxes, 2 scores, points)"
)
# RetinaFace (biubug6/Pytorch_Retinaface, data/config.py): sides of the anchors by stride, and the variances.
_PRIORS = ((16.0, 32.0), (64.0, 128.0), (256.0, 512.0))
_VARIANCE_CENTRE, _VARIANCE_SIZE = 0.1, 0.2


@dataclass(frozen=True)
class Raw:
    """What a network says about every anchor, in pixels of its input.

    Attributes:
        scores: `[n]`.
        boxes: `[n, 4]`, left, top, right, bottom.
        points: `[n, 5, 2]`, both eyes, the nose, both corners of the mouth; the left of the picture first.
    """

    scores: Floats
    boxes: Floats
    points: Floats


@dataclass(frozen=True)
class Kind:
    """One of the families.

    Attributes:
        name: shown to people.
        scale, shift: what the network reads is `(pixel - shift) * scale`, `shift` in the order of its channels.
        bgr: the order of its channels.
    """

    name: str
    scale: float
    shift: tuple[float, float, float]
    bgr: bool


YUNET = Kind("YuNet", 1.0, (0.0, 0.0, 0.0), True)
SCRFD = Kind("SCRFD", 1 / 128.0, (127.5, 127.5, 127.5), False)
RETINAFACE = Kind("RetinaFace", 1.0, (104.0, 117.0, 123.0), True)


class FileDetector:
    """A detector from a file, see `open_detector`.

    Args:
        kind: of the network.
        session: the network, opened.
        threshold: least score of a face.
    """

    def __init__(self, kind: Kind, session: Session, threshold: float = CANDIDATE_THRESHOLD) -> None:
        self.kind, self.threshold = kind, threshold
        self._session = session
        (spec,) = session.inputs.values()
        self._input, self.height, self.width = spec.name, spec.shape[2], spec.shape[3]
        self._names = _sorted_outputs(list(session.outputs.values()))

    def detect(self, rgb: Frame) -> list[Detection]:
        """Every face of a frame, uint8 `[H, W, 3]`, RGB; the surest first."""
        view = fitted(rgb, self.width, self.height)
        kind, buffer = self.kind, self._session.input(self._input)
        shift = np.array(kind.shift, np.float32)
        buffer[0] = (-shift * kind.scale)[:, None, None]  # black around the picture
        pixels = view.pixels[..., ::-1] if kind.bgr else view.pixels
        rows, columns = pixels.shape[:2]
        inside = buffer[0, :, view.top : view.top + rows, view.left : view.left + columns]
        np.copyto(inside, ((pixels - shift) * kind.scale).transpose(2, 0, 1))
        self._session.run()
        raw = self._read()
        sure = np.flatnonzero(raw.scores >= self.threshold)
        boxes = raw.boxes[sure] / view.scale + np.tile(view.origin, 2)
        points = raw.points[sure] / view.scale + np.array(view.origin)
        scores = raw.scores[sure]
        return [
            _detection(boxes[first], scores[first], points[first])
            for first in (group[0] for group in group_boxes(boxes, scores, _SAME_FACE))
        ]

    def close(self) -> None:
        """Frees the network."""
        self._session.close()

    def _read(self) -> Raw:
        decode = {"YuNet": _yunet, "SCRFD": _scrfd, "RetinaFace": _retinaface}[self.kind.name]
        tables = {
            key: [self._session.output(name).reshape(-1, key[1]).astype(np.float64) for name in names]
            for key, names in self._names.items()
        }
        return decode(tables, self.height, self.width)


_Key = tuple[int, int]  # anchors, numbers for each
_Tables = dict[_Key, list[Floats]]


def open_detector(
    path: str | os.PathLike[str], threshold: float = CANDIDATE_THRESHOLD, threads: int | None = 1
) -> FileDetector:
    """Opens a YuNet, SCRFD or RetinaFace that somebody has as an ONNX file.

    Args:
        path: the file.
        threshold: least score of a face.
        threads: of ONNX Runtime.

    Raises:
        RefusedError: it is none of these, its sizes are open, or it is no ONNX file; the message says what it has and
            what was expected.
        BadInputError: it is missing.
        MachineError: ONNX Runtime is not installed or cannot run it.
    """
    data, shown = read_file(path, MAX_BYTES), str(path)
    inputs, outputs = read_interface(data, shown)
    kind = recognize(inputs, outputs, shown)
    return FileDetector(kind, open_network(data, Path(path).name, threads), threshold)


def recognize(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], shown: str) -> Kind:
    """Tells a network by the number and the shapes of its outputs.

    Raises:
        RefusedError: it is none that is known here.
    """
    check_static(shown, (*inputs, *outputs))
    fits = (
        len(inputs) == 1
        and inputs[0].dtype == "float32"
        and len(inputs[0].shape) == 4
        and inputs[0].shape[:2] == (1, 3)
        and not any(side % max(STRIDES) for side in inputs[0].shape[2:])
        and all(spec.dtype == "float32" and len(spec.shape) in (2, 3) for spec in outputs)
    )
    if fits:
        found = {key: len(names) for key, names in _sorted_outputs(outputs).items()}
        cells = [(inputs[0].shape[2] // stride) * (inputs[0].shape[3] // stride) for stride in STRIDES]
        expected = {
            YUNET: {(n, width): count for n in cells for width, count in ((1, 2), (4, 1), (10, 1))},
            SCRFD: {(2 * n, width): 1 for n in cells for width in (1, 4, 10)},
            RETINAFACE: {(2 * sum(cells), width): 1 for width in (2, 4, 10)},
        }
        for kind, wanted in expected.items():
            if found == wanted:
                return kind
    raise RefusedError(
        f"{shown} is no face detector that is known here: it takes {'; '.join(map(str, inputs)) or 'nothing'} and "
        f"gives {len(outputs)} outputs: {'; '.join(map(str, outputs[:12])) or 'nothing'}.",
        cause=f"another network, or one without points. Expected: {_EXPECTED}",
    )


def _sorted_outputs(outputs: Sequence[TensorSpec]) -> dict[_Key, list[str]]:
    """Names of outputs by (anchors, numbers for each); a leading 1 does not count."""
    found: dict[_Key, list[str]] = {}
    for spec in outputs:
        shape = spec.shape[1:] if len(spec.shape) == 3 and spec.shape[0] == 1 else spec.shape
        if len(shape) == 2:
            found.setdefault((shape[0], shape[1]), []).append(spec.name)
        else:
            found.setdefault((-1, -1), []).append(spec.name)
    return found


def _detection(box: Floats, score: float, points: Floats) -> Detection:
    left, top, right, bottom = (float(value) for value in box)
    places = [(float(x), float(y)) for x, y in points]
    corners = places[3:5]
    mouth = ((corners[0][0] + corners[1][0]) / 2, (corners[0][1] + corners[1][1]) / 2)
    named = {"left_eye": places[0], "right_eye": places[1], "nose": places[2], "mouth": mouth}
    return Detection((left, top, right, bottom), float(score), named)


# ------------------------------------------------------------------------------------------------------------- decoding
def _cells(height: int, width: int, stride: int, anchors: int = 1) -> Floats:
    """Column and row of each anchor of a grid, row after row: `[n, 2]`."""
    grid = np.stack(np.meshgrid(np.arange(width // stride), np.arange(height // stride)), -1).reshape(-1, 2)
    return np.repeat(grid, anchors, axis=0).astype(np.float64)


def _yunet(tables: _Tables, height: int, width: int) -> Raw:
    """Offsets in cells, sizes as logarithms (opencv, modules/objdetect/src/face_detect.cpp)."""
    parts = []
    for stride in STRIDES:
        cells = _cells(height, width, stride)
        one, other = tables[len(cells), 1]  # of the class, and of there being an object: which is which does not matter
        (boxes,), (points,) = tables[len(cells), 4], tables[len(cells), 10]
        scores = np.sqrt(np.clip(one, 0, 1) * np.clip(other, 0, 1))[:, 0]
        middle, half = (cells + boxes[:, :2]) * stride, np.exp(np.clip(boxes[:, 2:], -20, 20)) * stride / 2
        places = (points.reshape(-1, 5, 2) + cells[:, None]) * stride
        parts.append(Raw(scores, np.concatenate([middle - half, middle + half], 1), places))
    return _joined(parts)


def _scrfd(tables: _Tables, height: int, width: int) -> Raw:
    """Distances to the sides in strides, from the cell's corner (insightface, detection/scrfd)."""
    parts = []
    for stride in STRIDES:
        corner = _cells(height, width, stride, 2) * stride
        (scores,), (sides,), (points,) = (tables[len(corner), width_] for width_ in (1, 4, 10))
        boxes = np.concatenate([corner - sides[:, :2] * stride, corner + sides[:, 2:] * stride], 1)
        parts.append(Raw(scores[:, 0], boxes, corner[:, None] + points.reshape(-1, 5, 2) * stride))
    return _joined(parts)


def _retinaface(tables: _Tables, height: int, width: int) -> Raw:
    """Offsets from anchors of two sizes in each cell (biubug6/Pytorch_Retinaface)."""
    middles, sides = [], []
    for stride, sizes in zip(STRIDES, _PRIORS, strict=True):
        middle = (_cells(height, width, stride, 2) + 0.5) * stride
        middles.append(middle)
        sides.append(np.tile(sizes, len(middle) // 2))
    middle, side = np.concatenate(middles), np.concatenate(sides)[:, None]
    ((boxes,), (scores,), (points,)) = (tables[len(middle), numbers] for numbers in (4, 2, 10))
    at = middle + boxes[:, :2] * _VARIANCE_CENTRE * side
    half = side * np.exp(np.clip(boxes[:, 2:] * _VARIANCE_SIZE, -20, 20)) / 2
    places = middle[:, None] + points.reshape(-1, 5, 2) * _VARIANCE_CENTRE * side[:, None]
    return Raw(scores[:, 1], np.concatenate([at - half, at + half], 1), places)


def _joined(parts: Sequence[Raw]) -> Raw:
    scores, boxes, points = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("scores", "boxes", "points")
    )
    return Raw(scores, boxes, points)
