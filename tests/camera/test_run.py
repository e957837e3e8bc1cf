from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from logoformer.camera.run import json_lines, run_source
from logoformer.camera.sources.contract import TimedFrame
from logoformer.camera.sources.live import Arrived, Capture, LiveSource, LiveTiming
from logoformer.camera.sources.open import open_source
from logoformer.errors import BadInputError, MachineError, UsageError, VerificationError


def go(engine, path, **options) -> tuple[list[dict], object]:
    lines: list[dict] = []
    with open_source(path, fps=25) as source:
        summary = run_source(engine, source, on_result=lines.append, **options)
    return lines, summary


# -------------------------------------------------------------------------------------------------------------- lines
def test_every_hop_gives_one_line_with_all_its_fields(engine, make_folder, tools):
    lines, summary = go(engine, make_folder([tools.solid("red")] * 20), hop=3)
    assert [line["frame"] for line in lines] == [7, 10, 13, 16, 19]  # the double is warm after 8 frames
    assert [line["sequence"] for line in lines] == [0, 1, 2, 3, 4]
    assert [line["time_s"] for line in lines] == pytest.approx([0.28, 0.4, 0.52, 0.64, 0.76])
    assert set(lines[0]) == {"time_s", "label", "probabilities", "age_ms", "frame", "sequence"}
    assert lines[0]["age_ms"] == 0.25
    assert list(lines[0]["probabilities"]) == list(tools.labels)
    assert (summary.frames, summary.results, summary.stopped, summary.out) == (20, 5, "", None)
    assert summary.seconds > 0
    assert engine.opened[0].closed


@pytest.mark.parametrize("color", ["red", "green", "blue"])
def test_a_folder_and_a_video_are_read_in_their_own_channel_order(engine, make_folder, make_video, tools, color):
    frames = [tools.solid(color)] * 16
    for path in (make_folder(frames), make_video(frames)):
        lines, _ = go(engine, path)
        assert {line["label"] for line in lines} == {color}
        assert sum(lines[0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_times_of_a_video_reach_the_stream(engine, make_video, tools):
    go(engine, make_video([tools.solid("red")] * 12, fps=10.0))
    assert engine.opened[0].times == pytest.approx([index / 10 for index in range(12)])


def test_the_face_decides_what_the_stream_sees(engine, make_folder, tools):
    frame = np.concatenate(
        [tools.solid("red", 40, 20), tools.solid("green", 40, 40), tools.solid("red", 40, 20)], axis=1
    )
    folder = make_folder([frame] * 8)
    whole, _ = go(engine, folder, face="whole")
    center, _ = go(engine, folder, face="center")
    assert whole[0]["probabilities"]["green"] == pytest.approx(0.4615, abs=1e-3)
    assert center[0]["probabilities"]["green"] == pytest.approx(220 / 260, abs=1e-3)
    assert engine.opened[1].sizes[0] == (40, 40, 3)


def test_repeat_answers_from_the_first_hop(engine, make_folder, tools):
    lines, _ = go(engine, make_folder([tools.solid("red")] * 5), hop=1, warmup="repeat")
    assert [line["frame"] for line in lines] == [0, 1, 2, 3, 4]


def test_progress_counts_to_the_end(engine, make_folder, tools):
    calls = []
    go(engine, make_folder([tools.solid("red")] * 3), progress=lambda *call: calls.append(call))
    assert calls == [("run", 1, 3), ("run", 2, 3), ("run", 3, 3)]


# ------------------------------------------------------------------------------------------------------------ partial
def test_a_source_shorter_than_the_span_is_answered_once_at_its_end(engine, make_folder, tools, tmp_path, frames_of):
    out = tmp_path / "o.mp4"
    lines, summary = go(engine, make_folder([tools.solid("blue")] * 5), hop=2, out=out)
    assert [(line["label"], line["frame"], line["partial"]) for line in lines] == [("blue", 4, True)]
    assert summary.results == 1
    assert frames_of(out) == 6  # the last frame once more, with its answer


def test_an_answered_source_gets_no_partial_line(engine, make_folder, tools):
    lines, _ = go(engine, make_folder([tools.solid("blue")] * 9), hop=4)
    assert ["partial" in line for line in lines] == [False]


# ------------------------------------------------------------------------------------------------------------ overlay
def test_the_overlay_has_every_frame_at_the_sources_rate(engine, make_video, tools, tmp_path, frames_of):
    out = tmp_path / "deep" / "o.mp4"
    _, summary = go(engine, make_video([tools.solid("red")] * 20, fps=12.5), out=out)
    assert summary.out == out
    assert frames_of(out) == 20
    with open_source(out) as written:
        assert written.fps == 12.5


@pytest.mark.parametrize(
    ("options", "message"),
    [({"out": "o.avi"}, "is an .mp4"), ({"face": "nose"}, "Unknown face"), ({"out": "folder.mp4"}, "is a folder")],
)
def test_a_wrong_argument_is_refused_before_a_frame_is_read(
    engine, make_folder, tools, tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(UsageError, match=message):
        go(engine, make_folder([tools.solid("red")] * 20), **options)
    assert engine.opened == []


def test_the_overlay_never_replaces_its_own_source(engine, make_video, tools, tmp_path):
    path = make_video([tools.solid("red")] * 10)
    before = path.read_bytes()
    (tmp_path / "link.mp4").symlink_to(path)
    for out in (path, tmp_path / "link.mp4", f"{tmp_path}/./clip.mp4"):
        with pytest.raises(UsageError, match="would replace the video"):
            go(engine, path, out=out)
    assert path.read_bytes() == before


def test_an_overlay_without_opencv_fails_before_the_first_line(engine, make_folder, tools, tmp_path, monkeypatch):
    folder = make_folder([tools.solid("red")] * 20)
    monkeypatch.setitem(sys.modules, "cv2", None)
    lines: list[dict] = []
    with open_source(folder) as source, pytest.raises(MachineError, match="cv2"):
        run_source(engine, source, hop=1, warmup="repeat", out=tmp_path / "o.mp4", on_result=lines.append)
    assert lines == []
    assert not list(tmp_path.glob("*.mp4"))


# --------------------------------------------------------------------------------------------------------------- rate
def slow(make_folder, tools, count: int, fps: float):
    return open_source(make_folder([tools.solid("red")] * count), fps=fps)


@pytest.mark.parametrize("warmup", ["wait", "repeat"])
def test_frames_too_far_apart_for_any_clip_are_no_answers(engine, make_folder, tools, warmup):
    lines: list[dict] = []
    with slow(make_folder, tools, 30, 0.5) as source, pytest.raises(BadInputError, match="2 s apart") as caught:
        run_source(engine, source, hop=1, warmup=warmup, on_result=lines.append)
    assert len(lines) <= 1 and "--fps" in caught.value.next  # the first frame has no neighbour in any recording


def test_pauses_are_counted_and_answers_go_on_after_them(engine, make_folder, tools):
    class Paused:
        live, fps, color, count, path, name = False, 25.0, "rgb", None, None, "paused"

        def __iter__(self):
            times = [0.0, 5.0, 10.0, *(15 + index / 25 for index in range(40))]
            for index, time_s in enumerate(times):
                yield TimedFrame(tools.solid("red"), "rgb", time_s, index)

    lines: list[dict] = []
    summary = run_source(engine, Paused(), hop=1, warmup="repeat", on_result=lines.append)
    assert (summary.resets, summary.frames) == (3, 43)
    assert [line["frame"] for line in lines] == [0, *range(4, 43)]  # none from a frame that stands alone


def test_a_rate_below_what_the_pattern_needs_is_noted(engine, make_folder, tools):
    with slow(make_folder, tools, 20, 2.0) as source:
        (note,) = run_source(engine, source, on_result=lambda _: None).notes
    assert "2 frames a second are fewer than the 2.9" in note
    assert go(engine, make_folder([tools.solid("red")] * 20, "other"))[1].notes == ()


def test_a_reconnect_of_a_camera_empties_the_stream(engine, tools):
    class Camera:
        live, fps, color, count, path, name = True, 25.0, "rgb", None, None, "camera"

        def __iter__(self):
            for index in range(20):
                yield TimedFrame(tools.solid("red"), "rgb", index / 25, index, epoch=index // 10)

    lines: list[dict] = []
    run_source(engine, Camera(), hop=1, on_result=lines.append)
    assert engine.opened[0].cleared == 1
    assert [line["frame"] for line in lines] == [7, 8, 9, 17, 18, 19]  # the double is warm after 8 frames


def test_what_a_live_source_lost_is_counted(engine, tools):
    class Once(Capture):
        def open(self):
            pass

        def read(self):
            for index in range(30):
                yield None if index == 7 else Arrived(lambda: tools.solid("red"), index / 25, (64, 48))

        def close(self):
            pass

    with LiveSource(Once, "double", 25.0, LiveTiming(pause_s=0.01, patience_s=60)) as source:

        def stop(progress: str, done: int, _total: int) -> None:
            if done >= 3 and source.status().reconnects:
                source.close()

        summary = run_source(engine, source, on_result=lambda _: None, progress=stop)
    (dropped, _), (reconnects, _) = summary.live
    assert dropped >= 1 and reconnects >= 1
    assert engine.opened[0].cleared >= 1


# ------------------------------------------------------------------------------------------------------------ failure
def test_a_source_that_breaks_keeps_its_lines_and_its_overlay(engine, make_folder, tools, tmp_path, frames_of):
    folder = make_folder([tools.solid("red")] * 20)
    (folder / "15.png").write_bytes(b"damage")
    out, lines = tmp_path / "o.mp4", []
    with open_source(folder) as source, pytest.raises(BadInputError, match=r"15\.png"):
        run_source(engine, source, out=out, on_result=lines.append)
    assert [line["frame"] for line in lines] == [7, 11]
    assert frames_of(out) == 15


def test_a_source_that_breaks_before_its_span_is_answered_too(engine, make_folder, tools):
    folder = make_folder([tools.solid("green")] * 20)
    (folder / "3.png").write_bytes(b"damage")
    lines: list[dict] = []
    with open_source(folder) as source, pytest.raises(BadInputError):
        run_source(engine, source, on_result=lines.append)
    assert [(line["label"], line["frame"], line["partial"]) for line in lines] == [("green", 2, True)]


def test_a_source_that_breaks_at_once_leaves_no_overlay(engine, make_folder, tools, tmp_path):
    folder = make_folder([tools.solid("red")])
    (folder / "0.png").write_bytes(b"damage")
    with open_source(folder) as source, pytest.raises(BadInputError):
        run_source(engine, source, out=tmp_path / "o.mp4", on_result=print)
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]


def test_an_engine_that_fails_leaves_no_overlay(engine, make_folder, tools, tmp_path, monkeypatch, cv2):
    def fail(stream, frame, time_s):
        if time_s > 0.3:
            raise MachineError("out of memory")

    monkeypatch.setattr(tools.Runtime(1).stream(color="rgb").__class__, "push", fail)
    with pytest.raises(MachineError, match="out of memory"):
        go(engine, make_folder([tools.solid("red")] * 20), out=tmp_path / "o.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]
    assert engine.opened[0].closed


def test_an_answer_that_is_not_a_number_is_not_printed(engine, make_folder, tools, monkeypatch):
    bad = SimpleNamespace(probabilities=np.array([np.nan, 0, 0], np.float32), label="red", age_ms=0.0, sequence=0)
    monkeypatch.setattr(type(engine.stream(color="rgb")), "push", lambda *_: bad)
    with pytest.raises(VerificationError, match="not a number"):
        go(engine, make_folder([tools.solid("red")]))


# ---------------------------------------------------------------------------------------------------------- clean stop
@pytest.mark.parametrize(("error", "stopped"), [(KeyboardInterrupt, "interrupt"), (BrokenPipeError, "pipe")])
def test_a_stop_leaves_a_whole_overlay(engine, make_folder, tools, tmp_path, error, stopped, frames_of):
    def on_result(line):
        if line["frame"] == 11:
            raise error

    out = tmp_path / "o.mp4"
    with open_source(make_folder([tools.solid("red")] * 20)) as source:
        summary = run_source(engine, source, out=out, on_result=on_result)
    assert (summary.stopped, summary.frames, summary.out) == (stopped, 12, out)
    assert frames_of(out) == 11
    assert not list(tmp_path.glob(".part-*"))


def test_a_stop_before_the_first_answer_prints_no_partial_line(engine, make_folder, tools):
    def stop(_stage, done, _total):
        if done == 3:
            raise KeyboardInterrupt

    lines, summary = go(engine, make_folder([tools.solid("red")] * 20), progress=stop)
    assert lines == []
    assert (summary.stopped, summary.frames) == ("interrupt", 3)


SCRIPT = """
import importlib.util, sys, time
from logoformer.camera.run import json_lines, run_source
from logoformer.camera.sources.contract import TimedFrame
from logoformer.camera.sources.live import Arrived, Capture, LiveSource, LiveTiming
from logoformer.camera.sources.open import open_source
spec = importlib.util.spec_from_file_location("doubles", sys.argv[1])
doubles = importlib.util.module_from_spec(spec); spec.loader.exec_module(doubles)
slow = float(sys.argv[4])
with open_source(sys.argv[2]) as source:
    summary = run_source(doubles.ColorEngine(), source, hop=1, warmup="repeat", out=sys.argv[3],
                  on_result=json_lines(sys.stdout), progress=lambda *_: time.sleep(slow))
print(summary.stopped, summary.frames, file=sys.stderr)
"""


def start(folder: Path, out: Path) -> subprocess.Popen[str]:
    """A process that prints a line every 20 ms at most."""
    doubles = Path(__file__).with_name("conftest.py")
    words = [sys.executable, "-c", SCRIPT, str(doubles), str(folder), str(out), "0.02"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_reader_that_goes_away_ends_a_real_process_cleanly(make_folder, tools, tmp_path, frames_of):
    out = tmp_path / "o.mp4"
    with start(make_folder([tools.solid("red")] * 60), out) as process:
        assert json.loads(process.stdout.readline())["label"] == "red"  # flushed: it came long before the end
        process.stdout.close()
        stopped, frames = process.stderr.read().split()  # and nothing else: no complaint of the interpreter's
    assert process.returncode == 0
    assert stopped == "pipe"
    assert int(frames) < 60
    assert frames_of(out) == int(frames) - 1


def test_ctrl_c_ends_a_real_process_cleanly(make_folder, tools, tmp_path, frames_of):
    out = tmp_path / "o.mp4"
    with start(make_folder([tools.solid("red")] * 500), out) as process:
        for _ in range(5):
            process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0
    stopped, frames = stderr.split()
    assert stopped == "interrupt"
    assert 5 <= int(frames) < 500
    assert int(frames) - 1 <= frames_of(out) <= int(frames)
    assert not list(tmp_path.glob(".part-*"))


# ---------------------------------------------------------------------------------------------------------- json_lines
def test_each_line_is_flushed_and_is_json():
    class Flushed(io.StringIO):
        flushes = 0

        def flush(self):
            self.flushes += 1

    stream = Flushed()
    write = json_lines(stream)
    write({"label": "a\nb"})
    write({"label": "c"})
    assert stream.flushes == 2
    assert [json.loads(line)["label"] for line in stream.getvalue().splitlines()] == ["a\nb", "c"]


def test_a_full_disk_behind_the_lines_is_a_machine_error():
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with Path("/dev/full").open("w") as stream:
        with pytest.raises(MachineError, match="No space left"):
            json_lines(stream)({"label": "a"})
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # so that closing does not fail once more
