"""Throughput with several workers: every step is run once, by whoever is free."""

from __future__ import annotations

import contextlib
import threading

import pytest
from logoformer.benchmarks.load.offline import OfflineResult, offline


def opening(step, log):
    @contextlib.contextmanager
    def open_step():
        log.append(("opened", threading.get_ident()))
        yield step
        log.append(("closed", threading.get_ident()))

    return open_step


@pytest.mark.parametrize("workers", [1, 3])
def test_every_step_is_run_once(workers):
    log, ran, lock = [], [], threading.Lock()

    def step(index):
        with lock:
            ran.append((index, threading.get_ident()))

    result = offline(opening(step, log), workers, 50, warmup=2)
    timed = ran[2 * workers :]
    assert sorted(index for index, _ in timed) == list(range(50))
    assert len(result.latency_ns) == 50
    assert (result.latency_ns >= 0).all()
    assert result.throughput_hz > 0
    opened = {who for what, who in log if what == "opened"}
    assert len(opened) == workers
    assert opened == {who for what, who in log if what == "closed"}
    assert threading.main_thread().ident not in opened  # each runtime belongs to its own thread


def test_nobody_starts_before_all_are_warm():
    warm, first, lock = [0], [], threading.Lock()

    def step(index):
        with lock:
            if len(first) == 0 and warm[0] < 4:
                warm[0] += 1
            else:
                first.append(warm[0])

    offline(opening(step, []), 2, 20, warmup=2)
    assert set(first) == {4}


@pytest.mark.parametrize("when", ["opening", "warming", "timing"])
def test_an_error_of_a_worker_ends_the_run(when):
    count = iter(range(1000))

    def step(index):
        if when == "warming" or (when == "timing" and next(count) > 10):
            raise RuntimeError("lost")

    @contextlib.contextmanager
    def open_step():
        if when == "opening":
            raise RuntimeError("lost")
        yield step

    with pytest.raises(RuntimeError, match="lost"):
        offline(open_step, 2, 100, warmup=1)


def test_throughput_is_results_over_wall_clock():
    import numpy as np

    assert OfflineResult(np.zeros(30, np.int64), np.ones(30, np.int64), 1.5).throughput_hz == 20.0
