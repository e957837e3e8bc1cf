"""The index of a bundle: what does not hang together is refused when it is opened, however well it is sealed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.bundle import Bundle
from logoformer.bundle.files import dump_json, sha256
from logoformer.bundle.sealed import seal
from logoformer.errors import RefusedError

Change = Callable[[dict[str, Any]], object]


# ---------------------------------------------------------------------------------------------------------- the index
@pytest.mark.parametrize("version", [2, 1000, 2**63 - 1])
def test_a_newer_schema_says_what_to_install(small, version, reseal, refused):
    reseal(small, lambda m: m.update(schema_version=version))
    error = refused(small)
    assert f"version {version}; this program reads up to 1" in error.what
    assert error.next == "pip install --upgrade logoformer-VERSION-py3-none-any.whl"


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "1", None, [1]])
def test_a_schema_version_that_is_none_is_refused(small, version, reseal, refused):
    reseal(small, lambda m: m.update(schema_version=version))
    assert "no usable schema_version" in refused(small).what


NESTED = b'{"a":' * 5000 + b"1" + b"}" * 5000
STRANGE = {
    "deep": (NESTED, "nested deeper than 32"),
    "deep without an end": (b"[" * 100_000, "nested deeper"),
    "huge": (b'{"format": "' + b"x" * (5 << 20) + b'"}', "at most 4194304"),
    "a list": (b"[]", "not a logoformer-bundle index"),
    "a number": (b"7", "not a logoformer-bundle index"),
    "another program's": (b'{"format": "other"}', "not a logoformer-bundle index"),
    "the engines'": (seal({"format": "logoformer-engines", "schema_version": 1}), "not a logoformer-bundle index"),
    "not UTF-8": (b"\xff\xfe{}", "not UTF-8"),
    "a number that is none": (b'{"format": NaN}', "NaN"),
    "a key twice": (b'{"format": "logoformer-bundle", "format": "x"}', "twice"),
    "a long number": (b'{"a": ' + b"9" * 5000 + b"}", "5000 digits"),
    "no digest": (dump_json({"format": "logoformer-bundle", "schema_version": 1}), "own digest"),
    "nothing but the frame": (seal({"format": "logoformer-bundle", "schema_version": 1}), "lacks or garbles a field"),
}


@pytest.mark.parametrize("what", STRANGE)
def test_an_index_that_is_none_is_refused_with_its_reason(small, what, refused):
    data, why = STRANGE[what]
    (small / "manifest.json").write_bytes(data)
    assert why in refused(small).what


CLIMBING = [
    "../secret", "graphs/../../secret", "graphs/../manifest.json", "/etc/passwd", "graphs//x", "graphs/./x", "graphs/",
    "graphs", "graphs/.hidden", "graphs/-x", "graphs/a b", "graphs/x\n", "graphs/x\0", "engines/x", "manifest.json", "",
    "graphs/" + "x" * 200, "graphs/é", ".", "..", "C:\\x", "graphs\\x", "graphs/sub/x",
]  # fmt: skip


@pytest.mark.parametrize("path", CLIMBING)
@pytest.mark.parametrize("where", ["graph", "golden"])
def test_a_path_that_leads_elsewhere_is_refused(small, tmp_path, path, where, reseal, refused):
    secret = b"secret"
    (tmp_path / "secret").write_bytes(secret)

    def change(manifest: dict[str, Any]) -> None:
        entry = manifest["graphs"][0] if where == "graph" else manifest["golden"]
        entry.update(file=path, sha256=sha256(secret), size=len(secret))

    reseal(small, change)
    assert "lacks or garbles a field" in refused(small).what


def put(*way: Any) -> Change:
    *steps, key, value = way

    def change(manifest: dict[str, Any]) -> None:
        place: Any = manifest
        for step in steps:
            place = place[step]
        place[key] = value

    return change


CONTRADICTIONS = [
    put("labels", ["calm"]),
    put("labels", ["calm", "calm", "glad"]),
    put("labels", ["calm", "glad"]),
    put("labels", "abc"),
    put("preprocessing", "size", 8),
    put("sampling", "segments", 3),
    put("sampling", "segments", 4),
    put("sampling", "span_s", "nan"),
    put("sampling", "span_s", 0.1),
    put("sampling", "fps", 0),
    put("stream", "frames", 4),
    put("stream", "window", [2, 1, 3]),
    put("stream", "window", [2, 3, 1]),
    put("stream", "window", [3, 1, 2]),
    put("stream", "window", [2, 1]),
    put("stream", "grid", 4),
    put("stream", "slots", 6),  # the runtime would write past the ring
    put("stream", "faces", 3),
    put("stream", "embed_dim", 0),
    put("stream", "slots", True),
    put("stream", "slots", 2**40),
    put("graphs", {}),
    put("graphs", 2, "inputs", 0, "shape", [39, 3]),
    put("graphs", 2, "inputs", 1, "dtype", "int64"),
    put("graphs", 2, "inputs", 0, "dtype", "float16"),  # FP32
    put("graphs", 5, "inputs", 0, "dtype", "float16"),  # FP16, and its tokens are float32
    put("graphs", 0, "inputs", 0, "dtype", "object"),
    put("graphs", 0, "inputs", 0, "dtype", "f4,(2"),
    put("graphs", 0, "inputs", 0, "name", "order"),
    put("graphs", 0, "outputs", []),
    put("graphs", 0, "graph", "frame"),
    put("graphs", 0, "graph", "spatial"),
    put("graphs", 0, "precision", "fp64"),
    put("graphs", 0, "batch", 0),
    put("graphs", 0, "sha256", "0" * 63),
    put("graphs", 0, "sha256", "0" * 63 + "G"),
    put("graphs", 0, "size", -1),
    put("graphs", 0, "size", 2**31),
    put("precisions", {"fp64": {}}),
    put("precisions", ["fp32"]),
    put("precisions", "fp32", "accept"),
    put("golden", None),
    put("labels", ["calm", "glad", "x" * 1_000_000]),
    put("labels", ["calm", "glad", "\x1b[2J"]),
    put("labels", ["calm", "glad", "two\nlines"]),
    put("labels", ["calm", "glad", "\u202edas"]),
    put("labels", ["calm", "glad", " "]),
    put("labels", ["calm", "glad", "\ud800"]),
    put("provenance", []),
    put("provenance", "none"),
    put("model", [1]),
    put("precisions", "fp32", "verdict", 5),
    put("precisions", "fp16", "reason", ["said so"]),
    put("precisions", "fp16", "excluded", 5),
    put("precisions", "fp16", "excluded", [5]),
    put("precisions", "fp16", "excluded", "ffn"),
    put("precisions", "fp16", "accuracy", []),
    lambda m: m["graphs"].append(m["graphs"][0]),
]


@pytest.mark.parametrize("change", CONTRADICTIONS, ids=range(len(CONTRADICTIONS)))
def test_an_index_that_contradicts_itself_is_refused_when_it_is_opened(small, change, reseal):
    reseal(small, change)
    with pytest.raises(RefusedError, match="lacks or garbles a field"):
        Bundle(small)


def test_one_class_is_no_choice_though_all_shapes_agree(small, reseal):
    def change(manifest: dict[str, Any]) -> None:
        manifest["labels"] = ["calm"]
        for entry in manifest["graphs"]:
            for spec in entry["outputs"]:
                spec["shape"] = [1, 1] if spec["name"] == "probabilities" else spec["shape"]

    reseal(small, change)
    with pytest.raises(RefusedError, match="fewer than two labels"):
        Bundle(small)


def test_a_graph_for_several_clips_has_the_shapes_of_its_batch_and_no_other_names(small, reseal):
    def batch(m: dict[str, Any]) -> None:
        entry = m["graphs"][0]
        entry["batch"] = 2
        for spec in (*entry["inputs"], *entry["outputs"]):
            spec["shape"][0] = 2

    sound = (small / "manifest.json").read_bytes()
    reseal(small, put("graphs", 0, "batch", 2))
    with pytest.raises(RefusedError, match="do not fit"):
        Bundle(small)
    (small / "manifest.json").write_bytes(sound)
    reseal(small, batch)
    assert Bundle(small).graph("clip", "fp32", 2).inputs[0].shape == (2, 2, 4, 4, 3)
    for wrong in (put("graphs", 0, "graph", "spatial"), put("graphs", 0, "inputs", 0, "dtype", "object")):
        kept = (small / "manifest.json").read_bytes()
        reseal(small, wrong)
        with pytest.raises(RefusedError, match="is none of"):
            Bundle(small)
        (small / "manifest.json").write_bytes(kept)


def test_rows_of_fp16_graphs_may_be_fp16_on_both_sides(small, reseal):
    def narrow(m: dict[str, Any]) -> None:
        m["graphs"][4]["outputs"][0]["dtype"] = m["graphs"][5]["inputs"][0]["dtype"] = "float16"

    reseal(small, narrow)
    bundle = Bundle(small)
    assert [bundle.graph("temporal", kind).inputs[0].dtype for kind in ("fp32", "fp16")] == ["float32", "float16"]
    assert [bundle.graph("frame", kind).outputs[0].dtype for kind in ("fp32", "fp16")] == ["float32", "float16"]


def test_several_answers_need_an_order_for_each(small, reseal):
    index = next(i for i, entry in enumerate(Bundle(small).graphs) if entry.graph == "temporal")
    reseal(small, put("graphs", index, "batch", 2))
    with pytest.raises(RefusedError, match="do not fit sampling, stream"):
        Bundle(small)


# ---------------------------------------------------------------------------------------------------------------- fuzz
LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.sampled_from(["fp32", "clip", "uint8", "graphs/x", "0" * 64, "nan", "1", ""]) | st.text(max_size=6)
VALUES = st.recursive(
    LEAVES | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a JSON value, as the keys that lead there."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([way] if way else []), *(found for key, item in inside for found in places(item, (*way, key)))]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_resealed_index_brings_anything_but_a_refusal(small, data):
    good = json.loads((small / "manifest.json").read_bytes())
    changed = deepcopy(good)
    for _ in range(data.draw(st.integers(1, 3))):
        *steps, key = data.draw(st.sampled_from(places(changed)))
        holder: Any = changed
        for step in steps:
            holder = holder[step]
        action = data.draw(st.sampled_from(["put", "put", "remove", "near", "copy"]))
        if action == "remove":
            del holder[key]
        elif action == "near" and type(holder[key]) in (int, float):
            holder[key] += data.draw(st.sampled_from([-1, 1, 0.5, 2**31]))
        elif action == "copy":
            *others, last = data.draw(st.sampled_from(places(good)))
            source: Any = good
            for step in others:
                source = source[step]
            holder[key] = deepcopy(source[last])
        else:
            holder[key] = data.draw(VALUES)
    target = small.with_name("fuzzed.bundle")
    if not target.exists():
        shutil.copytree(small, target)
    (target / "manifest.json").write_bytes(seal(changed))
    bundle = unless_refused(lambda: Bundle(target))
    if bundle is None:
        return
    s = bundle.stream
    assert (s.frames % s.window[0], s.grid % s.window[1], s.grid % s.window[2]) == (0, 0, 0)
    for entry in bundle.graphs:
        unless_refused(lambda entry=entry: bundle.read_graph(entry))
        if entry.graph == "temporal" and entry.batch == 1:
            assert {spec.shape for spec in entry.inputs} == {(s.rows, s.embed_dim), (s.frames * s.grid**2,)}
    unless_refused(bundle.golden)


def unless_refused(read: Callable[[], Any]) -> Any:
    """What it gives, or None where it is refused as it should be; any other error gets through."""
    try:
        return read()
    except RefusedError as error:
        if error.next:
            return None
        raise
