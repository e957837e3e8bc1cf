from __future__ import annotations

import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logoformer.bundle import files
from logoformer.bundle.files import dump_json, parse_json
from logoformer.errors import RefusedError

SAFE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * depth + closing * depth


@given(SAFE)
def test_what_is_written_is_read_back(value):
    data = dump_json(value)
    assert parse_json(data, "x") == value
    assert data.endswith(b"\n")
    assert data.isascii()


def test_the_same_value_gives_the_same_bytes_whatever_the_order():
    assert dump_json({"b": 1, "a": [1, 2]}) == dump_json({"a": [1, 2], "b": 1})
    assert dump_json({"a": 1}) == b'{\n  "a": 1\n}\n'


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]])
def test_no_number_that_json_lacks_is_written(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_json(value)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"NaN", "NaN"),
        (b"[Infinity]", "Infinity"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b"1e999", "1e999"),
        (b"-1e999", "-1e999"),
        (b"1" * 400 + b".0", "the number"),
        (b"9" * 5000, "an integer of 5000 digits"),
        (b"-" + b"9" * 20, "an integer of"),
        (b"9223372036854775808", "64 bits"),
        (b"-9223372036854775809", "64 bits"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"b": {"a": 1, "\\u0061": 1}}', "twice"),
        (nested(33), "nested deeper than 32"),
        (nested(100_000), "nested deeper"),
        (nested(100_000, b'{"a":', b"}"), "nested deeper"),
        (b"[" * 1_000_000, "nested deeper"),
        (b"\xff\xfe[]", "not UTF-8"),
        (b"\xef\xbb\xbf[]", "BOM"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (b"", "Expecting value"),
        (b"{}{}", "Extra data"),
        (b"{} // comment", "Extra data"),
        (b"{'a': 1}", "Expecting property name"),
        (b"[1,]", ""),
        (b'"a\nb"', "control character"),
        (b"]" * 40 + b"[" * 40, "Expecting value"),
    ],
)
def test_json_that_cannot_be_trusted_is_refused_with_its_reason(data, why):
    with pytest.raises(RefusedError) as caught:
        parse_json(data, "manifest.json")
    assert caught.value.what.startswith("manifest.json is not JSON that can be trusted")
    assert why in caught.value.what


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (nested(32), None),
        (b"9223372036854775807", 2**63 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b"1e-999", 0.0),
        (b'"[[[[{{{{"', "[[[[{{{{"),
        (b'"\\"[[[["', '"[[[['),
        (b'"\\\\"', "\\"),
        (b'{"a": {"a": 1}}', {"a": {"a": 1}}),
        (" \u00e4".encode()[:1] + b"true", True),
    ],
)
def test_json_at_the_edge_of_the_limits_is_read(data, value):
    parsed = parse_json(data, "x")
    assert parsed == value or value is None


def test_brackets_inside_strings_are_not_nesting():
    text = json.dumps({"a": '\\"[' * 1000, "b\\": ["]}" * 100]})
    assert parse_json(text.encode(), "x") == json.loads(text)


def test_the_size_limit_is_exact_and_comes_first():
    assert parse_json(b"[1]", "x", max_bytes=3) == [1]
    with pytest.raises(RefusedError, match="3 bytes, at most 2 are read"):
        parse_json(b"[[[", "x", max_bytes=2)
    with pytest.raises(RefusedError, match="at most 4194304"):
        parse_json(b" " * (files.MAX_JSON_BYTES + 1), "x")


@given(st.binary(max_size=200) | st.text(alphabet='[]{}",:\\ 0123456789.eE+-truefalsn\n', max_size=60).map(str.encode))
def test_any_bytes_are_a_value_or_are_refused(data):
    try:
        value = parse_json(data, "x")
    except RefusedError:
        return
    assert parse_json(dump_json(value), "x") == value


@given(SAFE, st.data())
def test_one_changed_byte_is_read_or_refused_but_never_more(value, data):
    changed = bytearray(dump_json(value))
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(RefusedError):
        parse_json(bytes(changed), "x")
