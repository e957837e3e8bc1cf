"""Each lint rule finds what it is for, and nothing in our own graphs."""

import numpy as np
import onnx
import pytest
from logoformer.errors import VerificationError
from logoformer.export.graphs import GRAPHS, build_graph, example_inputs
from logoformer.export.lint import RULES, lint, require_clean
from logoformer.export.trace import trace
from logoformer.model.networks.configs import PRESETS
from logoformer.workflows.init import initialise
from onnx import TensorProto, helper, numpy_helper


def model_of(nodes, *, inputs=None, outputs=None, constants=None, opset=20) -> onnx.ModelProto:
    inputs = inputs or {"x": (TensorProto.FLOAT, [2, 4])}
    outputs = outputs or {"y": (TensorProto.FLOAT, [2, 4])}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [helper.make_tensor_value_info(name, *spec) for name, spec in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def relu(**more) -> onnx.ModelProto:
    return model_of([helper.make_node("Relu", ["x"], ["y"], name="r")], **more)


def external() -> onnx.ModelProto:
    model = relu(constants={"w": np.ones(2, np.float32)})
    item = model.graph.initializer[0]
    item.data_location = TensorProto.EXTERNAL
    entry = item.external_data.add()
    entry.key, entry.value = "location", "elsewhere.bin"
    return model


def documented() -> onnx.ModelProto:
    model = relu()
    model.graph.node[0].doc_string = "/home/somebody/model.py line 3"
    return model


def late_scale() -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["q", "k"], ["s"], name="qk"),
        helper.make_node("Mul", ["s", "c"], ["t"], name="scale"),
        helper.make_node("Softmax", ["t"], ["y"], name="softmax"),
    ]
    floats = {name: (TensorProto.FLOAT, [4, 4]) for name in ("q", "k")}
    return model_of(
        nodes, inputs=floats, outputs={"y": (TensorProto.FLOAT, [4, 4])}, constants={"c": np.float32([0.125])}
    )


def decomposed_norm() -> onnx.ModelProto:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], name="mean", keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["y"], name="sub"),
    ]
    return model_of(nodes)


BROKEN = {
    "LF001": relu(inputs={"x": (TensorProto.FLOAT, ["batch", 4])}),
    "LF002": model_of(
        [helper.make_node("NonZero", ["x"], ["y"], name="n")], outputs={"y": (TensorProto.INT64, [2, 4])}
    ),
    "LF003": model_of([helper.make_node("Tan", ["x"], ["y"], name="t")]),
    "LF004": late_scale(),
    "LF005": decomposed_norm(),
    "LF006": external(),
    "LF007": documented(),
    "LF008": relu(opset=21),
    "LF009": model_of(
        [helper.make_node("Transpose", ["x"], ["y"], name="t", perm=[1, 0])],
        inputs={"x": (TensorProto.UINT8, [2, 4])},
        outputs={"y": (TensorProto.UINT8, [4, 2])},
    ),
    "LF010": relu(constants={"w": np.float32([1.0, np.inf])}),
}


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule <= "LF010"])  # those: test_lint_int8.py
def test_each_rule_finds_its_fault(rule: str):
    assert [finding.rule for finding in lint(BROKEN[rule])] == [rule]


def test_a_scale_on_the_query_is_no_fault():
    nodes = [
        helper.make_node("Mul", ["q", "c"], ["s"], name="scale"),
        helper.make_node("MatMul", ["s", "k"], ["t"], name="qk"),
        helper.make_node("Softmax", ["t"], ["y"], name="softmax"),
    ]
    floats = {name: (TensorProto.FLOAT, [4, 4]) for name in ("q", "k")}
    model = model_of(
        nodes, inputs=floats, outputs={"y": (TensorProto.FLOAT, [4, 4])}, constants={"c": np.float32([0.125])}
    )
    assert lint(model) == []


@pytest.mark.parametrize("name", GRAPHS)
def test_our_graphs_are_clean(name: str):
    model = initialise(PRESETS["tiny"])
    assert lint(trace(build_graph(name, model), example_inputs(name, PRESETS["tiny"], 20), "out")) == []


def test_the_refusal_lists_the_findings():
    with pytest.raises(VerificationError) as caught:
        require_clean(BROKEN["LF003"], "graph x")
    assert "LF003" in str(caught.value) and "Tan" in str(caught.value)
