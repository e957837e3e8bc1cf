"""An archive is labelled once a recording, over interruptions and damaged files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import logoformer
import media_files
import numpy as np
import pytest
from logoformer.bundle import Bundle
from logoformer.cli import main as cli
from logoformer.engine import Runtime
from logoformer.errors import BadInputError, MachineError, UsageError
from logoformer.workflows.label import LabelConfig, LabelReport, PlainLabeller, answering, label_archive
from logoformer.workflows.label.recordings import find_recordings
from PIL import Image

WHOLE = LabelConfig(face="whole")


@pytest.fixture(scope="module")
def runtime(untrained_bundle: Path) -> Iterator[Runtime]:
    with logoformer.load(untrained_bundle, backend="onnxruntime", precision="fp32", threads=1) as runtime:
        yield runtime


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Twelve folders of frames at two depths, one of them damaged, and what is no recording."""
    folder = tmp_path / "archive"
    rng = np.random.default_rng(0)
    for number in range(12):
        clip = folder / ("b" if number % 3 else "a") / f"clip{number}"
        clip.mkdir(parents=True)
        for frame in range(10):
            Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(clip / f"{frame}.png")
    damaged = folder / "a" / "clip9" / "4.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    (folder / ".hidden").mkdir()
    (folder / "list.csv").write_text("no recording")
    return folder


def run(runtime: Runtime, sources: list[Path], out: Path, config: LabelConfig, progress=None) -> LabelReport:
    return label_archive(PlainLabeller(runtime, config), sources, out, progress)


def read(path: Path) -> tuple[dict, list[dict]]:
    head, *entries = [json.loads(line) for line in path.read_text().splitlines()]
    return head, entries


def test_every_recording_is_answered_once_as_the_runtime_answers_it(runtime, archive, tmp_path):
    out = tmp_path / "answers.jsonl"
    report = run(runtime, [archive, archive / "a"], out, WHOLE)  # named twice, answered once
    head, entries = read(out)
    names = [Path(entry["recording"]).name for entry in entries]
    assert names == [f"clip{n}" for n in (0, 3, 6, 9, 1, 2, 4, 5, 7, 8, 10, 11)]
    assert (report.recordings, report.answers, report.resumed) == (12, 11, 0)
    assert [path for path, _ in report.damaged] == [str(archive / "a" / "clip9")]
    for entry in entries:
        if "error" in entry:
            assert entry["error"].startswith("BadInputError: a/clip9/4.png is not an image")  # from the source on
            continue
        (answer,), wanted = entry["answers"], runtime(entry["recording"])
        assert answer["label"] == wanted.label
        found = np.array([answer["probabilities"][name] for name in runtime.labels], np.float32)
        assert found.tobytes() == wanted.probabilities.tobytes()
    assert head["digest"] == runtime.bundle.manifest["digest"] and head["precision"] == "fp32"
    assert head["backend"] == runtime.backend and head["face"] == "whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "archive"]


@pytest.mark.parametrize("torn", [b"", b'{"recording": "half'])
def test_an_interrupted_run_goes_on_and_writes_the_same_file(runtime, archive, tmp_path, monkeypatch, torn):
    run(runtime, [archive], tmp_path / "whole.jsonl", WHOLE)
    out, journal = tmp_path / "answers.jsonl", tmp_path / ".answers.jsonl.journal"
    asked = []

    def read_clip(path: Path, *arguments):
        asked.append(path)
        return read_first(path, *arguments)

    read_first = answering.read_clip
    monkeypatch.setattr(answering, "read_clip", read_clip)

    def interrupt(_: str, done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(runtime, [archive], out, WHOLE, interrupt)
    assert not out.exists()
    with journal.open("ab") as file:
        file.write(torn)
    report = run(runtime, [archive], out, WHOLE)
    assert report.resumed == 7 and len(asked) == len(set(asked)) == 12
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not journal.exists()


def test_a_recording_that_changed_is_answered_anew(runtime, archive, tmp_path):
    def interrupt(_: str, done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(runtime, [archive], tmp_path / "answers.jsonl", WHOLE, interrupt)
    Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(archive / "a" / "clip0" / "99.png")
    report = run(runtime, [archive], tmp_path / "answers.jsonl", WHOLE)
    assert report.resumed == 4


def test_another_call_and_a_second_run_are_refused(runtime, archive, tmp_path):
    out = tmp_path / "answers.jsonl"

    def second(_: str, done: int, total: int) -> None:
        if done == 2:
            with pytest.raises(MachineError, match="Another run"):
                run(runtime, [archive], out, WHOLE)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(runtime, [archive], out, WHOLE, second)
    with pytest.raises(UsageError, match="face: whole there, center now") as caught:
        run(runtime, [archive], out, LabelConfig(face="center"))
    assert caught.value.next.startswith("repeat it with --face whole, ") and f".{out.name}.journal" in caught.value.what
    assert run(runtime, [archive], out, WHOLE).resumed == 2


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_answers_of_other_options_are_not_replaced(runtime, untrained_bundle, archive, tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed (the extra 'label')")
    out = tmp_path / f"answers{suffix}"
    run(runtime, [archive], out, WHOLE)
    before = out.read_bytes()
    with logoformer.load(untrained_bundle, backend="onnxruntime", precision="fp16", threads=1) as other:
        with pytest.raises(UsageError, match=r"\(precision: fp32 there, fp16 now\)") as caught:
            run(other, [archive], out, WHOLE)
        assert caught.value.next.startswith("repeat it with --precision fp32, ")
    with pytest.raises(UsageError, match="face: whole there, center now; hop: 4 there, 5 now") as caught:
        run(runtime, [archive], out, LabelConfig("center", hop=5))
    assert caught.value.next.startswith(
        "repeat it with --face whole --hop 4, name another file with -o, or add --overwrite"
    )
    assert out.read_bytes() == before and [p for p in tmp_path.iterdir() if p.name.endswith(".journal")] == []
    assert run(runtime, [archive], out, WHOLE).resumed == 12  # the same call has nothing left to answer
    assert out.read_bytes() == before
    config = LabelConfig("whole", hop=5)
    assert label_archive(PlainLabeller(runtime, config), [archive], out, overwrite=True).resumed == 0
    with pytest.raises(UsageError, match="hop: 5 there, 4 now"):
        run(runtime, [archive], out, WHOLE)


@pytest.mark.parametrize("text", ["a shopping list\n", '{"tea": 3}\n', "[1]\n"])
def test_a_file_of_something_else_is_left_alone(runtime, archive, tmp_path, text):
    out = tmp_path / "answers.jsonl"
    out.write_text(text)
    with pytest.raises(UsageError, match="holds no answers of this program"):
        run(runtime, [archive], out, WHOLE)
    assert out.read_text() == text
    out.write_text("")  # of mktemp
    run(runtime, [archive], out, WHOLE)
    (tmp_path / ".answers.jsonl.journal").write_text(text)
    with pytest.raises(UsageError, match="holds no answers of this program"):
        run(runtime, [archive], out, WHOLE)


def test_only_the_frames_that_are_looked_at_are_decoded(runtime, tmp_path):
    """As `evaluate` does: a clip of a hundred frames costs no more than one of sixteen."""
    from logoformer.clips import centre_indices

    folder = tmp_path / "archive" / "long"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for frame in range(60):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(folder / f"{frame}.png")
    whole = runtime(folder).probabilities.tobytes()
    seen = set(centre_indices(60, runtime.bundle.sampling).tolist())
    for frame in set(range(60)) - seen:
        (folder / f"{frame}.png").write_bytes(b"damaged")
    assert runtime(folder).probabilities.tobytes() == whole
    (folder / f"{min(seen)}.png").write_bytes(b"damaged")
    with pytest.raises(BadInputError, match=f"{min(seen)}.png"):
        runtime(folder)


def test_a_video_is_answered_along_its_length(runtime, tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed (the extra 'camera')")
    frames = [np.full((64, 64, 3), 2 * number, np.uint8) for number in range(100)]
    media_files.write_video(tmp_path / "one.mp4", frames, "libx264", container="mp4")
    (tmp_path / "two.mp4").write_bytes(b"no video")
    config = LabelConfig("center", hop=10, warmup="repeat")
    report = run(runtime, [tmp_path], tmp_path / "answers.jsonl", config)
    _, (one, two) = read(tmp_path / "answers.jsonl")
    assert len(one["answers"]) == report.answers == 10 and "error" in two
    assert [answer["frame"] for answer in one["answers"]] == list(range(9, 100, 10))
    assert set(one["answers"][0]) == {"time_s", "frame", "label", "probabilities"}  # nothing that differs next time


def test_parquet_holds_the_same(runtime, archive, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (the extra 'label')")
    run(runtime, [archive], tmp_path / "answers.jsonl", WHOLE)
    run(runtime, [archive], tmp_path / "answers.parquet", WHOLE)
    head, entries = read(tmp_path / "answers.jsonl")
    table = pq.read_table(tmp_path / "answers.parquet")
    assert json.loads(table.schema.metadata[b"logoformer"]) == head
    for row, entry in zip(table.to_pylist(), entries, strict=True):
        assert row["recording"] == entry["recording"] and row["error"] == entry.get("error")
        for answer in entry.get("answers", ()):
            assert row["label"] == answer["label"]
            wanted = np.array([answer["probabilities"][name] for name in head["labels"]], np.float32)
            assert np.array(row["probabilities"], np.float32).tobytes() == wanted.tobytes()


def test_the_verb_and_its_refusals(untrained_bundle, archive, tmp_path, capsys, fails):
    words = ["label", str(untrained_bundle), str(archive), "--face", "whole", "--precision", "fp32", "-o"]
    assert cli.main([*words, str(tmp_path / "a.jsonl")]) == 0
    assert "12 recordings, 11 answers, 1 damaged" in capsys.readouterr().out
    written = (tmp_path / "a.jsonl").stat().st_mtime_ns
    assert cli.main([*words, str(tmp_path / "a.jsonl")]) == 0
    text = capsys.readouterr().out
    assert "12 recordings, 12 of them by an earlier run, 11 answers, 1 damaged" in text
    assert "nothing was left to answer; --overwrite answers anew" in text and "clip9: BadInputError" in text
    assert (tmp_path / "a.jsonl").stat().st_mtime_ns == written
    assert cli.main([*words, str(tmp_path / "a.jsonl"), "--overwrite"]) == 0
    assert "  12 recordings in" in capsys.readouterr().out and (tmp_path / "a.jsonl").stat().st_mtime_ns != written
    fails(2, *words, tmp_path / "a.csv", names=("a.jsonl",))
    empty = tmp_path / "empty"
    empty.mkdir()
    fails(3, "label", untrained_bundle, empty, "-o", tmp_path / "b.jsonl", names=(empty,))
    fails(3, "label", untrained_bundle, tmp_path / "gone", "-o", tmp_path / "b.jsonl")
    only = archive / "a" / "clip9"
    fails(3, "label", untrained_bundle, only, "--face", "whole", "-o", tmp_path / "c.jsonl", names=(only,))
    assert Bundle(untrained_bundle).labels  # untouched


def test_links_that_lead_back_do_not_go_round(archive):
    (archive / "a" / "again").symlink_to(archive, target_is_directory=True)
    assert len(list(find_recordings(archive))) == 12
    with pytest.raises(BadInputError):
        list(find_recordings(archive / "b" / "gone"))
