"""The mark of our own videos."""

from __future__ import annotations

from pathlib import Path

from logoformer.media.marks import MARK, has_mark, mark_video


def test_marks_are_found_at_the_end_alone(tmp_path: Path):
    path = tmp_path / "x.mp4"
    path.write_bytes(b"video")
    assert not has_mark(path) and not has_mark(tmp_path / "gone")
    mark_video(path)
    assert has_mark(path)
    path.write_bytes(path.read_bytes() + b"more")
    assert not has_mark(path)


def test_the_mark_is_one_whole_box_that_players_skip(tmp_path: Path):
    path = tmp_path / "x.mp4"
    path.write_bytes(b"")
    mark_video(path)
    data = path.read_bytes()
    assert int.from_bytes(data[:4], "big") == len(data) and data[4:8] == b"free" and data[8:] == MARK
