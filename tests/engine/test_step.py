"""`runtime.step` gives what single pushes give, in batches where there are graphs for them."""

from __future__ import annotations

import shutil
from pathlib import Path

import logoformer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.errors import BadInputError, DeviceLostError, UsageError, VerificationError


# ------------------------------------------------------------------------------------------------------- which batches
@pytest.mark.parametrize(
    ("batches", "faces", "wanted"),
    [
        ((1,), 3, ["frame"] * 3),
        ((1, 2, 4, 8), 8, ["frame b8"]),
        ((1, 2, 4, 8), 7, ["frame b4", "frame b2", "frame"]),
        ((1, 2, 4, 8), 1, ["frame"]),
        ((1, 4), 7, ["frame b4", "frame", "frame", "frame"]),
        ((1, 2), 7, ["frame b2"] * 3 + ["frame"]),
    ],
)
def test_the_greatest_batch_that_is_full_comes_first(watched, numbered, told, batches, faces, wanted):
    runtime = watched(faces=8, batches=batches)
    streams = [runtime.stream(hop=1, color="rgb", warmup="repeat") for _ in range(faces)]
    for number in range(12):  # more than the ring has slots
        runtime.state.runs.clear()
        results = runtime.step({s: (numbered(face, number), number / 10) for face, s in enumerate(streams)})
        assert runtime.state.runs == wanted + ["temporal"] * faces
        assert [told(results[stream]) for stream in streams] == [(face, number) for face in range(faces)]
        for stream in streams:  # a batch opens its session at the first step, for all faces in it
            stages = list(results[stream].stages_ms)
            assert stages[-4:] == ["preprocess", "frame", "temporal", "postprocess"]
            assert stages[:-4] in ([], ["open"] if number == 0 else [])
    runtime.close()


@pytest.mark.parametrize(
    ("together", "faces", "wanted"),
    [
        ((1, 2, 4, 8), 8, ["temporal b8"]),
        ((1, 2, 4, 8), 7, ["temporal b4", "temporal b2", "temporal"]),
        ((1, 4), 3, ["temporal"] * 3),
    ],
)
def test_faces_due_together_are_answered_by_one_run(watched, numbered, told, together, faces, wanted):
    runtime = watched(faces=8, batches=(1, 8), together=together)
    streams = [runtime.stream(hop=1 + face // 4, color="rgb", warmup="repeat") for face in range(8)]
    for number in range(1, 12):
        runtime.state.runs.clear()
        results = runtime.step({s: (numbered(face, number), number / 10) for face, s in enumerate(streams[:faces])})
        due = [face for face in range(faces) if number % streams[face].hop == 0]
        assert [told(results[streams[face]]) for face in due] == [(face, number) for face in due]
        assert sum(result is not None for result in results.values()) == len(due)
        answering = [run for run in runtime.state.runs if run.startswith("temporal")]
        if len(due) == faces:
            assert answering == wanted
        for face in due:
            assert list(results[streams[face]].stages_ms)[-2:] == ["temporal", "postprocess"]
            assert min(results[streams[face]].stages_ms.values()) >= 0
    runtime.close()


def test_a_frame_that_is_not_kept_takes_no_place(watched, numbered):
    runtime = watched(batches=(1, 2, 4))
    streams = [runtime.stream(hop=1, color="rgb", warmup="repeat") for _ in range(4)]
    runtime.step({stream: (numbered(0, 0), 0.0) for stream in streams})
    runtime.state.runs.clear()
    times = [0.1, 0.01, 0.1, 0.1]
    results = runtime.step({s: (numbered(0, 1), time) for s, time in zip(streams, times, strict=True)})
    assert [results[stream] is None for stream in streams] == [False, True, False, False]
    assert runtime.state.runs == ["frame b2", "frame", *["temporal"] * 3] and streams[1].skipped == 1


def push_all(streams, round_):
    return {stream: stream.push(frame, time) for stream, (frame, time) in zip(streams, round_, strict=True)}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_rounds_equal_single_pushes(watched, data):
    count = data.draw(st.integers(1, 8))
    kinds = data.draw(st.lists(st.tuples(st.integers(1, 5), st.sampled_from(["wait", "repeat"])), min_size=count))
    runtimes = watched(batches=(1, 2, 4, 8), together=(1, 2, 4)), watched()
    pair = [
        [runtime.stream(hop=hop, color="rgb", warmup=warmup) for hop, warmup in kinds[:count]] for runtime in runtimes
    ]
    clocks = [0.0] * count
    for number in range(data.draw(st.integers(1, 14))):
        chosen = data.draw(st.sets(st.integers(0, count - 1)))
        step, single = {}, {}
        for face in sorted(chosen):
            clocks[face] += data.draw(st.sampled_from([0.02, 0.1, 0.13, 0.9]))
            frame = np.full((4, 4, 3), face * 20 + number, np.uint8)
            step[pair[0][face]] = frame, clocks[face]
            single[face] = pair[1][face].push(frame, clocks[face])
        together = runtimes[0].step(step)
        for face, wanted in single.items():
            found = together[pair[0][face]]
            assert (found is None) == (wanted is None)
            if wanted is not None:
                np.testing.assert_array_equal(found.probabilities, wanted.probabilities)
                assert (found.time_s, found.sequence) == (wanted.time_s, wanted.sequence)
    for runtime in runtimes:
        runtime.close()


# -------------------------------------------------------------------------------------------------------------- errors
def test_a_wrong_frame_pushes_none(watched, numbered):
    runtime = watched(batches=(1, 2))
    a, b = (runtime.stream(hop=1, color="rgb", warmup="repeat") for _ in range(2))
    runtime.step({a: (numbered(0, 0), 0.0), b: (numbered(1, 0), 0.0)})
    ran = list(runtime.state.runs)
    stranger = watched().stream(color="rgb")
    for wrong, kind in (
        ({a: (numbered(0, 1), 0.1), b: (numbered(1, 1), 0.0)}, BadInputError),
        ({a: (numbered(0, 1), 0.1), b: (np.zeros((4, 4, 3)), 0.1)}, BadInputError),
        ({a: (numbered(0, 1), 0.1), stranger: (numbered(1, 1), 0.1)}, UsageError),
    ):
        with pytest.raises(kind):
            runtime.step(wrong)
    assert runtime.state.runs == ran
    assert runtime.step({}) == {}
    assert all(runtime.step({a: (numbered(0, 1), 0.1), b: (numbered(1, 1), 0.1)}).values())


@pytest.mark.parametrize("together", [(1,), (1, 2)])
def test_what_fails_for_one_face_leaves_the_others_alone(watched, numbered, told, together):
    runtime = watched(faces=3, batches=(1, 2), together=together)
    streams = [runtime.stream(hop=1, color="rgb", warmup="repeat") for _ in range(3)]

    def poison(session):
        if session.name.startswith("temporal"):
            session.buffers["ring"][8:16] = np.nan  # the second face's slots

    runtime.state.before = poison
    with pytest.raises(VerificationError, match="not finite"):
        runtime.step({stream: (numbered(face, 0), 0.0) for face, stream in enumerate(streams)})
    runtime.state.before = lambda session: None
    assert runtime.not_finite == 1
    assert [told(stream.flush()) for stream in (streams[0], streams[2])] == [(0, 0), (2, 0)]


def test_an_order_that_leaves_its_face_costs_that_face_alone(watched, numbered, told, monkeypatch):
    runtime = watched(faces=3, batches=(1,), together=(1, 2))
    streams = [runtime.stream(hop=1, color="rgb", warmup="repeat") for _ in range(3)]
    right = streams[1]._ring.pick
    monkeypatch.setattr(streams[1]._ring, "pick", lambda ages: right(ages) + 8)
    with pytest.raises(VerificationError, match="Nothing was run"):
        runtime.step({stream: (numbered(face, 0), 0.0) for face, stream in enumerate(streams)})
    assert runtime.state.runs[-1] == "temporal b2"  # the other two, together
    assert [stream._sequence for stream in streams] == [1, 0, 1] and streams[1].since == 1


def test_answers_that_fail_together_are_still_owed(watched, numbered, told):
    runtime = watched(faces=2, batches=(1,), together=(1, 2))
    streams = [runtime.stream(hop=1, color="rgb", warmup="repeat") for _ in range(2)]

    def fail(session):
        if session.name == "temporal b2":
            raise ZeroDivisionError

    runtime.state.before = fail
    with pytest.raises(ZeroDivisionError):
        runtime.step({stream: (numbered(face, 0), 0.0) for face, stream in enumerate(streams)})
    assert [stream.since for stream in streams] == [1, 1]
    assert [told(stream.flush()) for stream in streams] == [(0, 0), (1, 0)]


def test_a_batch_that_fails_is_not_filed(watched, numbered):
    runtime = watched(faces=2, batches=(1, 2))
    streams = [runtime.stream(hop=1, color="rgb", warmup="repeat") for _ in range(2)]

    def fail(session):
        if session.name == "frame b2":
            raise ZeroDivisionError

    runtime.state.before = fail
    with pytest.raises(ZeroDivisionError):
        runtime.step({stream: (numbered(face, 0), 0.0) for face, stream in enumerate(streams)})
    assert [stream.flush() for stream in streams] == [None, None]

    def lose(session):
        raise DeviceLostError("gone")

    runtime.state.before = lose
    with pytest.raises(DeviceLostError):
        runtime.step({stream: (numbered(face, 0), 0.0) for face, stream in enumerate(streams)})


def test_a_frame_that_fails_gets_no_answer_that_another_frame_is_owed(watched, numbered, told):
    runtime = watched()
    stream = runtime.stream(hop=1, color="rgb", warmup="repeat")

    def fails(name):
        def fail(session):
            if session.name == name:
                raise ZeroDivisionError

        return fail

    for number, name in enumerate(["temporal", "frame"]):
        runtime.state.before = fails(name)
        with pytest.raises(ZeroDivisionError):
            runtime.step({stream: (numbered(0, number), number / 10)})
    assert stream.since == 1 and runtime.state.runs[-1] == "frame"
    runtime.state.before = fails("")
    assert told(runtime.step({stream: (numbered(0, 2), 0.2)})[stream]) == (0, 2)


# ----------------------------------------------------------------------------------------------------------- a real one
@pytest.fixture(scope="module")
def batched_bundle(untrained_bundle: Path, add_batches, tmp_path_factory) -> Path:
    path = Path(shutil.copytree(untrained_bundle, tmp_path_factory.mktemp("batched") / "b.bundle"))
    add_batches(path, (2, 4))
    return path


def test_a_real_bundle_in_batches(batched_bundle: Path):
    frames = np.random.default_rng(8).integers(0, 256, (30, 4, 70, 64, 3), dtype=np.uint8)
    options = {"backend": "onnxruntime", "threads": 1}
    with logoformer.load(batched_bundle, **options) as runtime:
        assert runtime.frame_batches == runtime.temporal_batches == (1, 2, 4)
        streams = [runtime.stream(hop=3, color="bgr", warmup="repeat") for _ in range(4)]
        results = []
        for number, faces in enumerate(frames):
            given = dict(zip(streams[: 3 + number % 2], [(face, number / 25) for face in faces], strict=False))
            found = runtime.step(given)
            results.append([found.get(stream) for stream in streams])
    with logoformer.load(batched_bundle, **options) as runtime:
        streams = [runtime.stream(hop=3, color="bgr", warmup="repeat") for _ in range(4)]
        answers = 0
        for number, faces in enumerate(frames):
            for face in range(3 + number % 2):
                wanted, found = streams[face].push(faces[face], number / 25), results[number][face]
                assert (wanted is None) == (found is None)
                if wanted is not None:
                    answers += 1
                    np.testing.assert_array_equal(found.probabilities, wanted.probabilities)
        assert answers == 35
