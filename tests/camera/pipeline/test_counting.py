"""What a watch counts and gives back: answers that are not finite, the hop of files, faces of a camera that left."""

from __future__ import annotations

import pytest
from logoformer.camera.answers.smoothing import AnswerConfig
from logoformer.camera.pipeline.faces import GivenFace
from logoformer.camera.pipeline.feeder import CameraSetup
from logoformer.camera.pipeline.overload import Plan
from logoformer.camera.pipeline.pipeline import Pipeline
from logoformer.errors import BadInputError, VerificationError
from watching import ScriptedRuntime, ScriptedSource, flat, wait_for

RAW = AnswerConfig(smooth_s=0.0, margin=0.0, gate=0.0)


class Told:
    """A policy that holds what it is told from the first decision on."""

    def __init__(self, hop: int, depth: int, later: int | None = None) -> None:
        self.plan, self._later, self.crops = Plan(hop, depth), Plan(later or hop, depth), 0

    def arrived(self, crops: int, now_s: float) -> None:
        self.crops += crops

    def worked(self, crops: int, answers: int, busy_s: float) -> None:
        """Nothing is learned."""

    def decide(self, now_s: float) -> Plan:
        self.plan = self._later
        return self.plan


def watch(runtime, *sources, hop=1, policy=None) -> Pipeline:
    setups = [CameraSetup(source, GivenFace("whole")) for source in sources]
    pipeline = Pipeline(runtime, setups, hop, "repeat", RAW, policy=policy)
    pipeline.start()
    return pipeline


def finish(pipeline) -> None:
    while not pipeline.finished:
        pipeline.turn(5)


def states(pipeline):
    pipeline._tell()
    return pipeline.board.state()[1]


def test_files_are_never_thinned_out():
    runtime, policy = ScriptedRuntime(), Told(2, 5, later=7)
    live, file = ScriptedSource(live=True), ScriptedSource([flat(n) for n in range(6)])
    pipeline = watch(runtime, live, file, hop=2, policy=policy)
    live.give(flat(0))
    wait_for(lambda: pipeline._inboxes.waiting(0) and pipeline._inboxes.waiting(1))
    pipeline.turn(5)
    assert [stream.hop for stream in runtime.opened] == [7, 2]
    assert [(one.hop, one.wanted_hop) for one in states(pipeline)] == [(7, 2), (2, 2)]
    assert policy.crops == 1  # a file waits: what comes of it is no demand
    pipeline.close()


def test_rounds_whose_answers_are_not_finite_are_counted():
    runtime, source = ScriptedRuntime(), ScriptedSource(live=True)
    pipeline = watch(runtime, source)
    for number in range(3):
        if number != 1:
            runtime.fail_next = VerificationError("The answer is not finite.")
        source.give(flat(number))
        pipeline.turn(5)
    (state,) = states(pipeline)
    assert (state.not_finite, state.answers) == (2, 1)
    pipeline.close()


def test_the_faces_of_a_lost_camera_stay_as_long_as_a_frame_of_it_waits():
    runtime, source = ScriptedRuntime(), ScriptedSource(live=True)
    pipeline = watch(runtime, source, policy=Told(1, 5))
    source.give(flat(0))
    pipeline.turn(5)
    source.give(flat(1), flat(2))
    wait_for(lambda: pipeline._inboxes.waiting(0) == 2)
    source.state = "lost"
    first, second = pipeline.turn(5), pipeline.turn(5)
    assert [one.index for turn in (first, second) for one in turn.answers[0]] == [1, 2]
    assert [[event.kind for event in turn.events].count("gone") for turn in (first, second)] == [0, 1]
    assert len(runtime.opened) == 1
    pipeline.close()


def test_closing_gives_every_stream_back():
    runtime, source = ScriptedRuntime(), ScriptedSource(live=True)
    pipeline = watch(runtime, source)
    source.give(flat(0))
    pipeline.turn(5)
    assert runtime.free == 3
    pipeline.close()
    assert runtime.free == 4 and all(stream.closed for stream in runtime.opened)


def test_a_fault_of_ours_is_raised_before_one_of_a_source():
    class Broken(ScriptedSource):
        def __init__(self, error: Exception, name: str) -> None:
            super().__init__(name=name)
            self.error = error

        def __iter__(self):
            raise self.error

    pipeline = watch(ScriptedRuntime(), Broken(BadInputError("There is nothing."), "a"), Broken(KeyError("ours"), "b"))
    with pytest.raises(KeyError, match="ours"):
        finish(pipeline)
    pipeline.close()
