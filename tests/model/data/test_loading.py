"""The speed of reading: what is counted, on which core, with whose frames. No figure is judged here."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from logoformer.cli import main as cli
from logoformer.clips import Sampling
from logoformer.errors import UsageError
from logoformer.model.data import loading
from logoformer.model.data.loading import measure_loading
from logoformer.model.synthetic.layout import synth

SAMPLING = Sampling(segments=4, frames_per_segment=2)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synth(tmp_path_factory.mktemp("set") / "faces", identities=5, per_identity=2, side=48, workers=1).path


def test_it_reads_as_a_training_does_on_one_core(faces, monkeypatch):
    read, cores = [], set()
    whole = loading.ListedClips.frames

    def frames(self, index, indices, box=None):
        cores.add(frozenset(os.sched_getaffinity(0)))
        read.append((index, tuple(int(i) for i in indices), box))
        return whole(self, index, indices, box)

    monkeypatch.setattr(loading.ListedClips, "frames", frames)
    before = os.sched_getaffinity(0)
    found = measure_loading(faces, size=32, sampling=SAMPLING, augment="crop", clips=5)
    assert os.sched_getaffinity(0) == before  # the caller's own stays
    assert len(cores) == 1 and len(next(iter(cores))) == 1 and threading.active_count() < 10
    assert (found.clips, found.frames, found.size, found.stored) == (5, 8, 32, {"48 x 48": 5})
    cropped = [(index, box) for index, _, box in read if box is not None]
    assert len(set(cropped)) >= 4 and len(cropped) >= 4 * found.repeats  # a box of each clip's own, in every repeat
    assert all(len(indices) == 8 for _, indices, _ in read)
    assert found.clips_per_s > 0 and found.clips_per_cpu_s > 0
    assert found.files_share + found.decode_share + found.rest_share == pytest.approx(1, abs=0.2)


def test_the_verb_reads_by_a_recipe(faces, capsys):
    assert cli.main(["data-check", "--data", str(faces), "--speed", "synthetic-tiny", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["frames"], found["size"], found["augment"]) == (8, 64, "shift")
    assert cli.main(["data-check", "--data", str(faces), "--speed"]) == 0
    text = capsys.readouterr().out
    assert "clips of 16 frames, 48 x 48 -> 112 x 112, augmentation 'crop'" in text and "clips/s per core" in text


def test_no_clip_is_no_measurement(faces):
    with pytest.raises(UsageError, match="0 clips"):
        measure_loading(faces, size=32, sampling=SAMPLING, augment="none", clips=0)


def test_files_are_those_of_the_frames(faces):
    source = loading.open_clips(faces, "train", 1, loading.Reading(48))
    indices = np.array([2, 0, 2])
    files = source.files(0, indices)
    assert len(files) == 2
    pixels = [np.asarray(loading.decode_still(data, "x")) for data in files]
    np.testing.assert_array_equal(source.frames(0, indices), np.stack([pixels[1], pixels[0], pixels[1]]))
