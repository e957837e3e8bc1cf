"""The overlay video: every frame at its own time, whole at every end, nothing left of one that failed."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest
from logoformer.camera.answers.contract import FaceCrop, FaceFrame
from logoformer.camera.answers.video import OverlaySink
from logoformer.errors import MachineError, UsageError
from logoformer.media.marks import has_mark

av = pytest.importorskip("av", reason="PyAV is not installed (the extra 'camera')")


def seen(index: int, *, size=(120, 160), time_s: float | None = None) -> FaceFrame:
    picture = np.full((*size, 3), 40, np.uint8)
    crop = FaceCrop(1, (40, 30, 100, 90), 1.0, picture[:2, :2])
    return FaceFrame(picture, "rgb", index / 25 if time_s is None else time_s, index, 0, 0.0, 0.0, (crop,))


def decoded(path: Path) -> list:
    with av.open(str(path)) as container:
        return [(frame.time, frame.width, frame.height) for frame in container.decode(video=0)]


def test_frames_keep_their_own_times_also_uneven_ones(tmp_path):
    target = tmp_path / "deep" / "o.mp4"
    sink = OverlaySink(target, ("a", "b"))
    times = [7.0, 7.04, 7.2, 7.21, 9.0]
    for index, time_s in enumerate(times):
        sink.frame("x", seen(index, time_s=time_s), {})
    assert not target.exists()
    sink.close()
    sink.close()
    assert has_mark(target)  # so that the next one may replace it
    found = decoded(target)
    assert [time_s for time_s, *_ in found] == pytest.approx([time_s - 7.0 for time_s in times], abs=1e-3)
    assert [path.name for path in target.parent.iterdir()] == ["o.mp4"]


def test_a_later_frame_of_another_size_is_fitted_in(tmp_path):
    sink = OverlaySink(tmp_path / "o.mp4", ("a",))
    for index, size in enumerate([(120, 160), (400, 100), (1, 1), (480, 640)]):
        sink.frame("x", seen(index, size=size), {})
    sink.close()
    assert len({size for _, *size in map(list, decoded(tmp_path / "o.mp4")) for size in [tuple(size)]}) == 1


def test_without_a_frame_nothing_is_written(tmp_path):
    sink = OverlaySink(tmp_path / "o.mp4", ("a",))
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    sink = OverlaySink(tmp_path / "o.mp4", ("a",))
    sink.frame("x", seen(0), {})

    class Full:
        def mux(self, packet):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            """Nothing."""

    def write_on() -> None:
        for index in range(1, 200):
            sink.frame("x", seen(index), {})
        sink.close()

    real, sink._container = sink._container, Full()
    with pytest.raises(MachineError, match="cannot be written") as caught:
        write_on()
    assert "full" in caught.value.cause
    real.close()
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_taken_away_is_no_full_disk(tmp_path):
    sink = OverlaySink(tmp_path / "gone" / "o.mp4", ("a",))
    sink.frame("x", seen(0), {})
    shutil.rmtree(tmp_path / "gone")
    with pytest.raises(MachineError, match="No such file") as caught:
        sink.close()
    assert "taken away" in caught.value.cause and "free space" not in caught.value.next
    assert not sink.kept


def test_an_interrupt_while_it_is_closed_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(path: Path) -> None:
        raise KeyboardInterrupt

    sink = OverlaySink(tmp_path / "o.mp4", ("a",))
    sink.frame("x", seen(0), {})
    monkeypatch.setattr("logoformer.camera.answers.video.mark_video", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sink.close()
    assert not sink.kept and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "message"), [("o.avi", "is an .mp4"), ("folder.mp4", "is a folder")])
def test_another_kind_of_target_is_refused(tmp_path, name, message):
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(UsageError, match=message):
        OverlaySink(tmp_path / name, ("a",))


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MachineError, match="av") as caught:
        OverlaySink(tmp_path / "o.mp4", ("a",))
    assert "logoformer[camera]" in caught.value.next
