"""Limits in time of live sources, on a clock that stands until it is set: patience, stalls, pauses, times of frames."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from logoformer.camera.sources import live
from logoformer.camera.sources.live import Arrived, Capture, LiveSource, LiveTiming
from logoformer.errors import MachineError

PIXELS = np.zeros((6, 8, 3), np.uint8)
AWAY = MachineError("cam: 10.0.0.5 does not answer.")


class Clock:
    """Seconds that pass only when somebody says so; the looks of the watchdog are counted."""

    def __init__(self) -> None:
        self.now_s, self.looks = 0.0, 0

    def __call__(self) -> float:
        self.looks += threading.current_thread().name.startswith("watchdog")
        return self.now_s


class Told(Capture):
    """A connection that does one thing after the other when it is told: media times are frames, None is damage."""

    def __init__(self, go: threading.Semaphore, steps: list[object]) -> None:
        self.go, self.steps, self.over = go, steps, threading.Event()

    def open(self) -> None:
        """Nothing to open."""

    def read(self) -> Iterator[Arrived | None]:
        for step in self.steps:
            while not self.over.is_set() and not self.go.acquire(timeout=0.01):
                pass
            if self.over.is_set():
                return
            if isinstance(step, Exception):
                raise step
            yield step if step is None else Arrived(lambda: PIXELS, float(step), (8, 6))
        if self.steps:
            self.over.wait(30)

    def abort(self) -> None:
        self.over.set()

    def close(self) -> None:
        """Nothing to close."""


def until(condition: Callable[[], object]) -> None:
    """Waits for a condition; the limit is a guard against hanging, not a measure."""
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.002)


@pytest.fixture
def start(monkeypatch) -> Iterator[Callable[..., SimpleNamespace]]:
    """Opens a source of connections given by their steps; then there is none. `go` tells the next step."""
    clock, sources = Clock(), []
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=clock))

    def begin(*connections: list[object], **timing: float) -> SimpleNamespace:
        go, left = threading.Semaphore(0), iter(connections)
        limits = LiveTiming(**{"pause_s": 0.01, "longest_pause_s": 0.05, "patience_s": math.inf} | timing)

        def make() -> Capture:
            steps = next(left, None)
            if steps is None:
                raise AWAY
            return Told(go, steps)

        source = LiveSource(make, "scripted", 25.0, limits)
        sources.append(source)
        return SimpleNamespace(source=source, clock=clock, go=go, frames=lambda: source.status().frames)

    yield begin
    for source in sources:
        source.close()


def looked(clock: Clock) -> None:
    """Waits until the watchdog has looked at the clock as it is now, and acted on it."""
    before = clock.looks
    until(lambda: clock.looks >= before + 2)


def test_patience_counts_from_the_last_frame_and_not_from_the_opening(start):
    it = start([0.0, AWAY], patience_s=30.0, first_s=1e6, stall_s=1e6)
    it.clock.now_s = 100.0
    it.go.release()
    until(it.frames)
    assert next(iter(it.source)).time_s == 100.0
    it.clock.now_s = 110.0
    it.go.release()
    until(lambda: it.source.status().state == "lost")
    it.clock.now_s = 129.0
    late = threading.Timer(0.2, lambda: setattr(it.clock, "now_s", 131.0))
    late.start()
    with pytest.raises(MachineError, match="does not answer"):
        next(iter(it.source))
    assert it.clock.now_s == 131.0  # and not before
    late.join()


def test_patience_is_for_losses_alone(start):
    it = start([0.0, 1.0], patience_s=30.0, stall_s=1e6)
    it.go.release()
    assert next(iter(it.source)).index == 0
    it.clock.now_s = 100.0
    late = threading.Timer(0.2, it.go.release)
    late.start()
    assert next(iter(it.source)).index == 1
    late.join()


def test_a_stall_counts_from_the_last_frame_and_not_from_the_connection(start):
    it = start([0.0, 1.5], stall_s=2.0)
    it.go.release()
    until(lambda: it.frames() == 1)
    it.clock.now_s = 1.5
    it.go.release()
    until(lambda: it.frames() == 2)
    it.clock.now_s = 3.4
    looked(it.clock)
    assert it.source.status().state == "live"
    it.clock.now_s = 3.6
    until(lambda: it.source.status().state == "lost")
    assert it.source.status().reason in ("scripted has sent no frame for 2 s.", AWAY.what)


def test_a_first_frame_has_a_longer_limit(start):
    it = start([0.0], stall_s=2.0, first_s=10.0)
    it.clock.now_s = 9.0
    looked(it.clock)
    assert it.source.status().state == "connecting"
    it.clock.now_s = 10.1
    until(lambda: it.source.status().state == "lost")


def test_a_first_frame_that_is_damaged_hides_no_new_connection(start):
    it = start([None, 0.0, AWAY], [None, 0.0, 0.1], stall_s=1e6, first_s=1e6)
    it.go.release(2)
    until(lambda: it.frames() == 1)
    assert next(iter(it.source)).epoch == 0
    it.go.release(3)
    until(lambda: it.frames() == 2)
    assert next(iter(it.source)).epoch == 1 and it.source.status().reconnects == 1
    it.go.release()
    assert next(iter(it.source)).epoch == 1  # one epoch a connection, not one a frame


def test_times_of_a_new_connection_are_moved_to_the_clock_anew(start):
    it = start([100.0, 100.5, AWAY], [0.0, 0.04], stall_s=1e6, first_s=1e6)
    frames = iter(it.source)
    it.go.release()
    assert next(frames).time_s == 0.0
    it.clock.now_s = 0.9
    it.go.release()
    assert next(frames).time_s == pytest.approx(0.5)  # its own spacing, not the arrival
    it.clock.now_s = 7.0
    it.go.release(2)
    assert next(frames).time_s == pytest.approx(7.0)
    it.clock.now_s = 7.31
    it.go.release()
    assert next(frames).time_s == pytest.approx(7.04)


def test_pauses_between_attempts_double_up_to_a_limit_and_begin_anew_after_a_frame(start, monkeypatch):
    pauses: list[float] = []

    class Noted(threading.Condition):
        def wait_for(self, predicate, timeout=None):
            if threading.current_thread().name.startswith("capture"):
                pauses.append(timeout)
            return super().wait_for(predicate, timeout)

    monkeypatch.setattr(threading, "Condition", Noted)
    broken: list[object] = [AWAY]
    it = start(*[broken] * 4, [0.0, AWAY], *[broken] * 3, pause_s=0.01, longest_pause_s=0.05)
    it.go.release(9)
    until(lambda: len(pauses) >= 8)
    assert list(itertools.islice(pauses, 8)) == pytest.approx([0.01, 0.02, 0.04, 0.05, 0.01, 0.02, 0.04, 0.05])
