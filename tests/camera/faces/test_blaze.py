"""The detector of the package, on real pictures."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from logoformer.bundle import TensorSpec
from logoformer.bundle.alignment import STANDARD, align
from logoformer.camera.faces.blaze import BACK, FRONT, BlazeFace, RefinedDetector, distinct
from logoformer.camera.faces.contract import POINTS
from PIL import Image

EYE_DISTANCES, ANGLES = (21, 30, 42, 63, 84), (-20, 0, 20)
# Of scikit-image, those that need no download and show no face; chelsea is a cat, which detectors take for one.
FACELESS = (
    "brick", "cell", "checkerboard", "chelsea", "clock", "coffee", "coins", "colorwheel", "grass", "gravel",
    "horse", "hubble_deep_field", "immunohistochemistry", "logo", "microaneurysms", "moon", "page", "retina", "rocket",
    "text",
)  # fmt: skip


@pytest.mark.parametrize("degrees", ANGLES)
@pytest.mark.parametrize("eye_distance", EYE_DISTANCES)
def test_the_astronaut_is_found_and_her_eyes_lie_where_they_are(detector, placed, eye_distance, degrees):
    frame, eyes = placed(eye_distance, degrees)
    (face,) = detector.detect(frame)
    assert set(face.points) == set(POINTS)
    found = np.array([face.points["left_eye"], face.points["right_eye"]])
    assert np.linalg.norm(found - eyes, axis=1).max() <= 0.10 * eye_distance
    # In the crop: where the warp of the found points takes the true eyes, seen by a dot that is drawn on each.
    for eye, name in zip(eyes, ("left_eye", "right_eye"), strict=True):
        y, x = np.mgrid[:480, :640] + 0.5
        dot = np.exp(-((x - eye[0]) ** 2 + (y - eye[1]) ** 2) / (2 * (eye_distance / 20) ** 2))
        crop = align(np.repeat((255 * dot).astype(np.uint8)[..., None], 3, 2), face.points, STANDARD, 112)[..., 0]
        rows, columns = np.mgrid[:112, :112] + 0.5
        seen = np.array([(columns * crop).sum(), (rows * crop).sum()]) / crop.sum(dtype=float)
        assert np.linalg.norm(seen - np.array(getattr(STANDARD, name)) * 112) <= 3.0


def faceless(name: str) -> np.ndarray:
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed (the extra 'dev')")
    pixels = getattr(data, name)()
    if pixels.dtype == bool:
        pixels = pixels * np.uint8(255)
    return np.asarray(Image.fromarray(pixels).convert("RGB"))


def test_twenty_pictures_without_a_face_give_at_most_one(detector):
    assert len(set(FACELESS)) == 20
    found = {name: len(detector.detect(faceless(name))) for name in FACELESS}
    assert sum(found.values()) <= 1, found


@pytest.mark.parametrize("number", range(1, 7))
def test_photographs_of_groups_show_three_faces_or_more(detector, photos, number):
    frame = np.asarray(Image.open(photos / f"sample{number}.jpg").convert("RGB"))
    assert len(detector.detect(frame)) >= 3


def test_refining_finds_the_face_again_from_a_rough_box(detector, placed):
    frame, eyes = placed(42)
    (face,) = detector.detect(frame)
    for dx, dy, grow in ((0, 0, 1), (15, -10, 1), (-20, 5, 1.3), (0, 12, 0.8)):
        x, y, half = face.centre[0] + dx, face.centre[1] + dy, face.width * grow / 2
        again = detector.refine(frame, (x - half, y - half, x + half, y + half))
        found = np.array([again.points["left_eye"], again.points["right_eye"]])
        assert np.linalg.norm(found - eyes, axis=1).max() <= 0.10 * 42
    assert detector.refine(frame, (10, 380, 60, 430)) is None
    assert detector.refine(frame, (-500, -500, -400, -400)) is None


def test_of_two_faces_refining_takes_the_one_that_was_asked_for(detector, placed):
    left, _ = placed(42, at=(220, 200))
    right, _ = placed(42, at=(380, 200))
    frame = np.concatenate([left[:, :300], right[:, 300:]], axis=1)
    faces = sorted(detector.detect(frame), key=lambda face: face.box)
    assert len(faces) == 2
    for face in faces:
        assert detector.refine(frame, face.box).centre == pytest.approx(face.centre, abs=3)


@pytest.mark.parametrize("shape", [(1, 1), (2, 900), (480, 640), (4320, 7680)])
def test_frames_of_any_size_are_looked_at(detector, shape):
    assert detector.detect(np.full((*shape, 3), 120, np.uint8)) == []


class Network:
    """A session whose output is given: `raw` by anchor of the input's middle."""

    def __init__(self, file, cells: dict[int, tuple[float, list[float]]]) -> None:
        self.file, self.cells = file, cells
        self.inputs = {"in": TensorSpec("in", "float32", (1, file.size, file.size, 3))}
        sizes = [(file.size // stride) ** 2 * count for stride, count in file.layers]
        specs = [
            TensorSpec(f"{name}{n}", "float32", (1, size, width))
            for name, width in (("box", 16), ("score", 1)) for n, size in enumerate(reversed(sizes))
        ]  # fmt: skip
        self.outputs = {spec.name: spec for spec in specs}
        self.buffer = np.zeros((1, file.size, file.size, 3), np.float32)
        self.first = sizes[0]

    def input(self, name):
        return self.buffer

    def run(self):
        self.seen = self.buffer.copy()

    def output(self, name):
        values = np.full(self.outputs[name].shape, -50.0, np.float32)
        for anchor, (score, raw) in self.cells.items():
            fine = anchor < self.first
            if name[-1] == ("1" if fine else "0"):
                values[0, anchor if fine else anchor - self.first] = score if name.startswith("score") else raw
        return values


@pytest.mark.parametrize("file", [BACK, FRONT])
def test_boxes_and_points_are_read_as_the_network_means_them(file):
    stride, count = file.layers[0]
    row, column = 3, 5
    anchor = (row * (file.size // stride) + column) * count + 1
    middle = np.array([(column + 0.5) * stride, (row + 0.5) * stride])
    raw = [2.0, -1.0, 30.0, 40.0, *np.arange(12.0)]
    network = Network(file, {anchor: (2.0, raw)})
    (face,) = BlazeFace(file, 0.5, session=network).detect(np.full((2 * file.size, 2 * file.size, 3), 255, np.uint8))
    x, y = middle[0] + 2, middle[1] - 1
    assert face.box == pytest.approx([2 * v for v in (x - 15, y - 20, x + 15, y + 20)], abs=1e-3)
    assert face.score == pytest.approx(1 / (1 + np.exp(-2.0)))
    for place, name in enumerate(POINTS):
        assert face.points[name] == pytest.approx(2 * (middle + np.array([2 * place, 2 * place + 1])), abs=1e-3)
    assert np.abs(network.seen - 1).max() < 1e-6  # white


def test_grey_is_around_a_frame_that_is_not_square():
    network = Network(BACK, {})
    assert BlazeFace(BACK, session=network).detect(np.zeros((240, 480, 3), np.uint8)) == []
    assert (network.seen[0, 64:192] == -1).all() and (network.seen[0, :64] == 0).all()


def test_neighbouring_answers_are_blended_by_score():
    raw = [0.0, 0.0, 40.0, 40.0, *[0.0] * 12]
    size = BACK.size // 16
    anchor = (5 * size + 5) * 2
    cells = {anchor: (3.0, raw), anchor + 2: (0.5, raw)}  # one cell, 16 pixels, to the right
    (face,) = BlazeFace(BACK, 0.5, session=Network(BACK, cells)).detect(np.zeros((256, 256, 3), np.uint8))
    scores = [1 / (1 + np.exp(-s)) for s in (3.0, 0.5)]
    assert face.centre[0] == pytest.approx(5.5 * 16 + 16 * scores[1] / sum(scores))
    assert face.score == pytest.approx(scores[0])


def test_a_candidate_that_the_closer_look_doubts_is_no_face(make_face):
    first = SimpleNamespace(detect=lambda rgb: [make_face(100, 100), make_face(300, 100), make_face(302, 101)])
    scores = {100: 0.6, 300: 0.9, 302: 0.8}
    closer = SimpleNamespace(refine=lambda rgb, box: make_face(*_middle(box), score=scores[round(_middle(box)[0])]))
    found = RefinedDetector(first, 0.73, closer).detect(np.zeros((480, 640, 3), np.uint8))
    assert [(round(face.centre[0]), face.score) for face in found] == [(300, 0.9)]


def test_each_face_is_given_once(make_face):
    faces = [make_face(100, 100, score=0.7), make_face(104, 99, score=0.9), make_face(160, 100, score=0.8)]
    assert distinct(faces) == [faces[1], faces[2]]
    assert distinct([]) == []


def _middle(box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
