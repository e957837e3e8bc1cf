"""The mark of our own videos."""

from __future__ import annotations

from pathlib import Path

from logoformer.media.marks import has_mark, mark_video


def test_marks_are_found_at_the_end_alone(tmp_path: Path):
    path = tmp_path / "x.mp4"
    path.write_bytes(b"video")
    assert not has_mark(path) and not has_mark(tmp_path / "gone")
    mark_video(path)
    assert has_mark(path)
    path.write_bytes(path.read_bytes() + b"more")
    assert not has_mark(path)
