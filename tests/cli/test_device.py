"""The verbs of a device: `selftest`, and what `run` hands to the engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import media_files
import numpy as np
import pytest
from logoformer.bundle import Bundle, BundleWriter, Golden
from logoformer.cli import main as cli
from logoformer.cli import options as options
from PIL import Image

OLD_BUNDLE = Path(__file__).parents[1] / "data" / "bundle-v0.1"


@pytest.fixture
def wrong_bundle(untrained_bundle: Path, tmp_path: Path) -> Path:
    """A bundle whose golden answers are another model's."""
    bundle = Path(shutil.copytree(untrained_bundle, tmp_path / "face.bundle"))
    opened = Bundle(bundle)
    golden = opened.golden()
    writer = BundleWriter(bundle)
    wrong = writer.add_golden(Golden(golden.clips, np.roll(golden.probabilities, 1, axis=1).copy()), "planted")
    writer.commit({**opened.manifest, "golden": wrong})
    return bundle


def test_selftest_passes_and_says_what_it_did(untrained_bundle, capsys):
    assert cli.main(["selftest", str(untrained_bundle)]) == 0
    text = capsys.readouterr().out
    assert "clip" in text and "frame + temporal" in text and "passed" in text and "FAILED" not in text
    assert cli.main(["selftest", str(untrained_bundle), "--json", "--precision", "fp32", "--threads", "1"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["passed"] is True and said["golden_clips"] == 8 and said["precision"] == "fp32"
    assert [check["what"] for check in said["checks"]] == ["clip", "frame + temporal"]


def test_selftest_of_another_models_answers_fails(wrong_bundle, fails, capsys):
    text = fails(5, "selftest", wrong_bundle)
    assert "self-test failed" in text and "off by" in text
    assert cli.main(["selftest", str(wrong_bundle)]) == 5
    assert "FAILED" in capsys.readouterr().out


def test_run_answers_nothing_before_a_wanted_selftest_has_passed(wrong_bundle, fails, tmp_path, capsys):
    fails(5, "run", wrong_bundle, tmp_path, "--selftest")
    assert capsys.readouterr().out == ""


def test_run_counts_the_pauses_that_dropped_the_history(tmp_path, capsys):
    pytest.importorskip("av", reason="PyAV is not installed (the extra 'camera')")
    times = [0.0, 5.0, 10.0, 15.0, *(15 + index / 25 for index in range(1, 9))]
    video = media_files.write_video(tmp_path / "v.mkv", media_files.grey_steps(12, 64, 64), times=times)
    assert cli.main(["run", str(OLD_BUNDLE), str(video), "--hop", "1", "--warmup", "repeat"]) == 0
    err = capsys.readouterr().err
    # Of the four frames that stand alone, only the first may be the beginning of a clip.
    assert "12 frames, 9 answers" in err and ", 3 pauses dropped the history" in err and "skipped" not in err
    assert "Are these times in seconds" in err


def test_run_refuses_frames_that_are_too_far_apart_for_any_clip(tmp_path, fails, capsys):
    for index in range(5):
        Image.fromarray(np.full((64, 64, 3), 40 * index, np.uint8)).save(tmp_path / f"{index}.png")
    text = fails(3, "run", OLD_BUNDLE, tmp_path, "--fps", "0.2", "--hop", "1", "--warmup", "repeat")
    assert "5 s apart" in text and "--fps" in text
    assert cli.main(["run", str(OLD_BUNDLE), str(tmp_path), "--fps", "2", "--hop", "1", "--warmup", "repeat"]) == 0
    assert "note: 2 frames a second are fewer than" in capsys.readouterr().err


def test_options_reach_the_engine():
    words = ["--backend", "onnxruntime", "--device", "1", "--engines-dir", "e", "--threads", "2", "--precision", "fp16"]
    words.append("--strict")
    wanted = {"backend": "onnxruntime", "precision": "fp16", "device": 1, "engines_dir": "e", "threads": 2}
    wanted["strict"] = True
    for verb in (["run", "b", "source"], ["selftest", "b"]):
        assert options.runtime_arguments(cli.make_parser().parse_args([*verb, *words])) == wanted


def test_an_unknown_backend_is_a_usage_error(untrained_bundle, fails):
    assert "onnxruntime" in fails(2, "selftest", untrained_bundle, "--backend", "abacus")
