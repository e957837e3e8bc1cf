"""What `synth` writes: DFEW's layout and an untrimmed video."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from logoformer.clips import DFEW_LABELS
from logoformer.errors import BadInputError, MachineError, UsageError
from logoformer.media.marks import has_mark
from logoformer.model.data.datasets import open_clips
from logoformer.model.data.listing import Reading
from logoformer.model.synthetic import layout as synthetic_layout
from logoformer.model.synthetic.layout import synth, write_untrimmed
from logoformer.model.synthetic.recordings import FIRST_VIDEO_IDENTITY, SyntheticClips, draw_untrimmed


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("synth") / "dfew"
    result = synth(root, seed=1, identities=10, per_identity=7, side=40, workers=1)
    assert result.clips == 70
    assert result.path == root
    assert result.frames == len(list(root.glob("Clip/clip_224x224/*/*.jpg")))
    return root


def read_list(root: Path, split: str, fold: int) -> dict[int, int]:
    with (root / f"EmoLabel_DataSplit/{split}(single-labeled)/set_{fold}.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert set(rows[0]) == {"video_name", "label"}
    return {int(row["video_name"]): int(row["label"]) for row in rows}


def test_labels_count_from_one_to_seven(data):
    labels = read_list(data, "test", 1)
    assert set(labels.values()) == set(range(1, 8))
    assert all(1 <= label <= 7 for fold in range(1, 6) for label in read_list(data, "train", fold).values())


def test_test_folds_partition_the_clips_and_people_are_disjoint(data):
    tested: list[int] = []
    for fold in range(1, 6):
        train, test = read_list(data, "train", fold), read_list(data, "test", fold)
        assert not set(train) & set(test)
        assert sorted([*train, *test]) == list(range(1, 71))
        people = [{(name - 1) // 7 for name in names} for names in (train, test)]
        assert not people[0] & people[1]
        tested += test
    assert sorted(tested) == list(range(1, 71))


def test_frames_are_what_the_generator_draws(data):
    source = SyntheticClips(1, range(10), 7, 40)
    reader = open_clips(data, "test", 2, Reading(40))
    index = 3
    number = int(reader.clip_id(index)) - 1
    assert reader.count(index) == source.count(number)
    assert reader.label(index) == source.label(number)
    read = reader.frames(index, [0, 10, 39]).astype(int)
    drawn = source.frames(number, [0, 10, 39]).astype(int)
    assert np.abs(read - drawn).mean() < 6, "more than JPEG's loss: colors swapped, or another frame"


def test_bytes_depend_on_the_seed_alone_and_not_on_processes(data, tmp_path):
    def tree(root: Path) -> dict[str, bytes]:
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    synth(tmp_path / "again", seed=1, identities=10, per_identity=7, side=40, workers=2)
    assert tree(tmp_path / "again") == tree(data)


def test_a_writing_process_starts_without_torch():
    """Every process of the pool imports this module: torch would cost each of them seconds and memory."""
    code = "import sys, logoformer.model.synthetic.layout; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(BadInputError, match="left alone"):
        synth(tmp_path / "mine", identities=5)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_nothing_is_left_when_writing_fails(tmp_path, monkeypatch):
    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthetic_layout, "_write_clips", full)
    with pytest.raises(MachineError, match="disk is full"):
        synth(tmp_path / "new", identities=5, per_identity=1, side=16, workers=1)
    assert list(tmp_path.iterdir()) == []


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The processes of its pool; multiprocessing's own tracker is none."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc here")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_processes_of_a_data_set_end_with_their_parent(tmp_path, number):
    program = "import os; os.sched_getaffinity = lambda pid: {0, 1}; from logoformer.cli.main import main; raise "
    program += "SystemExit(main())"
    words = [sys.executable, "-c", program, "synth", "-o", "x", "--identities", "400", "--side", "400", "-q"]
    process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE)
    workers: list[int] = []
    try:
        while not any(tmp_path.glob(".x-*/*/*/*/*.jpg")):
            assert process.poll() is None
            time.sleep(0.05)
        workers = workers_of(process)
        assert workers
        os.kill(process.pid, number)
        _, said = process.communicate(timeout=120)
        until = time.monotonic() + 60
        while not all(map(ended, workers)) and time.monotonic() < until:
            time.sleep(0.05)
        assert all(map(ended, workers))
        if number == signal.SIGTERM:
            assert process.returncode == 130 and said.count(b"\n") == 1, said
            assert not any(tmp_path.iterdir())
    finally:
        process.kill()
        for worker in workers:
            if not ended(worker):
                os.kill(worker, signal.SIGKILL)


def test_usage_errors(tmp_path):
    with pytest.raises(UsageError, match="folds"):
        synth(tmp_path / "few", identities=4)
    with pytest.raises(UsageError, match="kind"):
        synth(tmp_path / "x", kind="hologram")
    with pytest.raises(UsageError, match="mp4"):
        write_untrimmed(tmp_path / "x.avi")
    with pytest.raises(UsageError, match="even"):
        write_untrimmed(tmp_path / "x.mp4", side=65)


def test_more_people_than_there_are_or_than_the_disk_holds_are_refused_before_lists_are_made(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic_layout, "SyntheticClips", None)  # fails where anything is drawn or listed
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1 << 24))
    with pytest.raises(UsageError, match="99999999999 people are too many"):
        synth(tmp_path / "x", identities=99_999_999_999)
    with pytest.raises(MachineError, match="16 MiB left; the data set may need") as refused:
        synth(tmp_path / "x", identities=100)
    assert "--identities" in refused.value.next and not any(tmp_path.iterdir())


def test_the_disk_that_is_asked_for_is_no_more_than_what_is_written(data, monkeypatch, tmp_path):
    asked: list[int] = []
    monkeypatch.setattr(synthetic_layout, "require_space", lambda place, needed, *_: asked.append(needed))
    monkeypatch.setattr(synthetic_layout, "_write_all", lambda *_: 0)
    synth(tmp_path / "x", identities=10, per_identity=7, side=40)
    assert 0 < asked[0] <= sum(path.stat().st_size for path in data.rglob("*.jpg"))


def test_progress_counts_to_the_end(tmp_path):
    seen: list[tuple[str, int, int]] = []
    synth(tmp_path / "d", identities=5, per_identity=5, side=16, workers=1, progress=lambda *event: seen.append(event))
    assert seen == [("synth", 20, 25), ("synth", 25, 25)]


def test_untrimmed_video_has_its_spans(tmp_path):
    seen: list[tuple[str, int, int]] = []
    result = synth(tmp_path / "v.mp4", kind="video", seed=2, side=48, progress=lambda *event: seen.append(event))
    assert seen[-1] == ("video", result.frames, result.frames)
    spans = json.loads((tmp_path / "v.json").read_text())
    assert sorted(span["label"] for span in spans) == sorted(DFEW_LABELS)
    recording = draw_untrimmed(2, FIRST_VIDEO_IDENTITY, [DFEW_LABELS.index(span["label"]) for span in spans])
    assert [(s.start / 25, s.end / 25) for s in recording.spans] == [(s["start_s"], s["end_s"]) for s in spans]

    assert has_mark(tmp_path / "v.mp4")
    video = cv2.VideoCapture(str(tmp_path / "v.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == 25
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1][:, :, ::-1])
    assert len(frames) == recording.count == result.frames
    drawn = recording.frames([0, 200], 48).astype(int)
    for index, picture in zip((0, 200), drawn, strict=True):
        assert np.abs(frames[index].astype(int) - picture).mean() < 10


def test_a_failed_video_leaves_the_old_one(tmp_path, monkeypatch):
    target = tmp_path / "v.mp4"
    target.write_bytes(b"old")

    class NoEncoder:
        fourcc = staticmethod(cv2.VideoWriter.fourcc)

        def __init__(self, *_arguments) -> None: ...

        def isOpened(self) -> bool:
            return False

    monkeypatch.setattr(cv2, "VideoWriter", NoEncoder)
    with pytest.raises(MachineError, match="mp4v"):
        write_untrimmed(target, side=32)
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]
