"""Quantized graphs: what they compute, what they store, and that the pair rounds as the clip graph does."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logoformer.bundle.onnx_graph import infer_onnx
from logoformer.calibration.amax import LEVELS
from logoformer.calibration.collect import Observed, activations, collect_ranges, observe
from logoformer.calibration.placement import groups
from logoformer.calibration.quantize import RANGE_METHODS, SCALE_FLOOR, QuantizeConfig, Ranges, quantize_graph, round_up
from logoformer.errors import BadInputError, UsageError
from logoformer.export.entries import share_to_promise
from logoformer.export.parity import answers_of_clip_graph
from logoformer.export.reference import Reference
from logoformer.export.trace import to_bytes
from onnx import numpy_helper

Models = Mapping[tuple[str, str], onnx.ModelProto]


def quantized(models: Models, graph: str, ranges: Ranges, **more: Any) -> onnx.ModelProto:
    return quantize_graph(models[graph, "fp32"], models[graph, "fp16"], ranges, QuantizeConfig(**more))


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def scales(model: onnx.ModelProto) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in constants(model).items() if name.endswith(".scale")}


# -------------------------------------------------------------------------------------------------------------- collect
def test_what_is_observed_is_what_the_graph_computes(models: Models, golden_clips, observed: Observed):
    model = models["clip", "fp32"]
    largest: dict[str, float] = {}
    for clip in golden_clips[:2]:
        Reference(model).run(
            {"clip": clip[None].copy()},
            lambda name, value: largest.update({name: max(largest.get(name, 0.0), float(value.abs().max()))}),
        )
    two = observe(model, golden_clips[:2], histograms=False)
    assert set(two.largest) == set(activations(model)) and not two.histograms
    for name, value in two.largest.items():
        assert value == pytest.approx(largest[name], rel=1e-4)
        assert value <= observed.largest[name]
    assert observed.histograms["frame/Transpose"].sum() == golden_clips.size
    assert observed.histograms["frame/Transpose"][-1] >= (golden_clips == golden_clips.max()).sum()


def test_excluding_changes_no_range(models: Models, golden_clips):
    plain = collect_ranges(models["clip", "fp32"], golden_clips[:2], QuantizeConfig())
    less = collect_ranges(
        models["clip", "fp32"], golden_clips[:2], QuantizeConfig(exclude=("project",), attention=False)
    )
    assert plain == less


@pytest.mark.parametrize("method", RANGE_METHODS)
def test_the_same_clips_give_the_same_bytes(models: Models, golden_clips, method: str):
    config = QuantizeConfig(method)
    twice = [
        to_bytes(quantized(models, "temporal", collect_ranges(models["clip", "fp32"], golden_clips[:2], config)))
        for _ in range(2)
    ]
    assert twice[0] == twice[1]


def test_methods_that_choose_never_widen(observed: Observed):
    top = observed.ranges("max")
    for method in RANGE_METHODS[1:]:
        found = observed.ranges(method)
        assert found.keys() == top.keys() and all(found[name] <= top[name] for name in top)
        assert any(found[name] < top[name] for name in top)
    with pytest.raises(UsageError, match="no calibration method 'guess'"):
        QuantizeConfig("guess")


def test_a_network_that_is_not_finite_is_refused(models: Models, golden_clips):
    broken = onnx.ModelProto()
    broken.CopyFrom(models["clip", "fp32"])
    bias = next(item for item in broken.graph.initializer if item.name == "frame.trunk.conv1.bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(tuple(bias.dims), np.inf, np.float32), bias.name))
    with pytest.raises(BadInputError, match="not finite"):
        observe(broken, golden_clips[:1], histograms=False)


# ------------------------------------------------------------------------------------------------------------- quantize
def test_answers_stay_near_fp16(models: Models, golden_clips, observed: Observed):
    exact = answers_of_clip_graph(Reference(models["clip", "fp16"]).run, golden_clips.copy())
    found = answers_of_clip_graph(Reference(quantized(models, "clip", observed.ranges("max"))).run, golden_clips.copy())
    assert np.abs(found - exact).max() < 0.05
    assert np.abs(found - exact).max() > 0  # it did quantize


def test_stored_weights_answer_as_quantized_ones_do(models: Models, golden_clips, observed: Observed):
    ranges = observed.ranges("max")
    folded, plain = (quantized(models, "clip", ranges, fold_weights=fold) for fold in (True, False))
    answers = [answers_of_clip_graph(Reference(model).run, golden_clips[:2].copy()) for model in (folded, plain)]
    np.testing.assert_array_equal(*answers)
    stored = [item for item in folded.graph.initializer if item.name.endswith("weight.int8")]
    assert len(stored) == len([s for g in groups(models["clip", "fp32"]).values() for s in g if "Conv" in s]) + sum(
        "/MatMul" in node and ("_attention." in node or "ffn" in node)
        for nodes in groups(models["clip", "fp32"]).values()
        for node in nodes
    )
    assert len(to_bytes(folded)) < 0.8 * len(to_bytes(plain))
    assert not any(item.name.endswith("weight.int8") for item in plain.graph.initializer)


def test_the_pair_has_the_scales_of_the_clip_graph(models: Models, observed: Observed):
    ranges = observed.ranges("mse")
    whole, *pair = (scales(quantized(models, graph, ranges)) for graph in ("clip", "frame", "temporal"))
    assert whole == pair[0] | pair[1]


def test_every_weight_is_within_half_a_step_and_nothing_clips(models: Models, observed: Observed):
    found = constants(quantized(models, "frame", observed.ranges("max")))
    given = constants(models["frame", "fp16"])
    weights = [name for name in given if f"{name}.int8" in found]
    assert len(weights) == 10
    for name in weights:
        scale = found[f"{name}.scale"].astype(np.float64).reshape(-1, 1, 1, 1)
        assert np.abs(found[f"{name}.int8"]).max() <= LEVELS
        assert (np.abs(found[f"{name}.int8"] * scale - given[name].astype(np.float64)) <= 0.501 * scale).all()
        assert (np.abs(given[name].astype(np.float64)) <= LEVELS * scale).all()


def test_the_rest_is_fp16_and_the_macs_say_so(models: Models, observed: Observed):
    model = quantized(models, "temporal", observed.ranges("max"))
    macs = infer_onnx(model).macs_by_precision
    assert set(macs) == {"int8", "fp16"} and macs["int8"] / sum(macs.values()) > 0.95
    assert share_to_promise(macs, "int8") == 0.95
    assert share_to_promise({"int8": 1, "fp16": 2}, "int8") == 0.333
    assert share_to_promise({}, "int8") == 0.0
    onnx.checker.check_model(model, full_check=True)


def test_dead_channels_and_dead_tensors_get_the_floor(models: Models, observed: Observed):
    dead = onnx.ModelProto()
    dead.CopyFrom(models["frame", "fp16"])
    item = next(item for item in dead.graph.initializer if item.name == "frame.trunk.layer1.0.conv1.weight")
    values = numpy_helper.to_array(item).copy()
    values[3] = 0
    item.CopyFrom(numpy_helper.from_array(values, item.name))
    ranges = observed.ranges("max")
    ranges = {**ranges, "frame.trunk.layer1.0.relu/Relu": 0.0}
    found = constants(quantize_graph(models["frame", "fp32"], dead, ranges, QuantizeConfig()))
    assert found["frame.trunk.layer1.0.conv1.weight.scale"][3] == SCALE_FLOOR
    assert found["frame.trunk.layer1.0.relu/Relu.scale"] == SCALE_FLOOR
    assert found["frame.trunk.layer1.0.relu/Relu.scale"].shape == ()


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8), st.sampled_from([np.float16, np.float32]))
def test_a_scale_is_never_rounded_down(values: list[float], dtype: type):
    given = np.array(values)
    found = round_up(given, dtype)
    assert found.dtype == dtype and (found.astype(np.float64) >= np.maximum(given, SCALE_FLOOR)).all()
    assert (found.astype(np.float64) <= np.maximum(given, SCALE_FLOOR) * 1.04).all()


def test_ranges_of_another_network_are_refused(models: Models, observed: Observed):
    short = {}
    with pytest.raises(BadInputError, match="the range None"):
        quantized(models, "frame", short)
    wild = dict.fromkeys(observed.largest, float("nan"))
    with pytest.raises(BadInputError, match="the range nan"):
        quantized(models, "frame", wild)
    with pytest.raises(BadInputError, match="lacks the node"):
        quantize_graph(models["clip", "fp32"], models["frame", "fp16"], observed.ranges("max"), QuantizeConfig())
