from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from logoformer.camera.sources.folder import FrameFolder
from logoformer.camera.sources.open import open_source
from logoformer.camera.sources.video import VideoFile
from logoformer.errors import BadInputError, MachineError, UsageError


def test_a_folder_is_frames_and_a_file_is_a_video(make_folder, make_video, tools):
    with (
        open_source(make_folder([tools.solid("red")])) as folder,
        open_source(make_video([tools.solid("red")])) as video,
    ):
        assert isinstance(folder, FrameFolder)
        assert isinstance(video, VideoFile)
        assert (folder.color, video.color) == ("rgb", "rgb")
        assert [len(list(folder)), len(list(video))] == [1, 1]


def test_a_folder_without_a_rate_runs_at_the_default_sampling_rate(make_folder, tools):
    folder = make_folder([tools.solid("red")] * 3)
    assert [captured.time_s for captured in open_source(folder)] == pytest.approx([0, 0.04, 0.08])
    assert [captured.time_s for captured in open_source(folder, fps=10)] == pytest.approx([0, 0.1, 0.2])


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf"), 1001.0])
def test_impossible_rates_are_a_usage_error(make_folder, tools, fps):
    with pytest.raises(UsageError, match="frames per second"):
        open_source(make_folder([tools.solid("red")]), fps=fps)


def test_digits_are_a_camera_even_where_a_folder_has_that_name(make_folder, tools, monkeypatch, tmp_path):
    folder = make_folder([tools.solid("red")], name="0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("logoformer.camera.sources.device.DEVICES", tmp_path)
    with pytest.raises(MachineError, match=r"There is no camera .*video0"):
        open_source("0")
    assert open_source("./0").path == Path("0")
    assert folder.is_dir()


@pytest.mark.parametrize("text", ["missing.mp4", "ftp://127.0.0.1/live", "²", "٣", "99999", "9" * 5000, "a\0b"])
def test_what_is_not_there_is_bad_input_with_a_next_step(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("logoformer.camera.sources.device.DEVICES", tmp_path)
    with pytest.raises(BadInputError) as caught:
        open_source(text)
    assert caught.value.next


@pytest.mark.parametrize(
    ("text", "cause", "shown"),
    [
        ("foo://x", "only GStreamer", "foo://x"),
        ("http3://10.0.0.5/live", "http://", "http3://10.0.0.5/live"),
        ("rstp://admin:secret@10.0.0.5/live?pwd=secret", "rtsp://", "rstp://10.0.0.5/live?..."),
        ("udp://239.0.0.1:1234", "only GStreamer", "udp://"),
        ("rtmp://10.0.0.5/live", "only GStreamer", "rtmp://10.0.0.5/live"),
        ("file:///home/ada/a.mp4", "by its path", "file:///home/ada/a.mp4"),
        ("rtsp:/admin:secret@10.0.0.5/live", "two slashes", "rtsp:..."),
        ("gts:videotestsrc ! fakesink", "gst:", "gts:..."),
        ("csi:12", "one digit", "csi:..."),
    ],
)
def test_schemes_that_are_not_known_are_told_with_those_that_are(text, cause, shown):
    with pytest.raises(BadInputError) as caught:
        open_source(text)
    error = caught.value
    assert cause in error.cause and shown in error.what and "secret" not in str(error)
    known = ("rtsp://", "https://", "gst:PIPELINE", "csi:0")
    assert all(one in error.next for one in known) or text.startswith(("file", "rtsp:"))


def test_a_file_whose_name_looks_like_a_url_is_a_file(make_video, tools, monkeypatch, tmp_path):
    video = make_video([tools.solid("red")])
    (tmp_path / "foo:").mkdir()
    video.rename(tmp_path / "foo:" / "x.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(list(open_source("foo://x.mp4"))) == 1


def test_an_empty_text_is_not_the_folder_we_stand_in():
    with pytest.raises(UsageError, match="empty"):
        open_source("")


def test_a_name_that_is_too_long_is_bad_input(tmp_path):
    with pytest.raises(BadInputError, match="cannot be opened"):
        open_source(tmp_path / ("x" * 300))


def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path):
    # In a process of its own: were the pipe opened, this test would otherwise never end.
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    script = (
        "import sys\nfrom logoformer.camera.sources.open import open_source\n"
        "try: open_source(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(pipe)], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("BadInputError")
    assert "neither a video file nor a folder" in done.stdout


def test_a_device_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="neither a video file nor a folder"):
        open_source("/dev/null")


def test_a_folder_that_may_not_be_entered_is_named(monkeypatch, tmp_path):
    def denied(path, **_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", denied)
    with pytest.raises(BadInputError, match="permission denied"):
        open_source(tmp_path / "clip.mp4")


def test_reading_a_folder_imports_no_decoder_and_no_torch(make_folder, tools):
    folder = make_folder([tools.solid("red")])
    script = (
        "import sys, logoformer.camera.run\n"
        "from logoformer.camera.sources.open import open_source\n"
        "list(open_source(sys.argv[1]))\n"
        "print([name for name in ('av', 'cv2', 'torch', 'onnxruntime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_a_decoder_the_package_to_install_is_named(make_video, tools, monkeypatch):
    path = make_video([tools.solid("red")])
    monkeypatch.setitem(sys.modules, "av", None)
    assert len(list(open_source(path))) == 1  # by OpenCV
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MachineError) as caught:
        open_source(path)
    assert "package av" in caught.value.what
    assert caught.value.next == "pip install 'logoformer[camera]'"


@pytest.mark.parametrize("text", ["gst:videotestsrc", "csi:0"])
def test_a_pipeline_without_pyav_names_the_package_to_install(text, monkeypatch):
    monkeypatch.setattr("logoformer.camera.sources.gstreamer.shutil.which", lambda _: "/usr/bin/gst-launch-1.0")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MachineError, match="package av") as caught:
        open_source(text)
    assert caught.value.next == "pip install 'logoformer[camera]'"


def test_a_network_camera_without_a_decoder_names_the_package_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MachineError, match="Reading a camera needs the Python package"):
        open_source("rtsp://127.0.0.1:1/x")
