"""Garbled lines of a journal do not count, and a garbled output is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logoformer.errors import UsageError
from logoformer.workflows.label import LabelReport, label_archive
from PIL import Image

LABELS = ["calm", "glad"]
HEAD = {"logoformer": "0.1.0", "digest": "d", "precision": "fp32", "labels": LABELS, "face": "whole", "hop": 4}
ANSWER = {"time_s": 0.5, "frame": 7, "face": 2, "box": [0.5, 1.0, 2.0, 4.5], "label": "calm", "partial": True}
FOUND = {"answers": [{**ANSWER, "probabilities": {"calm": 0.75, "glad": 0.25}}]}
DEEP = b"[" * 200_000


class Canned:
    start_s = 0.0

    def __init__(self) -> None:
        self.asked: list[str] = []

    def prepare(self):
        return HEAD

    def answers(self, items):
        self.asked = [item.shown for item in items]
        return ((item, FOUND) for item in items)

    def to_json(self):
        return None


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Three folders with a frame each."""
    for clip in range(3):
        (tmp_path / "archive" / str(clip)).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "archive" / str(clip) / "0.png")
    return tmp_path / "archive"


def label(archive: Path, out: Path) -> tuple[list[str], LabelReport]:
    labeller = Canned()
    report = label_archive(labeller, [archive], out)
    return labeller.asked, report


def entry(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def changed(line: bytes) -> bytes:
        value = json.loads(line)
        change(value)
        return json.dumps(value).encode()

    return changed


def answer(**more: Any) -> Callable[[bytes], bytes]:
    return entry(lambda value: value["answers"][0].update(more))


GARBLED = {
    "no-answers": entry(lambda value: value.pop("answers")),
    "error-too": entry(lambda value: value.update(error="x")),
    "number-for-answers": entry(lambda value: value.update(answers=5)),
    "number-for-an-answer": entry(lambda value: value.update(answers=[1, 2])),
    "a-class-is-missing": answer(probabilities={"calm": 1.0}),
    "another-class": answer(probabilities={"calm": 0.5, "sad": 0.5}),
    "no-share": answer(probabilities={"calm": 0.5, "glad": None}),
    "another-label": answer(label="sad"),
    "label-list": answer(label=["calm"]),
    "time-text": answer(time_s="0.5"),
    "box-of-three": answer(box=[1, 2, 3]),
    "more": answer(more=1),
    "recording-list": entry(lambda value: value.update(recording=[])),
    "recording-object": entry(lambda value: value.update(recording={})),
    "recording-number": entry(lambda value: value.update(recording=7)),
    "mark-text": entry(lambda value: value.update(mark="1")),
    "mark-of-texts": entry(lambda value: value.update(mark=["1"])),
    "error-number": entry(lambda value: (value.pop("answers"), value.update(error=5))),
    "deep": lambda _: DEEP,
    "nan": lambda line: line.replace(b"0.75", b"NaN"),
    "twice": lambda line: line.replace(b'"frame"', b'"face"'),
    "half": lambda line: line[:50],
    "zeros": lambda _: b"\0" * 4096,
}  # fmt: skip


@pytest.mark.parametrize("garble", GARBLED.values(), ids=GARBLED)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_garbled_line_of_a_journal_is_answered_anew(archive, tmp_path, suffix, garble):
    whole, out = tmp_path / "whole.jsonl", tmp_path / f"a.{suffix}"
    label(archive, whole)
    lines = whole.read_bytes().splitlines()
    lines[2] = garble(lines[2])
    (tmp_path / f".a.{suffix}.journal").write_bytes(b"\n".join(lines) + b"\n")
    asked, report = label(archive, out)
    assert asked == ["1"] and (report.resumed, report.answers, report.damaged) == (2, 3, ())
    if suffix == "jsonl":
        assert out.read_bytes() == whole.read_bytes()
    assert label(archive, out)[0] == []


@pytest.mark.parametrize("garble", GARBLED.values(), ids=GARBLED)
def test_a_garbled_output_is_left_alone(archive, tmp_path, garble):
    out = tmp_path / "a.jsonl"
    label(archive, out)
    lines = out.read_bytes().splitlines()
    lines[2] = garble(lines[2])
    out.write_bytes(garbled := b"\n".join(lines) + b"\n")
    with pytest.raises(UsageError, match="is damaged; it was left alone"):
        label(archive, out)
    assert out.read_bytes() == garbled


@pytest.mark.parametrize("name", ["a.jsonl", ".a.jsonl.journal"])
def test_a_head_that_is_nested_too_deep_is_not_ours(archive, tmp_path, name):
    (tmp_path / name).write_bytes(DEEP + b"\n")
    with pytest.raises(UsageError, match="holds no answers of this program; it was left alone"):
        label(archive, tmp_path / "a.jsonl")
    assert (tmp_path / name).read_bytes() == DEEP + b"\n"
    assert label_archive(Canned(), [archive], tmp_path / "a.jsonl", overwrite=True).answers == 3


@pytest.mark.parametrize("change", [{"probabilities": [float("nan"), 0.5]}, {"label": "sad"}, {"mark": [None]}])
def test_a_garbled_table_is_left_alone(archive, tmp_path, change):
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = tmp_path / "a.parquet"
    label(archive, out)
    table = pq.read_table(out)
    rows = table.to_pylist()
    rows[1].update(change)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), out)
    garbled = out.read_bytes()
    with pytest.raises(UsageError, match="is damaged; it was left alone"):
        label(archive, out)
    assert out.read_bytes() == garbled
