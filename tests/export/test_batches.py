"""Graphs for several faces: nodes, weights and answers of the single graphs; a refusal where they differ."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from logoformer.bundle import Bundle
from logoformer.bundle.onnx_graph import infer_onnx, read_onnx
from logoformer.engine.describe import describe, describe_text, tensors_text
from logoformer.errors import UsageError, VerificationError
from logoformer.export.batch_axis import with_batch_axis
from logoformer.export.exporter import ExportConfig
from logoformer.export.parity import ort_runner


def single(bundle: Bundle, precision: str, graph: str = "frame") -> onnx.ModelProto:
    return onnx.load_from_string(bundle.read_graph(bundle.graph(graph, precision)))


@pytest.fixture
def copy(untrained_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untrained_bundle, tmp_path / "copy.bundle"))


def test_the_bundle_says_what_it_holds(copy: Path, add_batches):
    bundle = add_batches(copy)
    for precision in ("fp32", "fp16"):
        assert bundle.frame_batches(precision) == bundle.temporal_batches(precision) == (1, 2, 4, 8)
        for graph in ("frame", "temporal"):
            one = bundle.graph(graph, precision)
            for batch in (2, 4, 8):
                entry = bundle.graph(graph, precision, batch)
                assert entry.file.startswith(f"graphs/{graph}.{precision}.b{batch}.")
                assert entry.macs == {name: batch * count for name, count in one.macs.items()}
                if graph == "frame":
                    assert entry.inputs[0].shape == (batch, 64, 64, 3) and entry.outputs[0].shape == (batch, 16, 64)
                else:
                    assert entry.inputs[0] == one.inputs[0] and entry.inputs[1].shape == (batch, 128)
                    assert entry.outputs[0].shape == (batch, 7)
                data = bundle.read_graph(entry)
                onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
                assert read_onnx(data, entry.file).macs_by_precision == entry.macs  # every tensor has a shape
    text = describe_text(describe(copy))
    assert "frame b8" in text and "temporal b8" in text and "frame fp16 b4" in tensors_text(copy)


@pytest.mark.parametrize("graph", ["frame", "temporal"])
def test_nodes_and_weights_are_those_of_the_single_graph(untrained_bundle: Path, graph: str):
    one = single(Bundle(untrained_bundle), "fp16", graph)
    before = one.SerializeToString()
    two = with_batch_axis(one, 2)
    computing = [
        [(n.name, n.op_type) for n in model.graph.node if n.op_type not in ("Reshape", "Unsqueeze")]
        for model in (one, two)
    ]
    assert computing[0] == computing[1]
    if graph == "frame":
        assert [node.SerializeToString() for node in one.graph.node] == [n.SerializeToString() for n in two.graph.node]
    assert infer_onnx(two).macs_by_precision == {n: 2 * count for n, count in infer_onnx(one).macs_by_precision.items()}
    stored = {item.name: item for item in two.graph.initializer}
    for item in one.graph.initializer:
        if item.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16) and not item.name.endswith(".cls"):
            assert stored[item.name] == item
    assert one.SerializeToString() == before  # the single one is left alone


def test_a_node_without_a_rule_is_refused(untrained_bundle: Path):
    model = single(Bundle(untrained_bundle), "fp32", "temporal")
    node = next(node for node in model.graph.node if node.op_type == "Gelu")
    node.op_type = "Erf"
    del node.attribute[:]
    with pytest.raises(VerificationError, match=r"Erf .*an operator without a rule"):
        with_batch_axis(model, 2)


@pytest.mark.parametrize("graph", ["frame", "temporal"])
def test_a_batch_that_answers_otherwise_is_refused(copy: Path, add_batches, graph: str):
    before = (copy / "manifest.json").read_bytes()

    def spoil(model: onnx.ModelProto) -> onnx.ModelProto:
        given = model.graph.input[-1]
        axes = given.type.tensor_type.shape.dim
        if given.name != {"frame": "frame", "temporal": "order"}[graph] or axes[0].dim_value != 2:
            return model
        kind = {"frame": "Conv", "temporal": "Gemm"}[graph]
        name = next(node.input[1] for node in model.graph.node if node.op_type == kind)
        weight = next(i for i in model.graph.initializer if i.name == name)
        values = onnx.numpy_helper.to_array(weight).copy()
        values[0] *= 1.05
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return model

    with pytest.raises(VerificationError, match=f"{graph} graph in fp(16|32), batch 2, differs from the single one"):
        add_batches(copy, change=spoil)
    assert (copy / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("wrong", [(3,), (1,), (2, 2), (16,)])
def test_other_batches_are_refused_before_any_time_is_spent(wrong):
    with pytest.raises(UsageError, match="the batches"):
        ExportConfig(batches=wrong)


@pytest.mark.slow
@pytest.mark.parametrize("spelling", ["--batches", "--frame-batches"])
def test_the_verb_exports_them(tiny_checkpoint: Path, tmp_path: Path, spelling: str):
    from logoformer.cli import main as cli

    out = tmp_path / "two.bundle"
    words = ["export", tiny_checkpoint, "-o", out, "--precisions", "fp32", "--clips", "8", spelling, "2", "4"]
    assert cli.main(list(map(str, words))) == 0
    assert Bundle(out).frame_batches("fp32") == Bundle(out).temporal_batches("fp32") == (1, 2, 4)
    tokens = ort_runner("frame", onnx.load_from_string(Bundle(out).read_graph(Bundle(out).graph("frame", "fp32", 2))))
    assert np.isfinite(tokens({"frame": np.zeros((2, 64, 64, 3), np.uint8)})["tokens"]).all()
