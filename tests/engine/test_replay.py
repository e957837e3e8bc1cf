"""A stream that takes over from another one answers as that one would have: same bits, same phase of the hop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import logoformer
import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from logoformer.engine import Result, Runtime
from logoformer.errors import BadInputError, UsageError

POOL = np.random.default_rng(5).integers(0, 256, (32, 70, 64, 3), dtype=np.uint8)  # of a size that is resized
STRETCHES = st.lists(
    st.tuples(st.sampled_from([0.004, 0.02, 0.04, 0.05, 0.11, 0.4, 2.0]), st.integers(1, 90)), min_size=1, max_size=5
)


@pytest.fixture(scope="module")
def runtime(untrained_bundle: Path) -> Iterator[Runtime]:
    with logoformer.load(untrained_bundle, backend="onnxruntime", precision="fp32", threads=1) as runtime:
        yield runtime


def same(found: Result | None, wanted: Result | None) -> bool:
    if found is None or wanted is None:
        return found is wanted
    return found.time_s == wanted.time_s and found.probabilities.tobytes() == wanted.probabilities.tobytes()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    hop=st.integers(1, 9),
    warmup=st.sampled_from(["wait", "repeat"]),
    max_gap_s=st.sampled_from([None, 0.3, np.inf]),
    stretches=STRETCHES,
    at=st.floats(0, 1),
    skipped_too=st.booleans(),
)
def test_any_cut_and_a_replay_change_no_bit(runtime, hop, warmup, max_gap_s, stretches, at, skipped_too):
    times = np.cumsum([wait_s for wait_s, count in stretches for _ in range(count)]).tolist()
    cut = round(at * len(times))
    frames = [POOL[number % 32] for number in range(len(times))]
    options = {"hop": hop, "color": "rgb", "warmup": warmup, "max_gap_s": max_gap_s}
    with runtime.stream(**options) as whole, runtime.stream(**options) as second:
        kept = []
        for number in range(cut):
            before = whole.skipped
            whole.push(frames[number], times[number])
            kept += [number] if whole.skipped == before else []
        assert whole.skipped == cut - len(kept)
        given = kept[-runtime.bundle.stream.slots :]  # what a caller holds who was told which frames were kept
        if skipped_too and given:
            given = list(range(given[0], cut))
        second.push(frames[0], -100.0)  # forgotten by what follows
        second.replay([frames[n] for n in given], [times[n] for n in given], whole.since)
        assert (second.since, second.warm, second.skipped, second.resets) == (whole.since, whole.warm, 0, 0)
        skipped, resets = whole.skipped, whole.resets
        for number in range(cut, len(times)):
            wanted, found = whole.push(frames[number], times[number]), second.push(frames[number], times[number])
            assert same(found, wanted), number
            if wanted is not None:
                event("answered after the cut")
        assert same(second.flush(), whole.flush())
        assert (second.skipped, second.resets) == (whole.skipped - skipped, whole.resets - resets)


def test_what_is_refused_changes_nothing(runtime):
    with (
        runtime.stream(hop=3, color="rgb", warmup="repeat") as stream,
        runtime.stream(hop=3, color="rgb", warmup="repeat") as twin,
    ):
        for number in range(4):
            stream.push(POOL[number], number / 25)
            twin.push(POOL[number], number / 25)
        for wrong in ([0.5, 0.5], [0.5, 0.4], [0.5, float("nan")], [0.5, "1"]):
            with pytest.raises(BadInputError, match="time"):
                stream.replay(POOL[:2], wrong, 0)
        with pytest.raises(BadInputError, match="shape"):
            stream.replay([POOL[0], POOL[1][..., 0]], [0.5, 0.6], 0)
        with pytest.raises(UsageError, match="2 frames and 1 times"):
            stream.replay(POOL[:2], [0.5], 0)
        with pytest.raises(UsageError, match="since is -1"):
            stream.replay(POOL[:2], [0.5, 0.6], -1)
        assert stream.since == twin.since == 1
        assert stream.flush().probabilities.tobytes() == twin.flush().probabilities.tobytes()
    with pytest.raises(UsageError, match="closed"):
        stream.replay(POOL[:1], [0.0], 0)
