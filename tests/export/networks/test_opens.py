"""ONNX Runtime opens every graph, by its default options and by ours: a fault there is a signal, not an exception."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from logoformer.bundle import Bundle
from logoformer.calibration.collect import collect_ranges
from logoformer.calibration.quantize import QuantizeConfig, quantize_graph
from logoformer.clips import Sampling
from logoformer.export.graphs import GRAPHS, build_graph, example_inputs
from logoformer.export.precision import to_fp16
from logoformer.export.trace import to_bytes, trace
from logoformer.model.networks.configs import PRESETS
from logoformer.model.networks.logoformer.config import ATTENTIONS
from logoformer.workflows.init import initialise
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (the extra 'cpu' or 'gpu')")

OPEN = """
import sys, onnx, onnxruntime
from logoformer.bundle import GraphEntry, TensorSpec
from logoformer.engine.sessions.ort import open_session

def specs(values):
    of = [value.type.tensor_type for value in values]
    kinds = [str(onnx.helper.tensor_dtype_to_np_dtype(one.elem_type)) for one in of]
    shapes = [tuple(size.dim_value for size in one.shape.dim) for one in of]
    return tuple(TensorSpec(value.name, *one) for value, *one in zip(values, kinds, shapes))

ways, *paths = sys.argv[1:]
for path in paths:
    print(path, flush=True)
    data = open(path, "rb").read()
    graph = onnx.load_from_string(data).graph
    if "default" in ways:
        onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    entry = GraphEntry("clip", "fp16", 1, path, "", len(data), 18, specs(graph.input), specs(graph.output), {})
    open_session(data, entry, {"threads": 1}).run()
"""


def require_opened(paths: Iterable[Path], ways: str = "default and ours") -> None:
    """Opens and runs all of them in one process, which a fault would end."""
    words = [sys.executable, "-c", OPEN, ways, *map(str, paths)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"ended with {done.returncode} at {done.stdout.splitlines()[-1:]}: {done.stderr}"


def written(folder: Path, name: str, fp32: onnx.ModelProto, fp16: onnx.ModelProto, ranges: dict) -> list[Path]:
    """FP32, FP16, and INT8 with and without the products of attention."""
    configs = {"int8": QuantizeConfig(), "int8-linear": QuantizeConfig(attention=False)}
    models = {key: quantize_graph(fp32, fp16, ranges, config) for key, config in configs.items()}
    paths = []
    for precision, model in {"fp32": fp32, "fp16": fp16, **models}.items():
        paths.append(folder / f"{name}.{precision}.onnx")
        paths[-1].write_bytes(to_bytes(model))
    return paths


@pytest.mark.parametrize("attention", [name for name in ATTENTIONS if name != "logo"])  # a family's, below
def test_every_attention_scheme(attention: str, tmp_path: Path):
    tiny = PRESETS["tiny"]
    config = replace(tiny, attention=attention, image_size=32, window=(2, 2, 2), sampling=Sampling(4, 1, span_s=4.0))
    model = initialise(config)
    models = {}
    # The clip graph is the other two; the one that ONNX Runtime died of is looked at by itself too.
    for name in ("clip", "temporal") if attention == "divided" else ("clip",):
        inputs = example_inputs(name, config, config.frames + 2)
        feed = {key: value.numpy() for key, value in inputs.items()}
        if "order" in feed:
            feed["order"] = np.arange(config.tokens, dtype=np.int32)
        fp32 = trace(build_graph(name, model), inputs, "probabilities")
        models[name] = fp32, to_fp16(fp32, feed, [])
    clips = np.random.default_rng(0).integers(0, 256, (1, config.frames, 32, 32, 3), np.uint8)
    ranges = collect_ranges(models["clip"][0], clips, QuantizeConfig(method="max"))
    require_opened([path for name, pair in models.items() for path in written(tmp_path, name, *pair, ranges)])


def test_every_family(family_bundle: Path, tmp_path: Path):
    from logoformer.export.entries import read_fp32_twin, read_model

    bundle = Bundle(family_bundle)
    pairs = {name: (read_fp32_twin(bundle, name), read_model(bundle, name, "fp16")) for name in GRAPHS}
    ranges = collect_ranges(pairs["clip"][0], bundle.golden().clips[:1], QuantizeConfig(method="max"))
    twins = [path for name, pair in pairs.items() for path in written(tmp_path, name, *pair, ranges)]
    require_opened([*twins, *(bundle.path / entry.file for entry in bundle.graphs)])


def test_a_product_that_reads_a_transpose_in_fp16_opens_by_our_options(tmp_path: Path):
    """As bundles of divided attention before had it; by its defaults ONNX Runtime 1.24.4 dies of it."""
    weight = numpy_helper.from_array(np.ones((8, 8), np.float16), "w")
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]), helper.make_node("MatMul", ["t", "w"], ["y"])]
    half = TensorProto.FLOAT16
    ends = [helper.make_tensor_value_info(name, half, shape) for name, shape in (("x", [4, 3, 8]), ("y", [3, 4, 8]))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), tmp_path / "g.onnx")
    require_opened([tmp_path / "g.onnx"], "ours")
