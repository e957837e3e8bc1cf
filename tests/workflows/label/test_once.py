"""The journal and the output, without a runtime: once a recording, of one provenance."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from logoformer.errors import BadInputError, UsageError, VerificationError
from logoformer.workflows.label import LabelReport, label_archive
from logoformer.workflows.label.output import finished_entries, require_same_head
from logoformer.workflows.label.recordings import list_archive
from PIL import Image

HEAD = {"logoformer": "0.1.0", "digest": "d", "precision": "fp32", "labels": ["calm"], "face": "whole", "hop": 4}
FOUND = {"answers": [{"label": "calm", "probabilities": {"calm": 1.0}}]}


class Canned:
    """A labeller that answers what it is told to; notes what it was asked."""

    start_s = 0.0

    def __init__(self, *, repeat: int = 1, leave: int = 0, stop_after: int | None = None) -> None:
        self.repeat, self.leave, self.stop_after = repeat, leave, stop_after
        self.asked: list[str] = []

    def prepare(self):
        return HEAD

    def answers(self, items):
        self.asked = [item.shown for item in items]
        for number, item in enumerate(reversed(items[self.leave :])):  # in any order
            if number == self.stop_after:
                raise KeyboardInterrupt
            for _ in range(self.repeat):
                yield item, FOUND

    def to_json(self):
        return None


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Four folders with a frame each."""
    for clip in range(4):
        (tmp_path / "archive" / str(clip)).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "archive" / str(clip) / "0.png")
    return tmp_path / "archive"


@pytest.mark.parametrize("repeat", [1, 2])
def test_answers_that_come_twice_end_the_run(archive, tmp_path, repeat):
    out = tmp_path / "a.jsonl"
    if repeat == 2:
        with pytest.raises(VerificationError, match="3 was answered twice"):
            label_archive(Canned(repeat=2), [archive], out)
        assert not out.exists()
    else:
        assert label_archive(Canned(), [archive], out).answers == 4


def test_answers_that_never_come_end_the_run(archive, tmp_path):
    with pytest.raises(VerificationError, match=r"1 recordings were not answered; the first: .*/0\."):
        label_archive(Canned(leave=1), [archive], tmp_path / "a.jsonl")
    assert not (tmp_path / "a.jsonl").exists()


def test_only_what_is_missing_or_changed_is_asked_again(archive, tmp_path):
    out = tmp_path / "a.jsonl"
    with pytest.raises(KeyboardInterrupt):
        label_archive(Canned(stop_after=3), [archive], out)
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(archive / "2" / "1.png")
    again = Canned()
    report = label_archive(again, [archive], out)
    assert again.asked == ["0", "2"] and (report.resumed, report.recordings) == (2, 4)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    items = list_archive([archive])
    assert lines == [HEAD, *({"recording": str(item.path), "mark": item.mark(), **FOUND} for item in items)]
    whole = tmp_path / "whole.jsonl"
    label_archive(Canned(), [archive], whole)
    assert whole.read_bytes() == out.read_bytes()


# --------------------------------------------------------------------------------------------- a file that is whole
@pytest.fixture(params=[".jsonl", ".parquet"])
def out(request, tmp_path: Path) -> Path:
    if request.param == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed (the extra 'label')")
    return tmp_path / f"a{request.param}"


def label(out: Path, *sources: Path, overwrite: bool = False, **canned: int) -> tuple[list[str], LabelReport]:
    """What was asked, and the report."""
    labeller = Canned(**canned)
    report = label_archive(labeller, sources, out, overwrite=overwrite)
    assert sorted(path.name for path in out.parent.iterdir() if path.is_file()) == [out.name]
    return labeller.asked, report


def test_a_finished_file_is_left_as_it_is(archive, out):
    _, first = label(out, archive)
    written = out.stat().st_mtime_ns
    asked, report = label(out, archive)
    assert asked == [] and (report.recordings, report.answers, report.resumed) == (4, 4, 4)
    assert out.stat().st_mtime_ns == written and report.damaged == first.damaged
    assert label(out, *sorted(archive.iterdir(), reverse=True))[0] == []  # the same recordings in another order
    asked, report = label(out, archive, overwrite=True)
    assert asked == ["0", "1", "2", "3"] and report.resumed == 0
    assert out.stat().st_mtime_ns != written


def test_only_what_came_or_changed_since_is_answered(archive, out, tmp_path):
    label(out, archive)
    (archive / "4").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(archive / "4" / "0.png")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(archive / "2" / "1.png")
    asked, report = label(out, archive)
    assert asked == ["2", "4"] and (report.recordings, report.resumed) == (5, 3)
    written = out.read_bytes()
    label(out, archive, overwrite=True)
    assert out.read_bytes() == written, "the file is that of one run"
    assert label(out, archive)[0] == []


def test_what_a_file_holds_comes_back_out_of_it(archive, out, monkeypatch):
    """Answers of every shape: of faces, none at all, an error."""
    share = float(np.float32(0.1))
    answer = {"label": "calm", "probabilities": {"calm": share}}
    given = {
        "0": {"answers": [{"time_s": 0.5, "frame": 7, "face": 2, "box": [0.5, 1.0, 2.0, 4.5], **answer}, answer]},
        "1": {"answers": []}, "2": {"error": "BadInputError: 2 is damaged"}, "3": FOUND,
    }  # fmt: skip
    monkeypatch.setattr(Canned, "answers", lambda self, items: ((item, given[item.shown]) for item in items))
    label(out, archive)
    held = {Path(entry["recording"]).name: entry for entry in finished_entries(out).values()}
    marks = {item.shown: item.mark() for item in list_archive([archive])}
    assert held == {n: {"recording": str(archive / n), "mark": marks[n], **one} for n, one in given.items()}
    report = label_archive(Canned(), [archive], out)
    assert (report.resumed, report.answers, len(report.damaged)) == (4, 3, 1)


def test_answers_of_other_recordings_are_not_replaced(archive, out):
    label(out, archive)
    before = out.read_bytes()
    with pytest.raises(UsageError, match=r"answers of 3 recordings .* the first .*/0;") as caught:
        label(out, archive / "3")
    assert "--overwrite" in caught.value.next and out.read_bytes() == before
    assert label(out, archive / "3", overwrite=True)[1].recordings == 1


def test_an_odd_name_is_known_again_or_answered_again(tmp_path, out):
    for name in ("a\x01", "a\\x01", "b\udcff"):  # the first two look the same in Parquet
        (tmp_path / "archive" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "archive" / name / "0.png")
    label(out, tmp_path / "archive")
    asked, report = label(out, tmp_path / "archive")
    assert len(asked) == (2 if out.suffix == ".parquet" else 0) and report.recordings == 3


def test_a_file_of_marks_that_are_missing_is_answered_anew(archive, tmp_path):
    """As versions before wrote it."""
    out = tmp_path / "a.jsonl"
    lines = [HEAD, *({"recording": str(archive / str(clip)), **FOUND} for clip in range(4))]
    out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert label(out, archive)[1].resumed == 0


@pytest.mark.parametrize("rest", [b'{"recording": "half', b"[1]\n", b"{}\n", b"\xff\n"])
def test_a_damaged_file_is_left_alone(archive, tmp_path, rest):
    out = tmp_path / "a.jsonl"
    damaged = json.dumps(HEAD).encode() + b"\n" + rest
    out.write_bytes(damaged)
    with pytest.raises(UsageError, match="is damaged; it was left alone"):
        label_archive(Canned(), [archive], out)
    assert out.read_bytes() == damaged
    assert label(out, archive, overwrite=True)[1].answers == 4


def test_overwrite_replaces_any_file_and_goes_on_after_an_interruption(archive, tmp_path, monkeypatch):
    out = tmp_path / "a.jsonl"
    out.write_text("a shopping list\n")
    (tmp_path / ".a.jsonl.journal").write_text(json.dumps({**HEAD, "hop": 8}) + "\n{}\n")
    with pytest.raises(KeyboardInterrupt):
        label_archive(Canned(stop_after=3), [archive], out, overwrite=True)
    assert out.read_text() == "a shopping list\n"
    asked, report = label(out, archive, overwrite=True)
    assert asked == ["0"] and report.resumed == 3
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(UsageError, match="left alone"):
        label_archive(Canned(), [archive], tmp_path / "folder.jsonl", overwrite=True)


@pytest.mark.parametrize(
    ("there", "says", "advises"),
    [
        ({**HEAD, "precision": "fp16"}, "(precision: fp16 there, fp32 now)", "repeat it with --precision fp16, "),
        ({**HEAD, "hop": 8, "face": "center"}, "(face: center there, whole now; hop: 8 there, 4 now)", "repeat it"),
        ({**HEAD, "digest": "e", "labels": ["sad"]}, "(digest: e there, d now)", "name another file with -o, or add"),
        ({"logoformer": "0.1.0"}, "(digest: null there, d now; precision: null there", "name another file"),
        ({**HEAD, "more": 1}, "(more: 1 there, null now)", "name another file"),
        ({**HEAD, "labels": ["sad"]}, '(labels: ["sad"] there, ["calm"] now)', "name another file"),
    ],
)
def test_what_differs_is_named(there, says, advises):
    with pytest.raises(UsageError) as caught:
        require_same_head(Path("a.jsonl"), there, HEAD)
    assert says in caught.value.what and caught.value.next.startswith(advises)
    assert caught.value.next.endswith("or add --overwrite, which answers anew")
    require_same_head(Path("a.jsonl"), dict(HEAD), HEAD)


def test_names_do_not_tell_where_the_archive_lies(archive, monkeypatch):
    (item,) = list_archive([archive / "3"])
    assert (item.path, item.shown) == (archive / "3", "3")
    assert [item.shown for item in list_archive([archive, archive.parent])] == ["0", "1", "2", "3"]
    monkeypatch.chdir(archive / "2")
    assert [(str(item.path), item.shown) for item in list_archive(["."])] == [(".", "2")]


def test_a_linked_folder_is_left_out_and_named(archive, tmp_path, caplog):
    elsewhere = tmp_path / "elsewhere"
    (archive / ".store").mkdir()
    for folder in (elsewhere / "5", archive / ".store" / "6"):
        folder.mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "0.png")
    (archive / "in").symlink_to(archive / "3", target_is_directory=True)  # answered under its own name
    assert label_archive(Canned(), [archive], tmp_path / "a.jsonl").links == () and not caplog.records
    (archive / "out.mp4").symlink_to(elsewhere, target_is_directory=True)
    (archive / "stored").symlink_to(archive / ".store", target_is_directory=True)
    report = label_archive(Canned(), [archive], tmp_path / "a.jsonl")
    assert (report.recordings, report.links) == (4, (str(archive / "out.mp4"), str(archive / "stored")))
    assert f"2 folders are links and were left out, the first {archive / 'out.mp4'}" in caplog.text
    caplog.clear()
    named = label_archive(Canned(), [archive, archive / "out.mp4", archive / "stored"], tmp_path / "b.jsonl")
    assert (named.recordings, named.links) == (6, ()) and not caplog.records
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "there").symlink_to(archive, target_is_directory=True)
    with pytest.raises(BadInputError, match="holds no video") as caught:
        label_archive(Canned(), [tmp_path / "links"], tmp_path / "c.jsonl")
    assert "links are not followed" in caught.value.cause and str(tmp_path / "links" / "there") in caught.value.next


def test_a_recording_that_is_named_on_two_ways_is_answered_once(archive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "again").symlink_to(archive, target_is_directory=True)
    sources = ["archive", archive, tmp_path / "again", archive / ".." / "archive" / "2", archive.parent / "again" / "1"]
    assert [str(item.path) for item in list_archive(sources)] == [f"archive/{clip}" for clip in range(4)]
    (archive / "one.mp4").write_bytes(b"")
    (archive / "other.mp4").symlink_to(archive / "one.mp4")  # a file of another name is another recording
    assert [item.shown for item in list_archive([*sources, archive / "other.mp4"])][4:] == ["one.mp4", "other.mp4"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_link_in_the_place_of_the_journal_is_not_written_through(archive, tmp_path, overwrite):
    (tmp_path / "mine").write_text("important")
    (tmp_path / ".a.jsonl.journal").symlink_to("mine")
    with pytest.raises(UsageError, match="is a link"):
        label_archive(Canned(), [archive], tmp_path / "a.jsonl", overwrite=overwrite)
    assert (tmp_path / "mine").read_text() == "important" and not (tmp_path / "a.jsonl").exists()


@pytest.mark.parametrize("kind", ["pipe", "dangling link"])
def test_an_output_that_is_no_file_is_left_alone(archive, tmp_path, kind):
    out = tmp_path / "a.jsonl"
    os.mkfifo(out) if kind == "pipe" else out.symlink_to("nowhere")
    with pytest.raises(UsageError, match="is no file"):
        label_archive(Canned(), [archive], out)
    assert out.is_fifo() or out.is_symlink()
