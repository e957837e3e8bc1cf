"""Which clips go into which score: no fold by a checkpoint that learned from it, and a result says its terms."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from logoformer.bundle import Bundle
from logoformer.cli import main as cli
from logoformer.errors import RefusedError, UsageError
from logoformer.export.exporter import ExportConfig
from logoformer.model.checkpoint import load_checkpoint
from logoformer.model.synthetic.layout import synth
from logoformer.workflows.evaluate import evaluate_on
from logoformer.workflows.export import export_checkpoint
from logoformer.workflows.quantize import Calibration, quantize
from logoformer.workflows.verify import judge_on_data

SHORT_RUN = ("steps=1", "batch=4", "augment=none")


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("verbs") / "dfew"
    synth(folder, identities=5, per_identity=7, side=32, workers=1)
    return folder


@pytest.fixture(scope="module")
def folds(faces) -> list[Path]:
    """Checkpoints of folds 1 and 2, given the recipe's fields in two --set each; kept on the test fold."""
    made = [faces.with_name(f"fold-{fold}") for fold in (1, 2)]
    for fold, out in enumerate(made, start=1):
        words = ["train", "--data", str(faces), "--fold", str(fold), "-o", str(out)]
        assert cli.main([*words, "--set", *SHORT_RUN, "--set", "seed=3", "--select", "test-fold"]) == 0
    return made


def test_every_set_counts_and_not_the_last_alone(folds):
    recipe = load_checkpoint(folds[0])[1]["extra"]["recipe"]
    assert (recipe["steps"], recipe["batch"], recipe["select"], recipe["seed"]) == (1, 4, "test-fold", 3)


def test_a_fold_that_a_checkpoint_learned_from_is_refused(faces, folds, tmp_path):
    assert [part["fold"] for part in evaluate_on(folds, faces).parts] == [1, 2]
    assert evaluate_on([folds[1]], faces).parts[0]["fold"] == 2  # its own, unasked
    with pytest.raises(RefusedError, match="fold-2 was trained on fold 2; 7 of the 7 test clips of fold 1"):
        evaluate_on([folds[1]], faces, fold=1)
    with pytest.raises(RefusedError, match="training clips of its own"):
        evaluate_on(folds[::-1], faces)
    moved = Path(shutil.copytree(faces, tmp_path / "elsewhere"))  # the list decides, not the folder's name
    with pytest.raises(RefusedError):
        evaluate_on([folds[1]], moved, fold=1)
    lists = moved / "EmoLabel_DataSplit/train(single-labeled)/set_2.csv"
    lists.write_text("\n".join(lists.read_text().splitlines()[:-1]) + "\n")  # another list of the same clips
    with pytest.raises(RefusedError, match="trained on clips that are listed here; 7 of the 7 test clips"):
        evaluate_on([folds[1]], moved, fold=1)
    with pytest.raises(UsageError, match="--fold 1 is for one"):
        evaluate_on(folds, faces, fold=1)


@pytest.fixture(scope="module")
def second(faces, folds, tmp_path_factory) -> Path:
    """The bundle of fold 2's checkpoint."""
    out = tmp_path_factory.mktemp("second") / "b"
    return export_checkpoint(folds[1], out, ExportConfig(), clips=8).path


@pytest.mark.slow
def test_clips_that_a_model_learned_from_do_not_judge_its_bundle(faces, second, fails):
    shown = fails(2, "verify", second, "--accuracy", "--data", faces, "--fold", "1")
    assert "was trained on fold 2; 7 of the 7 test clips of fold 1" in shown and "--fold 2" in shown
    report = judge_on_data(second, faces, fold=2, write=False)
    assert report.source["clips"] == 7


@pytest.mark.slow
def test_clips_that_int8_was_calibrated_on_do_not_judge_it(faces, second, fails, tmp_path):
    bundle = Path(shutil.copytree(second, tmp_path / "b"))
    quantize(bundle, Calibration(faces, fold=1, clips=28, few=True))  # fold 1 trains on what fold 2 is tested on
    shown = fails(2, "verify", bundle, "--accuracy", "--data", faces, "--fold", "2")
    assert "was calibrated on 7 of the 7 test clips of fold 2" in shown and "logoformer quantize" in shown
    assert "accuracy" not in Bundle(bundle).precisions["fp32"]
    quantize(bundle, Calibration(faces, fold=2, clips=28, few=True))
    assert judge_on_data(bundle, faces, fold=2, write=False).source["clips"] == 7


def test_a_result_names_weights_lists_and_how_they_were_chosen(faces, folds, tmp_path, capsys):
    assert cli.main(["evaluate", *map(str, folds), "--data", str(faces), "-o", str(tmp_path / "r")]) == 0
    assert "fold-2, fold 2, kept: the epoch with the best WAR on the very clips" in capsys.readouterr().out
    parts = json.loads((tmp_path / "r/result.json").read_text())["parts"]
    assert [p["sha256"] for p in parts] == [load_checkpoint(f)[1]["sha256"] for f in folds]
    assert all("optimistic" in p["selected"] and p["recipe"]["seed"] == 3 for p in parts)
    assert parts[0]["list_sha256"] == parts[0]["trained_on"]["test_list"] != parts[1]["list_sha256"]


def test_what_was_left_out_is_told_and_the_picture_reads_the_same_clips(faces, folds, tmp_path, capsys):
    root = Path(shutil.copytree(faces, tmp_path / "hurt"))
    names = [
        entry.split(",")[0]
        for entry in (root / "EmoLabel_DataSplit/test(single-labeled)/set_1.csv").read_text().split()[1:]
    ]
    short, hurt = (root / "Clip/clip_224x224" / f"{int(name):05d}" for name in names[:2])
    for path in sorted(short.iterdir())[3:]:
        path.unlink()
    for path in hurt.iterdir():
        if path.stem.endswith("5"):
            path.write_bytes(b"<html>")
    words = ["evaluate", str(folds[0]), "--data", str(root), "--short", "drop", "--max-damaged", "40"]
    assert cli.main([*words, "-o", str(tmp_path / "r"), "--tsne"]) == 0
    told = capsys.readouterr().out
    assert "left out: 1 clips of fewer frames" in told and "frames could not be read" in told
    part = json.loads((tmp_path / "r/result.json").read_text())["parts"][0]
    assert part["dropped"] == [short.name] and part["clips"] == 6
    assert part["damaged"] and all(Path(name).parent.name == hurt.name for name in part["damaged"])
    assert (tmp_path / "r/features.svg").read_text().count("<use ") == 6 + 7  # and the legend's


@pytest.mark.parametrize("words", [["--tsne"], ["--views", "2", "--order", "reversed"]])
def test_options_that_would_do_nothing_are_refused(faces, folds, words):
    assert cli.main(["evaluate", str(folds[0]), "--data", str(faces), *words]) == 2


@pytest.mark.parametrize("words", [["--trunk-color", "bgr"], ["--trunk", "x.pth", "--trunk-color", "grb"]])
def test_a_channel_order_needs_a_trunk_and_a_name(faces, tmp_path, words):
    assert cli.main(["train", "--data", str(faces), "-o", str(tmp_path / "c"), *words]) == 2
