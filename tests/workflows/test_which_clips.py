"""Which clips a verb looks at: those that judge were not learned, and those that choose were not calibrated on.

Every clip has a colour of its own, so that what arrives says which clip it is.
"""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from logoformer.bundle import Bundle, BundleWriter, replace_manifest
from logoformer.bundle.files import sha256
from logoformer.bundle.sealed import seal
from logoformer.calibration import qat
from logoformer.calibration.qat import QatConfig
from logoformer.clips import DFEW_LABELS, Sampling, centre_indices
from logoformer.errors import RefusedError, UsageError
from logoformer.export import reference
from logoformer.model.data.datasets import clips_for
from logoformer.workflows import fine_tune, sensitivity, verify
from logoformer.workflows.held_out import MARKS, clip_marks
from logoformer.workflows.quantize import Calibration
from PIL import Image

OLD = Path(__file__).parents[1] / "data" / "bundle-v0.1"
TRAIN, TEST = range(140), range(140, 210)


class Reached(Exception):
    """Ends a verb at the place that a test looks at."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of 140 clips to learn from and one of 70 that judge, two frames each."""
    root = tmp_path_factory.mktemp("coloured")
    for split, numbers in (("train", TRAIN), ("test", TEST)):
        rows = []
        for number in numbers:
            folder = root / f"{number:03}"
            folder.mkdir()
            for frame in range(2):
                Image.fromarray(coloured(number, 64)).save(folder / f"{frame}.png")
            rows.append(f"{folder.name} 2 {number % 7}")
        (root / f"{split}.txt").write_text("\n".join(rows))
    return root


def coloured(number: int, size: int) -> np.ndarray:
    frame = np.full((size, size, 3), number, np.uint8)
    frame[0, :, 0] = 255  # a clip of one colour is refused as a set to calibrate on
    return frame


def numbers_of(clips: np.ndarray) -> set[int]:
    """Whose clips uint8 `[N, T, S, S, 3]` are, mirrored and moved or not."""
    return {int(clip[0, clip.shape[1] // 2, clip.shape[2] // 2, 2]) for clip in clips}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The bundle of version 0.1, whose FP32 graphs are filed as FP16 too: nobody runs them here."""
    old = Bundle(shutil.copytree(OLD, tmp_path / "old.bundle"))
    graphs = [{**entry, "precision": precision} for entry in old.manifest["graphs"] for precision in ("fp32", "fp16")]
    precisions = dict.fromkeys(("fp32", "fp16"), old.manifest["precisions"]["fp32"])
    return replace_manifest(old, {**old.manifest, "graphs": graphs, "precisions": precisions}).path


def test_the_gate_judges_by_the_test_split(bundle: Path, data: Path, monkeypatch: pytest.MonkeyPatch):
    seen: set[int] = set()

    def answers(clips: np.ndarray) -> np.ndarray:
        seen.update(numbers_of(clips))
        return np.full((len(clips), 7), 1 / 7, np.float32)

    monkeypatch.setattr(verify.accuracy, "clip_evaluator", lambda *_, **__: answers)
    monkeypatch.setattr(verify.accuracy, "open_backends", lambda *_: nullcontext({}))  # they look at the same clips
    report = verify.judge_on_data(bundle, data, write=False)
    assert seen == set(TEST) and report.source["clips"] == len(TEST)


def clips_of(data: Path, split: str):
    return clips_for(data, split, 1, 64, DFEW_LABELS)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_gate_refuses_clips_that_the_model_was_trained_on(bundle: Path, data: Path, monkeypatch, split: str):
    """The lists say that it learned the training split; marks tell of the other one, whatever lists say."""
    monkeypatch.setattr(verify.accuracy, "judge_accuracy", lambda *_, **__: pytest.fail("judged") if told else None)
    old, told = Bundle(bundle), split == "test"
    reading = {"fold": 1, "train_list": "0" * 64, MARKS: clip_marks(clips_of(data, split))}
    replace_manifest(old, {**old.manifest, "provenance": {"checkpoint": {"extra": {"reading": reading}}}})
    if told:
        with pytest.raises(UsageError, match="70 of the 70 test clips"):
            verify.judge_on_data(bundle, data, write=False)
    else:
        verify.judge_on_data(bundle, data, write=False)


@pytest.mark.parametrize(("split", "seen", "named"), [("train", 0, ""), ("test", 3, ""), ("test", 3, "train/")])
def test_the_gate_refuses_clips_that_int8_was_calibrated_on(bundle: Path, data: Path, monkeypatch, split, seen, named):
    """By their pixels, whatever they were called then."""
    monkeypatch.setattr(verify.accuracy, "judge_accuracy", lambda *_, **__: pytest.fail("judged") if seen else None)
    old, source = Bundle(bundle), clips_of(data, split)
    pixels = [source.frames(i, centre_indices(source.count(i), old.sampling)).tobytes() for i in range(3)]
    record = {"clips": [{"id": named + source.clip_id(i), "sha256": sha256(found)} for i, found in enumerate(pixels)]}
    graphs = [{**g, "precision": "int8"} for g in old.manifest["graphs"] if g["precision"] == "fp32"]
    int8 = {**old.precisions["fp32"], "calibration": BundleWriter(bundle).add_calibration(record)}
    manifest = {**old.manifest, "graphs": [*old.manifest["graphs"], *graphs]}
    replace_manifest(old, {**manifest, "precisions": {**old.precisions, "int8": int8}})
    if seen:
        with pytest.raises(UsageError, match="calibrated on 3 of the 70 test clips"):
            verify.judge_on_data(bundle, data, write=False)
    else:
        verify.judge_on_data(bundle, data, write=False)


@pytest.mark.parametrize("clips", [5, ["name"], [{"id": "name"}], [{"id": [], "sha256": "x"}]])
def test_a_calibration_record_of_wrong_types_is_refused(bundle: Path, data: Path, clips: object):
    old = Bundle(bundle)
    graphs = [{**g, "precision": "int8"} for g in old.manifest["graphs"] if g["precision"] == "fp32"]
    int8 = {**old.precisions["fp32"], "calibration": BundleWriter(bundle).add_calibration({"clips": clips})}
    manifest = {**old.manifest, "graphs": [*old.manifest["graphs"], *graphs]}
    replace_manifest(old, {**manifest, "precisions": {**old.precisions, "int8": int8}})
    with pytest.raises(RefusedError, match="garbles"):
        verify.judge_on_data(bundle, data, write=False)


@pytest.mark.parametrize("change", [{"provenance": []}, {"precisions": {"fp32": {}, "fp16": {"excluded": 5}}}])
def test_an_index_of_wrong_types_is_refused_before_anything_is_judged(bundle: Path, data: Path, change: dict, fails):
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    (bundle / "manifest.json").write_bytes(seal({**manifest, **change}))
    fails(4, "verify", bundle, "--accuracy", "--data", data, names=("garbles a field",))


def test_sensitivity_is_measured_on_clips_that_nothing_was_calibrated_on(bundle, data, tmp_path, monkeypatch):
    seen = {}

    def measured(models, calibrated_on, config, source, held_out, *_, **__):
        seen["calibrated"] = numbers_of(calibrated_on)
        seen["measured"] = numbers_of(np.stack([source.frames(index, [0, 1]) for index in held_out]))
        raise Reached

    monkeypatch.setattr(sensitivity, "measure_sensitivity", measured)
    with pytest.raises(Reached):
        sensitivity.quantize_sensitively(bundle, Calibration(data, clips=64), tmp_path / "out")
    assert len(seen["calibrated"]) == 64 and len(seen["measured"]) >= sensitivity.FEWEST_CLIPS
    assert not seen["calibrated"] & seen["measured"]
    assert seen["calibrated"] | seen["measured"] == set(TRAIN)


class Colours:
    """Two-frame clips of one colour each."""

    labels, size = DFEW_LABELS, 16

    def __len__(self) -> int:
        return 84

    def label(self, index: int) -> int:
        return index % 7

    def clip_id(self, index: int) -> str:
        return str(index)

    def count(self, index: int) -> int:
        return 2

    def frames(self, index: int, indices, box=None) -> np.ndarray:
        return np.stack([coloured(index, 16)] * len(indices))


def test_fine_tuning_never_learns_from_the_clips_that_choose_its_step(monkeypatch: pytest.MonkeyPatch):
    seen = {}

    def tuned(model, program, ranges, placement, batches, held_back, *_, **__):
        seen["learned"] = set().union(*map(numbers_of, batches))
        seen["chosen by"] = numbers_of(held_back)
        raise Reached

    placed = {"method": "max", "exclude": [], "attention": True, "fold_weights": True}
    given = SimpleNamespace(
        precisions={"int8": {}}, sampling=Sampling(2, 1), calibration=lambda: {"quantize": placed, "ranges": {}}
    )
    monkeypatch.setattr(fine_tune, "load_models", lambda _: {"clip": (None, None)})
    monkeypatch.setattr(reference, "Reference", lambda _: None)
    monkeypatch.setattr(qat, "fine_tune", tuned)
    with pytest.raises(Reached):
        fine_tune.fine_tune_bundle(given, Colours(), QatConfig(steps=40, batch=8), "colours")
    assert len(seen["chosen by"]) == 21 and not seen["learned"] & seen["chosen by"]
    assert seen["learned"] | seen["chosen by"] == set(range(84)), "and from all others"
