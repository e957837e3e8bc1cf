"""Frame graphs for several faces: nodes, weights and answers of the single graph; a refusal where they differ."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from logoformer.bundle import Bundle
from logoformer.bundle.onnx_graph import infer_onnx
from logoformer.engine.describe import describe, describe_text, tensors_text
from logoformer.errors import UsageError, VerificationError
from logoformer.export.batches import batched
from logoformer.export.exporter import ExportConfig
from logoformer.export.parity import ort_runner


def single(bundle: Bundle, precision: str) -> onnx.ModelProto:
    return onnx.load_from_string(bundle.read_graph(bundle.graph("frame", precision)))


@pytest.fixture
def copy(untrained_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untrained_bundle, tmp_path / "copy.bundle"))


def test_the_bundle_says_what_it_holds(copy: Path, add_batches):
    bundle = add_batches(copy)
    for precision in ("fp32", "fp16"):
        assert bundle.frame_batches(precision) == (1, 2, 4, 8)
        one = bundle.graph("frame", precision)
        for batch in (2, 4, 8):
            entry = bundle.graph("frame", precision, batch)
            assert entry.file.startswith(f"graphs/frame.{precision}.b{batch}.")
            assert entry.inputs[0].shape == (batch, 64, 64, 3) and entry.outputs[0].shape == (batch, 16, 64)
            assert entry.macs == {name: batch * count for name, count in one.macs.items()}
            onnx.checker.check_model(onnx.load_from_string(bundle.read_graph(entry)), full_check=True)
    assert "frame b8" in describe_text(describe(copy)) and "frame fp16 b4" in tensors_text(copy)


def test_nodes_and_weights_are_those_of_the_single_graph(untrained_bundle: Path):
    one = single(Bundle(untrained_bundle), "fp16")
    two = batched(one, 2)
    assert [node.SerializeToString() for node in one.graph.node] == [n.SerializeToString() for n in two.graph.node]
    assert infer_onnx(two).macs_by_precision == {n: 2 * count for n, count in infer_onnx(one).macs_by_precision.items()}
    changed = [a.name for a, b in zip(one.graph.initializer, two.graph.initializer, strict=True) if a != b]
    shapes = {node.input[1] for node in one.graph.node if node.op_type == "Reshape"}
    assert set(changed) == shapes
    assert one.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1  # the single one is left alone


def test_a_batch_that_answers_otherwise_is_refused(copy: Path, add_batches):
    before = (copy / "manifest.json").read_bytes()

    def spoil(model: onnx.ModelProto) -> onnx.ModelProto:
        if model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1:
            return model
        bias = next(i for i in model.graph.initializer if i.name.endswith("trunk.conv1.bias"))
        values = onnx.numpy_helper.to_array(bias).copy()
        values[0] += 0.05
        bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        return model

    with pytest.raises(VerificationError, match="differs from the single one"):
        add_batches(copy, change=spoil)
    assert (copy / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("wrong", [(3,), (1,), (2, 2), (16,)])
def test_other_batches_are_refused_before_any_time_is_spent(wrong):
    with pytest.raises(UsageError, match="frame batches"):
        ExportConfig(frame_batches=wrong)


@pytest.mark.slow
def test_the_verb_exports_them(tiny_checkpoint: Path, tmp_path: Path):
    from logoformer.cli import main as cli

    out = tmp_path / "two.bundle"
    words = ["export", tiny_checkpoint, "-o", out, "--precisions", "fp32", "--clips", "8", "--frame-batches", "2", "4"]
    assert cli.main(list(map(str, words))) == 0
    assert Bundle(out).frame_batches("fp32") == (1, 2, 4)
    tokens = ort_runner("frame", onnx.load_from_string(Bundle(out).read_graph(Bundle(out).graph("frame", "fp32", 2))))
    assert np.isfinite(tokens({"frame": np.zeros((2, 64, 64, 3), np.uint8)})["tokens"]).all()
