"""The scan for external tensors: it must agree with the onnx package, and survive any bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.bundle import onnx_scan
from logoformer.bundle.onnx_scan import CHILDREN, MAX_DEPTH, refuse_external
from logoformer.errors import RefusedError

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402


def tensor(name: str = "w", *, external: bool = False) -> Any:
    made = helper.make_tensor(name, TensorProto.FLOAT, [2], [1.0, 2.0])
    if external:
        made.ClearField("float_data")
        made.data_location = TensorProto.EXTERNAL
        made.external_data.add(key="location", value="../secret.bin")
    return made


def sparse(*, values: bool, indices: bool) -> Any:
    made = onnx.SparseTensorProto()
    made.values.CopyFrom(tensor("values", external=values))
    made.indices.CopyFrom(tensor("indices", external=indices))
    return made


def graph(*, initializers: tuple[Any, ...] = (), nodes: tuple[Any, ...] = ()) -> Any:
    return helper.make_graph(list(nodes), "g", [], [], list(initializers))


def node(**attributes: Any) -> Any:
    made = onnx.NodeProto(op_type="Custom", name="n", output=["y"])
    for name, value in attributes.items():
        item = made.attribute.add(name=name)
        field = {"t": item.t, "g": item.g, "sparse_tensor": item.sparse_tensor}.get(name)
        if field is not None:
            field.CopyFrom(value)
        else:
            getattr(item, name).append(value)
    return made


def model(the_graph: Any | None = None, **lists: Any) -> Any:
    made = onnx.ModelProto(ir_version=10)
    made.graph.CopyFrom(the_graph if the_graph is not None else graph())
    for name, value in lists.items():
        getattr(made, name).append(value)
    return made


def function(*nodes: Any, default: Any | None = None) -> Any:
    made = onnx.FunctionProto(name="f", domain="d")
    made.node.extend(nodes)
    if default is not None:
        made.attribute_proto.add(name="a").t.CopyFrom(default)
    return made


def training(initialization: Any, algorithm: Any) -> Any:
    made = onnx.TrainingInfoProto()
    made.initialization.CopyFrom(initialization)
    made.algorithm.CopyFrom(algorithm)
    return made


BAD = tensor("bad", external=True)
BAD_GRAPH = graph(initializers=(BAD,))
PLACES: dict[str, Callable[[], Any]] = {
    "initializer": lambda: model(BAD_GRAPH),
    "sparse values": lambda: _with_sparse(sparse(values=True, indices=False)),
    "sparse indices": lambda: _with_sparse(sparse(values=False, indices=True)),
    "attribute tensor": lambda: model(graph(nodes=(node(t=BAD),))),
    "attribute tensors": lambda: model(graph(nodes=(node(tensors=BAD),))),
    "attribute sparse": lambda: model(graph(nodes=(node(sparse_tensor=sparse(values=True, indices=False)),))),
    "attribute sparses": lambda: model(graph(nodes=(node(sparse_tensors=sparse(values=False, indices=True)),))),
    "subgraph": lambda: model(graph(nodes=(node(g=BAD_GRAPH),))),
    "subgraphs": lambda: model(graph(nodes=(node(graphs=BAD_GRAPH),))),
    "subgraph of a subgraph": lambda: model(graph(nodes=(node(g=graph(nodes=(node(graphs=BAD_GRAPH),))),))),
    "function body": lambda: model(functions=function(node(t=BAD))),
    "function default": lambda: model(functions=function(default=BAD)),
    "training initialization": lambda: model(training_info=training(BAD_GRAPH, graph())),
    "training algorithm": lambda: model(training_info=training(graph(), BAD_GRAPH)),
}


def _with_sparse(item: Any) -> Any:
    made = graph()
    made.sparse_initializer.append(item)
    return model(made)


def tensors_of(message: Any) -> Iterator[Any]:
    """Every TensorProto inside a message, found by protobuf's own reflection."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in value if hasattr(value, "append") or hasattr(value, "add") else [value]:
                yield from tensors_of(item)


def has_external(message: Any) -> bool:
    return any(t.data_location == TensorProto.EXTERNAL or len(t.external_data) for t in tensors_of(message))


def refused(data: bytes) -> bool:
    try:
        refuse_external(data, "m.onnx")
    except RefusedError:
        return True
    return False


# ------------------------------------------------------------------------------------------------------------ tables
def test_children_are_every_way_from_the_model_to_a_tensor() -> None:
    below: dict[str, dict[int, str]] = {}  # message -> its message fields, for all that a model can hold
    waiting = [onnx.ModelProto.DESCRIPTOR]
    while waiting:
        descriptor = waiting.pop()
        inside = [field for field in descriptor.fields if field.message_type is not None]
        if descriptor.name not in below:
            below[descriptor.name] = {field.number: field.message_type.name for field in inside}
            waiting += [field.message_type for field in inside]
    holds = {"TensorProto"}
    while more := {name for name, inside in below.items() if holds & set(inside.values())} - holds:
        holds |= more
    ways = {name: {n: kind for n, kind in below[name].items() if kind in holds} for name in holds}
    assert ways == CHILDREN


def test_tensor_fields_have_onnx_numbers() -> None:
    numbers = {field.name: field.number for field in TensorProto.DESCRIPTOR.fields}
    assert (numbers["name"], numbers["external_data"], numbers["data_location"]) == (
        onnx_scan._NAME,
        onnx_scan._EXTERNAL_DATA,
        onnx_scan._DATA_LOCATION,
    )


# ---------------------------------------------------------------------------------------------------------- external
@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_refused_wherever_it_hides(place: str) -> None:
    made = PLACES[place]()
    assert has_external(made), "the test's own model is wrong"
    with pytest.raises(RefusedError, match="lies outside the file"):
        refuse_external(made.SerializeToString(), "m.onnx")


def test_the_refusal_names_the_tensor_and_the_file() -> None:
    with pytest.raises(RefusedError) as caught:
        refuse_external(model(BAD_GRAPH).SerializeToString(), "m.onnx")
    assert "m.onnx" in caught.value.what
    assert "'bad'" in caught.value.what
    assert caught.value.next


@pytest.mark.parametrize("field", ["data_location", "external_data"])
def test_one_sign_is_enough(field: str) -> None:
    made = tensor("bad", external=True)
    made.ClearField("external_data" if field == "data_location" else "data_location")
    assert refused(model(graph(initializers=(made,))).SerializeToString())


def test_a_location_that_wraps_to_external_is_refused() -> None:
    # 2**32 + 1 is EXTERNAL to a parser that keeps 32 bits of an enum.
    inside = bytes([14 << 3]) + bytes([0x81, 0x80, 0x80, 0x80, 0x10])
    assert refused(wrap(7, wrap(5, inside)))


def test_a_location_set_twice_is_refused() -> None:
    # The last one wins in protobuf, the first one may win elsewhere.
    assert refused(wrap(7, wrap(5, bytes([14 << 3, 1, 14 << 3, 0]))))


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_a_whole_model_passes(small_onnx: Callable[..., bytes], precision: str) -> None:
    refuse_external(small_onnx(precision), "m.onnx")


def test_tensors_with_data_inside_pass() -> None:
    inner = graph(initializers=(tensor(),), nodes=(node(t=tensor()), node(tensors=tensor())))
    outer = graph(
        initializers=(tensor(),), nodes=(node(g=inner), node(sparse_tensor=sparse(values=False, indices=False)))
    )
    refuse_external(model(outer, functions=function(node(t=tensor()))).SerializeToString(), "m.onnx")


# --------------------------------------------------------------------------------------------------------- malformed
def wrap(number: int, payload: bytes) -> bytes:
    """One length-delimited field."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


GRAPH = wrap(7, b"")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no graph"),
        (b"\x08\x0a", "no graph"),
        (GRAPH + b"\x00\x00", "field number 0"),
        (GRAPH + b"\x0b", "wire type 3"),
        (GRAPH + b"\x0e", "wire type 6"),
        (GRAPH + b"\x80", "does not end"),
        (GRAPH + b"\x08" + b"\xff" * 9 + b"\x7f", "does not end"),  # 70 bits
        (GRAPH + b"\x80" * 10 + b"\x01", "does not end"),
        (GRAPH + b"\x12\x05ab", "ends 3 bytes after"),
        (GRAPH + b"\x09abc", "ends 5 bytes after"),
        (GRAPH + b"\x0dabc", "ends 1 bytes after"),
        (GRAPH + b"\x12" + b"\xff" * 9 + b"\x01", "bytes after"),  # a length of 2**64 - 1
        (b"\x38\x01", "field 7 has wire type 0"),  # the graph as a number
        (wrap(7, wrap(5, b"\x72\x00")), "field 14 has wire type 2"),  # data_location as bytes
        (wrap(7, wrap(5, b"\x68\x00")), "field 13 has wire type 0"),  # external_data as a number
        (wrap(7, wrap(5, b"\x0a\x7f")), "ends 127 bytes after"),  # a tensor that reaches out of its graph
        (b"\x89PNG\r\n\x1a\n", "cannot|not an ONNX"),
        (b"PK\x03\x04" + bytes(40), "not an ONNX"),
    ],
)
def test_malformed_bytes_are_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(RefusedError, match=why):
        refuse_external(data, "m.onnx")


def nested(levels: int) -> bytes:
    """A graph inside a node's attribute, inside a graph, ...; three messages a level."""
    inner = b""
    for _ in range(levels):
        inner = wrap(1, wrap(5, wrap(6, inner)))
    return wrap(7, inner)


def test_nesting_is_limited() -> None:
    deepest = (MAX_DEPTH - 1) // 3
    refuse_external(nested(deepest), "m.onnx")
    with pytest.raises(RefusedError, match="nested deeper"):
        refuse_external(nested(deepest + 1), "m.onnx")
    with pytest.raises(RefusedError, match="nested deeper"):
        refuse_external(nested(5000), "m.onnx")  # far past Python's own recursion limit


def test_the_number_of_fields_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_scan, "MAX_FIELDS", 100)
    refuse_external(GRAPH + b"\x08\x01" * 99, "m.onnx")
    with pytest.raises(RefusedError, match="more than 100 fields"):
        refuse_external(GRAPH + b"\x08\x01" * 100, "m.onnx")


# -------------------------------------------------------------------------------------------------------- properties
TENSORS = st.builds(tensor, st.text(max_size=5), external=st.booleans())
SPARSE = st.builds(sparse, values=st.booleans(), indices=st.booleans())


def nodes_of(graphs: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    one = {"t": TENSORS, "tensors": TENSORS, "sparse_tensors": SPARSE, "g": graphs, "graphs": graphs}
    return st.one_of([value.map(lambda item, name=name: node(**{name: item})) for name, value in one.items()])


def graphs_of(graphs: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(
        graph,
        initializers=st.lists(TENSORS, max_size=2).map(tuple),
        nodes=st.lists(nodes_of(graphs), max_size=3).map(tuple),
    )


GRAPHS = st.recursive(st.builds(graph), graphs_of, max_leaves=4)
MODELS = st.builds(model, GRAPHS) | st.builds(
    lambda g, f, t: model(g, functions=f, training_info=t),
    GRAPHS,
    st.builds(function, nodes_of(GRAPHS), default=TENSORS),
    st.builds(training, GRAPHS, GRAPHS),
)


@settings(max_examples=150, deadline=None)
@given(MODELS)
def test_it_agrees_with_the_onnx_package(made: Any) -> None:
    assert refused(made.SerializeToString()) == has_external(made)


@settings(max_examples=150, deadline=None)
@given(MODELS, st.data())
def test_damaged_models_are_refused_or_hold_no_external_tensor(made: Any, data: st.DataObject) -> None:
    raw = bytearray(made.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        action = data.draw(st.sampled_from(["flip", "cut", "insert"]))
        if action == "flip":
            raw[place] ^= 1 << data.draw(st.integers(0, 7))
        elif action == "cut":
            del raw[place : place + data.draw(st.integers(1, 8))]
        else:
            raw[place:place] = data.draw(st.binary(max_size=8))
        if not raw:
            break
    check_against_onnx(bytes(raw))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_hold_no_external_tensor(data: bytes) -> None:
    check_against_onnx(data)
    check_against_onnx(GRAPH + data)
    check_against_onnx(wrap(7, wrap(5, data)))


def check_against_onnx(data: bytes) -> None:
    """What passes the scan must be free of external tensors in the eyes of protobuf's parser, if that takes it."""
    from google.protobuf.message import DecodeError

    if refused(data):
        return
    parsed = onnx.ModelProto()
    try:
        parsed.ParseFromString(data)
    except DecodeError:
        return
    assert not has_external(parsed)
