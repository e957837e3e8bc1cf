"""Ctrl-C at any moment of a call: the runtime still closes, from any thread, and a worker still ends."""

from __future__ import annotations

import numpy as np
from interrupting import interrupted, within
from logoformer.engine.worker_thread import WorkerThread

CLIP = np.zeros((4, 4, 4, 3), np.uint8)


def test_a_push_that_was_interrupted_leaves_a_runtime_that_another_thread_can_close(watched, numbered):
    opened = []

    def push() -> None:
        runtime = watched()
        stream = runtime.stream(hop=1, color="rgb", warmup="repeat")
        opened.append(runtime)
        stream.push(numbered(0, 1), 0.0)

    moments = 0
    for moments in interrupted(push):
        for runtime in opened:
            assert within(runtime.close), f"it hangs after an interrupt at moment {moments}"
        opened.clear()
    assert moments > 50


def test_calls_and_steps_that_were_interrupted_hold_nobody(watched, numbered):
    runtime = watched()
    streams = [runtime.stream(hop=1, color="rgb", warmup="repeat") for _ in range(2)]
    for work in (
        lambda: runtime(CLIP, color="rgb"),
        lambda: runtime.step({stream: (numbered(face, 1), 0.0) for face, stream in enumerate(streams)}),
        lambda: [stream.flush() for stream in streams],
    ):
        for moment in interrupted(work):
            assert not runtime.owner._lock.locked(), f"it is held after an interrupt at moment {moment}"
            streams[0].reset()  # the thread goes on
            streams[1].reset()
    runtime.close()
    assert runtime.state.open == []


def test_a_worker_ends_after_interrupts_of_who_submits(watched, numbered):
    runtime = watched()
    worker = runtime.worker()
    stream = worker.stream(hop=1, color="rgb", warmup="repeat")
    time_s = 0.0

    def submit() -> None:
        nonlocal time_s
        time_s += 0.1
        worker.submit(stream, numbered(0, 1), time_s)

    for moment in interrupted(submit):
        assert within(lambda: worker._thread.waiting), f"it hangs after an interrupt at moment {moment}"
    assert isinstance(worker._thread, WorkerThread)
    assert within(worker.close)
