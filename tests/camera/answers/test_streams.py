"""One stream a face: who gets a place, what empties a ring, and answers that equal the runtime's own."""

from __future__ import annotations

import numpy as np
import pytest
from logoformer.camera.answers.contract import UNCERTAIN, FaceCrop, FaceFrame
from logoformer.camera.answers.smoothing import AnswerConfig
from logoformer.camera.answers.streams import AnswerStreams
from logoformer.errors import DeviceLostError, UsageError, VerificationError
from watching import LABELS, ScriptedRuntime

RAW = AnswerConfig(smooth_s=0.0, margin=0.0, gate=0.0)


def frame(index, faces, *, resets=(), gone=(), epoch=0, color="rgb", time_s=None, areas=None):
    """Each face's crop has its id as grey level."""
    crops = tuple(
        FaceCrop(face, (0, 0, (areas or {}).get(face, 10), 10), 0.9, np.full((8, 8, 3), face, np.uint8), face in resets)
        for face in faces
    )
    picture = np.zeros((20, 20, 3), np.uint8)
    seconds = index / 25 if time_s is None else time_s
    return FaceFrame(picture, color, seconds, index, epoch, seconds, 1000 + seconds, crops, tuple(gone))


def make(runtime, cameras=1, hop=1, config=RAW, clock=lambda: 0.0):
    return AnswerStreams(runtime, tuple(f"c{n}" for n in range(cameras)), hop, "repeat", config, clock)


def kinds(done):
    return [(event.kind, event.face) for event in done.events]


def test_each_face_has_a_stream_of_its_own_and_all_are_pushed_in_one_step():
    runtime = ScriptedRuntime()
    streams = make(runtime, hop=2)
    for index in range(4):
        done = streams.advance({0: frame(index, [1, 3])})
    assert runtime.steps == [2, 2, 2, 2]
    assert {one.face: one.label for one in done.answers[0]} == {1: "sad", 3: "angry"}
    for stream in runtime.opened:
        assert len({crop.mean() for _, crop in stream.crops}) == 1 and len(stream.crops) == 4


def test_an_answer_says_where_when_and_how_old():
    streams = make(ScriptedRuntime(), clock=lambda: 0.5)
    (answer,) = streams.advance({0: frame(7, [2])}).answers[0]
    assert (answer.source, answer.face, answer.box, answer.score) == ("c0", 2, (0, 0, 10, 10), 0.9)
    assert (answer.time_s, answer.captured_at) == pytest.approx((7 / 25, 1000 + 7 / 25))
    assert (answer.index, answer.epoch, answer.result.sequence) == (7, 0, 0)
    assert answer.age_ms == pytest.approx(1e3 * (0.5 - 7 / 25))
    assert answer.probabilities.sum() == pytest.approx(1) and answer.confidence == pytest.approx(0.7)


def test_a_reconnect_empties_every_ring_and_forgets_the_faces_that_are_not_there():
    runtime = ScriptedRuntime()
    streams = make(runtime)
    for index in range(3):
        streams.advance({0: frame(index, [0, 1])})
    done = streams.advance({0: frame(3, [0], epoch=1)})
    kept, left = runtime.opened
    assert [time_s for time_s, _ in kept.crops] == [3 / 25]  # no clip spans the break
    assert left.closed and not kept.closed
    assert ("gone", 1) in kinds(done)


def test_a_face_that_may_be_another_person_begins_anew_and_smoothing_with_it():
    runtime = ScriptedRuntime()
    streams = make(runtime, config=AnswerConfig(smooth_s=60.0, gate=0.0))
    streams.advance({0: frame(0, [4])})
    crops = (FaceCrop(4, (0, 0, 9, 9), 0.9, np.full((8, 8, 3), 5, np.uint8), True),)
    seen = frame(1, [])
    (answer,) = streams.advance({0: FaceFrame(**{**vars(seen), "faces": crops})}).answers[0]
    assert len(runtime.opened[0].crops) == 1
    np.testing.assert_array_equal(answer.probabilities, answer.result.probabilities)


def test_the_answer_and_the_label_of_the_one_before_are_forgotten_with_a_reset():
    runtime = ScriptedRuntime()
    streams = make(runtime, hop=2, config=AnswerConfig(smooth_s=0.0, margin=0.9, gate=0.0))
    for index in range(2):
        streams.advance({0: frame(index, [1])})
    assert streams.held(0)[1].label == LABELS[1]
    runtime.answer_of = lambda _: np.eye(len(LABELS), dtype=np.float32)[4] * 0.7 + np.float32(0.3 / 7)
    done = streams.advance({0: frame(2, [1], resets=[1])})
    assert done.answers == {} and streams.held(0) == {} and streams.view(0)[0].answer is None
    done = streams.advance({0: frame(3, [1])})
    # The margin holds a label against another of the same person, not against another person's.
    assert streams.held(0)[1].label == LABELS[4] and done.answers[0][0].changed
    assert [(event.kind, event.state, event.before) for event in done.events] == [("expression", LABELS[4], "")]


def test_a_face_that_is_gone_gives_its_place_back():
    runtime = ScriptedRuntime(places=1)
    streams = make(runtime)
    streams.advance({0: frame(0, [5])})
    assert streams.advance({0: frame(1, [6])}).unserved[0] == 2 - 1
    done = streams.advance({0: frame(2, [6], gone=[5])})
    assert kinds(done)[:2] == [("gone", 5), ("appeared", 6)]
    assert done.unserved[0] == 0 and done.answers[0][0].face == 6


def test_the_largest_new_faces_get_the_places():
    runtime = ScriptedRuntime(places=2)
    streams = make(runtime)
    done = streams.advance({0: frame(0, [1, 2, 3], areas={1: 5, 2: 50, 3: 20})})
    assert {one.face for one in done.answers[0]} == {2, 3}
    assert done.unserved == {0: 1}


def test_a_camera_takes_what_is_free_and_gives_it_back_to_one_below_its_share():
    runtime = ScriptedRuntime(places=4)
    streams = make(runtime, cameras=2)
    streams.advance({0: frame(0, [1, 2, 3, 4])})
    done = streams.advance({0: frame(1, [1, 2, 3, 4]), 1: frame(1, [1])})
    assert len(done.answers[0]) == 3 and len(done.answers[1]) == 1
    (gone,) = [event for event in done.events if event.kind == "gone"]
    assert (gone.source, gone.face) == ("c0", 4) and "another camera" in gone.reason
    done = streams.advance({0: frame(2, [1, 2, 3, 4]), 1: frame(2, [1, 2, 3])})
    assert (len(done.answers[0]), len(done.answers[1])) == (2, 2)  # each its share, and no more
    assert done.unserved == {0: 2, 1: 1}
    assert runtime.free == 0


def test_more_cameras_than_places_are_refused_with_the_command_that_helps():
    with pytest.raises(UsageError, match="3 sources") as caught:
        make(ScriptedRuntime(places=2), cameras=3)
    assert "--faces 3" in caught.value.next


def test_another_channel_order_opens_the_stream_anew():
    runtime = ScriptedRuntime()
    streams = make(runtime)
    streams.advance({0: frame(0, [0])})
    streams.advance({0: frame(1, [0], color="bgr")})
    assert [(stream.color, stream.closed) for stream in runtime.opened] == [("rgb", True), ("bgr", False)]


def test_the_hop_of_a_camera_is_set_for_faces_that_are_there_and_that_come():
    runtime = ScriptedRuntime()
    streams = make(runtime, cameras=2, hop=4)
    streams.advance({0: frame(0, [0]), 1: frame(0, [0])})
    streams.set_hop(0, 9)
    streams.advance({0: frame(1, [0, 1])})
    assert [stream.hop for stream in runtime.opened] == [9, 4, 9]


def test_answers_that_are_not_finite_are_thrown_away_and_the_watch_goes_on():
    runtime = ScriptedRuntime()
    streams = make(runtime)
    runtime.fail_next = VerificationError("The answer is not finite.")
    done = streams.advance({0: frame(0, [0])})
    assert done.failed and done.answers == {} and kinds(done) == [("appeared", 0)]
    assert streams.advance({0: frame(1, [0])}).answers[0][0].label == "happy"


def test_a_lost_device_ends_it():
    runtime = ScriptedRuntime()
    streams = make(runtime)
    runtime.fail_next = DeviceLostError("The device is gone.")
    with pytest.raises(DeviceLostError):
        streams.advance({0: frame(0, [0])})


def test_events_tell_changes_only_and_uncertainty_is_a_state():
    runtime = ScriptedRuntime()
    streams = make(runtime, config=AnswerConfig(smooth_s=0.0, margin=0.0, gate=0.75))
    told = []
    for index in range(3):
        told += streams.advance({0: frame(index, [2])}).events
    assert [(event.kind, event.state, event.before) for event in told] == [
        ("appeared", "", ""), ("expression", UNCERTAIN, "")
    ]  # fmt: skip
    told = streams.end(0, 1003.0)
    assert [(event.kind, event.before, event.at) for event in told] == [("gone", UNCERTAIN, 1003.0)]
    assert runtime.free == 4


def test_a_view_tells_how_warm_a_face_is_and_what_the_model_saw():
    runtime = ScriptedRuntime(warm_s=10.0)
    streams = AnswerStreams(runtime, ("c0",), 1, "wait", RAW)
    reach_s = 2.8 - 0.2
    for index in range(30):
        streams.advance({0: frame(index, [3])})
    (view,) = streams.view(0)
    assert (view.id, view.answer, int(view.crop.mean())) == (3, None, 3)
    assert view.warm == pytest.approx((29 / 25) / reach_s, rel=0.15)
    streams.advance({0: frame(30, [3], resets=[3])})
    assert streams.view(0)[0].warm == 0


def test_faces_that_never_had_an_answer_get_one_from_what_there_is():
    runtime = ScriptedRuntime(warm_s=10.0)
    streams = AnswerStreams(runtime, ("c0",), 1, "wait", RAW)
    seen = frame(0, [1, 2])
    streams.advance({0: seen})
    assert [(one.face, one.label) for one in streams.flush(0, seen)] == [(1, LABELS[1]), (2, LABELS[2])]
    assert streams.flush(0, seen) == []


# ----------------------------------------------------------------------------------------------------- the real runtime
@pytest.fixture(scope="module")
def runtime(untrained_bundle):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (the extra 'cpu' or 'gpu')")
    from logoformer.engine import load

    with load(untrained_bundle, backend="onnxruntime", precision="fp32", threads=1) as opened:
        yield opened


def test_answers_equal_those_of_streams_pushed_by_hand(runtime):
    """Two faces, of which one comes later, pauses, and is reset once: each against a stream of its own."""
    random = np.random.default_rng(0)
    count, seen_from, reset_at, away = 200, 20, 120, range(60, 64)
    crops = random.integers(0, 256, (2, count, 40, 40, 3), np.uint8)
    streams = AnswerStreams(runtime, ("c0",), 3, "wait", RAW)
    got: dict[int, list] = {0: [], 1: []}
    for index in range(count):
        there = [face for face in (0, 1) if face == 0 or (index >= seen_from and index not in away)]
        cut = tuple(FaceCrop(f, (0, 0, 40, 40), 1.0, crops[f, index], f == 1 and index == reset_at) for f in there)
        seen = FaceFrame(crops[0, index], "rgb", index / 25, index, 0, 0.0, 0.0, cut)
        for answer in streams.advance({0: seen}).answers.get(0, ()):
            got[answer.face].append((answer.time_s, answer.result.probabilities))
    streams.close()
    for face in (0, 1):
        wanted = []
        with runtime.stream(hop=3, color="rgb") as stream:
            for index in range(count):
                if face == 1 and (index < seen_from or index in away):
                    continue
                if face == 1 and index == reset_at:
                    stream.reset()
                result = stream.push(crops[face, index], index / 25)
                if result is not None:
                    wanted.append((result.time_s, result.probabilities))
        assert [time_s for time_s, _ in got[face]] == [time_s for time_s, _ in wanted]
        assert len(wanted) > 10
        for (_, ours), (_, theirs) in zip(got[face], wanted, strict=True):
            np.testing.assert_array_equal(ours, theirs)
