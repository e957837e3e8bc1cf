"""The gate: each verdict where it belongs, and `load` that follows it."""

import re
import shutil
from pathlib import Path

import logoformer
import numpy as np
import pytest
from logoformer.bundle import Bundle
from logoformer.calibration import gate
from logoformer.calibration.paired import compare_answers
from logoformer.clips import Sampling
from logoformer.errors import UsageError, VerificationError
from logoformer.model.data.clips import ClipView
from logoformer.model.synthetic.recordings import SyntheticClips
from logoformer.workflows.verify import judge_accuracy, record_accuracy

INT8 = gate.BUDGETS["int8"]


def found(clips: int, lost: int = 0, gained: int = 0, *, finite: bool = True):
    """FP32 is right on all but `gained` clips; the other loses `lost`, spread over seven classes."""
    labels = np.arange(clips) % 7
    before, after = labels.copy(), labels.copy()
    after[:lost] = (after[:lost] + 1) % 7
    before[lost : lost + gained] = (before[lost : lost + gained] + 1) % 7
    rows = np.eye(7, dtype=np.float32) * 0.9 + 0.1 / 7
    other = rows[after].copy()
    if not finite:
        other[-1] = np.inf
    return compare_answers(rows[before], other, labels, [str(i) for i in range(clips)])


@pytest.mark.parametrize(
    ("found", "excluded", "verdict"),
    [
        (found(4200, 20, 18), (), "accept"),
        (found(4200, 20, 18), ("ffn",), "accept with exclusions"),
        (found(4200, 60, 60), (), "accept"),  # 97.1 % agree
        (found(4200, 70, 70), (), "refuse: use FP16"),  # 96.7 % agree
        (found(4200, 60, 30), (), "insufficient clips"),  # 0.7 points measured, over 1 at most
        (found(4200, 70, 10), (), "refuse: use FP16"),  # 1.4 measured
        (found(329), (), "insufficient clips"),  # 47 of each class: not even no loss proves a point
        (found(280, 60), (), "refuse: use FP16"),  # few, but beyond doubt
        (found(4200, finite=False), (), "refuse: use FP16"),
    ],
)
def test_each_verdict(found, excluded, verdict):
    judgement = gate.judge_precision(found, INT8, "int8", excluded)
    assert judgement.verdict == verdict, judgement.reason
    assert f"on {found.clips} clips" in judgement.reason


def test_a_budget_that_these_clips_cannot_prove_is_said_with_what_could():
    judgement = gate.judge_precision(found(329), INT8, "int8")
    fewest = int(re.search(r"it needs (\d+) clips of every class", judgement.reason)[1])
    assert "the smallest has 47" in judgement.reason and "--budget" in judgement.reason
    assert gate.judge_precision(found(7 * fewest), INT8, "int8").verdict == "accept"
    assert gate.judge_precision(found(7 * fewest - 7), INT8, "int8").verdict == "insufficient clips"
    with pytest.raises(UsageError):
        gate.Budget(0.0, 0.97)


def test_a_class_without_clips_is_not_forgotten():
    """All clips of one class are left out of many: what was insufficient does not become good."""
    labels = np.delete(np.arange(4200) % 7, np.s_[5::7])
    rows = np.eye(7, dtype=np.float32)[labels] * 0.9 + 0.1 / 7
    found = compare_answers(rows, rows, labels, ["x"] * len(labels))
    assert found.class_clips == (600, 600, 600, 600, 600, 0, 600) and found.bound == 1.0 and found.uar == 1.0
    names = [*"abcde", "disgust", "g"]
    judgement = gate.judge_precision(found, INT8, "int8", labels=names)
    assert judgement.verdict == "insufficient clips", judgement.reason
    fewest = int(re.search(r"it needs (\d+) clips of every class, there are 0 of 'disgust'", judgement.reason)[1])
    assert gate.can_prove([600] * 5 + [fewest, 600], INT8.drop)
    assert not gate.can_prove([600] * 5 + [fewest - 1, 600], INT8.drop)
    ten = compare_answers(
        np.vstack([rows, rows[:10]]), np.vstack([rows, rows[:10]]), np.append(labels, [5] * 10), "x" * 3610
    )
    assert "the smallest has 10 ('disgust')" in gate.judge_precision(ten, INT8, "int8", labels=names).reason


def test_fp32_that_guesses_is_said():
    clips = 4200
    labels, one = np.arange(clips) % 7, np.zeros(clips, int)
    drawn = np.random.default_rng(0).integers(0, 7, clips)
    for answers, guesses in ((labels, False), (one, True), (drawn, True), ((labels + 1) % 7, True)):
        rows = np.eye(7, dtype=np.float32)[answers] * 0.9 + 0.1 / 7
        found = compare_answers(rows, rows, labels, ["x"] * clips)
        assert found.by_chance is guesses
        assert ("no better than guessing" in gate.judge_precision(found, INT8, "int8").reason) is guesses


def test_clips_reach_every_evaluator_in_order():
    source = SyntheticClips(3, [5_000_000, 5_000_001], 35, 16)
    seen = []

    def mean(clips):
        seen.append(len(clips))
        return np.stack([clips.mean((1, 2, 3, 4)), np.zeros(len(clips))], 1).astype(np.float32)

    sampling = Sampling(segments=2, frames_per_segment=1)
    given = gate.answer({"a": mean, "b": lambda clips: -mean(clips)}, source, sampling, range(70))
    assert seen == [32, 32, 32, 32, 6, 6]
    np.testing.assert_array_equal(given.answers["a"], -given.answers["b"])
    assert given.ids == tuple(source.clip_id(i) for i in range(70))
    assert given.labels.tolist() == [i % 7 for i in range(70)]
    again = gate.answer({"a": mean}, source, sampling, range(70))
    assert again.sha256 == given.sha256 and len(set(given.answers["a"][:, 0])) > 60


class Doubled(ClipView):
    """Each clip of another source several times, under other names; `wrong` of them in the next class."""

    def __init__(self, source: SyntheticClips, times: int, wrong: int = 0) -> None:
        super().__init__(source)
        self.times, self.wrong = times, wrong

    def __len__(self) -> int:
        return len(self.source) * self.times

    def place(self, index: int) -> int:
        return index // self.times

    def label(self, index: int) -> int:
        return (super().label(index) + (index < self.wrong)) % 7

    def clip_id(self, index: int) -> str:
        return f"{super().clip_id(index)} {index % self.times}"


def test_copies_are_answered_and_counted_once():
    source = Doubled(SyntheticClips(3, [5_000_000, 5_000_001], 7, 16), 8, wrong=1)
    seen = []

    def mean(clips):
        seen.append(len(clips))
        return np.stack([clips.mean((1, 2, 3, 4)), np.zeros(len(clips))], 1).astype(np.float32)

    given = gate.answer({"a": mean}, source, Sampling(segments=2, frames_per_segment=1), range(112))
    assert seen == [5, 4, 4, 2] and given.copies == 112 - 15  # one clip stands in two classes
    assert given.ids[:3] == tuple(source.clip_id(i) for i in (0, 1, 8)) and len(given.pixels) == len(given.ids) == 15
    assert given.labels.tolist() == [source.label(i) for i in (0, 1, *range(8, 112, 8))]
    alone = gate.answer({"a": mean}, source, Sampling(segments=2, frames_per_segment=1), [1, *range(8, 112, 8)])
    np.testing.assert_array_equal(given.answers["a"][1:], alone.answers["a"])
    both = gate.joined([given, alone])
    assert both.ids == given.ids and both.copies == 97 + 14 and len(both.answers["a"]) == len(both.labels) == 15
    assert gate.joined([given]) is given


@pytest.fixture
def bundle(untrained_bundle: Path, tmp_path: Path) -> Bundle:
    return Bundle(shutil.copytree(untrained_bundle, tmp_path / "tiny.bundle"))


def report_on(bundle: Bundle, clips: int = 35):
    source = SyntheticClips(0, range(3_000_000, 3_000_100), 7, bundle.image_size)
    return judge_accuracy(bundle, source, range(clips), named="synthetic", reproduce="a command")


def test_few_clips_leave_fp16_as_the_export_judged_it(bundle: Bundle):
    report = report_on(bundle)
    assert report.precisions["fp16"]["verdict"] == "insufficient clips"
    assert report.precisions["fp16"]["agreement"] >= 0.97 and report.source["per_class"]["happy"] == 5
    after = record_accuracy(bundle, report)
    entry = after.precisions["fp16"]
    assert entry["verdict"] == "accept" and entry["accuracy"]["verdict"] == "insufficient clips"
    assert entry["accuracy"]["command"] == "a command" and "rounding reference" in entry["accuracy"]["evaluator"]
    assert Bundle(bundle.path).precisions == after.precisions


def test_a_class_that_the_data_lacks_forbids_a_verdict_by_name(bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(gate.BUDGETS, "fp16", gate.Budget(0.13, 0.5))
    source = SyntheticClips(0, range(3_000_000, 3_000_100), 7, bundle.image_size)
    rows = [
        judge_accuracy(bundle, source, chosen, named="some", reproduce="a command").precisions["fp16"]
        for chosen in (range(77), [i for i in range(77) if source.label(i) != 5])
    ]
    assert [row["verdict"] for row in rows] == ["accept", "insufficient clips"], rows
    assert f"there are 0 of {bundle.labels[5]!r}" in rows[1]["reason"]


def test_a_few_videos_many_times_are_a_few_videos(bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(gate.BUDGETS, "fp16", gate.Budget(0.13, 0.5))
    source = Doubled(SyntheticClips(0, range(3_000_000, 3_000_002), 7, bundle.image_size), 8)
    report = judge_accuracy(bundle, source, range(len(source)), named="some", reproduce="a command")
    row = report.precisions["fp16"]
    assert row["verdict"] == "insufficient clips" and row["clips"] == 14, row["reason"]
    assert "98 more clips" in row["reason"] and all("98 more clips" in other["reason"] for other in report.backends)
    assert report.source["copies"] == 98 and report.source["clips"] == 14


def test_load_follows_a_refusal(bundle: Bundle):
    """On ONNX Runtime FP32 is first; where the gate refused it, FP16 is next, and then nothing."""
    report = report_on(bundle)
    row = {**report.precisions["fp16"], "verdict": "refuse: use fp32", "reason": "planted"}
    bundle = record_accuracy(bundle, type(report)(**{**report.__dict__, "precisions": {"fp16": row}}))
    with logoformer.load(bundle.path) as engine:
        assert engine.precision == "fp32"
    manifest = {**bundle.manifest, "precisions": {"fp16": bundle.precisions["fp16"]}}
    manifest["graphs"] = [g for g in manifest["graphs"] if g["precision"] == "fp16"]
    from logoformer.bundle import replace_manifest

    replace_manifest(bundle, manifest)
    with pytest.raises(VerificationError, match="planted"):
        logoformer.load(bundle.path)


def test_the_verb_needs_data(bundle: Bundle, fails):
    fails(2, "verify", bundle.path, "--accuracy", names=("--data",))
