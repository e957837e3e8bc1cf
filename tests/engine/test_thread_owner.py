"""One engine, one thread; closing waits; a lost device stays lost."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from logoformer.errors import DeviceLostError, UsageError

CLIP = np.zeros((4, 4, 4, 3), np.uint8)


def elsewhere(call):
    """Calls on another thread and returns what it returned or raised."""
    found = []

    def run():
        try:
            found.append(call())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, name="a callback")
    thread.start()
    thread.join(30)
    assert found, "it hangs"
    return found[0]


def test_a_second_thread_is_refused_by_name_with_the_advice(watched, numbered):
    engine = watched()
    stream = engine.stream(hop=1, color="rgb", warmup="repeat")
    stream.push(numbered(0, 1), 0.0)
    before = list(engine.state.runs)
    calls = [
        lambda: engine(CLIP, color="rgb"),
        lambda: engine.stream(color="rgb"),
        lambda: engine.session("clip"),
        lambda: engine.step({stream: (numbered(0, 2), 1.0)}),
        lambda: engine.worker(),
        lambda: stream.push(numbered(0, 2), 1.0),
        lambda: stream.flush(),
        lambda: stream.reset(),
    ]
    for call in calls:
        error = elsewhere(call)
        assert isinstance(error, UsageError) and error.exit_code == 2
        assert "'MainThread'" in error.what and "'a callback'" in error.what
        assert "engine.worker()" in error.next
    assert engine.state.runs == before
    assert stream.push(numbered(0, 2), 0.1).time_s == 0.1  # nothing was touched
    engine.close()


def test_the_first_that_uses_it_owns_it(watched):
    engine = watched()  # made here, used there
    assert elsewhere(lambda: engine(CLIP, color="rgb")).label == "a"
    with pytest.raises(UsageError, match="'a callback'"):
        engine(CLIP, color="rgb")
    engine.close()  # closing is anybody's
    assert engine.state.open == []


def test_of_many_that_ask_at_once_one_is_first(watched):
    for _ in range(20):
        engine = watched()
        barrier = threading.Barrier(8)
        found = []

        def ask(engine=engine, barrier=barrier, found=found):
            barrier.wait()
            try:
                engine(CLIP, color="rgb")
                found.append("answer")
            except UsageError:
                found.append("refused")

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(found) == ["answer"] + ["refused"] * 7
        engine.close()


def test_close_during_a_run_waits_for_it(watched):
    engine = watched()
    entered, leave, order = threading.Event(), threading.Event(), []

    def before(session):
        entered.set()
        assert leave.wait(30)
        order.append("ran")

    engine.state.before = before

    def use():
        result = engine(CLIP, color="rgb")
        order.append("answered")
        with pytest.raises(UsageError, match="closed"):
            engine(CLIP, color="rgb")
        return result

    def close():
        engine.close()
        order.append("closed")

    found = []
    user = threading.Thread(target=lambda: found.append(use()))
    user.start()
    assert entered.wait(30)
    closer = threading.Thread(target=close)
    closer.start()
    while not engine.closed:
        pass
    assert len(engine.state.open) == 1, "freed under the run"
    leave.set()
    user.join(30)
    closer.join(30)
    assert found[0].label == "a" and order[0] == "ran" and set(order) == {"ran", "answered", "closed"}
    assert engine.state.open == []


def test_close_from_inside_a_run_frees_at_its_end(watched):
    engine = watched()
    engine.state.before = lambda session: engine.close()  # as a signal handler would
    assert engine(CLIP, color="rgb").label == "a"
    assert engine.state.open == [] and engine.closed
    engine.close()


@pytest.mark.parametrize("graph", ["clip", "frame", "temporal"])
def test_a_lost_device_is_not_asked_again(watched, numbered, graph):
    engine = watched()
    stream = engine.stream(hop=1, color="rgb", warmup="repeat")
    other = engine.stream(hop=1, color="rgb", warmup="repeat")

    def before(session):
        if session.name == graph:
            raise DeviceLostError("The device gave a sticky error.", cause="planted", next="start again")

    engine.state.before = before
    first = {"clip": lambda: engine(CLIP, color="rgb")}.get(graph, lambda: stream.push(numbered(0, 0), 0.0))
    with pytest.raises(DeviceLostError):
        first()
    ran = len(engine.state.runs)
    for number in range(10):
        for call in (
            lambda: engine(CLIP, color="rgb"),
            lambda number=number: stream.push(numbered(0, 1), 1.0 + number),
            lambda number=number: engine.step({other: (numbered(1, 1), 1.0 + number)}),
            lambda: engine.stream(color="rgb"),
        ):
            with pytest.raises(DeviceLostError, match="sticky") as caught:
                call()
            assert caught.value.exit_code == 7 and caught.value.next == "start again"
    assert len(engine.state.runs) == ran
    engine.close()
    assert engine.state.open == []
