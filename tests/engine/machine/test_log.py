"""One number out of TensorRT's phases."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from logoformer.engine.machine.log import OverallProgress


def test_phases_inside_phases():
    overall = OverallProgress()
    steps = [("build", 0, 2), ("time", 0, 4), ("time", 1, 4), ("one", 1, 2), ("time", 4, 4), ("build", 1, 2)]
    assert [overall(*step) for step in steps] == [0, 0, 1 / 8, 3 / 16, 1 / 2, 1 / 2]


def test_a_phase_that_begins_after_another_ended_stands_beside_it():
    overall = OverallProgress()
    assert [overall(*s) for s in [("a", 0, 4), ("b", 3, 3), ("a", 1, 4), ("c", 1, 2), ("d", 1, 1)]] == [
        0,
        0.25,
        0.25,
        0.375,
        0.5,
    ]
    assert overall("a", 4, 4) == 1


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 5), st.integers(0, 5))))
def test_it_only_grows_and_stays_a_share(steps):
    overall = OverallProgress()
    shares = [overall(*step) for step in steps]
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)
