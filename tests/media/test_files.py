"""Opening of media files: playlists behind what editors put before them, and no descriptor left by a refusal."""

from __future__ import annotations

from pathlib import Path

import pytest
from logoformer.errors import BadInputError, LogoformerError, MachineError, RefusedError
from logoformer.media import video
from logoformer.media.files import PLAYLISTS, open_media


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"\r\n\t ", b"\xef\xbb\xbf\n"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_is_refused_whatever_stands_before_it(tmp_path, kind, before):
    path = tmp_path / "a.mp4"
    path.write_bytes(before + kind + b"\nsecret.mp4\n")
    with pytest.raises(BadInputError, match="is a playlist"):
        open_media(path, follow_links=True)


@pytest.mark.parametrize("follow_links", [True, False])
def test_a_refusal_leaves_no_descriptor_open(tmp_path, follow_links):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "list.mp4").write_bytes(b"#EXTM3U\n")
    (tmp_path / "folder.mp4").mkdir()
    names = ("empty.mp4", "list.mp4", "folder.mp4", "missing.mp4")
    before = descriptors()
    for name, kind in zip(names, (BadInputError, BadInputError, RefusedError, BadInputError), strict=True):
        with pytest.raises(LogoformerError) as caught:
            open_media(tmp_path / name, follow_links=follow_links)
        assert isinstance(caught.value, kind), name
    assert descriptors() == before


def test_without_a_decoder_the_file_is_given_back(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"anything")
    monkeypatch.setattr(video, "importable", lambda _: False)
    before = descriptors()
    with pytest.raises(MachineError, match="package av"):
        video.open_video(tmp_path / "a.mp4", 25.0)
    assert descriptors() == before
