"""Odd media: `run`, `data-check`, training, `evaluate` and `quantize` get the same frames or give the same refusal."""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import odd_media
import pytest
from logoformer.calibration.choose import choose
from logoformer.camera.sources.open import open_source
from logoformer.clips import Sampling, centre_indices, to_input
from logoformer.errors import LogoformerError
from logoformer.media.pyav import AvReader
from logoformer.model.data.check import check_data
from logoformer.model.data.clips import batches, random_pick
from logoformer.model.data.datasets import open_clips
from logoformer.model.data.listing import Reading
from logoformer.model.training.evaluate import predict_all

pytest.importorskip("av", reason="PyAV is not installed (the extra 'camera')")

SIZE, SAMPLING = 16, Sampling(segments=2, frames_per_segment=2)
HANG_S = 60  # a guard: how much is read is counted below
Outcome = tuple[str, object]


@pytest.fixture(autouse=True)
def hang_guard():
    faulthandler.dump_traceback_later(HANG_S, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def data_set(medium: Path, root: Path) -> Path:
    """A data set whose only clip is the medium, in both splits."""
    if medium.is_dir():
        for split in ("train", "test"):
            (root / f"{split}.txt").write_text(f"{medium.relative_to(root)} 0\n")
        return root
    for split in ("train", "test"):
        place = root / split / "happy"
        place.mkdir(parents=True)
        os.link(medium, place / medium.name)
    return root


def frames_of_run(medium: Path) -> np.ndarray:
    """All frames as `run` gives them to a stream: uint8 `[n, S, S, 3]`."""
    seen = []
    with open_source(medium) as source:
        for timed in source:
            seen.append(np.empty((SIZE, SIZE, 3), np.uint8))
            to_input(timed.frame, SIZE, timed.color, seen[-1])
    return np.stack(seen)


def outcome(read) -> Outcome:
    try:
        return "frames", read()
    except LogoformerError as error:
        return "refused", (error.exit_code, error.what)


@pytest.mark.parametrize("name", odd_media.TABLE)
def test_every_reader_gets_the_same_frames_or_gives_the_same_refusal(name, tmp_path, monkeypatch):
    odd = odd_media.TABLE[name]
    root = tmp_path / "data"
    root.mkdir()
    medium = odd.make(root)
    if not medium.is_dir():
        medium = medium.rename(tmp_path / medium.name)
    raw, counted = AvReader._raw_frames, []
    monkeypatch.setattr(AvReader, "_raw_frames", lambda self: (counted.append(1) or one for one in raw(self)))
    run = outcome(lambda: frames_of_run(medium))
    there = (len(run[1]) if run[0] == "frames" else 30) + 64 + 8
    assert len(counted) <= there  # what is read depends on what is there, not on what is promised
    data_set(medium, root)

    def source(split: str):
        return open_clips(root, split, 1, Reading(SIZE, fewest=SAMPLING.frames))

    def train() -> np.ndarray:
        clips = source("train")
        count = clips.count(0)
        for _ in batches(clips, [np.array([0])], random_pick(SAMPLING, 0, 0)):
            pass
        return clips.frames(0, list(range(count)))

    def evaluate() -> np.ndarray:
        shown = []

        def predict(clips: np.ndarray) -> np.ndarray:
            shown.append(clips[0])
            return np.eye(7)[[0] * len(clips)]

        predict_all(predict, source("test"), SAMPLING)
        return shown[0]

    def quantize() -> np.ndarray:
        return choose(source("train"), SAMPLING, 1, seed=0).clips[0]

    def picked(frames: np.ndarray) -> np.ndarray:
        return frames[centre_indices(len(frames), SAMPLING)]

    report = check_data(root)
    faults = [
        finding for finding in report.faults if "copy" not in finding.kind and "training and test" not in finding.kind
    ]
    found = {"training": outcome(train), "evaluate": outcome(evaluate), "quantize": outcome(quantize)}
    if odd.frames is None:
        assert run[0] == "refused", run
        assert faults, report.text()
        assert {key: kind for key, (kind, _) in found.items()} == dict.fromkeys(found, "refused")
        for kind, (code, what) in found.values():
            assert (kind, code) == ("refused", run[1][0])
            # The same words, but for where the file lies.
            assert what.replace(str(root / "train/happy"), "").replace(str(root / "test/happy"), "").replace(
                str(root), ""
            ) == run[1][1].replace(str(tmp_path / "data"), "").replace(str(tmp_path), "")
        return
    assert run[0] == "frames", run[1]
    assert len(run[1]) == (odd.frames if odd.frames >= 0 else report.longest)
    assert faults == [], report.text()
    assert report.longest == len(run[1])
    assert (found["training"][1] == run[1]).all()
    assert (found["evaluate"][1] == picked(run[1])).all()
    assert (found["quantize"][1] == picked(run[1])).all()


def test_the_table_is_long_enough():
    assert len(odd_media.TABLE) >= 80


def test_no_verb_ends_in_a_traceback_or_a_signal(tmp_path, untrained_bundle):
    """All of them through the command line: `run` on each, `data-check` on a data set of all."""
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (the extra 'cpu' or 'gpu')")
    media = []
    for number, odd in enumerate(odd_media.TABLE.values()):
        folder = tmp_path / "media" / str(number)
        folder.mkdir(parents=True)
        media.append(odd.make(folder))
    root = tmp_path / "data"
    for number, medium in enumerate(media):
        if not medium.is_dir():
            place = root / "train" / ("happy", "sad")[number % 2]
            place.mkdir(parents=True, exist_ok=True)
            os.link(medium, place / os.fsdecode(b"%d" % number + os.fsencode(medium.name)))
    script = (
        "import os, sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from logoformer.cli.main import main\n"
        "from logoformer.engine import load\n"
        "import logoformer.engine\n"
        "opened = load(sys.argv[1], threads=1)\n"
        "class Kept:\n"
        "    def __init__(self, *_, **__): pass\n"
        "    def __enter__(self): return opened\n"
        "    def __exit__(self, *_): pass\n"
        "logoformer.engine.load = Kept\n"
        "print('CODES', *[main(['run', sys.argv[1], path, '--json', '--quiet']) for path in sys.argv[3:]])\n"
        "print('CHECK', main(['data-check', '--data', sys.argv[2]]))\n"
    )
    words = [sys.executable, "-c", script, str(untrained_bundle), str(root), *map(str, media)]
    done = subprocess.run(
        words, capture_output=True, check=False, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    output, errors = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
    assert done.returncode == 0, errors[-3000:]
    assert "Traceback" not in errors
    codes = [int(code) for code in output.partition("CODES ")[2].splitlines()[0].split()]
    expected = [0 if odd.frames is not None else None for odd in odd_media.TABLE.values()]
    for name, code, wanted in zip(odd_media.TABLE, codes, expected, strict=True):
        assert code == 0 if wanted == 0 else code in (3, 4), (name, code)
    assert "CHECK 3" in output, output[-500:]
