"""Live sources by a scripted camera: newest frame, losses and their reasons, epochs, the watchdog, closing, memory."""

from __future__ import annotations

import itertools
import math
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from logoformer.camera.sources.contract import TimedFrame
from logoformer.camera.sources.live import Arrived, Capture, LiveSource, LiveTiming
from logoformer.errors import BadInputError, LogoformerError, MachineError

QUICK = LiveTiming(stall_s=0.2, first_s=0.4, pause_s=0.01, longest_pause_s=0.05, patience_s=math.inf, join_s=5.0)


class Script(Capture):
    """One connection that does what it is told: frames as (number, size), pauses, damage, an error, an end."""

    def __init__(self, steps: list, fps: float | None = 30.0) -> None:
        self.steps, self.fps = steps, fps
        self.ended_by_abort = threading.Event()
        self.closed = False

    def open(self) -> None:
        if self.steps and isinstance(self.steps[0], LogoformerError):
            raise self.steps[0]

    def read(self) -> Iterator[Arrived | None]:
        for step in self.steps:
            if isinstance(step, LogoformerError):
                raise step
            if callable(step):
                step()
            elif step == "hang":
                assert self.ended_by_abort.wait(30)
                return
            elif step == "damage":
                yield None
            else:
                number, size, media_s = step
                pixels = np.full((size[1], size[0], 3), number % 256, np.uint8)
                yield Arrived(lambda pixels=pixels: pixels, media_s, size)

    def abort(self) -> None:
        self.ended_by_abort.set()

    def close(self) -> None:
        self.closed = True


def frames(first: int, count: int, size: tuple[int, int] = (8, 6)) -> list:
    return [(number, size, None) for number in range(first, first + count)]


@pytest.fixture
def opened() -> Iterator[Callable[..., LiveSource]]:
    """Opens a source whose connections follow a list; the last one repeats. Nothing is left at the end."""
    before = set(threading.enumerate())
    sources: list[LiveSource] = []

    def start(*connections: Callable[[], Capture], timing: LiveTiming = QUICK) -> LiveSource:
        script = itertools.chain(connections, itertools.repeat(connections[-1]))
        sources.append(LiveSource(lambda: next(script)(), "scripted", 25.0, timing))
        return sources[-1]

    yield start
    for source in sources:
        source.close()
    assert set(threading.enumerate()) <= before


def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition; the limit is a guard against hanging, not a measure."""
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.002)


def take(source: LiveSource, count: int) -> list[TimedFrame]:
    return list(itertools.islice(source, count))


def test_every_frame_of_a_reader_that_keeps_up_is_given(opened):
    gate = threading.Semaphore(0)
    steps = [step for frame in frames(0, 5) for step in (gate.acquire, frame)]
    source = opened(lambda: Script([*steps, "hang"]))
    seen = []
    gate.release()
    for one in source:
        seen.append(one)
        if len(seen) == 5:
            break
        gate.release()
    assert [one.index for one in seen] == [0, 1, 2, 3, 4] and [int(one.frame[0, 0, 0]) for one in seen] == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert {one.epoch for one in seen} == {0} and source.live and source.color == "rgb" and source.fps == 30.0
    assert all(later.time_s > earlier.time_s for earlier, later in itertools.pairwise(seen))
    assert all(later.captured_s >= earlier.captured_s > 0 for earlier, later in itertools.pairwise(seen))
    status = source.status()
    assert (status.state, status.reason, status.frames, status.dropped, status.size) == ("live", "", 5, 0, (8, 6))
    assert status.age_s >= 0


def test_a_slow_reader_gets_the_newest_frame_and_the_others_are_counted(opened):
    source = opened(lambda: Script([*frames(0, 50), "hang"]))
    until(lambda: source.status().frames == 50)
    (newest,) = take(source, 1)
    assert (newest.index, int(newest.frame[0, 0, 0])) == (49, 49)
    assert source.status().dropped == 49


def test_damaged_frames_are_passed_over_and_counted(opened):
    source = opened(lambda: Script([*frames(0, 1), "damage", "damage", *frames(1, 1), "hang"]))
    until(lambda: source.status().frames == 2)
    assert source.status().dropped == 2 + 1
    assert take(source, 1)[0].index == 1


def test_a_stream_that_just_ends_is_a_loss_and_a_new_epoch_follows(opened):
    again = threading.Event()
    source = opened(
        lambda: Script(frames(0, 3)), lambda: Script([lambda: again.wait(30) and None, *frames(3, 1), "hang"])
    )
    until(lambda: source.status().state == "lost")
    first = take(source, 1)[0]
    status = source.status()
    assert "ended" in status.reason and status.reconnects == 0
    again.set()
    second = take(source, 1)[0]
    assert (first.epoch, second.epoch) == (0, 1) and second.time_s > first.time_s and second.index == 3
    assert source.status().reconnects == 1 and source.status().reason == ""


def test_the_reason_of_a_failure_is_kept_until_frames_come_again(opened):
    refused = MachineError("cam: nothing listens on port 554 of cam.")
    tries = []

    def connection() -> Script:
        tries.append(1)
        return Script([refused] if 1 < len(tries) < 5 else [*frames(0, 1), *([] if len(tries) == 1 else ["hang"])])

    source = opened(connection)
    until(lambda: source.status().reason == refused.what)
    assert source.status().state == "lost"
    until(lambda: source.status().reconnects == 1)
    assert (source.status().state, source.status().reason) == ("live", "")


def test_a_camera_that_hangs_is_noticed_by_the_age_of_its_last_frame(opened):
    scripts: list[Script] = []

    def connection() -> Script:
        scripts.append(Script([*frames(0, 2), "hang"]))
        return scripts[-1]

    source = opened(connection)
    seen = take(source, 3)
    assert [one.epoch for one in seen] == sorted(one.epoch for one in seen) and seen[-1].epoch >= 1
    assert scripts[0].ended_by_abort.is_set() and scripts[0].closed


def test_a_hang_is_noticed_although_the_connection_cannot_be_ended(opened):
    stuck, free = threading.Event(), threading.Event()

    class Deaf(Script):
        def abort(self) -> None:
            stuck.set()

    late = frames(9, 1)
    source = opened(
        lambda: Deaf([*frames(0, 1), lambda: free.wait(30) and None, *late]), lambda: Script([*frames(1, 1), "hang"])
    )
    assert take(source, 1)[0].epoch == 0
    until(stuck.is_set)
    status = source.status()
    assert status.state == "lost" and "has sent no frame for 0.2 s" in status.reason
    free.set()
    second = take(source, 1)[0]
    # The frame that the stuck connection gives after all belongs to a time that was given up.
    assert (second.epoch, int(second.frame[0, 0, 0])) == (1, 1)


def test_a_connection_without_a_first_frame_is_given_up(opened):
    source = opened(lambda: Script(["hang"]), lambda: Script([*frames(0, 1), "hang"]))
    until(lambda: source.status().state == "lost")
    assert "no first frame" in source.status().reason or source.status().frames
    assert take(source, 1)[0].epoch == 0  # the first connection gave nothing: no epoch


def test_another_size_is_another_epoch(opened):
    again = threading.Event()
    source = opened(lambda: Script([*frames(0, 1), lambda: again.wait(30) and None, *frames(1, 1, (16, 12)), "hang"]))
    first = take(source, 1)[0]
    again.set()
    second = take(source, 1)[0]
    assert (first.epoch, second.epoch) == (0, 1) and second.frame.shape == (12, 16, 3)
    assert source.status().size == (16, 12) and source.status().reconnects == 0


def test_patience_ends_with_the_last_reason(opened):
    timing = LiveTiming(pause_s=0.01, longest_pause_s=0.02, patience_s=0.1)
    reason = MachineError("cam: 10.0.0.5 does not answer.")
    source = opened(lambda: Script(frames(0, 1)), lambda: Script([reason]), timing=timing)
    with pytest.raises(MachineError, match="does not answer"):
        list(source)


def test_what_must_succeed_at_once_raises_its_reason_and_leaves_nothing(opened):
    source = opened(lambda: Script([BadInputError("cam: no stream at this path (404).")]))
    with pytest.raises(BadInputError, match="404"):
        source.require()
    assert source.status().state == "ended"
    opened(lambda: Script([*frames(0, 1), "hang"])).require()


def test_an_error_of_a_decoder_is_a_reason_and_does_not_end_the_thread(opened):
    def broken() -> None:
        raise ZeroDivisionError("deep inside")

    source = opened(lambda: Script([broken]), lambda: Script([*frames(0, 1), "hang"]))
    assert take(source, 1)[0].epoch == 0


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("caught", [MachineError("Reading a camera needs the package av."), TypeError("no reader")])
def test_a_connection_that_cannot_be_made_is_a_reason_too(opened, caught):
    """Its reader may not be installed: without the reason who requires the source would wait for ever."""

    def missing() -> Capture:
        raise caught

    source = opened(missing)
    until(lambda: source.status().state == "lost")
    with pytest.raises(MachineError, match=r"package av|TypeError: no reader"):
        source.require()
    again = opened(missing, lambda: Script([*frames(0, 1), "hang"]))
    assert take(again, 1)[0].epoch == 0


@pytest.mark.parametrize("state", ["live", "hanging", "waiting"])
def test_closing_from_another_thread_ends_the_iteration(opened, state):
    steps = {"live": [*frames(0, 1), "hang"], "hanging": ["hang"], "waiting": [MachineError("no")]}[state]
    slow = LiveTiming(pause_s=60, longest_pause_s=60, stall_s=60, first_s=60)
    source = opened(lambda: Script(steps), timing=slow)
    ended = threading.Event()

    def read() -> None:
        list(source)
        ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    until(lambda: source.status().state != "connecting" or state == "hanging")
    source.close()
    source.close()
    assert ended.wait(30)
    reader.join()
    assert source.status().state == "ended" and list(source) == []


def test_pixels_of_a_kind_that_is_not_read_end_the_iteration(opened):
    def deep() -> np.ndarray:
        raise BadInputError("more than 8 bits")

    class Deep(Script):
        def read(self) -> Iterator[Arrived | None]:
            yield Arrived(deep, None, (8, 6))
            self.ended_by_abort.wait(30)

    with pytest.raises(BadInputError, match="8 bits"):
        list(opened(lambda: Deep([])))


def test_memory_is_flat_over_ten_minutes_of_frames(opened):
    """18 000 frames at 30 a second, with a reconnect every minute, as fast as they are taken."""
    minutes, rate = 10, 30

    class Minute(Script):
        def read(self) -> Iterator[Arrived | None]:
            for number in range(60 * rate):
                pixels = np.full((48, 64, 3), number % 256, np.uint8)
                yield Arrived(lambda pixels=pixels: pixels, number / rate, (64, 48))

    made = itertools.count()
    source = opened(lambda: Minute([]) if next(made) < minutes else Script(["hang"]))
    tracemalloc.start()
    try:
        early = None
        for one in source:
            if one.index > 60 * rate and early is None:
                early = tracemalloc.get_traced_memory()[0]
                tracemalloc.reset_peak()
            if source.status().frames == minutes * 60 * rate and one.index == minutes * 60 * rate - 1:
                break
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert source.status().reconnects == minutes - 1
    assert peak - early < 5 << 20
