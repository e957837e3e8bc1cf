"""A stream answers as the clip graph does on the frames that the training pattern picks."""

from dataclasses import dataclass, field
from pathlib import Path

import logoformer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from logoformer.clips import centre_indices, pattern_ages
from logoformer.engine.ring import Ring
from logoformer.errors import BadInputError, UsageError, VerificationError
from logoformer.model.networks.configs import PRESETS

POOL = np.random.default_rng(5).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def runtime(family_bundle: Path):
    with logoformer.load(family_bundle, threads=1) as runtime:
        yield runtime


def wanted_clip(history: list[tuple[float, int]], ages: np.ndarray) -> np.ndarray:
    """The pattern, written plainly: for each place the newest frame that is old enough, else the oldest kept."""
    now = history[-1][0]
    picked = []
    for age in ages:
        old_enough = [index for time, index in history if time <= now - age + 0.001]
        picked.append(old_enough[-1] if old_enough else history[0][1])
    return POOL[picked]


@settings(max_examples=8, deadline=None)
@given(
    fps=st.sampled_from([8.0, 15.0, 25.0, 29.97, 60.0]),
    jitter=st.lists(st.floats(-0.2, 0.2), min_size=150, max_size=150),
    hop=st.integers(1, 40),
    warmup=st.sampled_from(["wait", "repeat"]),
    count=st.integers(1, 150),
)
def test_any_camera_equals_the_clip_graph(runtime, fps, jitter, hop, warmup, count):
    ages = pattern_ages(runtime.bundle.sampling)
    spec = runtime.bundle.stream
    step = ages.max() / (spec.slots - 1)
    history: list[tuple[float, int]] = []
    answers = kept = since = 0
    with runtime.stream(hop=hop, color="rgb", warmup=warmup) as stream:
        for number in range(count):
            time = (number + jitter[number]) / fps
            keep = not history or time - history[-1][0] >= step
            if keep:
                history = [*history, (time, number % 40)][-spec.slots :]
                kept, since = kept + 1, since + 1
            result = stream.push(POOL[number % 40], time)
            warm = history[-1][0] - history[0][0] >= ages.max() - 0.001
            due = keep and since >= hop and (warm or warmup == "repeat")
            assert (result is not None) == due
            if result is not None:
                since = 0
                answers += 1
                clip = runtime(wanted_clip(history, ages), color="rgb")
                np.testing.assert_allclose(result.probabilities, clip.probabilities, atol=1e-5)
                assert result.time_s == time and result.sequence == answers - 1
        assert stream.skipped == count - kept


def test_a_regular_camera_gives_the_training_clip_exactly(runtime):
    sampling = runtime.bundle.sampling
    n = sampling.span_frames
    ages = np.rint(pattern_ages(sampling) * sampling.fps).astype(int)  # in frames
    rng = np.random.default_rng(2)
    frames = rng.integers(0, 256, (n, 64, 64, 3), dtype=np.uint8)
    with runtime.stream(hop=1, color="rgb") as stream:
        results = [stream.push(frame, number / sampling.fps) for number, frame in enumerate(frames)]
        first = next(index for index, result in enumerate(results) if result is not None)
        assert first == ages[0]
    picked = n - 1 - ages
    centre = centre_indices(n, sampling)
    assert (np.diff(picked) == np.diff(centre)).all() and (sampling.stride or (picked == centre).all())
    clip = runtime(frames[picked], color="rgb")
    np.testing.assert_allclose(results[-1].probabilities, clip.probabilities, atol=1e-6)


@pytest.mark.parametrize("max_fps", [10.0, 25.0, 30.0, 60.0])
@pytest.mark.parametrize("preset", ["tiny", "base", "mae-dfer"])
def test_every_camera_gets_an_answer_within_the_span(preset: str, max_fps: float):
    export = pytest.importorskip("logoformer.export.exporter", exc_type=ImportError)
    config = PRESETS[preset]
    ages = pattern_ages(config.sampling)
    slots = export.ring_slots(config, max_fps)
    for fps in range(4, 241):
        ring = Ring(slots, 0, ages.max() / (slots - 1))
        warm_s = None
        for number in range(int(config.sampling.span_s * fps) + 3):
            if ring.wants(number / fps):
                ring.file(number / fps)
            if warm_s is None and ring.reach_s >= ages.max() - 0.001:
                warm_s = number / fps
        assert warm_s is not None and warm_s <= config.sampling.span_s + 1 / fps, fps
        if fps <= max_fps:
            assert ring.min_step_s <= 0.85 / fps, "a jittering camera would lose frames"


def test_a_closed_runtime_says_so(untrained_bundle: Path):
    runtime = logoformer.load(untrained_bundle)
    stream = runtime.stream(color="rgb")
    runtime.close()
    with pytest.raises(UsageError, match="closed"):
        stream.push(POOL[0], 0.0)


def test_no_label_is_made_of_nan(runtime):
    with runtime.stream(hop=1, color="rgb", warmup="repeat") as stream:
        session = runtime.session("temporal")
        session.input("ring")[:] = np.nan
        stream.push(POOL[0], 0.0)  # its own slot is written anew
        session.input("ring")[:] = np.nan
        with pytest.raises(VerificationError, match="not finite"):
            stream.flush()
        session.input("ring")[:] = 0.0


def test_a_gap_empties_the_ring_and_scenes_never_mix(runtime):
    with runtime.stream(hop=1, color="rgb", warmup="repeat") as stream:
        for number in range(30):
            stream.push(POOL[number], number / 25)
        after = stream.push(POOL[35], 30 / 25 + 5.0)
        assert stream.resets == 1
    alone = runtime(np.repeat(POOL[35:36], 8, axis=0), color="rgb")
    np.testing.assert_allclose(after.probabilities, alone.probabilities, atol=1e-6)


def test_faces_share_one_arena_without_mixing(runtime):
    streams = [runtime.stream(hop=1, color="rgb", warmup="repeat") for _ in range(4)]
    with pytest.raises(UsageError, match="--faces"):
        runtime.stream(color="rgb")
    alone = [runtime(np.repeat(POOL[face : face + 1], 8, axis=0), color="rgb").probabilities for face in range(4)]
    for step in range(100):  # more than the ring's slots: every one is written over
        results = runtime.step({stream: (POOL[face], step / 25) for face, stream in enumerate(streams)})
        for face, stream in enumerate(streams):
            np.testing.assert_allclose(results[stream].probabilities, alone[face], atol=1e-6)
    streams[1].close()
    streams[1].close()
    again = runtime.stream(hop=1, color="rgb", warmup="repeat")
    np.testing.assert_allclose(again.push(POOL[9], 0.0).probabilities, runtime(
        np.repeat(POOL[9:10], 8, axis=0), color="rgb").probabilities, atol=1e-6)  # fmt: skip
    for stream in (streams[0], again, *streams[2:]):
        stream.close()
    with pytest.raises(UsageError, match="closed"):
        again.push(POOL[0], 1.0)


def test_flush_answers_early_and_an_empty_ring_not_at_all(runtime):
    with runtime.stream(hop=10**9, color="rgb") as stream:
        assert stream.flush() is None
        assert stream.push(POOL[0], 0.0) is None
        first = stream.flush()
        stream.reset()
        assert stream.flush() is None
    np.testing.assert_allclose(
        first.probabilities, runtime(np.repeat(POOL[:1], 8, axis=0), color="rgb").probabilities, atol=1e-6
    )


def test_bgr_frames(runtime):
    with (
        runtime.stream(hop=1, color="rgb", warmup="repeat") as rgb,
        runtime.stream(1, color="bgr", warmup="repeat") as bgr,
    ):
        a = rgb.push(POOL[0], 0.0)
        b = bgr.push(POOL[0][..., ::-1], 0.0)
    np.testing.assert_array_equal(a.probabilities, b.probabilities)


@pytest.mark.parametrize("time", [1.0, 0.5, float("nan"), float("inf")])
def test_times_must_rise(runtime, time):
    with runtime.stream(hop=1, color="rgb") as stream:
        stream.push(POOL[0], 1.0)
        with pytest.raises(BadInputError, match="must rise"):
            stream.push(POOL[1], time)
        stream.reset()
        if np.isfinite(time):
            stream.push(POOL[1], time)


def test_a_refused_frame_leaves_no_trace(runtime):
    with runtime.stream(hop=1, color="rgb", warmup="repeat") as stream:
        before = stream.push(POOL[0], 0.0)
        for bad in (POOL[0].astype(np.float32), POOL[0][..., 0], np.zeros((0, 4, 3), np.uint8), None):
            with pytest.raises(BadInputError):
                stream.push(bad, 0.04)
        np.testing.assert_array_equal(stream.flush().probabilities, before.probabilities)


@pytest.mark.parametrize("wrong", [{"hop": 0}, {"warmup": "never"}, {"color": "gray"}])
def test_wrong_arguments_take_no_face(runtime, wrong):
    for _ in range(6):
        with pytest.raises(UsageError):
            runtime.stream(**{"color": "rgb", **wrong})
    with runtime.stream(color="rgb"):
        pass


@dataclass
class Kept:
    """The ring, written plainly: a list of (time, slot)."""

    slots: int
    items: list[tuple[float, int]] = field(default_factory=list)


class RingMachine(RuleBasedStateMachine):
    """Claims, files, clears and picks in any order; the plain list is always right."""

    @initialize(slots=st.integers(1, 9), offset=st.integers(0, 50), step=st.sampled_from([0.0, 0.05]))
    def start(self, slots: int, offset: int, step: float) -> None:
        self.ring, self.plain, self.now = Ring(slots, offset, step), Kept(slots), 0.0
        self.offset, self.step = offset, step

    @rule(wait=st.floats(0.001, 1.0))
    def push(self, wait: float) -> None:
        self.now += wait
        wanted = not self.plain.items or self.now - self.plain.items[-1][0] >= self.step
        assert self.ring.wants(self.now) == wanted
        if wanted:
            slot = self.ring.claim()
            assert self.offset <= slot < self.offset + self.plain.slots
            living = [used for _, used in self.plain.items[-(self.plain.slots - 1) :]] if self.plain.slots > 1 else []
            assert slot not in living, "a slot that can still be picked would be written over"
            self.ring.file(self.now)
            self.plain.items = [*self.plain.items, (self.now, slot)][-self.plain.slots :]

    @rule()
    def clear(self) -> None:
        self.ring.clear()
        self.plain.items = []

    @precondition(lambda self: bool(self.plain.items))
    @rule(ages=st.lists(st.floats(0, 4), min_size=1, max_size=6))
    def pick(self, ages: list[float]) -> None:
        found = self.ring.pick(np.array(ages))
        for age, slot in zip(ages, found, strict=True):
            old = [used for time, used in self.plain.items if time <= self.plain.items[-1][0] - age + 0.001]
            assert slot == (old[-1] if old else self.plain.items[0][1])

    @invariant()
    def reach(self) -> None:
        if hasattr(self, "ring"):
            times = [time for time, _ in self.plain.items]
            assert self.ring.kept == len(times)
            assert self.ring.reach_s == (times[-1] - times[0] if times else 0.0)


TestRing = RingMachine.TestCase
TestRing.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
