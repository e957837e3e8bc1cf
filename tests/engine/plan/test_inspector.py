"""The inspector's JSON, in an unverified shape: after NVIDIA/TensorRT issue 4020 and TensorRT's own documentation."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logoformer.engine.builder import proof
from logoformer.engine.builder import proof as module
from logoformer.engine.builder.compile import BuildOptions
from logoformer.engine.builder.proof import inspect_here, plan_of_inspection
from logoformer.engine.plan.inspector import engine_information, parse_inspector
from logoformer.engine.plan.macs import place_macs
from logoformer.errors import MachineError, RefusedError

INT8 = "Thirty-two wide channel vectorized row major Int8 format"


def layer(name: str, kind: str, said: str, *nodes: str, weights: str = "", key: str = "Format/Datatype") -> dict:
    tensor = {"Name": "t", "Location": "Device", "Dimensions": [1, 64, 8, 8], key: said}
    found = {"Name": name, "LayerType": kind, "Inputs": [tensor], "Outputs": [tensor], "StreamId": 0}
    found["Metadata"] = "\u001e".join(f"[ONNX Layer: {node}]" for node in nodes)
    return found | ({"Weights": {"Type": weights, "Count": 4096}} if weights else {})


def answer(*layers: object) -> str:
    return json.dumps({"Layers": list(layers), "Bindings": ["image", "answer"]})


def test_classes_types_and_nodes():
    kernels, unread = parse_inspector(
        answer(
            layer("conv + relu", "CaskConvolution", INT8, "conv/Conv", "relu", weights="Int8"),
            layer("q/MatMul", "gemm", "Half", "q/MatMul", key="Datatype"),
            layer("copy", "Reformat", "Channel major FP16 format where channel % 8 == 0"),
            "names only",
        )
    )
    assert [kernel.role for kernel in kernels] == ["convolution", "matmul", "other"]
    assert [kernel.precision for kernel in kernels] == ["int8", "fp16", "fp16"]
    assert kernels[0].onnx_layers == ("conv/Conv", "relu") and kernels[0].bytes == 2 * 64 * 64 + 4096
    assert unread == ("names only",)
    placed, lost = place_macs(kernels, {"conv/Conv": 7, "q/MatMul": 5, "gone": 3})
    assert placed == [7, 5, 0] and lost == {"gone": 3}


def test_a_dynamic_or_foreign_description_is_no_type_of_ours():
    (kernel,), _ = parse_inspector(answer(layer("x", "gemm", "N/A due to dynamic shapes", "x")))
    assert kernel.precision == "unclear"
    with pytest.raises(RefusedError):
        parse_inspector("{")


FIELDS = ("Layers", "Name", "LayerType", "Inputs", "Dimensions", "Weights", "Count")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 2**40) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner),
    max_leaves=20,
)


@given(json_values)
def test_no_json_brings_anything_but_kernels(value: object):
    kernels, unread = parse_inspector(json.dumps({"Layers": value}))
    assert all(kernel.bytes >= 0 and kernel.role for kernel in kernels) and isinstance(unread, tuple)


def test_an_engine_that_does_not_load_is_a_machine_error():
    module = SimpleNamespace(Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda data: None))
    with pytest.raises(MachineError, match="does not load"):
        engine_information(module, None, b"engine")


def test_a_device_is_asked_with_the_inspector(
    rtx: object, small_onnx: Callable[..., bytes], small_macs: dict[str, int], monkeypatch: pytest.MonkeyPatch
):
    asked = answer(
        layer("conv", "CaskConvolution", "Row major linear FP16 format", "conv/Conv", weights="Half"),
        *(layer(node, "gemm", "Float", node) for node in small_macs if node != "conv/Conv" and node != "out/MatMul"),
    )
    monkeypatch.setattr(module, "engine_information", lambda *_: asked)
    plan = plan_of_inspection(inspect_here(small_onnx("fp16"), b"", BuildOptions(compute_capabilities=("sm86",))))
    assert plan.sm == "this-gpu" and plan.unplaced_macs == {"out/MatMul": small_macs["out/MatMul"]}
    assert plan.macs_by_precision["fp16"] == small_macs["conv/Conv"]
    assert plan.parsed_macs == {"fp16": sum(small_macs.values())}
    found = proof.Proof("fp16", 0.95, plan)
    total = sum(small_macs.values())
    # What was not found is not held against the graph; what fell back is.
    assert found.fallen == pytest.approx(1 - (small_macs["conv/Conv"] + small_macs["out/MatMul"]) / total)
    assert found.share == pytest.approx(small_macs["conv/Conv"] / total)
