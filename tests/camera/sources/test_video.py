"""Videos as sources; what decodes them is tested in tests/media."""

from __future__ import annotations

from pathlib import Path

import pytest
from logoformer.camera.sources.contract import TimedFrame
from logoformer.camera.sources.open import open_source
from logoformer.camera.sources.video import VideoFile
from logoformer.errors import BadInputError


def read(path: Path) -> tuple[list[TimedFrame], BadInputError | None]:
    """Everything that a video delivers, and the error after it."""
    delivered: list[TimedFrame] = []
    try:
        with open_source(path) as source:
            delivered.extend(source)
    except BadInputError as error:
        return delivered, error
    return delivered, None


@pytest.mark.parametrize(
    ("name", "fourcc"), [("a.mp4", "mp4v"), ("a.avi", "MJPG"), ("a.mkv", "mp4v"), ("a.avi", "XVID")]
)
def test_a_whole_video_gives_all_its_frames_and_times(make_video, tools, name, fourcc):
    path = make_video([tools.textured(index) for index in range(40)], name, fourcc, fps=20.0)
    with open_source(path) as source:
        assert (source.fps, source.count, source.color, source.path) == (20.0, 40, "rgb", path)
        assert (source.live, source.name) == (False, str(path))
    delivered, error = read(path)
    assert error is None
    assert [one.index for one in delivered] == list(range(40))
    assert [one.time_s for one in delivered] == pytest.approx([index / 20 for index in range(40)])
    assert {one.frame.shape for one in delivered} == {(96, 128, 3)}
    assert {(one.epoch, one.captured_s) for one in delivered} == {(0, None)}


def test_a_video_comes_in_rgb(make_video, tools):
    delivered, _ = read(make_video([tools.solid("red", 64, 64)] * 3))
    red, green, blue = delivered[0].frame[32, 32].astype(int)
    assert delivered[0].color == "rgb"
    assert red > 180 > 60 > max(blue, green)


def test_frames_hidden_by_an_edit_list_are_not_missed(make_video, tools, tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed (the extra 'camera')")
    whole = make_video([tools.textured(index) for index in range(40)])
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(tools.hide_frames(whole.read_bytes(), 0.8))
    delivered, error = read(cut)
    assert len(delivered) == 20
    assert error is None
    assert VideoFile(cut, 25.0).count == 20


def test_a_truncated_mp4_with_its_index_first_delivers_its_beginning(make_video, tools, tmp_path):
    data = tools.index_first(make_video([tools.textured(index) for index in range(40)]).read_bytes())
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    whole.write_bytes(data)
    cut.write_bytes(data[: len(data) // 2])
    assert (len(read(whole)[0]), read(whole)[1]) == (40, None)
    delivered, error = read(cut)
    assert 3 < len(delivered) < 30
    assert f"{len(delivered)} of 40 frames" in error.what


def test_a_name_is_never_taken_for_a_protocol(make_video, tools, tmp_path, monkeypatch):
    make_video([tools.solid("red")] * 4).rename(tmp_path / "concat:a|b%03d.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(read(Path("concat:a|b%03d.mp4"))[0]) == 4


def test_a_video_that_may_not_be_read_is_named(make_video, tools, monkeypatch):
    path = make_video([tools.solid("red")])

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("logoformer.media.files.os.open", denied)
    with pytest.raises(BadInputError, match=r"clip\.mp4 cannot be read: permission denied"):
        open_source(path)
