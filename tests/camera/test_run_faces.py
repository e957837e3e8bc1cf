"""Runs with `--face detect`: frames too far apart for any clip of a face, by a detector whose face is told."""

from __future__ import annotations

import numpy as np
import pytest
from logoformer.camera.faces.contract import Detection
from logoformer.camera.faces.finder import FaceFinder
from logoformer.camera.faces.usable import Limits
from logoformer.camera.pipeline.cutters import DetectedFaces
from logoformer.camera.run import run_source
from logoformer.errors import BadInputError
from watching import ScriptedRuntime, ScriptedSource, flat

POINTS = {"left_eye": (24.0, 18.0), "right_eye": (40.0, 18.0), "nose": (32.0, 26.0), "mouth": (32.0, 34.0)}


class OneFace:
    """Sees the same face in every picture."""

    def detect(self, rgb: np.ndarray) -> list[Detection]:
        return [Detection((16.0, 8.0, 48.0, 40.0), 0.9, POINTS)]

    def refine(self, rgb: np.ndarray, box: object) -> Detection:
        return self.detect(rgb)[0]


@pytest.fixture(autouse=True)
def one_face(monkeypatch):
    def cutter(_mode, bundle):
        finder = FaceFinder(OneFace(), limits=Limits(least_width=0, least_inside=0, most_blur=1))
        return DetectedFaces(finder, bundle.alignment, bundle.image_size)

    monkeypatch.setattr("logoformer.camera.run.open_cutter", cutter)


class Ending(ScriptedSource):
    """Ends behind its frames, a live one too."""

    def __iter__(self):
        yield from self._frames


def go(times, *, live=False, **options):
    lines: list[dict] = []
    frames = [flat(index, fps=index / time_s if index else 25.0) for index, time_s in enumerate(times)]
    source = Ending(frames)
    source.live = live
    try:
        summary = run_source(ScriptedRuntime(), source, "detect", on_result=lines.append, **options)
    except BadInputError as error:
        return lines, error
    return lines, summary


@pytest.mark.parametrize("warmup", ["wait", "repeat"])
@pytest.mark.parametrize("apart_s", [1.0, 2.5])  # a face that is doubted, and one that is given up
def test_frames_too_far_apart_for_any_clip_of_a_face_are_no_answers(apart_s, warmup):
    lines, error = go([apart_s * index for index in range(12)], hop=1, warmup=warmup)
    assert isinstance(error, BadInputError) and f"{apart_s:g} s apart; over more than 0.75 s" in error.what
    assert len(lines) <= 1 and "--fps" in error.next


def test_frames_that_a_face_outlives_are_answered():
    lines, summary = go([0.7 * index for index in range(12)], hop=1)
    assert len(lines) == summary.results == 12


def test_a_single_frame_and_a_camera_that_pauses_are_no_failure():
    assert [line["frame"] for line in go([0.0], hop=4)[0]] == [0]
    lines, summary = go([2.5 * index for index in range(5)], hop=1, live=True)
    assert len(lines) == 1 and summary.frames == 5


def test_answers_go_on_after_pauses():
    lines, _ = go([0.0, 5.0, 10.0, *(15 + index / 25 for index in range(20))], hop=1)
    assert [line["frame"] for line in lines] == [0, *range(4, 23)]  # none from a frame that stands alone
