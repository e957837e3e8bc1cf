"""Targets that crops teach: near the places that were drawn, and written into the bundle."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from logoformer.bundle import Bundle
from logoformer.bundle.alignment import STANDARD, Alignment
from logoformer.cli.main import main
from logoformer.errors import BadInputError
from logoformer.workflows.alignment import alignment_for, compare_alignment, learn_alignment
from PIL import Image

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (the extra 'cpu' or 'gpu')")

from logoformer.model.synthetic.painting import project
from logoformer.model.synthetic.recordings import SyntheticClips, span_actions
from logoformer.model.synthetic.scene import CHANNELS


@pytest.fixture(scope="module")
def taught(few_faces: Path) -> Alignment:
    return alignment_for(None, few_faces, 1)


def drawn_medians() -> np.ndarray:
    """Median places of eyes and mouth of drawn faces, by their outlines: `[3, 2]`, in sides."""
    source, places = SyntheticClips(0, range(8), 14), []
    for index in range(len(source)):
        recording = source.recording(index)
        middle = np.array([recording.count // 2])
        tau = (2 * middle + 1 - recording.count) / 50.0
        actions = span_actions(recording.spans, recording.motion, middle, tau)
        channel = dict(zip(CHANNELS, recording.motion.at(tau).T, strict=True))
        shapes = project(recording.who, actions, channel)
        places.append([shapes[name][0].mean(axis=0) for name in ("eye_0", "eye_1", "lips")])
    return np.median(places, axis=0)


def test_the_targets_are_where_the_faces_were_drawn(taught):
    assert taught.calibrated and taught.crops >= 40 and taught.source == "few-faces"
    found = np.array([taught.left_eye, taught.right_eye, taught.mouth])
    assert np.abs(found - drawn_medians()).max() < 0.04


def test_without_crops_a_stated_default_is_taken():
    assert alignment_for(None, None, 1) is STANDARD and not STANDARD.calibrated


class NoFaces:
    """Crops of noise."""

    labels, size = ("a", "b"), 96

    def __len__(self):
        return 30

    def count(self, index):
        return 3

    def frames(self, index, indices, box=None):
        return np.random.default_rng(index).integers(0, 255, (len(indices), 96, 96, 3), np.uint8)


def test_crops_without_faces_teach_nothing():
    with pytest.raises(BadInputError, match="in 0 of 30 crops of noise; at least 20"):
        learn_alignment(NoFaces(), "noise")


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """A data set, listed in plain text, whose pictures show no face."""
    root = tmp_path / "noise"
    for number in range(24):
        (root / f"{number:02}").mkdir(parents=True)
        for index, frame in enumerate(NoFaces().frames(number, range(3))):
            Image.fromarray(frame).save(root / f"{number:02}" / f"{index}.png")
    (root / "train.txt").write_text("".join(f"{number:02} 3 {number % 7}\n" for number in range(24)))
    return root


def test_crops_named_for_it_have_to_teach_and_others_may(noise, caplog):
    with pytest.raises(BadInputError, match="in 0 of"):
        alignment_for(None, noise, 1)
    with caplog.at_level(logging.WARNING):
        assert alignment_for(noise, None, 1) is STANDARD
    assert "uncalibrated" in caplog.text


def test_clips_that_are_aligned_otherwise_are_noticed(write_bundle, tmp_path, taught, caplog):
    bundle = write_bundle(tmp_path / "b", "one", alignment=taught.to_json())
    source = SyntheticClips(9, range(6), 7, 96)
    clips = np.stack([source.frames(i, [0, source.count(i) // 2, 1]) for i in range(len(source))])
    with caplog.at_level(logging.WARNING):
        assert compare_alignment(bundle, clips, "the same") < 0.05
        assert caplog.text == ""
        moved = np.roll(clips, 12, axis=2)  # down by an eighth of the side
        assert compare_alignment(bundle, moved, "others") > 0.08
    assert "others lie" in caplog.text
    plain = write_bundle(tmp_path / "p", "one")
    default = write_bundle(tmp_path / "d", "one", alignment=STANDARD.to_json())
    assert compare_alignment(plain, moved, "x") is None and compare_alignment(default, moved, "x") is None
    assert compare_alignment(bundle, np.zeros_like(clips), "black") is None


@pytest.mark.slow
def test_export_writes_what_crops_taught_and_keeps_it_through_quantizing(
    tiny_checkpoint, few_faces, taught, tmp_path, capsys, int8_bundle
):
    out = tmp_path / "aligned.bundle"
    words = ["export", str(tiny_checkpoint), "-o", str(out), "--precisions", "fp32", "--clips", "8"]
    assert main([*words, "--align-from", str(few_faces)]) == 0
    assert "learned from" in capsys.readouterr().out
    assert Bundle(out).alignment == taught
    assert Bundle(int8_bundle).alignment == STANDARD
    assert Bundle(int8_bundle).calibration()["alignment_distance"] is None


def test_crops_that_teach_nothing_end_an_export_before_it_writes(tiny_checkpoint, noise, tmp_path, fails):
    out = tmp_path / "x.bundle"
    fails(3, "export", tiny_checkpoint, "-o", out, "--align-from", noise, names=("noise",))
    assert not out.exists()
