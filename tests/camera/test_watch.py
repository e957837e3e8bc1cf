"""The whole chain on real runtimes: `watch` and `run` and streams pushed by hand give the same answers."""

from __future__ import annotations

import itertools
import json
import threading
import urllib.request
from pathlib import Path

import logoformer
import numpy as np
import pytest
from logoformer.bundle.alignment import STANDARD, align
from logoformer.camera import Watch
from logoformer.camera.answers.contract import CallbackSink, FaceAnswer
from logoformer.camera.answers.smoothing import AnswerConfig
from logoformer.camera.run import run_source
from logoformer.camera.sources.open import open_source
from logoformer.errors import BadInputError, UsageError
from PIL import Image
from watching import ScriptedSource, flat, wait_for

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (the extra 'cpu' or 'gpu')")

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    wait_for(lambda: not {thread for thread in set(threading.enumerate()) - before if "logoformer" in thread.name})


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    """Two drawn faces that cross, as a video."""
    pytest.importorskip("torch", reason="drawing needs the extra 'train'")
    pytest.importorskip("cv2", reason="writing the video needs the extra 'train'")
    from logoformer.model.synthetic.layout import write_scene

    path = tmp_path_factory.mktemp("scene") / "scene.mp4"
    write_scene(path, seed=3, people=2, rounds=1)
    return path


@pytest.fixture
def runtime(untrained_bundle):
    with logoformer.load(untrained_bundle, backend="onnxruntime", precision="fp32", threads=1) as opened:
        yield opened


@pytest.fixture
def recording(tmp_path) -> Path:
    """A folder of 90 pictures."""
    folder = tmp_path / "frames"
    folder.mkdir()
    random = np.random.default_rng(5)
    for index in range(90):
        Image.fromarray(random.integers(0, 256, (30, 40, 3), np.uint8)).save(folder / f"{index}.png")
    return folder


def watched(runtime, *sources, **options) -> list[FaceAnswer]:
    with Watch(runtime, sources, **options) as watch:
        return list(watch)


# ------------------------------------------------------------------------------------------------------------- equality
def test_the_ten_lines_of_the_docs_answer_for_every_face_of_a_scene(untrained_bundle, scene, tmp_path, monkeypatch):
    text = (ROOT / "docs" / "watch.md").read_text(encoding="utf-8")
    block = text.partition("<!-- ten lines -->")[2].partition("```python\n")[2].partition("```")[0]
    assert len(block.strip().splitlines()) <= 10
    (tmp_path / "face.bundle").symlink_to(untrained_bundle)
    (tmp_path / "scene.mp4").symlink_to(scene)
    monkeypatch.chdir(tmp_path)
    printed: list[str] = []
    exec(compile(block, "docs/watch.md", "exec"), {"print": lambda *words: printed.append(" ".join(map(str, words)))})
    faces = {line.split("face ")[1].split(":")[0] for line in printed}
    assert len(printed) > 20 and len(faces) >= 2


@pytest.mark.parametrize("face", ["whole", "center"])
def test_watch_run_and_a_stream_by_hand_give_equal_answers_for_a_given_face(runtime, recording, face):
    lines: list[dict] = []
    with open_source(recording, 25) as source:
        run_source(runtime, source, face=face, hop=3, on_result=lines.append)
    answers = watched(runtime, recording, face=face, hop=3, fps=25)
    by_hand = []
    with runtime.stream(hop=3, color="rgb") as stream:
        for index in range(90):
            pixels = np.asarray(Image.open(recording / f"{index}.png"))
            pixels = pixels if face == "whole" else pixels[:, 5:35]
            by_hand.append(stream.push(pixels, index / 25))
    by_hand = [result for result in by_hand if result is not None]
    assert len(answers) == len(lines) == len(by_hand) > 5
    for answer, line, result in zip(answers, lines, by_hand, strict=True):
        np.testing.assert_array_equal(answer.result.probabilities, result.probabilities)
        assert (answer.index, answer.time_s) == (line["frame"], line["time_s"])
        assert list(line["probabilities"].values()) == pytest.approx(answer.result.probabilities.tolist(), abs=1e-6)


def test_watch_run_and_the_parts_by_hand_give_equal_answers_for_found_faces(runtime, scene, monkeypatch):
    """Finder, alignment and streams, put together here anew, against both programs."""
    from logoformer.camera.faces.finder import FaceFinder

    monkeypatch.setattr(runtime.bundle, "alignment", STANDARD)
    lines: list[dict] = []
    with open_source(scene) as source:
        run_source(runtime, source, face="detect", hop=4, on_result=lines.append)
    answers = watched(runtime, scene, hop=4)

    size = runtime.bundle.image_size
    finder, streams, by_hand = FaceFinder(), {}, {}
    with open_source(scene) as source:
        for timed in source:
            found = finder.find(timed.frame, timed.color, timed.time_s)
            for face in found.gone:
                if face in streams:
                    streams.pop(face).close()
            for face in found.faces:
                if face.id not in streams:
                    streams[face.id] = runtime.stream(hop=4, color=timed.color)
                if face.reset:
                    streams[face.id].reset()
                result = streams[face.id].push(align(timed.frame, face.points, STANDARD, size), timed.time_s)
                if result is not None:
                    by_hand[face.id, timed.index] = result.probabilities
    for stream in streams.values():
        stream.close()

    assert len({face for face, _ in by_hand}) >= 2 and len(by_hand) > 20
    assert {(one.face, one.index) for one in answers} == set(by_hand) == {(one["face"], one["frame"]) for one in lines}
    for one in answers:
        np.testing.assert_array_equal(one.result.probabilities, by_hand[one.face, one.index])
    for one in lines:
        wanted = by_hand[one["face"], one["frame"]]
        assert list(one["probabilities"].values()) == pytest.approx(wanted.tolist(), abs=1e-6)


def test_a_bundle_without_alignment_gets_squares(runtime, scene, monkeypatch):
    monkeypatch.setattr(runtime.bundle, "alignment", None)
    with Watch(runtime, [scene], hop=8, warmup="repeat") as watch:
        assert watch.board.facts["alignment"].startswith("not aligned")
        next(iter(watch))
        (view, *_) = watch.board.state()[1][0].faces
        assert view.crop.shape == (runtime.bundle.image_size,) * 2 + (3,)


# ----------------------------------------------------------------------------------------------------------------- life
def test_an_iteration_that_is_left_and_a_stop_end_everything(runtime):
    source = ScriptedSource(live=True)
    source.give(*(flat(n) for n in range(200)))
    with Watch(runtime, [source], face="whole", hop=1, warmup="repeat") as watch:
        for answer in watch:
            assert answer.label
            break
    assert source.closed
    with Watch(runtime, [ScriptedSource(live=True)], face="whole") as watch:
        threading.Timer(0.05, watch.stop).start()
        assert list(watch) == []


def test_streams_are_free_again_afterwards(runtime, recording):
    for _ in range(3):
        assert len(watched(runtime, recording, face="whole", hop=30, warmup="repeat")) == 3
    opened = [runtime.stream(color="rgb") for _ in range(runtime.bundle.stream.faces)]
    for stream in opened:
        stream.close()


def test_sinks_get_frames_answers_and_events_in_order_and_are_closed(runtime, recording):
    told: list[tuple] = []

    class Sink:
        def answers(self, seen, given):
            told.append(("answers", seen.index, len(given)))

        def event(self, event):
            told.append(("event", event.kind, event.state))

        def frame(self, source, seen, held):
            told.append(("frame", seen.index, sorted(held)))

        def close(self):
            told.append(("close",))

    watched(runtime, recording, face="whole", hop=30, warmup="repeat", sinks=[Sink()])
    frames = [entry for entry in told if entry[0] == "frame"]
    assert [index for _, index, _ in frames] == list(range(90))
    assert frames[28][2] == [] and frames[29][2] == [0] and frames[-1][2] == [0]
    assert [entry for entry in told if entry[0] == "answers"] == [("answers", n, 1) for n in (29, 59, 89)]
    assert told.index(("answers", 29, 1)) < told.index(("frame", 29, [0]))
    assert told[-1] == ("close",) and ("event", "source", "ended") in told


def test_functions_are_called_with_answers_and_events(runtime, recording):
    answers, events = [], []
    sink = CallbackSink(answers.append, events.append)
    given = watched(runtime, recording, face="whole", hop=30, warmup="repeat", sinks=[sink, CallbackSink()])
    assert answers == given and {event.kind for event in events} >= {"source", "appeared", "gone"}


def test_smoothing_is_of_what_the_runtime_says(runtime, recording):
    config = AnswerConfig(smooth_s=1.0, margin=0.0, gate=0.0)
    answers = watched(runtime, recording, face="whole", hop=5, warmup="repeat", config=config)
    mean = answers[0].result.probabilities.astype(np.float64)
    for before, after in itertools.pairwise(answers):
        weight = 1 - np.exp(-(after.time_s - before.time_s))
        mean = (1 - weight) * mean + weight * after.result.probabilities
        np.testing.assert_allclose(after.probabilities, mean, atol=1e-6)
        assert after.label == after.labels[int(after.probabilities.argmax())]


def test_what_cannot_be_opened_closes_what_was(runtime, recording):
    first = ScriptedSource(live=True)
    with pytest.raises(BadInputError, match="does not exist"):
        Watch(runtime, [first, "gone.mp4"], face="whole")
    assert first.closed
    with pytest.raises(UsageError, match="Unknown face"):
        Watch(runtime, [recording], face="nose")
    with pytest.raises(UsageError, match="a list"):
        Watch(runtime, str(recording))
    with pytest.raises(UsageError, match="5 sources"):
        Watch(runtime, [recording] * 5, face="whole")


def test_the_page_shows_what_the_watch_answers(runtime, recording):
    with Watch(runtime, [recording], face="whole", hop=5, warmup="repeat", loop=True) as watch:
        address = watch.serve(0)
        for count, _ in enumerate(watch):
            if count == 20:
                break
        with urllib.request.urlopen(f"{address}state.json", timeout=30) as answer:
            (camera,) = json.load(answer)["cameras"]
        assert camera["answers"] >= 20 and camera["state"] == "playing"
        (face,) = camera["faces"]
        assert sum(face["answer"]["probabilities"]) == pytest.approx(1, abs=1e-3)
        with urllib.request.urlopen(f"{address}snapshot.jpg", timeout=30) as answer:
            assert answer.read(2) == b"\xff\xd8"


@pytest.mark.slow
def test_a_camera_that_dies_and_comes_back_is_told_and_answered_again(runtime, tmp_path):
    """A real RTSP server, killed and started again: a new epoch, whose clips hold nothing of the old one."""
    pytest.importorskip("av", reason="PyAV is not installed (the extra 'camera')")
    import cameras
    import media_files

    steps = [np.full((64, 96, 3), (number * 3) % 256, np.uint8) for number in range(1200)]
    options = {"preset": "ultrafast", "bf": "0", "g": "15"}
    video = media_files.write_video(tmp_path / "camera.mp4", steps, "libx264", fps=30, options=options)
    server, events, answers = cameras.RtspServer(video), [], []
    sink = CallbackSink(on_event=lambda event: events.append((event.kind, event.state)))
    try:
        with Watch(runtime, [server.url], face="whole", hop=3, warmup="repeat", sinks=[sink]) as watch:
            for answer in watch:
                answers.append(answer)
                if len(answers) == 10:
                    server.kill()
                    server.start(video)
                if answer.epoch and len(answers) > 20:
                    break
            (state,) = watch.board.state()[1]
    finally:
        server.kill()
    told = [state for kind, state in events if kind == "source"]
    assert told[0] == "live" and "lost" in told and told[-1] == "live"
    assert state.reconnects == 1 and state.state == "live"
    times = [answer.time_s for answer in answers]
    assert times == sorted(set(times)) and {answer.epoch for answer in answers} == {0, 1}
    assert all(0 < answer.age_ms < 60_000 for answer in answers)
