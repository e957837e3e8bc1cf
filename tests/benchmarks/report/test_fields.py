"""The strict reader: every declared type, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logoformer.benchmarks.report.fields import read


@dataclass(frozen=True)
class Inner:
    x: float


@dataclass(frozen=True)
class Outer:
    name: str
    count: int
    flag: bool
    share: float | None
    pairs: tuple[tuple[str, float], ...]
    fixed: tuple[int, str]
    named: Mapping[str, str]
    inner: Inner
    maybe: Inner | None
    many: tuple[Inner, ...]


GOOD = {
    "name": "n", "count": 3, "flag": True, "share": None, "pairs": [["a", 1.5], ["b", 2]], "fixed": [1, "x"],
    "named": {"k": "v"}, "inner": {"x": 1}, "maybe": None, "many": [{"x": 1.0}, {"x": 2.0}],
}  # fmt: skip


def test_what_was_written_is_read():
    value = read(Outer, GOOD)
    assert value.pairs == (("a", 1.5), ("b", 2))
    assert value.many == (Inner(1.0), Inner(2.0))
    assert read(Outer, asdict(value)) == value


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("name", 1), ("name", None), ("count", 1.5), ("count", True), ("flag", 1), ("flag", None), ("share", "1"),
        ("share", True), ("pairs", [["a"]]), ("pairs", "ab"), ("pairs", [["a", None]]), ("fixed", [1]),
        ("fixed", [1, 2]), ("named", {"k": 1}), ("named", []), ("inner", None), ("inner", {}),
        ("inner", {"x": 1, "y": 2}), ("maybe", {}), ("many", {"x": 1.0}), ("many", [None]),
    ],
)  # fmt: skip
def test_every_other_type_is_refused(field, wrong):
    with pytest.raises(TypeError):
        read(Outer, {**GOOD, field: wrong})


@pytest.mark.parametrize("data", [None, [], "text", 3, {}, {**GOOD, "more": 1}])
def test_no_field_may_lack_or_be_added(data):
    with pytest.raises(TypeError):
        read(Outer, data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(data=JSON, field=st.sampled_from(sorted(GOOD)))
def test_any_json_is_read_or_refused(data, field):
    for candidate in (data, {**GOOD, field: data}):
        try:
            read(Outer, candidate)
        except TypeError:
            continue
