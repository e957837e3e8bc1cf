"""Arguments of the runtime: numpy's integers are integers, and what is no number of seconds is refused."""

from __future__ import annotations

import warnings
from fractions import Fraction
from pathlib import Path

import logoformer
import numpy as np
import pytest
from logoformer.errors import BadInputError, UsageError

BUNDLE = Path(__file__).parents[1] / "data" / "bundle-v0.1"


@pytest.fixture(scope="module")
def runtime():
    with logoformer.load(BUNDLE, precision="fp32", threads=np.int32(1), device=np.int64(0)) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def frame(runtime):
    return runtime.bundle.golden().clips[0][0]


def push_all(stream, frame, times) -> int:
    """Answers given."""
    return sum(stream.push(frame, time_s) is not None for time_s in times)


@pytest.mark.parametrize("hop", [np.int64(2), np.uint8(2), 2])
def test_integers_of_numpy_are_integers(runtime, frame, hop):
    with runtime.stream(hop=hop, color="rgb", warmup="repeat") as stream:
        assert [stream.push(frame, t / 25) is not None for t in range(4)] == [False, True, False, True]


@pytest.mark.parametrize("hop", [2.0, "2", None, 0, -1, np.float32(2)])
def test_other_hops_are_refused(runtime, hop):
    with pytest.raises(UsageError, match="hop is"):
        runtime.stream(hop=hop, color="rgb")
    with runtime.stream(hop=2, color="rgb") as stream:
        with pytest.raises(UsageError, match="hop is"):
            stream.hop = hop
        assert stream.hop == 2


@pytest.mark.parametrize("gap_s", ["1", b"1", 0, -0.5, float("nan"), 1j, [1.0], 10**400])
def test_other_gaps_are_refused(runtime, gap_s):
    with pytest.raises(UsageError, match="max_gap_s is"):
        runtime.stream(color="rgb", max_gap_s=gap_s)
    with runtime.stream(color="rgb", max_gap_s=float("inf")) as stream:  # none is too long
        assert stream.max_gap_s == float("inf")


@pytest.mark.parametrize(
    ("name", "value"),
    [("threads", 0), ("threads", -1), ("threads", 1.5), ("threads", 3000), ("device", -1), ("device", "0")],
)
def test_other_counts_are_refused_at_load(name, value):
    with pytest.raises(UsageError, match=f"{name} is {value!r}"):
        logoformer.load(BUNDLE, **{name: value})


@pytest.mark.parametrize("time_s", [0, 0.5, np.float32(0.5), np.int64(3), Fraction(1, 3)])
def test_numbers_are_times(runtime, frame, time_s):
    with runtime.stream(hop=1, color="rgb", warmup="repeat") as stream:
        assert stream.push(frame, time_s).time_s == float(time_s)


@pytest.mark.parametrize("time_s", ["0.5", None, b"1", [1.0], 1j, float("nan"), float("inf"), 10**400])
def test_other_times_are_refused_and_change_nothing(runtime, frame, time_s):
    with runtime.stream(hop=1, color="rgb", warmup="repeat") as stream:
        with pytest.raises(BadInputError, match="time is"):
            stream.push(frame, time_s)
        assert stream.push(frame, 0.0) is not None


@pytest.mark.parametrize(("unit", "per_s"), [("milliseconds", 1e3), ("nanoseconds", 1e9)])
def test_times_in_another_unit_are_noticed(runtime, frame, unit, per_s):
    times = [number / 25 * per_s for number in range(30)]
    with runtime.stream(hop=1, color="rgb") as stream:
        with pytest.warns(RuntimeWarning, match="Are these times in seconds") as told:
            assert push_all(stream, frame, times) == 0
        assert len(told) == 1 and stream.resets == 29


def test_a_source_that_is_too_slow_is_noticed_and_single_pauses_are_not(runtime, frame):
    with runtime.stream(hop=1, color="rgb", warmup="repeat") as stream:
        with pytest.warns(RuntimeWarning, match="too few frames arrive"):
            push_all(stream, frame, [20.0 * number for number in range(5)])
        stream.reset()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            push_all(stream, frame, [1e3 + 100 * number + later for number in range(12) for later in (0.0, 0.04)])
        assert stream.resets == 4 + 11


def test_results_compare_and_hash(runtime):
    clip = runtime.bundle.golden().clips[0]
    one, other = runtime(clip, color="rgb"), runtime(clip, color="rgb")
    assert one == one and one != other and len({one, other, one}) == 2
