"""Which recordings an archive has, what tells them from later ones, and a Ctrl-C inside one of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import logoformer
import numpy as np
import pytest
from logoformer.workflows.label import LabelConfig, PlainLabeller, answering, label_archive
from logoformer.workflows.label.recordings import ArchiveItem, find_recordings
from PIL import Image

CENTER = LabelConfig(face="center", hop=1, warmup="repeat")


@pytest.fixture(scope="module")
def runtime(untrained_bundle: Path):
    with logoformer.load(untrained_bundle, backend="onnxruntime", precision="fp32", threads=1) as runtime:
        yield runtime


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two folders of four frames, called 0 and 1."""
    for clip in range(2):
        (tmp_path / "archive" / str(clip)).mkdir(parents=True)
        for frame in range(4):
            picture = np.full((40, 40, 3), 40 * frame, np.uint8)
            Image.fromarray(picture).save(tmp_path / "archive" / str(clip) / f"{frame}.png")
    return tmp_path / "archive"


def test_hidden_files_and_folders_are_no_recordings(archive):
    shutil.copytree(archive / "0", archive / ".thumbnails")
    (archive / "._clip.mp4").write_bytes(b"what macOS keeps beside a file")
    (archive / "2").mkdir()
    (archive / "2" / "._0.png").write_bytes(b"the same, alone")
    assert list(find_recordings(archive)) == [archive / "0", archive / "1"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_recording_that_was_written_anew_with_as_many_bytes_is_another(tmp_path, kind):
    file = tmp_path / "clip" / "0.png"
    file.parent.mkdir()
    file.write_bytes(b"before")
    item = ArchiveItem(file if kind == "file" else file.parent, "clip")
    before = item.mark()
    file.write_bytes(b"behind")
    os.utime(file, ns=(0, before[-1] + 1))
    assert item.mark() == [*before[:2], before[-1] + 1]


def test_a_recording_that_is_called_0_is_no_camera(runtime, archive, monkeypatch):
    monkeypatch.chdir(archive)
    found = answering.answer_recording(runtime, Path("0"), "0", CENTER)
    assert [answer["frame"] for answer in found["answers"]] == [0, 1, 2, 3]


def test_a_recording_that_ctrl_c_cut_off_is_not_filed(runtime, archive, tmp_path, monkeypatch):
    """The signal comes with the second answer of the second recording."""
    out, given = tmp_path / "answers.jsonl", []
    run_source = answering.run_source

    def interrupted(*arguments, on_result):
        def give(line):
            on_result(line)
            given.append(line["frame"])
            if len(given) == 6:
                signal.raise_signal(signal.SIGINT)

        return run_source(*arguments, on_result=give)

    with monkeypatch.context() as pressed:
        pressed.setattr(answering, "run_source", interrupted)
        with pytest.raises(KeyboardInterrupt):
            label_archive(PlainLabeller(runtime, CENTER), [archive], out)
    _, *filed = [json.loads(line) for line in (tmp_path / ".answers.jsonl.journal").read_text().splitlines()]
    assert [Path(entry["recording"]).name for entry in filed] == ["0"]
    report = label_archive(PlainLabeller(runtime, CENTER), [archive], out)
    assert (report.resumed, report.answers) == (1, 8)
