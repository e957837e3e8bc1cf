"""Each rule for quantized graphs finds what it is for: one change in a good graph, one rule."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from logoformer.bundle import Bundle
from logoformer.calibration.collect import collect_ranges
from logoformer.calibration.quantize import QuantizeConfig, quantize_graph
from logoformer.errors import VerificationError
from logoformer.export.lint import RULES, lint, require_clean
from onnx import TensorProto, helper, numpy_helper

KEPT = {"temporal/Softmax"}
BLOCK = "temporal.blocks.0"


@pytest.fixture(scope="module")
def good(untrained_bundle: Path) -> onnx.ModelProto:
    """The clip graph in INT8."""
    bundle = Bundle(untrained_bundle)
    fp32, fp16 = (onnx.load_from_string(bundle.read_graph(bundle.graph("clip", p))) for p in ("fp32", "fp16"))
    config = QuantizeConfig()
    return quantize_graph(fp32, fp16, collect_ranges(fp32, bundle.golden().clips[:2], config), config)


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(item for item in model.graph.node if item.name == name)


def replace_constant(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    item = next(item for item in model.graph.initializer if item.name == name)
    item.CopyFrom(numpy_helper.from_array(value, name))


def constant(model: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(item for item in model.graph.initializer if item.name == name))


def quantize_input(model: onnx.ModelProto, reader: str, slot: int = 0) -> None:
    """Puts a pair in front of one operand of a node."""
    place = next(i for i, item in enumerate(model.graph.node) if item.name == reader)
    tensor = model.graph.node[place].input[slot]
    scale, zero = f"{tensor}.s", f"{tensor}.z"
    model.graph.initializer.append(numpy_helper.from_array(np.float16(0.1), scale))
    model.graph.initializer.append(numpy_helper.from_array(np.int8(0), zero))
    model.graph.node[place].input[slot] = f"{tensor}.dq"
    q = helper.make_node("QuantizeLinear", [tensor, scale, zero], [f"{tensor}.q"], name=f"{tensor}/Q")
    dq = helper.make_node("DequantizeLinear", [f"{tensor}.q", scale, zero], [f"{tensor}.dq"], name=f"{tensor}/DQ")
    model.graph.node.insert(place, q)
    model.graph.node.insert(place + 1, dq)


# ------------------------------------------------------------------------------------------------------------- plants
def before_the_transpose(model: onnx.ModelProto) -> None:
    quantize_input(model, f"{BLOCK}.local_attention/Transpose.4")


def an_output(model: onnx.ModelProto) -> None:
    name = "frame/Transpose.dequantized"
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT16, [8, 3, 64, 64]))


def norm_input(model: onnx.ModelProto) -> None:
    quantize_input(model, f"{BLOCK}.norm_ffn/LayerNormalization")


def residual_stream(model: onnx.ModelProto) -> None:
    quantize_input(model, f"{BLOCK}/Add.4")


def downsampled_shortcut(model: onnx.ModelProto) -> None:
    add = node(model, "frame.trunk.layer2.0/Add")
    slot = next(i for i, name in enumerate(add.input) if "downsample" in name)
    quantize_input(model, add.name, slot)


def half_an_attention(model: onnx.ModelProto) -> None:
    second = node(model, f"{BLOCK}.local_attention/MatMul.2")
    second.input[0] = f"{BLOCK}.local_attention/Softmax"
    second.input[1] = f"{BLOCK}.local_attention/Transpose.3"


def fp32_norm(model: onnx.ModelProto) -> None:
    place = next(i for i, n in enumerate(model.graph.node) if n.name == f"{BLOCK}.norm_ffn/LayerNormalization")
    norm = model.graph.node[place]
    made = norm.output[0]
    model.graph.node.insert(place, helper.make_node("Cast", [norm.input[0]], ["wide"], name="wide", to=1))
    norm.input[0] = "wide"
    for name in list(norm.input)[1:]:
        replace_constant(model, name, constant(model, name).astype(np.float32))
    norm.output[0] = "narrow"
    model.graph.node.insert(place + 2, helper.make_node("Cast", ["narrow"], [made], name="narrow", to=10))


def classifier(model: onnx.ModelProto) -> None:
    quantize_input(model, "temporal.head/Gemm")
    quantize_weight_of_the_classifier(model)


def quantize_weight_of_the_classifier(model: onnx.ModelProto) -> None:
    quantize_input(model, "temporal.head/Gemm", 1)
    replace_constant(model, "temporal.head.weight.s", np.full(7, 0.1, np.float16))
    replace_constant(model, "temporal.head.weight.z", np.zeros(7, np.int8))
    for name in ("temporal.head.weight/Q", "temporal.head.weight/DQ"):
        node(model, name).attribute.append(helper.make_attribute("axis", 0))


def tiny_scale(model: onnx.ModelProto) -> None:
    scale = constant(model, "frame.project.weight.scale").copy()
    scale[5] = 2.0**-21
    replace_constant(model, "frame.project.weight.scale", scale)


def zero_scale(model: onnx.ModelProto) -> None:
    replace_constant(model, "frame/Transpose.scale", np.float16(0))


def vector_of_one(model: onnx.ModelProto) -> None:
    replace_constant(model, "frame/Transpose.scale", constant(model, "frame/Transpose.scale").reshape(1))


def one_scale_for_a_weight(model: onnx.ModelProto) -> None:
    replace_constant(model, "frame.project.weight.scale", np.float16(0.1))
    replace_constant(model, "frame.project.weight.zero_point", np.int8(0))


def bare_operand(model: onnx.ModelProto) -> None:
    conv = node(model, "frame.project/Conv")
    conv.input[0] = conv.input[0].removesuffix(".dequantized")


def zero_point(model: onnx.ModelProto) -> None:
    replace_constant(model, "frame/Transpose.zero_point", np.int8(-3))


PLANTS: dict[str, tuple[str, Callable[[onnx.ModelProto], None]]] = {
    "Q/DQ before a transpose": ("LF011", before_the_transpose),
    "a dequantized output": ("LF011", an_output),
    "Q/DQ on a LayerNormalization": ("LF012", norm_input),
    "Q/DQ on the residual stream": ("LF013", residual_stream),
    "Q/DQ on a down-sampled shortcut": ("LF013", downsampled_shortcut),
    "one product of an attention": ("LF014", half_an_attention),
    "FP32 beside INT8": ("LF015", fp32_norm),
    "the classifier": ("LF016", classifier),
    "an underflowing scale": ("LF017", tiny_scale),
    "a scale of zero": ("LF017", zero_scale),
    "a scale of one entry": ("LF018", vector_of_one),
    "one scale for all channels": ("LF018", one_scale_for_a_weight),
    "one operand": ("LF019", bare_operand),
    "a zero point": ("LF020", zero_point),
}


def test_our_own_graphs_are_clean(good: onnx.ModelProto, untrained_bundle: Path):
    require_clean(good, "the clip graph", KEPT)
    fp32 = onnx.load_from_string(Bundle(untrained_bundle).read_graph(Bundle(untrained_bundle).graph("clip", "fp32")))
    assert lint(fp32) == []  # FP32 is no finding where nothing is quantized


@pytest.mark.parametrize("plant", PLANTS)
def test_each_rule_finds_its_plant_and_no_other_does(good: onnx.ModelProto, plant: str):
    rule, change = PLANTS[plant]
    broken = onnx.ModelProto()
    broken.CopyFrom(good)
    change(broken)
    found = lint(broken, KEPT)
    assert {finding.rule for finding in found} == {rule}, [str(finding) for finding in found]
    with pytest.raises(VerificationError, match="graph rules") as caught:
        require_clean(broken, "the clip graph", KEPT)
    assert rule in caught.value.log[0]


def test_every_rule_has_a_plant():
    assert {rule for rule, _ in PLANTS.values()} == {rule for rule in RULES if rule > "LF010"}


def test_what_the_range_scan_keeps_is_no_finding(good: onnx.ModelProto):
    assert [finding.where for finding in lint(good)] == ["temporal/Softmax"]


@pytest.mark.parametrize(("heads", "tokens"), [(24, 16), (32, 513)])
def test_attention_outside_the_fused_kernel(heads: int, tokens: int):
    shape = {"q": [1, 2, tokens, heads], "k": [1, 2, heads, tokens], "v": [1, 2, tokens, heads]}
    nodes = [
        helper.make_node("MatMul", ["q", "k"], ["scores"], name="qk"),
        helper.make_node("Softmax", ["scores"], ["weights"], name="softmax"),
        helper.make_node("MatMul", ["weights", "v"], ["y"], name="mix"),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, size) for name, size in shape.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT16, [1, 2, tokens, heads])
    graph = helper.make_graph(nodes, "logoformer", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    for reader, slot in (("qk", 0), ("qk", 1), ("mix", 0), ("mix", 1)):
        quantize_input(model, reader, slot)
    assert [finding.rule for finding in lint(model)] == ["LF014"]
