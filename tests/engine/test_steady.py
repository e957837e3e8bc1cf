"""Steady state: nothing grows; what the host checks before a run is checked."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from logoformer.errors import VerificationError


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system has no /proc/self/statm")
@pytest.mark.parametrize("through", ["push", "step", "worker"])
def test_ten_thousand_frames_leave_nothing_behind(watched, numbered, through):
    runtime = watched(faces=2, batches=(1, 2))
    frames = [numbered(0, number) for number in range(16)]
    worker = runtime.worker(queue=4, drop="block") if through == "worker" else None
    maker = worker or runtime
    a, b = (maker.stream(hop=1, color="bgr", warmup="repeat") for _ in range(2))

    def feed(start: int, count: int) -> None:
        for number in range(start, start + count):
            frame, time = frames[number % 16], number / 10
            if worker is not None:
                worker.submit(a, frame, time)
            elif through == "step":
                runtime.step({a: (frame, time), b: (frame, time)})
            else:
                a.push(frame, time)
        if worker is not None:
            a.flush().result(60)
        runtime.state.runs.clear()

    feed(0, 2000)
    tracemalloc.start()
    feed(2000, 500)
    pages = []  # what earlier tests left to the allocator may come once; a leak comes again in every turn
    for turn in range(3):
        gc.collect()
        held, resident = tracemalloc.get_traced_memory()[0], resident_bytes()
        feed(2500 + 10_000 * turn, 10_000)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - held
        assert grown <= 1 << 20, f"{grown} bytes of Python objects"
        pages.append(resident_bytes() - resident)
        if pages[-1] <= 1 << 20:
            break
    tracemalloc.stop()
    assert min(pages) <= 1 << 20, f"resident memory grew by {pages}"
    runtime.close()


def test_order_out_of_range_runs_nothing(watched, numbered, monkeypatch):
    runtime = watched(faces=2)
    stream = runtime.stream(hop=1, color="rgb", warmup="repeat")
    other = runtime.stream(hop=1, color="rgb", warmup="repeat")
    stream.push(numbered(0, 0), 0.0)
    for wrong in (-1, 8, 16, 10**6):  # before the arena, another face's, behind the arena
        runtime.state.runs.clear()
        monkeypatch.setattr(stream._ring, "pick", lambda ages, wrong=wrong: np.array([0, 1, wrong, 2]))
        with pytest.raises(VerificationError, match="Nothing was run") as caught:
            stream.flush()
        assert caught.value.exit_code == 5 and runtime.state.runs == []
    assert other.push(numbered(1, 0), 0.0).label
    runtime.close()


def test_a_frame_that_failed_is_never_read(watched, numbered, told):
    runtime = watched(faces=1)
    stream = runtime.stream(hop=1, color="rgb", warmup="repeat")
    for number in range(8):  # the ring is full
        stream.push(numbered(0, number), number / 10)
    temporal = runtime.session("temporal")
    whole = temporal.take

    def half(source, output, name, row, index=0):
        temporal.buffers[name][row] = 200
        raise OSError("the copy broke off")

    temporal.take = half
    with pytest.raises(OSError, match="broke off"):
        stream.push(numbered(0, 8), 0.8)
    temporal.take = whole
    assert told(stream.flush()) == (0, 7)
    assert (temporal.buffers["ring"][temporal.buffers["order"]] != 200).all()
    runtime.close()
