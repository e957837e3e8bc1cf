"""The proof of precision: lies in the index or in the graph are refused by `build` with exit 5 and names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from logoformer.bundle import Bundle, BundleWriter
from logoformer.engine.builder import proof as proof_module
from logoformer.engine.builder.compile import BuildOptions
from logoformer.engine.builder.proof import (
    PROMISED,
    Inspection,
    Proof,
    Proven,
    promised_share,
    prove,
    prove_build,
    prove_inspected,
)
from logoformer.engine.describe import proofs
from logoformer.engine.plan.kernels import Kernel, KernelPlan, PlanTensor
from logoformer.errors import VerificationError

onnx = pytest.importorskip("onnx")


def kernel(name: str, dtype: str, *nodes: str) -> Kernel:
    tensor = PlanTensor("t", (4, 4), (4, 1), dtype, "")
    return Kernel(name, "gemm", (tensor,), (tensor,), (tensor,), "", 0, nodes)


PLAN = KernelPlan(
    "sm86",
    "TensorRT-RTX",
    (kernel("a", "int8", "a"), kernel("b", "fp16", "b"), kernel("c", "fp16", "c")),
    (900, 60, 30),
    {"lost": 10},
    (),
    {"int8": 960, "fp16": 40},
    {"a": (900, "int8"), "b": (60, "int8"), "c": (30, "fp16"), "lost": (10, "int8")},
)


# --------------------------------------------------------------------------------------------------------------- counts
def test_the_share_counts_what_was_compiled_and_nothing_that_was_not_found():
    proof = Proof("int8", 0.9, PLAN)
    assert proof.share == 0.9 and proof.holds
    assert not replace(proof, promised=0.901).holds
    assert Proof("fp32", 0.5, PLAN).share == 0.0
    assert Proof("int8", 0.5, replace(PLAN, macs=(0, 0, 0), unplaced_macs={})).share == 0.0


def test_kernels_of_another_precision_are_named_with_what_was_asked_for():
    assert Proof("int8", 0.9, PLAN).others == (
        "b: fp16, 0.00 M, fell back; the graph says int8 <- b",
        "c: fp16, 0.00 M, as the graph says <- c",
    )


def test_the_table_and_the_summary_give_all_three_counts():
    proof = Proof("int8", 0.95, PLAN)
    text = proof.table()
    for line in ("MACs by ONNX types", "MACs as parsed", "MACs as compiled", "95.0% promised: BROKEN", "fell back"):
        assert line in text
    summary = json.loads(json.dumps(proof.summary(), allow_nan=False))
    assert summary["macs_by_types"] == {"int8": 960, "fp16": 40}
    assert summary["macs_as_parsed"] == {"int8": 970, "fp16": 30}
    assert summary["macs_by_precision"] == {"int8": 900, "fp16": 90}
    assert summary["proof"] == {"precision": "int8", "share": 0.9, "promised_share": 0.95, "holds": False}


def test_the_promise_stands_in_the_index(int8_bundle: Path):
    bundle = Bundle(int8_bundle)
    assert promised_share(bundle, bundle.graph("frame", "int8")) == 0.95
    bundle.precisions["int8"] = {"promised_share": {"frame": 0.25}}
    assert promised_share(bundle, bundle.graph("frame", "int8")) == 0.25
    for odd in ({}, {"promised_share": 3}, {"promised_share": {"frame": "all"}}, {"promised_share": {"frame": 7}}):
        bundle.precisions["int8"] = odd
        assert promised_share(bundle, bundle.graph("frame", "int8")) == PROMISED["int8"]


# ---------------------------------------------------------------------------------------------------------- real builds
@pytest.fixture(scope="module")
def proven(rtx: object, int8_bundle: Path) -> dict[str, Proof]:
    return proofs(int8_bundle, graphs=["frame", "temporal"])


def test_all_three_counts_agree_where_nothing_lies(proven: dict[str, Proof]):
    assert set(proven) == {f"{graph} {p}" for graph in ("frame", "temporal") for p in ("fp32", "fp16", "int8")}
    for name, proof in proven.items():
        assert proof.holds, name
        plan = proof.plan
        assert plan.typed_macs == plan.parsed_macs
        found = dict(plan.macs_by_precision)
        found[proof.precision] = found.get(proof.precision, 0)
        unplaced = sum(plan.unplaced_macs.values())
        assert sum(found.values()) + unplaced == sum(plan.parsed_macs.values())
    int8 = proven["temporal int8"]
    assert int8.share > 0.95 and "fp16" in int8.plan.macs_by_precision
    assert len(int8.plan.with_role("attention")) == 4  # of 4
    assert all(line.split(" <- ")[0].endswith("as the graph says") for line in int8.others)


def test_turing_has_no_int8_convolution_and_is_left_out(rtx: object, int8_bundle: Path):
    bundle = Bundle(int8_bundle)
    entry = bundle.graph("frame", "int8")
    data = bundle.read_graph(entry)
    found = prove_build(data, bundle, entry, BuildOptions(compute_capabilities=("sm75", "sm86")))
    assert found.gpus == ("sm86",) and "0.00%" in found.left_out["sm75"]
    assert found.plans["sm75"]["proof"]["holds"] is False
    assert found.plans["sm75"]["macs_as_parsed"] == {"int8": sum(entry.macs.values())}  # parsing says nothing of it
    with pytest.raises(VerificationError, match="not int8 on sm75"):
        prove_build(data, bundle, entry, BuildOptions(compute_capabilities=("sm75",)))


def test_on_a_device_only_what_fell_back_counts(int8_bundle: Path, monkeypatch: pytest.MonkeyPatch):
    bundle = Bundle(int8_bundle)
    entry = bundle.graph("frame", "int8")
    assert prove_build(b"", bundle, entry, BuildOptions(target="tensorrt")) == Proven((), {}, {})  # it is asked after
    asked = Inspection("TensorRT 10.3.0", "{}", {})
    here = replace(PLAN, sm="this-gpu", macs=(100, 0, 0), unplaced_macs={"lost": 900})
    monkeypatch.setattr(proof_module, "plan_of_inspection", lambda *_: here)
    assert prove_inspected(asked, bundle, entry)["this-gpu"]["shape"].startswith("unverified")
    here = replace(PLAN, sm="this-gpu")  # 9 % in FP16
    with pytest.raises(VerificationError, match="not int8 on this-gpu"):
        prove_inspected(asked, bundle, entry)


# ----------------------------------------------------------------------------------------------------------------- lies
@pytest.fixture
def lying(int8_bundle: Path, tmp_path: Path) -> Callable[..., Path]:
    """`lying(graph, precision, data)`: the bundle with another graph under an honest index entry."""

    def write(graph: str, precision: str, model: object) -> Path:
        path = tmp_path / "lying.bundle"
        shutil.copytree(int8_bundle, path)
        bundle = Bundle(path)
        entry = bundle.graph(graph, precision)
        fields = {name: getattr(entry, name) for name in ("batch", "opset", "inputs", "outputs", "macs")}
        writer = BundleWriter(path)
        stored = writer.add_graph(model.SerializeToString(), graph=graph, precision=precision, **fields)
        others = [e for e in bundle.manifest["graphs"] if (e["graph"], e["precision"]) != (graph, precision)]
        writer.commit({**bundle.manifest, "graphs": [*others, stored]})
        return path

    return write


def stripped(model: object) -> object:
    """The same graph without its Q/DQ: FP16 weights, FP16 products."""
    from onnx import numpy_helper

    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    quantizers = {node.name for node in model.graph.node if node.op_type == "QuantizeLinear"}
    plain: dict[str, str] = {}
    kept = []
    for node in model.graph.node:
        if node.name.removesuffix("Cast") + "QuantizeLinear" in quantizers:  # what is cast for a quantizer alone
            plain[node.output[0]] = node.input[0]
        elif node.op_type == "QuantizeLinear":
            plain[node.output[0]] = plain[node.input[0]]
        elif node.op_type == "DequantizeLinear":
            source = node.input[0]
            if source in plain:
                plain[node.output[0]] = plain[source]
            else:
                scale = constants[node.input[1]]
                axis = next(a.i for a in node.attribute if a.name == "axis")
                shape = [-1 if place == axis else 1 for place in range(constants[source].ndim)]
                real = constants[source].astype(scale.dtype) * scale.reshape(shape)
                model.graph.initializer.append(numpy_helper.from_array(real, f"{source}.real"))
                plain[node.output[0]] = f"{source}.real"
        else:
            kept.append(node)
    for node in kept:
        node.input[:] = [plain.get(name, name) for name in node.input]
    _replace_nodes(model, kept)
    return model


def packed(model: object) -> object:
    """Q, K and V of the local attentions as one product with one stored INT8 weight, cut by Slice."""
    from onnx import helper, numpy_helper

    constants = {item.name: item for item in model.graph.initializer}
    nodes = list(model.graph.node)
    for block in (0, 1):
        scope = f"temporal.blocks.{block}.local_attention"
        products = [next(n for n in nodes if n.name == f"{scope}.{x}/MatMul") for x in "qkv"]
        width = constants[f"{scope}.q.weight.int8"].dims[1]
        for part in ("int8", "scale", "zero_point"):
            parts = [numpy_helper.to_array(constants[f"{scope}.{x}.weight.{part}"]) for x in "qkv"]
            model.graph.initializer.append(numpy_helper.from_array(np.concatenate(parts, -1), f"{scope}.{part}"))
        names = [f"{scope}.{part}" for part in ("int8", "scale", "zero_point")]
        made = [
            helper.make_node("DequantizeLinear", names, [f"{scope}.w"], name=f"{scope}.w", axis=1),
            helper.make_node("MatMul", [products[0].input[0], f"{scope}.w"], [f"{scope}.qkv"], name=f"{scope}/packed"),
        ]
        for index, product in enumerate(products):
            bounds = [f"{scope}.{index}.{what}" for what in ("from", "to")]
            for name, value in zip(bounds, (index * width, (index + 1) * width), strict=True):
                model.graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
            axis = f"{scope}.{index}.axis"
            model.graph.initializer.append(numpy_helper.from_array(np.array([2]), axis))
            inputs = [f"{scope}.qkv", *bounds, axis]
            made.append(helper.make_node("Slice", inputs, [product.output[0]], name=f"{scope}/Slice.{index}"))
        place = nodes.index(products[0])
        nodes[place:place] = made
        nodes = [n for n in nodes if n not in products]
    _replace_nodes(model, nodes)
    return model


def _replace_nodes(model: object, nodes: list) -> None:
    copied = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copied)
    used = {name for node in model.graph.node for name in node.input}
    kept = [type(i).FromString(i.SerializeToString()) for i in model.graph.initializer if i.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def load(bundle: Path, graph: str, precision: str) -> object:
    opened = Bundle(bundle)
    return onnx.load_from_string(opened.read_graph(opened.graph(graph, precision)))


def test_int8_whose_quantization_was_stripped(rtx: object, lying, int8_bundle: Path, fails, contents):
    path = lying("temporal", "int8", stripped(load(int8_bundle, "temporal", "int8")))
    names = ("temporal.int8.b1", "0.00%", "95.0% are promised", "ffn.fc1/MatMul", "as the graph says")
    fails(5, "build", path, "--precision", "int8", "--graph", "temporal", "--gpus", "sm86", names=names)
    assert not [name for name in contents(path) if name.endswith(".engine")]


def test_fp16_whose_convolutions_are_fp32(rtx: object, lying, int8_bundle: Path, fails):
    path = lying("frame", "fp16", load(int8_bundle, "frame", "fp32"))
    names = ("frame.fp16.b1", "0.00%", "parsed: 4.31 M fp32", "trunk.conv1/Conv", "as the graph says")
    fails(5, "build", path, "--precision", "fp16", "--graph", "frame", names=names)


def test_packed_projections_that_only_the_plan_gives_away(rtx: object, lying, int8_bundle: Path, fails):
    path = lying("temporal", "int8", packed(load(int8_bundle, "temporal", "int8")))
    bundle = Bundle(path)
    entry = bundle.graph("temporal", "int8")
    proof = prove(bundle.read_graph(entry), bundle, entry, "sm86")
    for says_int8 in (proof.plan.typed_macs, proof.plan.parsed_macs):
        assert says_int8["int8"] / sum(says_int8.values()) > 0.95
    assert not proof.holds
    text = fails(5, "build", path, "--precision", "int8", "--graph", "temporal", "--gpus", "sm86")
    assert "fell back; the graph says int8" in text and "local_attention/packed" in text
