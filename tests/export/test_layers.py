"""Layer by layer: the report names the layer that was damaged, and sees the FP16 that ONNX Runtime hides."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from logoformer.bundle import Bundle
from logoformer.errors import UsageError
from logoformer.workflows.verify import explain_layers
from onnx import numpy_helper

pytest.importorskip("polygraphy", reason="Polygraphy is not installed (the extra 'export')")
from logoformer.export.layers import compare_layers

HURT = "temporal.blocks.1.local_attention.v/MatMul"


@pytest.fixture(scope="module")
def graphs(untrained_bundle: Path):
    bundle = Bundle(untrained_bundle)
    return [onnx.load_from_string(bundle.read_graph(bundle.graph("clip", p))) for p in ("fp32", "fp16")]


@pytest.fixture(scope="module")
def feeds(untrained_bundle: Path):
    return [{"clip": clip[None]} for clip in Bundle(untrained_bundle).golden().clips[:2]]


def scaled(graph: onnx.ModelProto, factor: float) -> onnx.ModelProto:
    """The weight of one layer made wrong."""
    copied = onnx.ModelProto()
    copied.CopyFrom(graph)
    name = next(node.input[1] for node in copied.graph.node if node.name == HURT)
    for item in copied.graph.initializer:
        if item.name == name:
            with np.errstate(over="ignore"):
                wrong = (numpy_helper.to_array(item) * factor).astype(np.float16)
            item.CopyFrom(numpy_helper.from_array(wrong, name))
    return copied


def test_whole_fp16_stays_near_and_a_damaged_layer_is_named(graphs, feeds):
    whole = compare_layers("clip", "fp16", *graphs, feeds)
    assert whole.first == "" and all(0 <= item.error < 0.01 for item in whole.layers)
    assert len(whole.layers) > 60 and any(item.error > 0 for item in whole.layers)
    hurt = compare_layers("clip", "fp16", graphs[0], scaled(graphs[1], 1.5), feeds)
    assert hurt.first == HURT
    errors = {item.layer: item.error for item in hurt.layers}
    assert errors[HURT] == pytest.approx(0.5, abs=0.02)
    before = [item.layer for item in whole.layers]
    assert all(errors[name] < 0.01 for name in before[: before.index(HURT)])


def test_an_overflow_is_infinite_and_goes_into_json_as_null(graphs, feeds):
    report = compare_layers("clip", "fp16", graphs[0], scaled(graphs[1], 2e5), feeds[:1])
    assert report.first == HURT and report.worst == HURT
    rows = {row["layer"]: row["error"] for row in json.loads(json.dumps(report.to_json(), allow_nan=False))["layers"]}
    assert rows[HURT] is None and rows["frame.trunk.conv1/Conv"] < 0.01


def test_the_verb_writes_tables_and_pictures(untrained_bundle: Path, tmp_path: Path):
    (report,) = explain_layers(untrained_bundle, tmp_path / "out", clips=1)
    assert report.precision == "fp16" and report.clips == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["layers.fp16.json", "layers.fp16.svg"]
    assert "temporal.head/Gemm" in (tmp_path / "out" / "layers.fp16.svg").read_text()


def test_a_bundle_of_fp32_alone_has_nothing_to_compare(untrained_bundle: Path, tmp_path: Path):
    import shutil

    from logoformer.bundle import replace_manifest

    bundle = Bundle(shutil.copytree(untrained_bundle, tmp_path / "b"))
    only = {**bundle.manifest, "precisions": {"fp32": bundle.precisions["fp32"]}}
    only["graphs"] = [graph for graph in only["graphs"] if graph["precision"] == "fp32"]
    replace_manifest(bundle, only)
    with pytest.raises(UsageError, match="nothing to compare"):
        explain_layers(bundle.path, tmp_path / "out")
