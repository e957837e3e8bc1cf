"""The journal and the output, without a runtime: once a recording, of one provenance."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from logoformer.errors import UsageError, VerificationError
from logoformer.workflows.label import label_archive
from logoformer.workflows.label.output import require_same_head
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
    assert lines == [HEAD, *({"recording": str(archive / str(clip)), **FOUND} for clip in range(4))]
    whole = tmp_path / "whole.jsonl"
    label_archive(Canned(), [archive], whole)
    assert whole.read_bytes() == out.read_bytes()


@pytest.mark.parametrize(
    ("there", "says", "advises"),
    [
        ({**HEAD, "precision": "fp16"}, "(precision: fp16 there, fp32 now)", "repeat it with --precision fp16, "),
        ({**HEAD, "hop": 8, "face": "center"}, "(face: center there, whole now; hop: 8 there, 4 now)", "repeat it"),
        ({**HEAD, "digest": "e", "labels": ["sad"]}, "(digest: e there, d now)", "name another file with -o, or drop"),
        ({"logoformer": "0.1.0"}, "(digest: null there, d now; precision: null there", "name another file"),
        ({**HEAD, "more": 1}, "(more: 1 there, null now)", "name another file"),
        ({**HEAD, "labels": ["sad"]}, '(labels: ["sad"] there, ["calm"] now)', "name another file"),
    ],
)
def test_what_differs_is_named(there, says, advises):
    with pytest.raises(UsageError) as caught:
        require_same_head(Path("a.jsonl"), there, HEAD)
    assert says in caught.value.what and caught.value.next.startswith(advises)
    assert caught.value.next.endswith("rm a.jsonl")
    require_same_head(Path("a.jsonl"), dict(HEAD), HEAD)


def test_names_do_not_tell_where_the_archive_lies(archive, monkeypatch):
    (item,) = list_archive([archive / "3"])
    assert (item.path, item.shown) == (archive / "3", "3")
    assert [item.shown for item in list_archive([archive, archive.parent])] == ["0", "1", "2", "3"]
    monkeypatch.chdir(archive / "2")
    assert [(str(item.path), item.shown) for item in list_archive(["."])] == [(".", "2")]
