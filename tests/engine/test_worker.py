"""Frames from any thread: in order per face, none mixed, none lost without being counted."""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import CancelledError, wait
from pathlib import Path

import logoformer
import numpy as np
import pytest
from logoformer.errors import BadInputError, DeviceLostError, UsageError, VerificationError


class Gate:
    """Holds the worker inside a run until it is opened."""

    def __init__(self, runtime):
        self.entered, self.leave = threading.Event(), threading.Event()
        runtime.state.before = self

    def __call__(self, session):
        self.entered.set()
        assert self.leave.wait(30)

    def close(self):
        self.entered.clear()
        self.leave.clear()


def counted(worker) -> tuple[int, int, int, int]:
    return worker.submitted, worker.answered, worker.dropped, worker.failed


def busy(runtime, worker, numbered):
    """A stream whose first frame is being computed behind a gate; returns (stream, gate, its future)."""
    stream = worker.stream(hop=1, color="rgb", warmup="repeat")
    gate = Gate(runtime)
    first = worker.submit(stream, numbered(0, 0), 0.0)
    assert gate.entered.wait(30)
    return stream, gate, first


# -------------------------------------------------------------------------------------------------------- many at once
def feed_from_four_threads(worker, streams, count, numbered):
    """Producer p owns the streams p, p+4, ... and hands over their frames in turn; returns futures by stream."""
    futures = [[] for _ in streams]

    def produce(first):
        for number in range(count):
            for face in range(first, len(streams), 4):
                futures[face].append(worker.submit(streams[face], numbered(face, number), number / 10))

    producers = [threading.Thread(target=produce, args=(first,)) for first in range(4)]
    for producer in producers:
        producer.start()
    for producer in producers:
        producer.join(120)
    return futures


@pytest.mark.parametrize(("batches", "together"), [((1,), (1,)), ((1, 2, 4, 8), (1,)), ((1, 2, 4, 8), (1, 2, 4, 8))])
@pytest.mark.parametrize("drop", ["oldest", "newest", "block"])
def test_eight_faces_from_four_producers(watched, numbered, told, drop, batches, together):
    count = 2000 if batches == (1,) else 500
    runtime = watched(faces=8, batches=batches, together=together)
    with runtime.worker(queue=2, drop=drop) as worker:
        streams = [worker.stream(hop=1, color="rgb", warmup="repeat") for _ in range(8)]
        futures = feed_from_four_threads(worker, streams, count, numbered)
    assert worker.submitted == 8 * count
    assert worker.answered == sum(not future.cancelled() for face in futures for future in face)
    assert worker.dropped == 8 * count - worker.answered and worker.failed == worker.waiting == 0
    for face, given in enumerate(futures):
        done = [future.result() for future in given if not future.cancelled()]
        heard = [told(result) for result in done]
        assert [whose for whose, _ in heard] == [face] * len(heard), "mixed"
        numbers = [number for _, number in heard]
        assert numbers == sorted(set(numbers)), "out of order"
        assert [round(result.time_s * 10) for result in done] == numbers
        assert [result.sequence for result in done] == list(range(len(done)))
        if drop == "block":
            assert numbers == list(range(count)), "lost"
        elif drop == "oldest":
            assert numbers[-1] == count - 1, "the freshest frame is always answered"
    runtime.close()
    assert runtime.state.open == []


def test_a_face_that_is_too_fast_pushes_nobody_out(watched, numbered):
    runtime = watched()
    with runtime.worker(queue=2) as worker:
        fast, gate, _ = busy(runtime, worker, numbered)
        gate.leave.set()
        slow = worker.stream(hop=1, color="rgb", warmup="repeat")
        gate.close()
        worker.submit(fast, numbered(0, 1), 0.1)
        assert gate.entered.wait(30)
        kept = worker.submit(slow, numbered(1, 0), 0.0)
        many = [worker.submit(fast, numbered(0, n), n / 10) for n in range(2, 50)]
        gate.leave.set()
        assert kept.result(30).time_s == 0.0
        assert [future.cancelled() for future in many] == [True] * 46 + [False] * 2


# ------------------------------------------------------------------------------------------------------- drop policies
def test_oldest_keeps_what_is_fresh(watched, numbered):
    runtime = watched()
    with runtime.worker(queue=2, drop="oldest") as worker:
        stream, gate, first = busy(runtime, worker, numbered)
        rest = [worker.submit(stream, numbered(0, n), n / 10) for n in range(1, 5)]
        assert [future.cancelled() for future in rest] == [True, True, False, False]
        assert wait(rest[:2], 30).not_done == set()  # who waits for a dropped one is told
        assert worker.waiting == 2
        gate.leave.set()
        assert [future.result(30).time_s for future in (first, *rest[2:])] == [0.0, 0.3, 0.4]
        with pytest.raises(CancelledError):
            rest[0].result()
    assert counted(worker) == (5, 3, 2, 0)


def test_newest_keeps_what_came_first(watched, numbered):
    runtime = watched()
    with runtime.worker(queue=2, drop="newest") as worker:
        stream, gate, _ = busy(runtime, worker, numbered)
        rest = [worker.submit(stream, numbered(0, n), n / 10) for n in range(1, 5)]
        assert [future.cancelled() for future in rest] == [False, False, True, True]
        gate.leave.set()
    assert counted(worker) == (5, 3, 2, 0)


def test_block_waits_for_space(watched, numbered):
    runtime = watched()
    with runtime.worker(queue=1, drop="block") as worker:
        stream, gate, _ = busy(runtime, worker, numbered)
        worker.submit(stream, numbered(0, 1), 0.1)
        found = []
        blocked = threading.Thread(target=lambda: found.append(worker.submit(stream, numbered(0, 2), 0.2)))
        blocked.start()
        blocked.join(0.05)
        assert blocked.is_alive() and worker.submitted == 2
        gate.leave.set()
        blocked.join(30)
        assert found[0].result(30).time_s == 0.2
    assert counted(worker) == (3, 3, 0, 0)


def test_what_the_caller_cancels_counts_as_dropped(watched, numbered):
    runtime = watched()
    with runtime.worker(queue=3) as worker:
        stream, gate, first = busy(runtime, worker, numbered)
        second = worker.submit(stream, numbered(0, 1), 0.1)
        third = worker.submit(stream, numbered(0, 2), 0.2)
        assert second.cancel() and not first.cancel()
        gate.leave.set()
        assert third.result(30).time_s == 0.2
    assert counted(worker) == (3, 2, 1, 0)


def test_a_frame_is_copied_when_it_is_handed_over(watched, numbered, told):
    runtime = watched()
    with runtime.worker(queue=2) as worker:
        stream, gate, _ = busy(runtime, worker, numbered)
        frame = numbered(0, 7)
        future = worker.submit(stream, frame, 0.1)
        frame[:] = 255
        gate.leave.set()
        assert told(future.result(30)) == (0, 7)


def test_the_wait_in_the_queue_is_part_of_the_age(watched, numbered):
    runtime = watched()
    with runtime.worker() as worker:
        stream, gate, _ = busy(runtime, worker, numbered)
        future = worker.submit(stream, numbered(0, 1), 0.1)
        threading.Event().wait(0.05)
        gate.leave.set()
        result = future.result(30)
    assert list(result.stages_ms) == ["queue", "preprocess", "frame", "temporal", "postprocess"]
    assert result.stages_ms["queue"] >= 50 and result.age_ms == pytest.approx(sum(result.stages_ms.values()))


def test_flush_and_reset_keep_their_place(watched, numbered, told):
    runtime = watched()
    with runtime.worker(queue=8) as worker:
        stream = worker.stream(hop=10**6, color="rgb")
        futures = [worker.submit(stream, numbered(0, n), n / 10) for n in range(3)]
        early = stream.flush()
        worker.submit(stream, numbered(0, 3), 0.3)
        reset, empty = stream.reset(), stream.flush()
        again = worker.submit(stream, numbered(0, 4), 0.0)  # the clock may start anew after a reset
        assert [future.result(30) for future in (*futures, reset, empty, again)] == [None] * 6
        assert told(early.result()) == (0, 2)
    assert counted(worker) == (5, 5, 0, 0)


# -------------------------------------------------------------------------------------------------------------- errors
def test_an_error_belongs_to_its_submission_alone(watched, numbered):
    runtime = watched()
    with runtime.worker(queue=8) as worker:
        stream = worker.stream(hop=1, color="rgb", warmup="repeat")
        good, late, fine = (worker.submit(stream, numbered(0, n), t) for n, t in ((0, 0.0), (1, 0.0), (2, 0.1)))
        assert good.result(30) and fine.result(30).sequence == 1
        with pytest.raises(BadInputError, match="must rise"):
            late.result(30)
        runtime.state.before = lambda session: 1 / 0
        broken = worker.submit(stream, numbered(0, 3), 0.2)
        assert isinstance(broken.exception(30), ZeroDivisionError)
        runtime.state.before = lambda session: None
        assert worker.submit(stream, numbered(0, 3), 0.2).result(30).time_s == 0.2
        for bad in (None, np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
            with pytest.raises(BadInputError):  # at once: it could not be copied
                worker.submit(stream, bad, 0.3)
    assert counted(worker) == (5, 3, 0, 2)


def test_nan_reaches_the_future_and_is_counted(watched, numbered):
    runtime = watched()
    with runtime.worker() as worker:
        stream = worker.stream(hop=1, color="rgb", warmup="repeat")

        def poison(session):
            if session.name == "temporal":
                session.buffers["ring"][:] = np.nan

        runtime.state.before = poison
        with pytest.raises(VerificationError, match="not finite"):
            worker.submit(stream, numbered(0, 0), 0.0).result(30)
        runtime.state.before = lambda session: None
        worker.submit(stream, numbered(0, 1), 5.0).result(30)
    assert runtime.not_finite == 1 and counted(worker) == (2, 1, 0, 1)


def test_a_lost_device_ends_it_for_good(watched, numbered):
    runtime = watched(faces=2)
    worker = runtime.worker(queue=1, drop="block")
    stream, gate, first = busy(runtime, worker, numbered)
    waiting = worker.submit(stream, numbered(0, 1), 0.1)
    cancelled_lane = worker.submit_clip(np.zeros((4, 4, 4, 3), np.uint8), color="rgb")
    assert cancelled_lane.cancel()
    blocked_error = []

    def block():
        try:
            worker.submit(stream, numbered(0, 2), 0.2)
        except DeviceLostError as error:
            blocked_error.append(error)

    blocked = threading.Thread(target=block)
    blocked.start()

    def lose(session):
        gate(session)
        if session.name == "frame":
            raise DeviceLostError("The device gave a sticky error.", next="start again")

    runtime.state.before = lose
    gate.leave.set()  # the first run goes well; the next loses the device
    assert first.result(30).time_s == 0.0
    with pytest.raises(DeviceLostError):
        waiting.result(30)
    blocked.join(30)
    assert not blocked.is_alive()
    for _ in range(10):
        with pytest.raises(DeviceLostError, match="sticky"):
            worker.submit(stream, numbered(0, 3), 0.3)
        with pytest.raises(DeviceLostError, match="sticky"):
            worker.stream(color="rgb")
    assert worker.closed
    worker.close()
    stream.close()
    assert worker.submitted == worker.answered + worker.dropped + worker.failed
    with pytest.raises(DeviceLostError, match="sticky"):
        runtime.stream(color="rgb")
    runtime.close()
    assert runtime.state.open == []


# --------------------------------------------------------------------------------------------------------------- close
def test_close_drains(watched, numbered):
    runtime = watched()
    worker = runtime.worker(queue=5)
    stream, gate, first = busy(runtime, worker, numbered)
    rest = [worker.submit(stream, numbered(0, n), n / 10) for n in range(1, 6)]
    closers = [threading.Thread(target=worker.close) for _ in range(3)]
    for closer in closers:
        closer.start()
    while not worker.closed:
        pass
    with pytest.raises(UsageError, match="closed"):
        worker.submit(stream, numbered(0, 9), 9.0)
    assert all(closer.is_alive() for closer in closers)
    gate.leave.set()
    for closer in closers:
        closer.join(30)
    assert [future.result(0).time_s for future in (first, *rest)] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert counted(worker) == (6, 6, 0, 0) and runtime.state.open == []


def test_close_may_drop_what_waits(watched, numbered):
    runtime = watched()
    worker = runtime.worker(queue=5)
    stream, gate, first = busy(runtime, worker, numbered)
    rest = [worker.submit(stream, numbered(0, n), n / 10) for n in range(1, 6)]
    flushed = stream.flush()
    closer = threading.Thread(target=lambda: worker.close(cancel=True))
    closer.start()
    assert wait([*rest, flushed], 30).not_done == set()
    gate.leave.set()
    closer.join(30)
    assert first.result(0).time_s == 0.0 and all(future.cancelled() for future in (*rest, flushed))
    assert counted(worker) == (6, 1, 5, 0)
    worker.close()


def test_an_exception_in_the_with_block_drops_what_waits(watched, numbered):
    runtime = watched()

    def use():
        with runtime.worker(queue=5) as worker:
            stream, gate, _ = busy(runtime, worker, numbered)
            future = worker.submit(stream, numbered(0, 1), 0.1)
            threading.Timer(0.05, gate.leave.set).start()
            seen.extend([worker, future])
            raise KeyError("the caller's own")

    seen: list = []
    with pytest.raises(KeyError):
        use()
    assert seen[1].cancelled() and counted(seen[0]) == (2, 1, 1, 0)


def test_closing_the_runtime_ends_the_worker(watched, numbered):
    runtime = watched()
    worker = runtime.worker(queue=5)
    stream, gate, first = busy(runtime, worker, numbered)
    left = worker.submit(stream, numbered(0, 1), 0.1)
    threading.Timer(0.05, gate.leave.set).start()
    runtime.close()
    assert first.result(0).time_s == 0.0 and left.cancelled() and runtime.state.open == []
    with pytest.raises(UsageError, match="closed"):
        worker.submit(stream, numbered(0, 2), 0.2)


def test_a_worker_goes_on_with_the_open_sessions_and_gives_the_runtime_back(watched, numbered):
    runtime = watched(faces=1)
    here = threading.get_ident()
    opened = runtime.session("frame")
    for turn in range(2):
        runtime.state.threads.clear()
        with runtime.worker() as worker:
            with pytest.raises(UsageError, match="belongs to its worker") as caught:
                runtime.stream(color="rgb")
            assert "worker.submit" in caught.value.next
            stream = worker.stream(hop=1, color="rgb", warmup="repeat")
            worker.submit(stream, numbered(0, 0), 0.0).result(30)
            assert (opened in runtime.state.open) == (turn == 0)
            with pytest.raises(UsageError, match="faces"):
                worker.stream(color="rgb")
            stream.close()
            stream.close()
            with pytest.raises(UsageError, match="closed"):
                worker.submit(stream, numbered(0, 1), 0.1)
            again = worker.stream(hop=1, color="rgb", warmup="repeat")
            assert worker.submit(again, numbered(0, 0), 0.0).result(30).sequence == 0
        assert len(runtime.state.threads - {here}) == 1 and runtime.state.open == []
        with runtime.stream(hop=1, color="rgb", warmup="repeat") as own:  # the face is free, the runtime too
            assert own.push(numbered(0, 0), 0.0).label
    runtime.close()


def test_wrong_arguments_start_no_thread(watched):
    runtime = watched()
    before = threading.active_count()
    for wrong in ({"queue": 0}, {"queue": 1.5}, {"drop": "random"}):
        with pytest.raises(UsageError):
            runtime.worker(**wrong)
    stream = runtime.stream(color="rgb")
    with pytest.raises(UsageError, match="open"):
        runtime.worker()
    stream.close()
    assert threading.active_count() == before
    with runtime.worker() as worker:
        for wrong in ({"hop": 0, "color": "rgb"}, {"color": None}):
            with pytest.raises(UsageError):
                worker.stream(**wrong)


def test_a_stream_of_another_worker_is_refused(watched, numbered):
    with watched().worker() as one, watched().worker() as two:
        stream = two.stream(color="rgb")
        with pytest.raises(UsageError, match="another worker"):
            one.submit(stream, numbered(0, 0), 0.0)


# ----------------------------------------------------------------------------------------------------------- callbacks
def test_a_callback_may_submit_open_and_close_but_not_wait_for_itself(watched, numbered):
    runtime = watched()
    worker = runtime.worker(queue=1, drop="block")
    stream = worker.stream(hop=1, color="rgb", warmup="repeat")
    found, done = [], threading.Event()

    def back(future):
        opened = worker.stream(hop=1, color="rgb", warmup="repeat")
        found.append(worker.submit(opened, numbered(1, 0), 0.0))
        try:
            worker.submit(opened, numbered(1, 1), 0.1)
        except UsageError as error:
            found.append(error)
        worker.close()  # cannot wait for itself; ends after what was submitted
        done.set()

    worker.submit(stream, numbered(0, 0), 0.0).add_done_callback(back)
    assert done.wait(30)
    worker.close()
    assert found[0].result(0).time_s == 0.0 and "wait for itself" in found[1].what
    assert counted(worker) == (2, 2, 0, 0)


def test_a_callback_of_a_dropped_future_may_submit(watched, numbered):
    runtime = watched()
    with runtime.worker(queue=1) as worker:
        stream, gate, _ = busy(runtime, worker, numbered)
        again = []
        dropped = worker.submit(stream, numbered(0, 1), 0.1)
        dropped.add_done_callback(lambda _: again.append(worker.submit(stream, numbered(0, 3), 0.3)))
        worker.submit(stream, numbered(0, 2), 0.2)
        assert dropped.cancelled() and len(again) == 1
        gate.leave.set()
        assert again[0].result(30).time_s == 0.3


# -------------------------------------------------------------------------------------------------------- a real bundle
def test_it_answers_as_the_runtime_itself_does(untrained_bundle: Path):
    frames = np.random.default_rng(3).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
    with logoformer.load(untrained_bundle, threads=1) as runtime:
        clip = runtime.bundle.golden().clips[0]
        with runtime.stream(hop=1, color="bgr", warmup="repeat") as stream:
            wanted = [stream.push(frame, n / 25) for n, frame in enumerate(frames)]
        wanted_clip = runtime(clip, color="rgb")
        with runtime.worker(queue=len(frames)) as worker:
            own = worker.stream(hop=1, color="bgr", warmup="repeat")
            futures = [worker.submit(own, frame, n / 25) for n, frame in enumerate(frames)]
            answer = worker.submit_clip(clip, color="rgb")
            with pytest.raises(BadInputError, match="reads 8"):
                worker.submit_clip(clip[:3], color="rgb")
            with pytest.raises(UsageError, match="channel order"):
                worker.submit_clip(clip)
    for future, result in zip(futures, wanted, strict=True):
        np.testing.assert_array_equal(future.result(0).probabilities, result.probabilities)
    np.testing.assert_array_equal(answer.result(0).probabilities, wanted_clip.probabilities)
    # The runtime had the clip's session open: the worker goes on with it.
    assert list(answer.result(0).stages_ms) == ["queue", "preprocess", "clip", "postprocess"]


def test_dropped_workers_end_their_threads(untrained_bundle):
    def threads() -> int:
        return sum(thread.name == "logoformer-worker" for thread in threading.enumerate())

    before = threads()
    for number in range(20):
        worker = logoformer.load(untrained_bundle, threads=1).worker()
        if number % 2:
            stream = worker.stream(hop=1, color="rgb", warmup="repeat")
            assert worker.submit(stream, np.zeros((64, 64, 3), np.uint8), 0.0).result() is not None
            del stream
        del worker
    deadline = time.monotonic() + 60
    while threads() > before and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.05)
    assert threads() == before


def test_a_runtime_whose_worker_was_dropped_answers_again(untrained_bundle):
    with logoformer.load(untrained_bundle, threads=1) as runtime:
        clip = runtime.bundle.golden().clips[0]
        del_me = runtime.worker()
        answer = del_me.submit_clip(clip, color="rgb").result()
        thread = next(thread for thread in threading.enumerate() if thread.name == "logoformer-worker")
        del del_me
        gc.collect()
        thread.join(60)
        assert runtime(clip, color="rgb").label == answer.label
