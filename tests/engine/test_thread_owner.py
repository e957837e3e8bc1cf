"""One runtime, one thread; closing waits; a lost device stays lost."""

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
    runtime = watched()
    stream = runtime.stream(hop=1, color="rgb", warmup="repeat")
    stream.push(numbered(0, 1), 0.0)
    before = list(runtime.state.runs)
    calls = [
        lambda: runtime(CLIP, color="rgb"),
        lambda: runtime.stream(color="rgb"),
        lambda: runtime.session("clip"),
        lambda: runtime.step({stream: (numbered(0, 2), 1.0)}),
        lambda: runtime.worker(),
        lambda: stream.push(numbered(0, 2), 1.0),
        lambda: stream.flush(),
        lambda: stream.reset(),
    ]
    for call in calls:
        error = elsewhere(call)
        assert isinstance(error, UsageError) and error.exit_code == 2
        assert "'MainThread'" in error.what and "'a callback'" in error.what
        assert "runtime.worker()" in error.next
    assert runtime.state.runs == before
    assert stream.push(numbered(0, 2), 0.1).time_s == 0.1  # nothing was touched
    runtime.close()


def test_the_first_that_uses_it_owns_it(watched):
    runtime = watched()  # made here, used there
    assert elsewhere(lambda: runtime(CLIP, color="rgb")).label == "a"
    with pytest.raises(UsageError, match="'a callback'"):
        runtime(CLIP, color="rgb")
    runtime.close()  # closing is anybody's
    assert runtime.state.open == []


def test_of_many_that_ask_at_once_one_is_first(watched):
    for _ in range(20):
        runtime = watched()
        barrier = threading.Barrier(8)
        found = []

        def ask(runtime=runtime, barrier=barrier, found=found):
            barrier.wait()
            try:
                runtime(CLIP, color="rgb")
                found.append("answer")
            except UsageError:
                found.append("refused")

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(found) == ["answer"] + ["refused"] * 7
        runtime.close()


def test_close_during_a_run_waits_for_it(watched):
    runtime = watched()
    entered, leave, order = threading.Event(), threading.Event(), []

    def before(session):
        entered.set()
        assert leave.wait(30)
        order.append("ran")

    runtime.state.before = before

    def use():
        result = runtime(CLIP, color="rgb")
        order.append("answered")
        with pytest.raises(UsageError, match="closed"):
            runtime(CLIP, color="rgb")
        return result

    def close():
        runtime.close()
        order.append("closed")

    found = []
    user = threading.Thread(target=lambda: found.append(use()))
    user.start()
    assert entered.wait(30)
    closer = threading.Thread(target=close)
    closer.start()
    while not runtime.closed:
        pass
    assert len(runtime.state.open) == 1, "freed under the run"
    leave.set()
    user.join(30)
    closer.join(30)
    assert found[0].label == "a" and order[0] == "ran" and set(order) == {"ran", "answered", "closed"}
    assert runtime.state.open == []


def test_close_from_inside_a_run_frees_at_its_end(watched):
    runtime = watched()
    runtime.state.before = lambda session: runtime.close()  # as a signal handler would
    assert runtime(CLIP, color="rgb").label == "a"
    assert runtime.state.open == [] and runtime.closed
    runtime.close()


@pytest.mark.parametrize("graph", ["clip", "frame", "temporal"])
def test_a_lost_device_is_not_asked_again(watched, numbered, graph):
    runtime = watched()
    stream = runtime.stream(hop=1, color="rgb", warmup="repeat")
    other = runtime.stream(hop=1, color="rgb", warmup="repeat")

    def before(session):
        if session.name == graph:
            raise DeviceLostError("The device gave a sticky error.", cause="planted", next="start again")

    runtime.state.before = before
    first = {"clip": lambda: runtime(CLIP, color="rgb")}.get(graph, lambda: stream.push(numbered(0, 0), 0.0))
    with pytest.raises(DeviceLostError):
        first()
    ran = len(runtime.state.runs)
    for number in range(10):
        for call in (
            lambda: runtime(CLIP, color="rgb"),
            lambda number=number: stream.push(numbered(0, 1), 1.0 + number),
            lambda number=number: runtime.step({other: (numbered(1, 1), 1.0 + number)}),
            lambda: runtime.stream(color="rgb"),
        ):
            with pytest.raises(DeviceLostError, match="sticky") as caught:
                call()
            assert caught.value.exit_code == 7 and caught.value.next == "start again"
    assert len(runtime.state.runs) == ran
    runtime.close()
    assert runtime.state.open == []
