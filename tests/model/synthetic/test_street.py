"""The truth of a street is what is drawn."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from logoformer.clips import DFEW_LABELS
from logoformer.errors import UsageError
from logoformer.model.synthetic import street as module
from logoformer.model.synthetic.layout import synth, write_scene
from logoformer.model.synthetic.street import HEIGHT, WIDTH, draw_street

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed (the extra 'train')")


@pytest.fixture(scope="module")
def paths():
    """For streets of one to three people: what is visible of each person in every frame, without drawing."""

    def walk(seed: int, people: int):
        street = draw_street(seed, people, rounds=6)
        indices = np.arange(street.count)
        tau = (2 * indices + 1 - street.count) / 50.0
        drawn = [module._outlines(person, indices, tau) for person in street.people]
        order = sorted(range(people), key=lambda n: street.people[n].side)
        shares = np.zeros((street.count, people))
        for index in indices:
            truths = [
                module._truth(n, {k: p[index] for k, p in drawn[n][0].items()}, drawn[n][2][index], 1.0) for n in order
            ]
            for place, n in enumerate(order):
                shares[index, n] = module._visible(truths[place], truths[place + 1 :])
        return street, shares

    return {(seed, people): walk(seed, people) for seed, people in itertools.product(range(2), (1, 2, 3))}


def test_one_seed_is_one_street():
    frames = [list(draw_street(4, 2, 2).frames([3, 40, 200])) for _ in range(2)]
    for (a, truth_a), (b, truth_b) in zip(*frames, strict=True):
        assert (a == b).all() and truth_a == truth_b
    one_by_one = [next(iter(draw_street(4, 2, 2).frames([index]))) for index in (3, 40, 200)]
    assert all((a == b).all() for (a, _), (b, _) in zip(frames[0], one_by_one, strict=True))
    other = next(iter(draw_street(5, 2, 2).frames([3])))[0]
    assert np.abs(other.astype(int) - frames[0][0][0]).mean() > 3


def test_eyes_and_mouth_lie_where_the_truth_says(monkeypatch):
    """A street whose eyes alone are painted, in a colour of their own."""
    street = draw_street(1, 3, 1)
    real = module.draw_face

    def only_eyes(canvas, who, shapes, actions, size):
        real(canvas, who, shapes, actions, size)
        for name, color in (("eye_0", (255, 0, 0)), ("eye_1", (0, 255, 0)), ("lips", (0, 0, 255))):
            cv2.fillPoly(canvas, [shapes[name]], color, cv2.LINE_AA, 4)

    monkeypatch.setattr(module, "draw_face", only_eyes)
    monkeypatch.setattr(module.Street, "_develop", lambda self, canvas, gain, noise: canvas)
    frame, truths = next(iter(street.frames([100])))
    assert [truth.face for truth in truths] == [0, 1, 2]
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    for truth in truths:
        for channel, place in enumerate((truth.left_eye, truth.right_eye, truth.mouth)):
            others = [c for c in range(3) if c != channel]
            mask = (frame[..., channel] > 200) & (frame[..., others].max(-1) < 60)
            mask &= np.hypot(x - place[0], y - place[1]) < 0.2 * (truth.crop[2] - truth.crop[0])
            assert mask.sum() > 10
            # The middle of an area is not the mean of its outline; they differ by little.
            assert np.hypot(x[mask].mean() - place[0], y[mask].mean() - place[1]) < 3.0
        left, top, right, bottom = truth.box
        assert (
            left < truth.left_eye[0] < truth.right_eye[0] < right and top < truth.left_eye[1] < truth.mouth[1] < bottom
        )
        assert truth.crop[2] - truth.crop[0] == pytest.approx(street.people[truth.face].side)


def test_people_cross_and_leave_for_a_while(paths):
    hidden = away = 0
    for (_, people), (_, shares) in paths.items():
        for n in range(people):
            gone = shares[:, n] == 0
            runs = [len(list(run)) for is_gone, run in itertools.groupby(gone) if is_gone]
            away += any(8 <= run <= 25 for run in runs)
            hidden += bool(((shares[:, n] > 0) & (shares[:, n] < 0.35)).any())
        assert (shares[:20] > 0.9).all()  # all begin apart, in the picture
    assert hidden >= 4 and away >= 4


def test_who_shows_an_expression_stands_apart_and_whole(paths):
    for street, shares in paths.values():
        for n, person in enumerate(street.people):
            for span in person.spans:
                # From a good second before: a stream that begins anew after a crossing is warm at the span's end.
                assert shares[span.start - 20 : span.end, n].min() > 0.85
                assert 64 <= span.end - span.start <= 76
            assert person.spans[-1].end < street.count


def test_each_person_shows_every_class_in_seven_rounds():
    street = draw_street(0, 3, 7)
    for n in range(3):
        shown = [span["label"] for span in street.spans() if span["face"] == n]
        assert sorted(shown) == sorted(DFEW_LABELS)
    ends = [span["end_s"] for span in street.spans()]
    assert ends == sorted(ends)


def test_the_nearer_head_hides_the_farther_one(paths):
    street, shares = paths[0, 2]
    far = min(range(2), key=lambda n: street.people[n].side)
    assert shares[:, far].min() < 0.35
    assert shares[:, 1 - far][shares[:, far] < 0.35].min() > 0.95


def test_a_scene_on_disk_has_its_truth_beside_it(tmp_path):
    seen = []
    done = write_scene(tmp_path / "s.mp4", seed=3, people=2, rounds=1, progress=lambda *event: seen.append(event))
    assert seen[-1] == ("video", done.frames, done.frames)
    truth = json.loads((tmp_path / "s.json").read_text())
    assert (truth["fps"], truth["width"], truth["height"]) == (25.0, 640, 480)
    assert len(truth["frames"]) == done.frames and len(truth["spans"]) == done.clips == 2
    street = draw_street(3, 2, 1)
    drawn, faces = next(iter(street.frames([60])))
    assert truth["frames"][60] == [face.to_json() for face in faces]
    video = cv2.VideoCapture(str(tmp_path / "s.mp4"))
    for _ in range(61):
        ok, picture = video.read()
    assert ok and np.abs(picture[..., ::-1].astype(int) - drawn).mean() < 6
    assert video.get(cv2.CAP_PROP_FPS) == 25


@pytest.mark.parametrize("wrong", [{"people": 0}, {"people": 4}, {"seed": -1}])
def test_other_scenes_are_refused(tmp_path, wrong):
    with pytest.raises(UsageError, match="1 to 3"):
        synth(tmp_path / "s.mp4", "scene", **wrong)
    with pytest.raises(UsageError, match="mp4"):
        synth(tmp_path / "s.avi", "scene")
    assert list(tmp_path.iterdir()) == []
