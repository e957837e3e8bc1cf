"""What waits in a worker's queue: what is dropped, in which colours it is computed, and that it is a copy."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest


@pytest.fixture
def held(numbered):
    """`held(runtime, worker)`: holds the worker inside a run; gives the stream of its frame and `go`, which ends it."""

    def make(runtime, worker):
        entered, go = threading.Event(), threading.Event()

        def before(_):
            entered.set()
            assert go.wait(30)

        stream = worker.stream(hop=1, color="rgb", warmup="repeat")
        runtime.state.before = before
        worker.submit(stream, numbered(0, 0), 0.0)
        assert entered.wait(30)
        return SimpleNamespace(stream=stream, go=go.set)

    return make


@pytest.mark.parametrize("call", ["reset", "flush"])
def test_the_oldest_that_is_dropped_is_a_frame_and_no_call_before_it(watched, numbered, told, held, call):
    runtime = watched()
    with runtime.worker(queue=1, drop="oldest") as worker:
        busy = held(runtime, worker)
        asked = getattr(busy.stream, call)()
        frames = [worker.submit(busy.stream, numbered(0, number), number / 10) for number in (1, 2)]
        busy.go()
        done = asked.result(30)
        assert done is None if call == "reset" else told(done) == (0, 0)
        assert [frame.cancelled() for frame in frames] == [True, False]
        assert int(frames[1].result(30).probabilities[1]) == 2
    assert (worker.submitted, worker.answered, worker.dropped) == (3, 2, 1)


def test_streams_of_blue_first_are_answered_together_as_each_alone(watched, numbered, held):
    frames = [numbered(face, 700 + face) for face in (1, 3)]  # red and blue differ
    alone = watched()
    wanted = [alone.stream(hop=1, color="bgr", warmup="repeat").push(frame, 0.0) for frame in frames]
    runtime = watched(batches=(1, 2))
    with runtime.worker(queue=2) as worker:
        streams = [worker.stream(hop=1, color="bgr", warmup="repeat") for _ in frames]
        busy = held(runtime, worker)
        found = [worker.submit(stream, frame, 0.0) for stream, frame in zip(streams, frames, strict=True)]
        busy.go()
        for future, result in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(future.result(30).probabilities, result.probabilities)
    assert "frame b2" in runtime.state.runs


def test_a_clip_is_copied_when_it_is_handed_over(watched, held):
    runtime = watched()
    clip = np.zeros((4, 4, 4, 3), np.uint8)
    clip[-1, 0, 0] = 1, 2, 3
    with runtime.worker(queue=2) as worker:
        busy = held(runtime, worker)
        found = worker.submit_clip(clip, color="rgb")
        clip[:] = 255
        busy.go()
        assert found.result(30).probabilities.tolist() == [1, 2, 3, 0, 0, 0]
