"""A callback that raises what no `except Exception` catches, and a serving thread that dies, leave nobody waiting."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import wait

import pytest
from logoformer.engine import worker_thread
from logoformer.errors import UsageError


def counted(worker) -> tuple[int, int, int, int]:
    return worker.submitted, worker.answered, worker.dropped, worker.failed


def opened(worker):
    return worker.stream(hop=1, color="rgb", warmup="repeat")


def interrupt(_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("drop", worker_thread.DROPS)
@pytest.mark.parametrize("callback", [lambda _: sys.exit(3), interrupt])
def test_a_callback_that_ends_its_thread_does_not_end_the_worker(watched, numbered, caplog, drop, callback):
    worker = watched().worker(queue=8, drop=drop)
    stream = opened(worker)
    gate = threading.Event()
    worker._thread.runtime.state.before = lambda _: gate.wait(30)
    times = [0.0, 0.0, 0.1, 0.2, 0.3]  # the second does not rise
    futures = [worker.submit(stream, numbered(0, number), time_s) for number, time_s in enumerate(times)]
    for future in futures[:2]:
        future.add_done_callback(callback)
    gate.set()
    assert not wait(futures, timeout=30).not_done
    assert [future.result(0).time_s for future in futures[2:]] == [0.1, 0.2, 0.3]
    worker.close()
    assert counted(worker) == (5, 4, 0, 1)
    assert "the worker goes on" in caplog.text


def test_each_dropped_one_is_done_whatever_a_callback_raises(watched, numbered):
    runtime = watched()
    worker = runtime.worker(queue=8)
    stream = opened(worker)
    entered, gate = threading.Event(), threading.Event()
    runtime.state.before = lambda _: (entered.set(), gate.wait(30))
    futures = [worker.submit(stream, numbered(0, 0), 0.0)]
    assert entered.wait(30)
    futures += [worker.submit(stream, numbered(0, number), number / 10) for number in range(1, 4)]
    futures[1].add_done_callback(lambda _: sys.exit(3))
    threading.Timer(0.2, gate.set).start()
    with pytest.raises(SystemExit):
        worker.close(cancel=True)
    assert not wait(futures, timeout=30).not_done
    assert [future.cancelled() for future in futures] == [False, True, True, True]
    assert not worker._thread._thread.is_alive() and counted(worker) == (4, 1, 3, 0)


def test_a_serving_thread_that_dies_leaves_nobody_waiting(watched, numbered, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    runtime = watched()
    worker = runtime.worker(queue=1, drop="block")
    streams = [opened(worker), opened(worker)]
    entered, gate = threading.Event(), threading.Event()

    def dies(self, tasks, held):
        entered.set()
        gate.wait(30)
        raise SystemExit(3)

    monkeypatch.setattr(worker_thread.WorkerThread, "_do", dies)
    begun = worker.submit(streams[0], numbered(0, 0), 0.0)
    assert entered.wait(30)
    waiting = worker.submit(streams[0], numbered(0, 1), 0.1)
    found = []

    def submit_one_more():
        try:
            worker.submit(streams[0], numbered(0, 2), 0.2)
        except UsageError as error:
            found.append(error)

    blocked = threading.Thread(target=submit_one_more, daemon=True)
    blocked.start()
    time.sleep(0.1)
    gate.set()
    blocked.join(30)
    assert "closed" in found[0].what
    assert not wait([begun, waiting], timeout=30).not_done
    assert isinstance(begun.exception(0), SystemExit) and waiting.cancelled()
    assert worker.closed and counted(worker) == (2, 0, 1, 1)
    worker.close()
    with pytest.raises(UsageError, match="closed"):
        worker.submit(streams[1], numbered(1, 0), 0.0)
