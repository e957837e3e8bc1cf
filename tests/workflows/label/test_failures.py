"""A damaged bundle is no damaged recording, what failed is tried again, and a folder's name may be any bytes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import logoformer
import numpy as np
import pytest
from logoformer.cli import main as cli
from logoformer.errors import BadInputError, RefusedError
from logoformer.workflows.label import LabelConfig, PlainLabeller, answering, label_archive
from logoformer.workflows.label.actor import FAILED, LabelActor, error_from_json
from logoformer.workflows.label.output import finished_entries
from PIL import Image

ARGUMENTS = {"backend": "onnxruntime", "precision": "fp32", "threads": 1}
HEAD = {"logoformer": "0.1.0", "digest": "d", "precision": "fp32", "labels": ["calm"], "face": "whole", "hop": 4}
FOUND = {"answers": [{"label": "calm", "probabilities": {"calm": 1.0}}]}
BAD = {"error": "BadInputError: it is damaged"}
NEEDED = [("whole", "clip"), ("center", "frame"), ("center", "temporal"), ("detect", "temporal")]


class Canned:
    """A labeller that finds what it is told to, and notes what it was asked."""

    start_s, bundle = 0.0, Path("my face.bundle")

    def __init__(self, found: dict, stop_after: int | None = None) -> None:
        self.found, self.stop_after, self.asked = found, stop_after, []

    def prepare(self):
        return HEAD

    def answers(self, items):
        for number, item in enumerate(items):
            if number == self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(item.shown)
            yield item, self.found.get(item.shown, FOUND)

    def to_json(self):
        return None


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Three folders of frames."""
    for clip in range(3):
        (tmp_path / "archive" / str(clip)).mkdir(parents=True)
        for frame in range(4):
            picture = np.full((40, 40, 3), 40 * frame, np.uint8)
            Image.fromarray(picture).save(tmp_path / "archive" / str(clip) / f"{frame}.png")
    return tmp_path / "archive"


@pytest.fixture
def bundle(untrained_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untrained_bundle, tmp_path / "own.bundle"))


def damage(bundle: Path, graph: str, how: str = "gone") -> dict[Path, bytes]:
    """Takes away or changes a graph; gives what was there."""
    files = {path: path.read_bytes() for path in (bundle / "graphs").glob(f"{graph}.fp32*")}
    assert files
    for path, data in files.items():
        path.unlink()
        if how == "changed":
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    return files


def journals(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.endswith(".journal")]


# ------------------------------------------------------------------------------------------------- the model's errors
@pytest.mark.parametrize("how", ["gone", "changed"])
@pytest.mark.parametrize(("face", "graph"), NEEDED)
def test_a_damaged_graph_ends_the_run_and_is_forgotten_once_it_is_mended(
    bundle, archive, tmp_path, fails, face, graph, how
):
    if face == "detect":
        pytest.importorskip("onnxruntime", reason="the detector runs in ONNX Runtime")
    words = ["label", bundle, archive, "--face", face, "--backend", "onnxruntime", "--precision", "fp32", "-o"]
    words.append(tmp_path / "a.jsonl")
    there = damage(bundle, graph, how)
    text = fails(4, *words, names=(f"graphs/{graph}.fp32",))
    assert "recordings could be read" not in text
    assert not (tmp_path / "a.jsonl").exists() and journals(tmp_path) == []
    for path, data in there.items():
        path.write_bytes(data)
    assert cli.main(list(map(str, words))) == 0
    assert all("error" not in entry for entry in finished_entries(tmp_path / "a.jsonl").values())


def test_what_was_answered_before_a_graph_was_damaged_is_kept(bundle, archive, tmp_path):
    out, config = tmp_path / "a.jsonl", LabelConfig(face="whole")

    def interrupt(_: str, done: int, total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with logoformer.load(bundle, **ARGUMENTS) as runtime, pytest.raises(KeyboardInterrupt):
        label_archive(PlainLabeller(runtime, config), [archive], out, interrupt)
    there = damage(bundle, "clip")
    with logoformer.load(bundle, **ARGUMENTS) as runtime, pytest.raises(RefusedError, match=r"graphs/clip\.fp32"):
        label_archive(PlainLabeller(runtime, config), [archive], out)
    for path, data in there.items():
        path.write_bytes(data)
    with logoformer.load(bundle, **ARGUMENTS) as runtime:
        report = label_archive(PlainLabeller(runtime, config), [archive], out)
    assert (report.resumed, report.answers, report.damaged) == (1, 3, ())


@pytest.mark.parametrize(("face", "graph"), NEEDED[:3])
def test_an_actor_with_a_damaged_graph_fails_as_a_whole(bundle, archive, face, graph):
    damage(bundle, graph)
    block = {
        "number": np.array([3, 4]), "path": [json.dumps(str(archive / name)) for name in "01"],
        "shown": [json.dumps(name) for name in "01"],
    }  # fmt: skip
    rows = LabelActor(str(bundle), ARGUMENTS, LabelConfig(face=face))(block)
    assert rows["number"] == [FAILED]
    error = error_from_json(json.loads(rows["found"][0]))
    assert isinstance(error, RefusedError) and f"graphs/{graph}.fp32" in error.what


def test_a_damaged_face_detector_ends_the_run(untrained_bundle, archive, tmp_path, monkeypatch):
    from logoformer.camera.faces import networks

    answering._require_detector.cache_clear()
    monkeypatch.setattr(networks, "STORED", dict.fromkeys(networks.STORED, "0" * 64))
    with logoformer.load(untrained_bundle, **ARGUMENTS) as runtime, pytest.raises(RefusedError, match="face detector"):
        label_archive(PlainLabeller(runtime, LabelConfig()), [archive], tmp_path / "a.jsonl")
    assert journals(tmp_path) == []


# ------------------------------------------------------------------------------------------------ what failed, again
def test_where_every_recording_failed_the_next_call_looks_again(archive, tmp_path):
    out = tmp_path / "a.jsonl"
    with pytest.raises(BadInputError, match="None of 3 recordings could be read") as caught:
        label_archive(Canned(dict.fromkeys("012", BAD)), [archive], out)
    assert caught.value.next == f"logoformer run 'my face.bundle' {archive / '0'}"
    assert journals(tmp_path) == []
    again = Canned({})
    assert label_archive(again, [archive], out).answers == 3 and again.asked == ["0", "1", "2"]


def test_answers_of_others_stay_where_all_that_are_named_failed(archive, tmp_path):
    out = tmp_path / "a.jsonl"
    with pytest.raises(KeyboardInterrupt):
        label_archive(Canned({}, stop_after=2), [archive], out)
    with pytest.raises(BadInputError, match="None of 1 recordings"):
        label_archive(Canned({"2": BAD}), [archive / "2"], out)
    again = Canned({})
    assert label_archive(again, [archive], out, overwrite=True).resumed == 2 and again.asked == ["2"]


def test_overwrite_tries_again_what_failed_in_a_journal(archive, tmp_path):
    out = tmp_path / "a.jsonl"
    with pytest.raises(KeyboardInterrupt):
        label_archive(Canned({"1": BAD}, stop_after=2), [archive], out)
    again = Canned({})
    report = label_archive(again, [archive], out, overwrite=True)
    assert again.asked == ["1", "2"] and (report.resumed, report.damaged) == (1, ())


def test_the_advice_of_the_verb_names_the_bundle(bundle, archive, tmp_path, fails):
    for picture in (archive / "0").iterdir():
        picture.write_bytes(b"damaged")
    words = ("label", bundle, archive / "0", "--face", "whole", "-o", tmp_path / "a.jsonl")
    fails(3, *words, names=(f"logoformer run {bundle} {archive / '0'}",))


# --------------------------------------------------------------------------------------------- names that are no UTF-8
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_folder_of_any_bytes_takes_the_output(archive, tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed (the extra 'label')")
    folder = tmp_path / os.fsdecode(b"d \xff\xfe y")
    folder.mkdir()
    archive.rename(folder / "archive")
    out = folder / f"a{suffix}"
    assert label_archive(Canned({}), [folder / "archive"], out).answers == 3
    written = out.stat().st_mtime_ns
    again = Canned({})
    report = label_archive(again, [folder / "archive"], out)
    assert again.asked == [] and (report.resumed, report.answers) == (3, 3) and out.stat().st_mtime_ns == written
    assert label_archive(Canned({}), [folder / "archive"], out, overwrite=True).resumed == 0
    assert sorted(path.name for path in folder.iterdir()) == [out.name, "archive"]


def test_the_error_of_an_odd_name_goes_into_parquet(archive, tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (the extra 'label')")
    out = tmp_path / "a.parquet"
    label_archive(Canned({"1": {"error": "BadInputError: d\udcff is damaged"}}), [archive], out)
    assert finished_entries(out)[str(archive / "1")]["error"] == r"BadInputError: d\udcff is damaged"
