"""Faces on drawn streets, by the real detector: ids that last, clips of one person, answers as with given boxes."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (the extra 'cpu' or 'gpu')")
pytest.importorskip("cv2", reason="OpenCV is not installed (the extra 'camera')")
pytest.importorskip("torch", reason="drawn faces need the extra 'train'")

from logoformer.bundle import Bundle
from logoformer.camera.faces.finder import FaceFinder
from logoformer.model.synthetic.recordings import FPS
from logoformer.model.synthetic.street import draw_street
from logoformer.studies.scenes import score_scene, who_is_who

CLIP_S = 2.8


def follow(seed: int, people: int) -> tuple[int, int, float, set[str]]:
    """(changes of an id, clips that mix people, share of visible faces that were shown, reasons of skipping)."""
    finder, street = FaceFinder(), draw_street(seed, people, rounds=2)
    id_of: dict[int, int] = {}
    clip: dict[int, list[tuple[float, int]]] = {}
    changes = mixed = shown = visible = 0
    reasons: set[str] = set()
    for index, (frame, truth) in enumerate(street.frames()):
        time_s = index / FPS
        found = finder.find(frame, "rgb", time_s)
        who = who_is_who(found.faces, [face.to_json() for face in truth])
        assert len(who) == len(found.faces), "a face where nobody is"
        for face in found.faces:
            person = who[face.id]
            changes += id_of.get(person, face.id) != face.id
            id_of[person] = face.id
            kept = [] if face.reset else clip.get(face.id, [])
            clip[face.id] = [*((t, p) for t, p in kept if time_s - t <= CLIP_S), (time_s, person)]
            mixed += len({p for _, p in clip[face.id]}) > 1
        shown += len(found.faces)
        visible += sum(face.visible > 0.8 for face in truth)
        reasons |= set(found.skipped)
    return changes, mixed, shown / visible, reasons


@pytest.mark.slow
def test_people_who_cross_and_leave_keep_their_ids():
    """Two rounds: one in which two cross, one in which somebody is away for a second."""
    results = [follow(seed, people) for seed, people in ((100, 2), (101, 3), (102, 3))]
    assert [(changes, mixed) for changes, mixed, *_ in results] == [(0, 0)] * 3, results
    assert min(share for *_, share, _ in results) > 0.9
    assert all("crossing" in reasons for *_, reasons in results)


@pytest.mark.slow
def test_found_faces_are_read_as_well_as_given_ones(tiny_bundle: Path):
    """The trained bundle of the demo, whose alignment was learned from its training crops."""
    alignment = Bundle(tiny_bundle).alignment
    assert alignment is not None and alignment.calibrated
    score = None
    for seed, people in ((0, 3), (3, 3)):
        street = draw_street(seed, people, 7)
        frames = ((frame, [face.to_json() for face in faces]) for frame, faces in street.frames())
        one = score_scene(tiny_bundle, frames, street.spans(), FPS)
        score = one if score is None else score + one
    print(score.to_json())
    assert score.spans == 42 and score.mixed == 0
    assert score.uar("aligned") >= score.uar("given") - 0.05
    assert score.uar("aligned") >= score.uar("square")
    assert score.uar("given") > 0.8
