"""The thread of one camera on a clock that stands: times of arrival, sizes, epochs of a loop, the pace of a file."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from logoformer.camera.pipeline import feeder
from logoformer.camera.pipeline.faces import GivenFace
from logoformer.camera.pipeline.feeder import CameraSetup, Feeder
from watching import ScriptedSource, flat

NOW_S, UNIX_S = 500.0, 1.7e9


class Ending(ScriptedSource):
    """Ends behind its frames, a live one too."""

    def __iter__(self):
        yield from self._frames


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    now = SimpleNamespace(s=NOW_S)
    monkeypatch.setattr(feeder, "time", SimpleNamespace(monotonic=lambda: now.s, time=lambda: UNIX_S + now.s - NOW_S))
    return now


def fed(source, *, spend=None, clock=None, limit=1000, **more):
    """What a camera hands on, by the feeder's own loop on this thread; and the waits between."""
    seen, waits = [], []

    def take(_number, frame) -> bool:
        seen.append(frame)
        if spend:
            clock.s += spend.get(frame.index, 0.0)
        return len(seen) < limit

    def wait(seconds: float) -> None:
        waits.append(seconds)
        clock.s += seconds

    it = Feeder(0, CameraSetup(source, GivenFace("whole"), **more), take, lambda _: None)
    it._ending = SimpleNamespace(is_set=lambda: False, wait=wait)
    it.run()
    assert it.failure is None
    return it, seen, waits


def test_a_live_frame_keeps_the_moment_of_its_arrival(clock):
    it, (seen,), _ = fed(Ending([flat(0, captured_s=NOW_S - 1.5)], live=True))
    assert (seen.captured_s, seen.captured_at) == (NOW_S - 1.5, UNIX_S - 1.5)
    assert it.newest_s == NOW_S - 1.5 and it.size == (64, 48)


def test_a_frame_of_a_file_arrives_when_it_is_read(clock):
    _, (seen,), _ = fed(Ending([flat(0)]))
    assert (seen.captured_s, seen.captured_at) == (NOW_S, UNIX_S)


def test_a_loop_of_a_source_with_two_epochs_gives_each_a_number_of_its_own(clock):
    frames = [flat(n, epoch=n // 2) for n in range(4)]
    _, seen, _ = fed(Ending(frames), again=lambda: Ending(frames), limit=8)
    assert [one.epoch for one in seen] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_paced_file_comes_at_its_own_times_and_a_late_one_goes_on_from_where_it_is(clock):
    frames = [flat(n, fps=10.0) for n in range(5)]
    _, _, waits = fed(Ending(frames), clock=clock, spend={2: 5.0}, pace=True)
    assert waits == pytest.approx([0.1, 0.1, 0.1])  # none for frame 3, which is late, and no rush after it


def test_a_camera_is_never_paced(clock):
    _, seen, waits = fed(Ending([flat(0), flat(1, fps=0.001)], live=True), clock=clock, pace=True)
    assert len(seen) == 2 and waits == []
