"""Cameras, threads and rounds: order, ends, losses, and nothing left behind."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from logoformer.camera.answers.smoothing import AnswerConfig
from logoformer.camera.pipeline.faces import GivenFace
from logoformer.camera.pipeline.feeder import CameraSetup
from logoformer.camera.pipeline.pipeline import Pipeline, shown_name, unique_names
from logoformer.errors import BadInputError, DeviceLostError, UsageError
from watching import ScriptedRuntime, ScriptedSource, flat, wait_for

RAW = AnswerConfig(smooth_s=0.0, margin=0.0, gate=0.0)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    wait_for(lambda: not (set(threading.enumerate()) - before))


def whole(source, **more) -> CameraSetup:
    return CameraSetup(source, GivenFace("whole"), **more)


def run(runtime, *setups, hop=1, warmup="repeat"):
    """All answers and events of cameras that end."""
    pipeline, answers, events, frames = Pipeline(runtime, setups, hop, warmup, RAW), [], [], []
    try:
        pipeline.start()
        while not pipeline.finished:
            turn = pipeline.turn(5)
            frames += turn.frames.values()
            events += turn.events
            answers += [one for own in turn.answers.values() for one in own]
    finally:
        pipeline.close()
    return answers, events, frames, pipeline


def finish(pipeline, answers=None, camera=0) -> None:
    """Turns to the end, or to the error."""
    while not pipeline.finished:
        given = pipeline.turn(5).answers.get(camera, ())
        if answers is not None:
            answers += given


def test_every_frame_of_a_file_is_worked_off_in_order():
    runtime = ScriptedRuntime()
    answers, events, frames, _ = run(runtime, whole(ScriptedSource([flat(n) for n in range(100)])), hop=3)
    assert [seen.index for seen in frames] == list(range(100))
    assert [one.index for one in answers] == list(range(2, 100, 3))
    assert [(e.kind, e.state) for e in events if e.kind == "source"] == [("source", "playing"), ("source", "ended")]
    assert events[-1].kind == "gone" and runtime.free == 4


def test_two_files_are_worked_off_side_by_side():
    runtime = ScriptedRuntime()
    sources = [ScriptedSource([flat(n, level=level) for n in range(50)], name="x") for level in (1, 3)]
    answers, _, frames, pipeline = run(runtime, *map(whole, sources))
    assert pipeline.names == ("x", "x (2)")
    assert {(one.source, one.label) for one in answers} == {("x", "sad"), ("x (2)", "angry")}
    assert len(frames) == 100 and max(runtime.steps) == 2


def test_a_file_that_is_looped_begins_a_new_epoch_and_its_times_go_on():
    made = []

    def again() -> ScriptedSource:
        made.append(ScriptedSource([flat(n) for n in range(10)]))
        return made[-1]

    runtime = ScriptedRuntime()
    pipeline = Pipeline(runtime, [whole(again(), again=again)], 1, "repeat", RAW)
    frames = []
    pipeline.start()
    while len(frames) < 35:
        frames += pipeline.turn(5).frames.values()
    pipeline.close()
    assert [seen.epoch for seen in frames[:35]] == [n // 10 for n in range(35)]
    assert [seen.index for seen in frames[:35]] == list(range(35))
    times = [seen.time_s for seen in frames]
    assert times == sorted(set(times)) and times[10] - times[9] == pytest.approx(1.0)
    assert all(source.closed for source in made)


def test_no_clip_spans_a_reconnect():
    runtime = ScriptedRuntime()
    told = [flat(n, level=0, epoch=0) for n in range(10)] + [flat(n, level=1, epoch=1) for n in range(10, 20)]
    mixed = []
    runtime.answer_of = lambda crops: mixed.append(len({c.mean() for _, c in crops})) or np.full(7, 1 / 7, np.float32)
    run(runtime, whole(ScriptedSource(told)))
    assert len(mixed) == 20 and set(mixed) == {1}


def test_a_source_that_breaks_gives_its_frames_first_then_its_error():
    class Broken(ScriptedSource):
        def __iter__(self):
            yield from super().__iter__()
            raise BadInputError("The video breaks off.")

    runtime, answers = ScriptedRuntime(), []
    pipeline = Pipeline(runtime, [whole(Broken([flat(n) for n in range(10)]))], 1, "repeat", RAW)
    pipeline.start()
    with pytest.raises(BadInputError, match="breaks off"):
        finish(pipeline, answers)
    pipeline.close()
    assert len(answers) >= 9


def test_one_broken_source_does_not_end_the_other():
    class Broken(ScriptedSource):
        def __iter__(self):
            raise BadInputError("There is nothing.")

    runtime, answers = ScriptedRuntime(), []
    pipeline = Pipeline(
        runtime, [whole(Broken(name="broken")), whole(ScriptedSource([flat(n) for n in range(60)], name="whole"))], 1,
        "repeat", RAW,
    )  # fmt: skip
    pipeline.start()
    with pytest.raises(BadInputError, match="nothing"):
        finish(pipeline, answers, camera=1)
    assert len(answers) >= 59
    broken, _ = pipeline.board.state()[1]
    assert (broken.state, broken.reason) == ("failed", "There is nothing.")
    pipeline.close()


def test_a_fault_of_ours_is_not_swallowed():
    class Faulty(GivenFace):
        def cut(self, timed):
            raise ZeroDivisionError("ours")

    pipeline = Pipeline(ScriptedRuntime(), [CameraSetup(ScriptedSource([flat(0)]), Faulty("whole"))], 1)
    pipeline.start()
    with pytest.raises(ZeroDivisionError):
        finish(pipeline)
    pipeline.close()


def test_a_lost_device_comes_out_of_the_turn_and_all_threads_end():
    runtime = ScriptedRuntime()
    runtime.fail_next = DeviceLostError("The device is gone.")
    pipeline = Pipeline(runtime, [whole(ScriptedSource([flat(n) for n in range(50)]))], 1)
    pipeline.start()
    with pytest.raises(DeviceLostError):
        finish(pipeline)
    pipeline.close()


def test_a_live_source_is_read_while_the_model_works_and_what_is_too_much_is_dropped_and_counted():
    """The runtime hangs in its first answer until forty frames have come: the newest wait, the others are counted."""
    entered, held = threading.Event(), threading.Event()

    def hang(seconds):
        if seconds:
            entered.set()
            held.wait(30)

    runtime = ScriptedRuntime(answer_s=1.0, spend=hang)
    source = ScriptedSource(live=True)
    pipeline = Pipeline(runtime, [whole(source)], 1, "repeat", RAW)
    pipeline.start()
    source.give(flat(0, captured_s=time.monotonic()))
    seen = []
    turning = threading.Thread(target=lambda: seen.extend(pipeline.turn(30).frames.values()))
    turning.start()
    assert entered.wait(30)  # else the forty replace the first before it is taken
    source.give(*(flat(n, captured_s=time.monotonic()) for n in range(1, 41)))
    wait_for(lambda: pipeline.board.picture(0, 0, 0).number == 41)
    held.set()
    turning.join(30)
    wait_for(lambda: pipeline._inboxes.waiting(0) == 1)
    assert [one.index for one in seen] == [0]
    assert pipeline._inboxes.dropped(0) == 39
    assert pipeline.turn(5).frames[0].index == 40
    pipeline._tell()
    (state,) = pipeline.board.state()[1]
    assert state.dropped == {"capture": 0, "overload": 39} and state.frames == 41
    pipeline.close()
    assert source.closed


def test_state_and_reason_of_a_live_source_are_told_and_each_change_is_an_event():
    source = ScriptedSource(live=True, name="door")
    pipeline = Pipeline(ScriptedRuntime(), [whole(source)], 1)
    pipeline.start()
    events = list(pipeline.turn(0).events)
    source.state, source.reason, source.dropped, source.reconnects = "lost", "no frame for 2 s", 7, 3
    events += pipeline.turn(0).events
    events += pipeline.turn(0).events
    assert [(e.state, e.before, e.reason) for e in events] == [("live", "", ""), ("lost", "live", "no frame for 2 s")]
    pipeline._tell()
    (state,) = pipeline.board.state()[1]
    assert (state.state, state.reason, state.dropped["capture"], state.reconnects) == ("lost", "no frame for 2 s", 7, 3)
    pipeline.close()


def test_faces_are_gone_when_their_camera_is_lost_and_not_when_it_is_back():
    source, runtime = ScriptedSource(live=True, name="door"), ScriptedRuntime()
    pipeline = Pipeline(runtime, [whole(source)], 1, "repeat", RAW)
    pipeline.start()
    source.give(flat(0))
    events = list(pipeline.turn(5).events)
    assert [e.kind for e in events] == ["source", "appeared", "expression"] and runtime.free == 3
    source.state, source.reason = "lost", "no frame for 2 s"
    events = [*pipeline.turn(0).events, *pipeline.turn(0).events]
    assert [(e.kind, e.state) for e in events] == [("source", "lost"), ("gone", "")]
    assert events[1].face == 0 and "away" in events[1].reason and runtime.free == 4
    pipeline._tell()
    assert pipeline.board.state()[1][0].faces == ()
    source.state = "live"
    source.give(flat(50, epoch=1))
    events = list(pipeline.turn(5).events)
    assert sorted(e.kind for e in events) == ["appeared", "expression", "source"]
    pipeline.close()


def test_frames_that_wait_when_the_camera_is_lost_are_answered_first():
    source, runtime = ScriptedSource(live=True), ScriptedRuntime()
    pipeline = Pipeline(runtime, [whole(source)], 1, "repeat", RAW)
    pipeline.start()
    source.give(flat(0))
    pipeline.turn(5)
    source.give(flat(1))
    wait_for(lambda: pipeline._inboxes.waiting(0) == 1)
    source.state = "lost"
    kinds = [e.kind for e in pipeline.turn(5).events]
    assert kinds.count("gone") == 1 and "appeared" not in kinds
    pipeline.close()


def test_closing_lets_go_of_a_camera_that_gives_nothing_and_of_a_reader_that_waits():
    live, file = ScriptedSource(live=True), ScriptedSource([flat(n) for n in range(500)])
    pipeline = Pipeline(ScriptedRuntime(), [whole(live), whole(file)], 1)
    pipeline.start()
    pipeline.turn(5)
    pipeline.close()
    pipeline.close()
    assert pipeline.finished and live.closed and file.closed
    assert pipeline.turn(0).answers == {}


def test_a_source_that_hangs_while_it_is_closed_does_not_hold_the_watch(monkeypatch):
    monkeypatch.setattr("logoformer.camera.pipeline.pipeline.END_S", 0.1)
    release = threading.Event()

    class Stuck(ScriptedSource):
        def __iter__(self):
            release.wait(60)
            yield from ()

        def close(self):
            release.wait(60)

    pipeline = Pipeline(ScriptedRuntime(), [whole(Stuck(live=True))], 1)
    pipeline.start()
    closing = threading.Thread(target=pipeline.close)
    closing.start()
    closing.join(20)
    assert not closing.is_alive()
    release.set()


def test_an_empty_source_ends_without_an_answer():
    answers, _, frames, pipeline = run(ScriptedRuntime(), whole(ScriptedSource()))
    assert (answers, frames) == ([], [])
    assert pipeline.board.state()[1][0].state == "ended"


def test_a_file_shorter_than_the_span_is_answered_once_at_its_end():
    answers, *_ = run(ScriptedRuntime(warm_s=100.0), whole(ScriptedSource([flat(n) for n in range(9)])), warmup="wait")
    assert [(one.index, one.label) for one in answers] == [(8, "sad")]


def test_wrong_arguments_are_refused():
    with pytest.raises(UsageError, match="No source"):
        Pipeline(ScriptedRuntime(), [])
    with pytest.raises(UsageError, match="hop"):
        Pipeline(ScriptedRuntime(), [whole(ScriptedSource())], 0)


def test_names_are_told_apart():
    assert unique_names(["a", "a", "a (2)", "b"]) == ("a", "a (2)", "a (2) (2)", "b")


def test_the_name_of_a_file_is_short_and_every_byte_of_it_can_be_written_down(tmp_path):
    source = ScriptedSource(name="/somewhere/secret/a.mp4")
    assert shown_name(source) == "/somewhere/secret/a.mp4"
    source.path = tmp_path / "b\udcff\n.mp4"
    assert shown_name(source) == "b\\udcff\\n.mp4"
