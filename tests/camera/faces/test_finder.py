"""Frames in, faces with ids out; the looks at the whole frame are counted."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from logoformer.bundle.alignment import STANDARD
from logoformer.camera.faces.crop import MARGIN, face_crop
from logoformer.camera.faces.finder import FaceFinder
from logoformer.camera.faces.usable import Limits
from logoformer.errors import BadInputError, UsageError

BLANK = np.full((480, 640, 3), 90, np.uint8)
ANY = Limits(least_width=0, least_inside=0, most_blur=1)


class Scripted:
    """A detector of people whose places are told; it counts how often it looked at whole frames."""

    def __init__(self, make_face) -> None:
        self.make_face = make_face
        self.people: list[tuple[float, float]] = []
        self.seen_by_all = True  # False: only the closer look sees them
        self.whole = self.close = 0

    def detect(self, rgb):
        self.whole += 1
        return [self.make_face(x, y) for x, y in self.people] if self.seen_by_all else []

    def refine(self, rgb, box):
        self.close += 1
        middle = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
        near = [p for p in self.people if np.hypot(*(middle - p)) < (box[2] - box[0]) / 2]
        return self.make_face(*min(near, key=lambda p: np.hypot(*(middle - p)))) if near else None


@pytest.fixture
def scripted(make_face) -> Scripted:
    return Scripted(make_face)


def test_the_whole_frame_is_looked_at_every_fifth_frame(scripted):
    finder = FaceFinder(scripted, every=5, limits=ANY)
    scripted.people = [(200.0, 200.0), (450.0, 220.0)]
    for n in range(20):
        found = finder.find(BLANK, "rgb", n / 25)
        assert [face.id for face in found.faces] == [1, 2]
    assert (scripted.whole, scripted.close) == (4, 32)  # and for two faces in each of the others


def test_of_few_frames_a_second_each_is_looked_at_whole(scripted):
    finder = FaceFinder(scripted, every=5, limits=ANY)
    for n in range(10):
        finder.find(BLANK, "rgb", n / 3)
    assert scripted.whole == 10


def test_a_face_that_only_the_closer_look_sees_goes_on_for_two_seconds(scripted):
    finder = FaceFinder(scripted, every=5, limits=ANY)
    scripted.people = [(200.0, 200.0)]
    shown, gone = [], []
    for n in range(100):
        scripted.seen_by_all = n < 25
        found = finder.find(BLANK, "rgb", n / 25)
        shown += [n / 25] * len(found.faces)
        gone += found.gone
    assert gone == [1] and 2.7 < max(shown) < 3.1
    assert finder.find(BLANK, "rgb", 9.0).faces == ()


def test_a_new_epoch_knows_nobody_and_may_begin_at_an_earlier_time(scripted):
    finder = FaceFinder(scripted, limits=ANY)
    scripted.people = [(200.0, 200.0)]
    assert [face.id for face in finder.find(BLANK, "rgb", 50.0).faces] == [1]
    found = finder.find(BLANK, "rgb", 1.0, epoch=1)
    assert [face.id for face in found.faces] == [2] and found.gone == (1,)
    assert finder.find(BLANK, "rgb", 1.04, epoch=1).gone == ()
    with pytest.raises(BadInputError, match="came after"):
        finder.find(BLANK, "rgb", 1.04, epoch=1)


def test_faces_that_cannot_be_read_are_counted_by_reason_and_keep_their_id(scripted):
    finder = FaceFinder(scripted, limits=Limits(most_blur=1))
    scripted.people = [(200.0, 200.0)]
    assert [face.id for face in finder.find(BLANK, "rgb", 0.0).faces] == [1]
    for n in range(1, 60):
        scripted.people = [(200.0 - min(n, 30) * 6, 200.0)]  # out to the left
        found = finder.find(BLANK, "rgb", n / 25)
    assert found.faces == () and found.skipped == {"cut_off": 1}
    for n in range(60, 100):
        scripted.people = [(20.0 + min(n - 60, 30) * 6, 200.0)]
        found = finder.find(BLANK, "rgb", n / 25)
    assert [face.id for face in found.faces] == [1] and found.skipped == {}


def test_a_reset_waits_until_the_face_can_be_read(scripted, make_face):
    """The frame that tells of it may be one that nobody is shown."""
    finder = FaceFinder(scripted, every=1, limits=Limits(most_blur=1))
    scripted.make_face = lambda x, y: make_face(x, y, 50)
    scripted.people = [(300.0, 200.0)]
    finder.find(BLANK, "rgb", 0.0)
    scripted.people = []
    for n in range(1, 25):
        finder.find(BLANK, "rgb", n / 25)
    scripted.make_face = lambda x, y: make_face(x, y, 39)  # too small to be read
    scripted.people = [(300.0, 200.0)]
    assert finder.find(BLANK, "rgb", 1.0).skipped == {"small": 1}
    scripted.make_face = lambda x, y: make_face(x, y, 41)
    assert [(f.id, f.reset) for f in finder.find(BLANK, "rgb", 1.04).faces] == [(1, True)]
    assert [(f.id, f.reset) for f in finder.find(BLANK, "rgb", 1.08).faces] == [(1, False)]


def test_faces_that_cross_are_not_shown_while_one_hides_the_other(scripted):
    finder = FaceFinder(scripted, limits=ANY)
    ids, crossing = [], 0
    for n in range(100):
        a, b = 200 + 4.0 * n, 520 - 4.0 * n
        scripted.people = [(a, 200.0)] if abs(a - b) < 45 else [(a, 200.0), (b, 206.0)]
        found = finder.find(BLANK, "rgb", n / 25)
        ids.append({(face.id, face.box[0] + 40 - a == pytest.approx(0)) for face in found.faces})
        crossing += found.skipped.get("crossing", 0)
    assert set.union(*ids) == {(1, True), (2, False)} and crossing > 5
    assert len(ids[-1]) == 2


def test_a_detector_without_a_closer_look_gets_the_one_of_the_package(detector, placed):
    frame, eyes = placed(42)
    (face,) = detector.detect(frame)
    rough = dataclasses.replace(face, points=dict.fromkeys(face.points, (0.0, 0.0)), score=0.4)
    finder = FaceFinder(SimpleNamespace(detect=lambda rgb: [rough]))
    (found,) = finder.find(frame, "rgb", 0.0).faces
    assert np.hypot(*(np.array(found.points["left_eye"]) - eyes[0])) < 4


def test_the_order_of_the_channels_is_obeyed(detector, placed):
    frame, _ = placed(42)
    (rgb,) = FaceFinder(detector).find(frame, "rgb", 0.0).faces
    (bgr,) = FaceFinder(detector).find(np.ascontiguousarray(frame[..., ::-1]), "bgr", 0.0).faces
    assert rgb == bgr


def test_a_moving_face_is_followed_between_two_looks(detector, placed):
    finder, worst = FaceFinder(detector, every=10), 0.0
    for n in range(20):
        frame, eyes = placed(42, 10 * np.sin(n / 5), at=(150 + 12 * n, 200 + 5 * np.sin(n / 3)))
        (face,) = finder.find(frame, "rgb", n / 25).faces
        assert (face.id, face.reset) == (1, False)
        worst = max(worst, np.hypot(*(np.array(face.points["right_eye"]) - eyes[1])))
    assert worst < 0.15 * 42  # a tenth for the detector, and the head that nods faster than the points follow


def test_a_crop_is_aligned_or_a_square_with_a_margin(detector, placed):
    frame, _ = placed(63)
    (face,) = FaceFinder(detector).find(frame, "rgb", 0.0).faces
    assert face_crop(frame, face, STANDARD, 112).shape == (112, 112, 3)
    square = face_crop(frame, face, None, 64)
    side = MARGIN * max(face.box[2] - face.box[0], face.box[3] - face.box[1])
    left, top = (face.box[0] + face.box[2] - side) / 2, (face.box[1] + face.box[3] - side) / 2
    cut = frame[round(top) : round(top + side), round(left) : round(left + side)]
    assert abs(square.mean() - cut.mean()) < 3
    at_the_edge = dataclasses.replace(face, box=(-40.0, -40.0, 40.0, 40.0))
    assert (face_crop(frame, at_the_edge, None, 64)[:20, :20] == 0).all()


@pytest.mark.parametrize(
    "words,error",
    [((BLANK, "rgb", 0.0), None), ((BLANK, None, 0.0), UsageError), ((BLANK[..., 0], "rgb", 0.0), BadInputError),
     ((BLANK.astype(float), "rgb", 0.0), BadInputError), ((BLANK, "rgb", float("nan")), BadInputError)],
)  # fmt: skip
def test_what_is_no_frame_is_refused(scripted, words, error):
    finder = FaceFinder(scripted)
    if error is None:
        assert finder.find(*words).faces == ()
    else:
        with pytest.raises(error):
            finder.find(*words)


def test_every_is_a_whole_number(scripted):
    for wrong in (0, 2.5):
        with pytest.raises(UsageError, match="every is"):
            FaceFinder(scripted, every=wrong)
