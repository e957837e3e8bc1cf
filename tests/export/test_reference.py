"""The rounding reference sees the FP16 overflow that ONNX Runtime hides."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.errors import VerificationError
from logoformer.export.reference import Reference
from onnx import TensorProto, helper, numpy_helper


def model_of(nodes, inputs, outputs, constants, kind=TensorProto.FLOAT16):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def hidden_overflow() -> onnx.ModelProto:
    """x * 2 * 0.001 with x = 64000: the product in the middle is 128000, past FP16's 65504; the result is 128."""
    return model_of(
        [helper.make_node("Mul", ["x", "two"], ["big"]), helper.make_node("Mul", ["big", "small"], ["y"])],
        {"x": [4]},
        {"y": [4]},
        {"two": np.float16([2.0]), "small": np.float16([0.001])},
    )


def test_the_overflow_that_onnx_runtime_hides_is_found():
    model = hidden_overflow()
    feed = {"x": np.full(4, 64000, np.float16)}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    hidden = session.run(None, feed)[0]
    assert np.isfinite(hidden).all(), "ONNX Runtime hides it: that is why this evaluator exists"
    assert np.isinf(Reference(model).run(feed)["y"]).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 3, 7]), st.sampled_from(["MatMul", "Add", "Gelu", "Softmax"]))
def test_equals_onnx_runtime_in_float32(seed: int, rows: int, operator: str):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((rows, 5)).astype(np.float32)
    w = rng.standard_normal((5, 5) if operator == "MatMul" else (5,)).astype(np.float32)
    names = ["a", "w"] if operator in ("MatMul", "Add") else ["a"]
    model = model_of(
        [helper.make_node(operator, names, ["y"])],
        {"a": [rows, 5]},
        {"y": [rows, 5]},
        {"w": w} if len(names) == 2 else {},
        TensorProto.FLOAT,
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"a": a})[0]
    np.testing.assert_allclose(Reference(model).run({"a": a})["y"], wanted, rtol=1e-5, atol=1e-6)


def test_every_result_is_rounded_to_fp16():
    model = hidden_overflow()
    seen = {}
    Reference(model).run({"x": np.float16([1.0009765625] * 4)}, lambda name, value: seen.update({name: value}))
    assert {str(value.dtype) for value in seen.values()} == {"torch.float16"}
    assert set(seen) == {"big", "y"}


def test_an_unknown_operator_is_named():
    model = model_of([helper.make_node("Tan", ["x"], ["y"])], {"x": [4]}, {"y": [4]}, {})
    with pytest.raises(VerificationError, match="Tan"):
        Reference(model)


def test_quantization_follows_the_standard():
    scale, zero = np.float32([0.1]), np.int8([0])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    model = model_of(nodes, {"x": [6]}, {"y": [6]}, {"s": scale[0], "z": zero[0]}, TensorProto.FLOAT)
    x = np.float32([0.05, 0.15, -0.25, 100.0, -100.0, 0.0])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(Reference(model).run({"x": x})["y"], session.run(None, {"x": x})[0])


def test_many_inputs_in_one_go_are_each_as_if_alone():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((6, 5)).astype(np.float16)
    model = model_of(
        [
            helper.make_node("Gather", ["x", "order"], ["picked"], axis=0),
            helper.make_node("MatMul", ["picked", "w"], ["product"]),
            helper.make_node("LayerNormalization", ["product", "g"], ["y"], axis=-1),
        ],
        {"x": [4, 6]},
        {"y": [3, 5]},
        {"w": weight, "g": np.ones(5, np.float16)},
    )
    model.graph.input.append(helper.make_tensor_value_info("order", TensorProto.INT32, [3]))
    x = rng.standard_normal((9, 4, 6)).astype(np.float16)
    order = np.int32([3, 0, 0])
    reference = Reference(model)
    many, largest = reference.run_many({"x": x}, {"order": order}, lambda name, value: {name: value.abs().amax()})
    alone = [reference.run({"x": one, "order": order})["y"] for one in x]
    assert many["y"].dtype == np.float16
    np.testing.assert_allclose(many["y"], np.stack(alone), atol=2e-3)
    np.testing.assert_allclose(largest["y"], [np.abs(one).max() for one in alone], atol=2e-3)
    assert set(largest) == {"picked", "product", "y"}


def test_int8_with_fp16_scales_rounds_where_the_graph_says():
    """Activation by one FP16 scale, INT8 weights by one scale a column: every step written out in numpy."""
    rng = np.random.default_rng(1)
    steps = rng.integers(-127, 128, (6, 5)).astype(np.int8)
    scales = rng.uniform(0.001, 0.02, 5).astype(np.float16)
    scale = np.float16(0.037)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1),
        helper.make_node("MatMul", ["d", "wd"], ["y"]),
    ]
    zeros = {"z": np.int8(0), "wz": np.zeros(5, np.int8)}
    model = model_of(nodes, {"x": [3, 6]}, {"y": [3, 5]}, {"s": scale, "w": steps, "ws": scales, **zeros})
    x = (3 * rng.standard_normal((3, 6))).astype(np.float16)
    seen = {}
    given = Reference(model).run({"x": x}, lambda name, value: seen.update({name: value.numpy()}))["y"]
    quantized = np.clip(np.rint(x.astype(np.float32) / np.float32(scale)), -128, 127)
    activation = quantized * np.float32(scale)  # inside the kernel: no FP16 between the integers and the product
    weight = (steps.astype(np.float32) * scales.astype(np.float32)).astype(np.float16)
    np.testing.assert_array_equal(seen["q"], quantized.astype(np.int8))
    np.testing.assert_array_equal(seen["d"], activation)
    assert "wd" not in seen, "what depends on constants alone is computed once, when the graph is read"
    wanted = activation @ weight.astype(np.float32)
    np.testing.assert_allclose(given.astype(np.float32), wanted, rtol=1e-3, atol=1e-3)
    assert given.dtype == np.float16


def test_runs_side_by_side_are_each_as_if_alone_and_read_what_they_are_given():
    model = hidden_overflow()
    feeds = [{"x": np.full(4, value, np.float16)} for value in (1.0, 2.0)]
    seen: list[tuple[str, list[float]]] = []

    def before(name, runs):
        seen.append((name, [float(inputs[0][0]) for inputs in runs]))
        return [runs[0], [2 * runs[1][0], runs[1][1]]] if name == "second" else runs

    model.graph.node[0].name, model.graph.node[1].name = "first", "second"
    Reference(model).side_by_side(feeds, before)
    assert seen == [("first", [1.0, 2.0]), ("second", [2.0, 4.0])], "all runs pass one node before the next"
    made: list[float] = []
    model.graph.node.append(helper.make_node("Identity", ["y"], ["z"], name="last"))
    model.graph.output[0].name = "z"

    def last(name, runs):
        if name != "last":
            return before(name, runs)
        made.extend(float(inputs[0][0]) for inputs in runs)
        return runs

    Reference(model).side_by_side(feeds, last)
    np.testing.assert_allclose(made, [0.002, 0.008], rtol=1e-3)
