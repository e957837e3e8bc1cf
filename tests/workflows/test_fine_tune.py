"""The verbs that judge and mend INT8, from the command line on a small data set."""

import json
import shutil
from pathlib import Path

import pytest
from logoformer.bundle import Bundle
from logoformer.cli import main as cli
from logoformer.errors import BadInputError
from logoformer.model.networks.configs import PRESETS
from logoformer.model.synthetic.recordings import SyntheticClips
from logoformer.studies.int8 import make_bundle, plant_outlier
from logoformer.workflows.init import initialise
from logoformer.workflows.verify import judge_accuracy


@pytest.fixture
def bundle(int8_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(int8_bundle, tmp_path / "tiny.bundle"))


def run(capsys, *words: object) -> dict:
    capsys.readouterr()
    assert cli.main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_accuracy_is_judged_recorded_and_followed(bundle: Path, few_faces: Path, capsys):
    report = run(capsys, "verify", bundle, "--accuracy", "--data", few_faces, "--budget", 50)
    held_out = report["source"]["clips"]
    assert set(report["precisions"]) == {"fp16", "int8"} and sum(report["source"]["per_class"].values()) == held_out
    after = Bundle(bundle).precisions["int8"]
    assert after["verdict"] == report["precisions"]["int8"]["verdict"] != "refuse: use FP16", after["reason"]
    assert f"--data {few_faces.name} --fold 1 --budget 50" in after["accuracy"]["command"]
    assert str(few_faces.parent) not in json.dumps(after), "no path of this machine"
    strict = run(capsys, "verify", bundle, "--accuracy", "--data", few_faces)
    assert strict["precisions"]["int8"]["verdict"] == "insufficient clips"
    assert Bundle(bundle).precisions["int8"]["verdict"] == "insufficient clips"


def test_sensitivity_from_the_command_line(bundle: Path, few_faces: Path, tmp_path: Path, capsys):
    words = ("--calibration-clips", 32, "--few", "--exclude", "trunk.conv1")
    done = run(capsys, "quantize", bundle, "--data", few_faces, "--sensitivity", tmp_path / "s", *words)
    found = json.loads((tmp_path / "s" / "sensitivity.json").read_bytes())
    assert found == done["sensitivity"] and found["clips"] >= 28
    assert "trunk.conv1" not in [row["group"] for row in found["groups"]]
    assert Bundle(bundle).precisions["int8"]["excluded"] == ["trunk.conv1", *found["steps"][-1]["excluded"]]
    assert (tmp_path / "s" / "sensitivity.svg").read_text().startswith("<svg")


def test_fine_tuning_from_the_command_line(bundle: Path, few_faces: Path, capsys):
    before = Bundle(bundle)
    done = run(capsys, "train", "--qat", bundle, "--data", few_faces, "--set", "steps=3", "batch=4")
    after = Bundle(bundle)
    assert done["steps"] == 3 and done["divergence_after"] <= done["divergence_before"]
    if done["kept_step"]:
        assert after.precisions["int8"]["qat"]["kept_step"] == done["kept_step"]
    else:
        assert after.manifest == before.manifest
    assert after.precisions["int8"]["verdict"] == "insufficient clips", "the gate has to judge again"
    untouched = [entry for entry in before.graphs if entry.precision != "int8"]
    assert [entry for entry in after.graphs if entry.precision != "int8"] == untouched


def test_int8_that_no_step_surpasses_stays(bundle: Path, few_faces: Path, capsys):
    """Training begins with weights at their nearest steps; those of the bundle were rounded better."""
    before = {path.name: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    still = ("steps=1", "batch=4", "learning_rate=1e-12", "range_rate=0")
    assert cli.main(["train", "--qat", str(bundle), "--data", str(few_faces), "--set", *still]) == 0
    assert "is as it was" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in bundle.rglob("*") if path.is_file()} == before


def test_what_is_missing_is_said(untrained_bundle: Path, few_faces: Path, fails):
    fails(3, "train", "--qat", untrained_bundle, "--data", few_faces, names=("no INT8", "quantize"))
    fails(2, "train", "--data", few_faces, names=("-o",))


@pytest.mark.slow
def test_moved_scales_are_recorded_and_fine_tuning_starts_from_it(tmp_path: Path):
    from logoformer.calibration.qat import QatConfig
    from logoformer.workflows.fine_tune import fine_tune_bundle

    bundle = make_bundle(plant_outlier(initialise(PRESETS["tiny"]), 0), tmp_path / "b", clips=64)
    moved = bundle.calibration()["equalisation"]["temporal.blocks.0.norm_ffn/LayerNormalization"]
    assert max(moved) == 1 and sorted(moved)[-2] < 0.05, "the outlier stays, the others are raised"
    share = bundle.precisions["int8"]["parity"]["pair"]["share_of_clip_deviation"]
    assert share < 0.6, "without moved scales it is above 2"
    source = SyntheticClips(0, range(10), 7, bundle.image_size)
    bundle, done = fine_tune_bundle(bundle, source, QatConfig(steps=1, batch=4), "faces")
    assert done["divergence_before"] < 1e-3
    assert bundle.precisions["int8"]["parity"]["pair"]["share_of_clip_deviation"] < 0.6
    with pytest.raises(BadInputError, match="held back"):
        fine_tune_bundle(bundle, SyntheticClips(0, range(1), 7, bundle.image_size), QatConfig(batch=16), "faces")


@pytest.mark.slow
def test_a_trained_model_keeps_its_budget_on_a_part_of_the_experiment(trained_checkpoint: Path, tmp_path: Path):
    """`studies.int8 accuracy_tiny` on 504 of its 4004 clips, with the budget that 504 clips can prove."""
    from logoformer.model.checkpoint import load_checkpoint

    bundle = make_bundle(load_checkpoint(trained_checkpoint)[0], tmp_path / "b")
    source = SyntheticClips(7, range(4_000_000, 4_000_072), 7, bundle.image_size)
    report = judge_accuracy(
        bundle, source, range(504), named="synthetic", reproduce="", budget_points=2.0
    )  # fmt: skip
    assert report.uar > 0.85
    rows = report.precisions
    assert rows["fp16"]["verdict"] == rows["int8"]["verdict"] == "accept", rows
    assert rows["fp16"]["agreement"] >= 0.99 and rows["int8"]["agreement"] >= 0.97
