"""The streams of a model instance: opened, ended, given up, restored; no Triton needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import logoformer
import numpy as np
import pytest
from logoformer.engine import Runtime
from logoformer.errors import BadInputError, UsageError
from logoformer.serving import sequences
from logoformer.serving.sequences import NOT_HELD, FrameCall, FrameReply, History, StreamTable

FRAMES = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), np.uint8)


@pytest.fixture
def runtime(untrained_bundle: Path) -> Iterator[Runtime]:
    with logoformer.load(untrained_bundle, backend="onnxruntime", precision="fp32", threads=1) as runtime:
        yield runtime


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(runtime: Runtime, clock: Clock) -> StreamTable:
    return StreamTable(runtime, 1, "repeat", 10.0, clock)


def call(sequence: int, number: int, *, start: bool = False, end: bool = False, **more) -> FrameCall:
    return FrameCall(sequence, start, end, FRAMES[number], number / 25, **more)


def bits(reply) -> bytes:
    assert isinstance(reply, FrameReply), reply
    return reply.result.probabilities.tobytes()


def test_sequences_advance_together_and_answer_as_streams_do(runtime, table):
    found = [table.step([call(3, n, start=n == 0), call(4, n + 5, start=n == 0)]) for n in range(6)]
    assert len(table) == 2
    for place, first in enumerate((0, 5)):
        with runtime.stream(1, color="rgb", warmup="repeat") as local:
            wanted = [local.push(FRAMES[first + n], (first + n) / 25) for n in range(6)]
        assert [bits(replies[place]) for replies in found] == [one.probabilities.tobytes() for one in wanted]


def test_two_frames_of_one_sequence_in_one_step_go_one_after_the_other(runtime, table):
    found = table.step([call(1, n, start=n == 0, end=n == 3) for n in range(4)])
    with runtime.stream(1, color="rgb", warmup="repeat") as local:
        wanted = [local.push(FRAMES[n], n / 25) for n in range(4)]
    assert [bits(one) for one in found] == [one.probabilities.tobytes() for one in wanted]
    assert len(table) == 0


def test_a_sequence_that_is_not_held_must_be_opened(table):
    (first,), (second,) = table.step([call(1, 0)]), table.step([call(1, 1, start=True, end=True)])
    assert isinstance(first, UsageError) and NOT_HELD in first.what
    assert isinstance(second, FrameReply) and second.kept
    (third,) = table.step([call(1, 2)])
    assert isinstance(third, UsageError)


def test_a_second_start_begins_anew(runtime, table):
    for n in range(3):
        table.step([call(1, n, start=n == 0)])
    (again,) = table.step([call(1, 0, start=True)])  # an earlier time: another stream
    with runtime.stream(1, color="rgb", warmup="repeat") as local:
        assert bits(again) == local.push(FRAMES[0], 0.0).probabilities.tobytes()


def test_an_error_of_one_leaves_it_and_the_others_as_they_were(runtime, table):
    table.step([call(1, 3, start=True), call(2, 3, start=True)])
    late, good = table.step([call(1, 2), call(2, 4)])
    assert isinstance(late, BadInputError) and "times must rise" in late.what
    (after,) = table.step([call(1, 4)])
    assert bits(after) == bits(good)


def test_silent_sequences_are_forgotten_and_then_the_one_that_was_silent_for_longest(table, clock, runtime):
    faces = runtime.bundle.stream.faces
    for sequence in range(1, faces + 1):
        clock.now = float(sequence)
        table.step([call(sequence, 0, start=True)])
    clock.now = 9.0
    table.step([call(1, 1)])
    table.step([call(99, 0, start=True)])  # all were used within 10 s: 2 is given up
    assert table.evicted == 1 and len(table) == faces
    assert isinstance(table.step([call(2, 1)])[0], UsageError)
    assert isinstance(table.step([call(1, 2)])[0], FrameReply)
    clock.now = 25.0  # none was
    table.step([call(100, 0, start=True)])
    assert table.evicted == 1 and len(table) == 1


def test_a_history_restores_the_state_and_a_wrong_one_leaves_no_stream(runtime):
    table = StreamTable(runtime, 3, "repeat", 10.0)
    replies = [table.step([call(1, n, start=n == 0)])[0] for n in range(8)]
    history = History(FRAMES[:5], np.arange(5) / 25, replies[4].since)
    again = [table.step([call(2, n, start=n == 5, history=history if n == 5 else None)])[0] for n in (5, 6, 7)]
    assert [one.since for one in again] == [one.since for one in replies[5:]]
    assert [one.result is None for one in again] == [one.result is None for one in replies[5:]] == [False, True, True]
    assert bits(again[0]) == bits(replies[5])
    for wrong in (History(FRAMES[:2], np.array([1.0, 0.5]), 0), History(FRAMES[:2], np.array([0.0]), 0)):
        (refused,) = table.step([call(3, 9, start=True, history=wrong)])
        assert isinstance(refused, (BadInputError, UsageError))
    assert len(table) == 2


def test_a_hop_holds_from_its_frame_on_and_a_flush_answers_where_none_is_due(runtime):
    table = StreamTable(runtime, 4, "repeat", 10.0)
    found = [
        table.step([call(1, n, start=n == 0, hop={5: 2, 9: 5}.get(n), flush=n in (2, 11), end=n == 13)])[0]
        for n in range(14)
    ]
    wanted = []
    with runtime.stream(4, color="rgb", warmup="repeat") as local:
        for n in range(14):
            local.hop = {5: 2, 9: 5}.get(n, local.hop)
            result = local.push(FRAMES[n], n / 25)
            wanted.append((local.flush() if n in (2, 11) and result is None else result, local.since))
    assert [(one.result is None, one.since) for one in found] == [(one is None, since) for one, since in wanted]
    answered = [n for n, (one, _) in enumerate(wanted) if one is not None]
    assert answered == [2, 5, 7, 11] and len(table) == 0
    assert [bits(found[n]) for n in answered] == [wanted[n][0].probabilities.tobytes() for n in answered]


def test_a_flush_of_a_due_frame_is_one_answer_and_a_wrong_hop_is_refused(runtime, table):
    (reply,) = table.step([call(1, 0, start=True, flush=True)])
    assert reply.result.sequence == 0 and reply.since == 0
    (refused,) = table.step([call(1, 1, hop=0)])
    assert isinstance(refused, UsageError) and "hop" in refused.what
    (after,) = table.step([call(1, 1)])
    assert after.result.sequence == 1


@pytest.mark.parametrize("held", [True, False])
def test_a_refused_end_or_start_leaves_no_stream_behind(runtime, table, held):
    table.step([call(1, 0, start=True), call(2, 0, start=True)])
    if held:
        (refused,) = table.step([call(1, 1, end=True, hop=0)])
    else:
        (refused,) = table.step([call(3, 0, start=True, hop=0)])
    assert isinstance(refused, UsageError) and "hop" in refused.what
    assert len(table) == (1 if held else 2)
    assert isinstance(table.step([call(2, 1)])[0], FrameReply)
    (gone,) = table.step([call(1 if held else 3, 2)])
    assert isinstance(gone, UsageError) and NOT_HELD in gone.what


def test_an_end_is_one_whatever_goes_wrong_in_the_model(runtime, table, monkeypatch):
    table.step([call(1, 0, start=True), call(2, 0, start=True)])

    def fails(*_):
        raise MemoryError

    with monkeypatch.context() as broken:
        broken.setattr(sequences, "advance", fails)
        found = table.step([call(1, 1, end=True, flush=True), call(2, 1)])
    assert [type(one) for one in found] == [MemoryError, MemoryError] and len(table) == 1
    assert isinstance(table.step([call(2, 1)])[0], FrameReply)
