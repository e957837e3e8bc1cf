"""What a file is where another kind was expected."""

from __future__ import annotations

import os

import pytest
from logoformer.bundle.files import parse_json
from logoformer.bundle.kinds import file_kind, refuse_other_kinds
from logoformer.errors import RefusedError

KINDS = {
    "PNG": b"\x89PNG\r\n\x1a\n",
    "JPEG": b"\xff\xd8\xff\xe0",
    "MP4": b"\x00\x00\x00\x20ftypisom" + bytes(40),
    "Matroska": b"\x1aE\xdf\xa3" + bytes(9),
    "zip": b"PK\x03\x04" + bytes(20),
    "gzip": b"\x1f\x8b\x08",
    "PDF": b"%PDF-1.7",
    "safetensors": b"\x10\x00\x00\x00\x00\x00\x00\x00{}",
    "Git LFS": b"version https://git-lfs.github.com/spec/v1",
    "web page": b"\n <!DOCTYPE html>",
    "text": b"the report of today",
    "no text": bytes(range(1, 9)),
    "empty": b" \n",
}


@pytest.mark.parametrize("word", KINDS)
def test_kinds_are_told_and_named_where_json_was_expected(word, tmp_path):
    assert word in file_kind(KINDS[word])
    with pytest.raises(RefusedError) as caught:
        parse_json(KINDS[word], "x")
    assert word in caught.value.cause and "hostile" not in caught.value.cause
    (tmp_path / "x").write_bytes(KINDS[word])
    with pytest.raises(RefusedError, match=f"is no report: it is .*{word}") as caught:
        refuse_other_kinds(tmp_path / "x", "report", "logoformer doctor")
    assert caught.value.next == "logoformer doctor"


@pytest.mark.parametrize("data", [b"{}", b"[1]", b'\xef\xbb\xbf {"a": 1', b"null", b"-1", b'"x"'])
def test_what_may_be_json_is_left_to_its_reader(data, tmp_path):
    assert file_kind(data) == ""
    (tmp_path / "x").write_bytes(data)
    refuse_other_kinds(tmp_path / "x", "report", "")


def test_damaged_json_is_still_called_so():
    with pytest.raises(RefusedError) as caught:
        parse_json(b'{"a": 1', "x")
    assert caught.value.cause == "a damaged or hostile file"


def test_what_is_no_file_is_left_to_its_reader(tmp_path, impatient):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "gone"):
        refuse_other_kinds(path, "report", "")
