"""A small convolution + attention network as ONNX bytes, and the real TensorRT-RTX builder (it needs no GPU)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest

HEADS, DEPTH, TOKENS, CHANNELS = 2, 32, 64, 64
# conv: 64 outputs x 8 x 8 x 3 inputs x 9 taps; q, k, v, out: 64 x 64 x 64; two products: 2 heads x 64 x 64 x 32
CONV_MACS, LINEAR_MACS, PRODUCT_MACS = 64 * 64 * 27, 64 * 64 * 64, 2 * 64 * 64 * 32


@functools.cache
def _make(precision: str, *, external: bool) -> bytes:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    real = np.float16 if precision == "fp16" else np.float32
    kind = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT
    weights, nodes = [], []

    def constant(name: str, value: object, dtype: type) -> str:
        weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(op: str, inputs: list[str], name: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [f"{name}:out"], name=name, **attributes))
        return f"{name}:out"

    def heads(tokens: str, name: str, order: list[int]) -> str:
        weight = constant(f"{name}.weight", rng.normal(0, 0.1, (CHANNELS, CHANNELS)), real)
        split = node("Reshape", [node("MatMul", [tokens, weight], f"{name}/MatMul"), shape], f"{name}/Reshape")
        return node("Transpose", [split], f"{name}/Transpose", perm=order)

    shape = constant("shape", [1, TOKENS, HEADS, DEPTH], np.int64)
    image = node("Cast", ["image"], "image/Cast", to=kind)
    kernel = constant("conv.weight", rng.normal(0, 0.1, (CHANNELS, 3, 3, 3)), real)
    features = node("Relu", [node("Conv", [image, kernel], "conv/Conv", pads=[1, 1, 1, 1], strides=[2, 2])], "relu")
    flat = node("Reshape", [features, constant("flat", [1, CHANNELS, TOKENS], np.int64)], "flatten")
    tokens = node("Transpose", [flat], "tokens", perm=[0, 2, 1])  # [1, 64, 64]
    q, k, v = heads(tokens, "q", [0, 2, 1, 3]), heads(tokens, "k", [0, 2, 3, 1]), heads(tokens, "v", [0, 2, 1, 3])
    weights_of = node("Softmax", [node("MatMul", [q, k], "scores/MatMul")], "softmax", axis=-1)
    mixed = node("Transpose", [node("MatMul", [weights_of, v], "mix/MatMul")], "merge", perm=[0, 2, 1, 3])
    joined = node("Reshape", [mixed, constant("joined", [1, TOKENS, CHANNELS], np.int64)], "join")
    out = constant("out.weight", rng.normal(0, 0.1, (CHANNELS, CHANNELS)), real)
    node("Cast", [node("MatMul", [joined, out], "out/MatMul")], "answer", to=TensorProto.FLOAT)
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("answer:out", TensorProto.FLOAT, [1, TOKENS, CHANNELS])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    if external:
        tensor = next(item for item in model.graph.initializer if item.name == "out.weight")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights.bin")
    else:
        onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@pytest.fixture(scope="session")
def small_onnx() -> Callable[..., bytes]:
    """`small_onnx("fp16")` or `small_onnx("fp32", external=True)`: the network as ONNX bytes."""
    pytest.importorskip("onnx")

    def make(precision: str, *, external: bool = False) -> bytes:
        return _make(precision, external=external)

    return make


@pytest.fixture(scope="session")
def small_macs() -> dict[str, int]:
    """Multiply-accumulates of the network by node, counted by hand."""
    linear = {f"{name}/MatMul": LINEAR_MACS for name in ("q", "k", "v", "out")}
    return {"conv/Conv": CONV_MACS, **linear, "scores/MatMul": PRODUCT_MACS, "mix/MatMul": PRODUCT_MACS}
