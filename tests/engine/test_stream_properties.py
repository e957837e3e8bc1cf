"""Every answer of several streams is the clip graph's, with gaps, resets, skips, any hop.

What must be picked is written here anew, from each face's kept history; nothing of the stream or the ring is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import logoformer
import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from logoformer.clips import pattern_ages, pick
from logoformer.engine import Runtime, Stream

POOL = np.random.default_rng(11).integers(0, 256, (64, 64, 64, 3), dtype=np.uint8)
WAITS_S = (0.004, 0.02, 0.04, 0.05, 0.11, 0.4, 0.9, 2.0)  # skipped, usual, slow, and a gap


@pytest.fixture(scope="module")
def runtime(untrained_bundle: Path) -> Iterator[Runtime]:
    with logoformer.load(untrained_bundle, threads=1) as runtime:
        yield runtime


@dataclass
class Face:
    """What one face's stream must do, written plainly."""

    hop: int
    warmup: str
    max_gap_s: float
    now: float = 0.0
    kept: list[tuple[float, int]] = field(default_factory=list)  # (time, picture)
    since: int = 0
    answers: int = 0
    skipped: int = 0
    resets: int = 0
    lapped: bool = False  # a slot was written over

    def push(self, picture: int, ages: np.ndarray, slots: int) -> np.ndarray | None:
        """The pictures of the clip that must be answered, or None."""
        if self.kept and self.now - self.kept[-1][0] > self.max_gap_s:
            self.clear()
            self.resets += 1
        if self.kept and self.now - self.kept[-1][0] < ages.max() / (slots - 1):
            self.skipped += 1
            return None
        self.lapped = self.lapped or len(self.kept) == slots
        self.kept = [*self.kept, (self.now, picture)][-slots:]
        self.since += 1
        warm = self.now - self.kept[0][0] >= ages.max() - 0.001
        if self.since < self.hop or not (warm or self.warmup == "repeat"):
            return None
        return self.answer(ages)

    def answer(self, ages: np.ndarray) -> np.ndarray | None:
        if not self.kept:
            return None
        self.since = 0
        self.answers += 1
        places = pick([time for time, _ in self.kept], ages)
        return np.array([self.kept[place][1] for place in places])

    def clear(self) -> None:
        self.kept, self.since = [], 0


FACES = st.lists(
    st.tuples(st.integers(1, 9), st.sampled_from(["wait", "repeat"]), st.sampled_from([None, 0.5, 3.0])),
    min_size=2,
    max_size=4,
)
# A run of frames at one pace, then something else: a ring fills within an example, and is emptied in the middle of it.
STRETCHES = st.lists(
    st.tuples(
        st.sets(st.integers(0, 3), min_size=1),
        st.sampled_from(WAITS_S),
        st.integers(1, 100),
        st.sampled_from(["go on", "go on", "reset", "flush"]),
    ),
    min_size=3,
    max_size=8,
)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(faces=FACES, stretches=STRETCHES, together=st.booleans())
def test_every_answer_is_the_clip_graphs_on_the_frames_that_the_pattern_picks(runtime, faces, stretches, together):
    sampling, slots = runtime.bundle.sampling, runtime.bundle.stream.slots
    ages = pattern_ages(sampling)
    streams = [runtime.stream(hop, color="rgb", warmup=warm, max_gap_s=gap) for hop, warm, gap in faces]
    plain = [Face(hop, warm, sampling.span_s / 2 if gap is None else gap) for hop, warm, gap in faces]
    picture = 0

    def compare(stream: Stream, face: Face, found, wanted: np.ndarray | None) -> None:
        assert (found is None) == (wanted is None)
        if wanted is not None:
            clip = runtime(POOL[wanted], color="rgb")
            np.testing.assert_allclose(found.probabilities, clip.probabilities, atol=1e-5)
            assert found.time_s == face.kept[-1][0] and found.sequence == face.answers - 1
        assert (stream.skipped, stream.resets) == (face.skipped, face.resets)

    for chosen, wait_s, count, after in stretches:
        active = [face for face in sorted(chosen) if face < len(faces)]
        for _ in range(count):
            given, wanted = {}, {}
            for index in active:
                plain[index].now += wait_s * (1 + index / 16)  # every face on a clock of its own
                given[streams[index]] = POOL[picture % 64], plain[index].now
                wanted[index] = plain[index].push(picture % 64, ages, slots)
                picture += 1
            found = runtime.step(given) if together else {s: s.push(*what) for s, what in given.items()}
            for index in active:
                compare(streams[index], plain[index], found[streams[index]], wanted[index])
        for index in active if after != "go on" else ():
            if after == "reset":
                streams[index].reset()
                plain[index].clear()
            else:
                compare(streams[index], plain[index], streams[index].flush(), plain[index].answer(ages))
    for stream, face in zip(streams, plain, strict=True):
        stream.close()
        for what in ("answers", "skipped", "resets", "lapped"):
            if getattr(face, what):
                event(what)


@pytest.mark.slow
@pytest.mark.parametrize("through", ["stream", "worker"])
def test_base_answers_as_its_clip_graph_does(base_bundle: Path, through: str):
    """Two faces at 25 and 15 frames a second, a gap in the first one's middle; a few answers of each."""
    with logoformer.load(base_bundle, precision="fp32", threads=1) as runtime:
        ages, slots, size = (
            pattern_ages(runtime.bundle.sampling),
            runtime.bundle.stream.slots,
            runtime.bundle.image_size,
        )
        pool = np.random.default_rng(3).integers(0, 256, (16, size, size, 3), dtype=np.uint8)
        plain = [Face(30, "repeat", 1.0), Face(25, "wait", 1.0)]
        waits_s, count = (1 / 25, 1 / 15), 75
        pushes = []  # (face, picture, time)
        wanted = []  # (pictures, time, sequence) of each answer, by push
        for number in range(count):
            for index, face in enumerate(plain):
                face.now += waits_s[index] + (2.0 if (index, number) == (0, 40) else 0.0)
                picture = (7 * index + number) % len(pool)
                pushes.append((index, picture, face.now))
                pictures = face.push(picture, ages, slots)
                wanted.append(None if pictures is None else (pictures, face.now, face.answers - 1))
        if through == "stream":
            streams = [runtime.stream(face.hop, color="rgb", warmup=face.warmup, max_gap_s=1.0) for face in plain]
            found = [streams[index].push(pool[picture], time) for index, picture, time in pushes]
            for stream in streams:
                stream.close()
        else:
            with runtime.worker(queue=4, drop="block") as worker:
                lanes = [worker.stream(face.hop, color="rgb", warmup=face.warmup, max_gap_s=1.0) for face in plain]
                futures = [worker.submit(lanes[index], pool[picture], time) for index, picture, time in pushes]
                found = [future.result(120) for future in futures]
        for result, answer in zip(found, wanted, strict=True):
            assert (result is None) == (answer is None)
            if answer is not None:
                pictures, time, sequence = answer
                clip = runtime(pool[pictures], color="rgb")
                np.testing.assert_allclose(result.probabilities, clip.probabilities, atol=1e-5)
                assert (result.time_s, result.sequence) == (time, sequence)
        assert plain[0].resets == 1 and [face.answers for face in plain] > [1, 1]
