"""GStreamer pipelines through a real child: frames and times, a killed child, reasons, nothing left behind."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import threading
from pathlib import Path

import cameras
import numpy as np
import pytest
from logoformer.camera.sources import gstreamer
from logoformer.camera.sources.gstreamer import pipeline_name, scrub, split_pipeline
from logoformer.camera.sources.open import open_source
from logoformer.errors import LogoformerError, MachineError, UsageError

pytest.importorskip("av", reason="PyAV is not installed (the extra 'camera')")
LIVE = "gst:videotestsrc is-live=true pattern=white ! video/x-raw,width=64,height=48,framerate=30/1"


def children() -> set[int]:
    """Process ids of this process's children."""
    own = str(os.getpid())
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = status.read_text().rpartition(")")[2].split()
            if fields[1] == own:
                found.add(int(status.parent.name))
    return found


@pytest.fixture(autouse=True)
def nothing_is_left(request):
    if "real" in request.keywords or "pipeline" in request.fixturenames:
        cameras.require_gstreamer("gst-launch-1.0")
    threads, processes, descriptors = set(threading.enumerate()), children(), len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert set(threading.enumerate()) <= threads and children() <= processes
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors + 1


@pytest.fixture
def pipeline() -> str:
    return LIVE


def test_a_pipeline_gives_frames_with_its_own_times(pipeline):
    with open_source(pipeline) as source:
        seen = list(itertools.islice(source, 15))
    assert {one.frame.shape for one in seen} == {(48, 64, 3)} and all(one.frame.mean() > 240 for one in seen)
    steps = np.diff([one.time_s for one in seen]) / np.diff([one.index for one in seen])
    assert np.median(steps) == pytest.approx(1 / 30, abs=2e-3)
    assert (source.name, source.fps) == ("gst:videotestsrc ! video/x-raw", pytest.approx(30))


def test_a_killed_child_is_replaced_and_a_new_epoch_begins(pipeline):
    before = children()
    with open_source(pipeline) as source:
        frames = iter(source)
        first = next(frames)
        (child,) = children() - before
        os.kill(child, signal.SIGKILL)
        second = next(one for one in frames if one.epoch)
        assert (first.epoch, second.epoch) == (0, 1) and second.time_s > first.time_s
        assert source.status().reconnects == 1
        (again,) = children() - before
        assert again != child


def test_a_hung_child_is_noticed_and_replaced(pipeline):
    before = children()
    with open_source(pipeline) as source:
        frames = iter(source)
        next(frames)
        (child,) = children() - before
        os.kill(child, signal.SIGSTOP)
        assert next(one for one in frames if one.epoch).epoch == 1
        assert child not in children()


def test_closing_ends_a_child_that_hangs(pipeline):
    before = children()
    source = open_source(pipeline)
    (child,) = children() - before
    os.kill(child, signal.SIGSTOP)
    source.close()  # the fixture looks for what is left


def test_a_child_that_never_stops_complaining_goes_on(pipeline, monkeypatch):
    monkeypatch.setenv("GST_DEBUG", "*:6")  # megabytes a second on stderr
    with open_source(pipeline) as source:
        sizes = []
        for one in itertools.islice(source, 30):
            assert one.epoch == 0
            log = os.fstat(source._capture._log.fileno())
            sizes.append(log.st_blocks * 512)
        assert log.st_size > 2 * gstreamer.MAX_LOG_BYTES  # written
        assert min(sizes[-3:]) < log.st_size / 2  # kept
        assert source._capture._lines()


@pytest.mark.parametrize(
    ("text", "reason", "cause"),
    [
        ("gst:nosuchelement", "exit status 1", "a plugin that is not installed"),
        ("gst:videotestsrc nosuchproperty=1", "exit status", ""),
        ("gst:filesrc location=/nope ! decodebin", "gives no frames", ""),
        ("gst:audiotestsrc num-buffers=1", "", ""),
        ("gst:videotestsrc num-buffers=0", "gives no frames", ""),
        ("csi:0", "csi:0: the pipeline ended", "a plugin that is not installed"),
    ],
)
def test_a_pipeline_that_fails_says_why(pipeline, text, reason, cause):
    with pytest.raises(LogoformerError) as caught:
        open_source(text)
    assert reason in caught.value.what and cause in caught.value.cause
    assert isinstance(caught.value, MachineError) and caught.value.next
    if text == "gst:filesrc location=/nope ! decodebin":
        assert caught.value.next.endswith(" filesrc location=/nope ! decodebin ! fakesink")


def test_a_password_in_a_pipeline_is_not_shown(pipeline):
    port = cameras.free_port()
    text = f"gst:rtspsrc location=rtsp://admin:secret@127.0.0.1:{port}/x user-pw=secret ! decodebin"
    with pytest.raises(MachineError) as caught:
        open_source(text)
    assert "secret" not in str(caught.value) and caught.value.next.endswith(" PIPELINE ! fakesink")
    assert scrub("Could not open rtsp://a:secret@h/x user-pw=secret token = secret") == (
        "Could not open rtsp://h/x user-pw=... token = ..."
    )
    assert pipeline_name("v4l2src device=/dev/video0 ! video/x-raw,width=3 ! a.") == "gst:v4l2src ! video/x-raw ! a."


@pytest.mark.parametrize(
    "text",
    [
        "gst:",
        "gst:   ",
        "gst:videotestsrc !",
        "gst:! x",
        "gst:a 'b",
        "gst:videotestsrc ! fakesink",
        "gst:a ! appsink x=1",
    ],
)
def test_a_pipeline_that_cannot_be_one_is_a_usage_error(text):
    with pytest.raises(UsageError):
        open_source(text)


def test_words_are_split_as_a_shell_would():
    assert split_pipeline("filesrc location='a b.mp4' ! decodebin") == ["filesrc", "location=a b.mp4", "!", "decodebin"]


def test_without_the_program_its_package_is_named(monkeypatch):
    monkeypatch.setattr(gstreamer.shutil, "which", lambda _: None)
    with pytest.raises(MachineError, match=r"gst-launch-1\.0, which is not installed") as caught:
        open_source(LIVE)
    assert "gstreamer1.0-tools" in caught.value.next
    assert shutil.which is not None
