"""Eight faces with 2 000 frames each on one thread: in order, counted, not mixed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from logoformer.engine import Result, Runtime, Stream

FACES, FRAMES = 8, 2000
LATE_S, EARLY_S = 0.1, 0.02  # the second follows closer than the ring's step of 0.6 s / 7


def sequence() -> Iterator[tuple[int, int, float]]:
    """(face, number, time): each face in order on its own clock, all shuffled together."""
    rng = np.random.default_rng(20)
    waits = rng.choice([LATE_S, EARLY_S, 1.0], (FACES, FRAMES), p=[0.9, 0.08, 0.02])
    times = waits.cumsum(axis=1)
    numbers = [0] * FACES
    for face in rng.permutation(np.repeat(np.arange(FACES), FRAMES)).tolist():
        yield face, numbers[face], float(times[face, numbers[face]])
        numbers[face] += 1


def opened(runtime: Runtime) -> list[Stream]:
    return [runtime.stream(hop=1 + face % 3, color="rgb", warmup="repeat") for face in range(FACES)]


def in_steps(runtime: Runtime, streams: list[Stream], numbered: Callable) -> Iterator[tuple[int, int, Result | None]]:
    """The sequence cut where a face would come twice into one step."""
    waiting: dict[int, tuple[int, float]] = {}

    def advance() -> Iterator[tuple[int, int, Result | None]]:
        found = runtime.step({streams[f]: (numbered(f, number), time) for f, (number, time) in waiting.items()})
        yield from ((face, number, found[streams[face]]) for face, (number, _) in waiting.items())

    for face, number, time in sequence():
        if face in waiting:
            yield from advance()
            waiting.clear()
        waiting[face] = number, time
    yield from advance()


@pytest.fixture
def singly(watched, numbered) -> tuple[list[Stream], list[tuple[int, int, Result | None]]]:
    runtime = watched(faces=FACES)
    streams = opened(runtime)
    return streams, [(f, number, streams[f].push(numbered(f, number), time)) for f, number, time in sequence()]


def test_in_order_counted_and_not_mixed(singly, told):
    streams, given = singly
    assert len(given) == FACES * FRAMES
    times = {(face, number): time for face, number, time in sequence()}
    for face, stream in enumerate(streams):
        answered = [(number, result) for whose, number, result in given if whose == face and result is not None]
        assert [told(result) for _, result in answered] == [(face, number) for number, _ in answered], "mixed"
        assert [result.time_s for _, result in answered] == [times[face, number] for number, _ in answered]
        assert [result.sequence for _, result in answered] == list(range(len(answered))), "lost or out of order"
        # Kept, skipped and the gaps that emptied the ring, from the clock alone.
        kept, skipped, gaps, since, answers = None, 0, 0, 0, 0
        for number in range(FRAMES):
            time = times[face, number]
            if kept is not None and time - kept > 0.4:
                kept, since, gaps = None, 0, gaps + 1
            if kept is not None and time - kept < 0.6 / 7:
                skipped += 1
                continue
            kept, since = time, since + 1
            if since == stream.hop:
                since, answers = 0, answers + 1
        assert (stream.skipped, stream.resets, len(answered)) == (skipped, gaps, answers)
        assert skipped > 50 and gaps > 10 and answers > 500


@pytest.mark.parametrize("together", [(1,), (1, 2, 4)])
@pytest.mark.parametrize("batches", [(1,), (1, 2, 4, 8)])
def test_step_gives_what_single_pushes_give(singly, watched, numbered, batches, together):
    alone, wanted = singly
    runtime = watched(faces=FACES, batches=batches, together=together)
    streams = opened(runtime)
    given = list(in_steps(runtime, streams, numbered))
    assert [row[:2] for row in given] == [row[:2] for row in wanted]
    for (_, _, found), (_, _, single) in zip(given, wanted, strict=True):
        assert (found is None) == (single is None)
        if single is not None:
            np.testing.assert_array_equal(found.probabilities, single.probabilities)
            assert (found.time_s, found.sequence, found.label) == (single.time_s, single.sequence, single.label)
    assert [(s.skipped, s.resets) for s in streams] == [(s.skipped, s.resets) for s in alone]
    assert (set(runtime.state.runs) > {"frame b2", "frame b4"}) == (len(batches) > 1)
