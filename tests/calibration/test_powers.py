"""Scales of the trunk that are powers of two: its sums are those of integers, on every backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from logoformer.bundle import Bundle
from logoformer.calibration.amax import LEVELS
from logoformer.calibration.collect import Observed, observe
from logoformer.calibration.equalise import equalise, initializers, seams
from logoformer.calibration.placement import sites
from logoformer.calibration.powers import common_factor, fit_powers, power_above
from logoformer.calibration.quantize import SCALE_FLOOR, QuantizeConfig, is_power_of_two, quantize_graph
from logoformer.export.entries import read_model
from logoformer.export.reference import Reference

SCALES = st.floats(1e-4, 1e3)


def in_the_trunk(model: onnx.ModelProto) -> set[str]:
    groups = ("trunk.", "project")
    return {name for site in sites(model) if site.group.startswith(groups) for name in site.tensors}


@given(SCALES)
def test_the_next_power_reaches_as_far_within_half_a_step(scale: float):
    power = power_above(scale)
    assert is_power_of_two(power)
    assert (LEVELS + 0.5) * power >= LEVELS * scale * (1 - 1e-8), "clipped"
    assert power == power_above(power) and power < 2 * scale, "resolution was given away"


def test_pixels_have_steps_of_two_and_what_is_never_seen_the_least():
    assert power_above(255 / LEVELS) == 2
    assert power_above(0.0) == SCALE_FLOOR
    assert common_factor(np.zeros(2)) == 1


@given(st.lists(SCALES, min_size=1, max_size=4).map(np.array))
def test_the_common_factor_loses_no_more_than_any_other(scales: np.ndarray):
    def loss(factor: float) -> float:
        return sum((power_above(scale / factor) * factor / scale) ** 2 for scale in scales)

    factor = common_factor(scales)
    assert 1 <= factor < 2
    assert loss(factor) <= 1.01 * min(loss(2 ** (place / 64)) for place in range(64))
    assert len(scales) > 1 or loss(factor) == pytest.approx(1)
    assert common_factor(np.append(scales, 0.0)) == factor, "a map that is never seen has no say"


def test_the_trunk_gets_powers_and_nothing_is_clipped(models, observed: Observed, golden_clips):
    clip, begin = models["clip", "fp32"], observed.ranges("max")
    moved, ranges = fit_powers(clip, {}, begin, QuantizeConfig())
    names = in_the_trunk(clip)
    assert names and all(is_power_of_two(ranges[name] / LEVELS) for name in names)
    assert all(ranges[name] == begin[name] for name in begin.keys() - names)
    assert moved.keys() == {seam.name for seam in seams(clip) if names.intersection(seam.tensors)}
    after = observe(equalise(clip, moved, clip), golden_clips)
    for name in names:
        assert after.largest[name] <= ranges[name] * (LEVELS + 0.5) / LEVELS * 1.001, name
    alone = [seam.tensors[0] for seam in seams(clip) if len(seam.tensors) == 1 and names.issuperset(seam.tensors)]
    for name in alone:
        assert after.largest[name] == pytest.approx(ranges[name], rel=0.01), "127 steps are filled"


def test_without_moving_ranges_only_grow_to_the_next_power(models, observed: Observed):
    clip, begin = models["clip", "fp32"], observed.ranges("max")
    moved, ranges = fit_powers(clip, {}, begin, QuantizeConfig(), move=False)
    assert moved == {}
    for name in in_the_trunk(clip):
        assert is_power_of_two(ranges[name] / LEVELS) and 0.99 * begin[name] <= ranges[name] <= 2 * begin[name]


@pytest.fixture
def frame(int8_bundle: Path) -> onnx.ModelProto:
    return read_model(Bundle(int8_bundle), "frame", "int8")


def test_every_sum_of_the_trunk_is_a_sum_of_integers(frame: onnx.ModelProto, golden_clips):
    """By float64, which holds 53 bits: float32 lost none."""
    values, seen = initializers(frame), {}
    Reference(frame).run({"frame": golden_clips[0, :1]}, lambda name, value: seen.update({name: value}))
    makers = {node.output[0]: node for node in frame.graph.node}
    checked = 0
    for node in frame.graph.node:
        if node.op_type != "Conv" or not node.name.startswith("frame.trunk."):
            continue
        given, weight = (makers[name] for name in node.input[:2])
        step, scale = (float(values[given.input[1]]), values[weight.input[1]].astype(np.float64))
        steps, tables = seen[given.input[0]].double(), torch.from_numpy(values[weight.input[0]].astype(np.float64))
        a = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        sums = torch.nn.functional.conv2d(steps, tables, None, a["strides"], a["pads"][:2])
        bias = torch.from_numpy(values[node.input[2]].astype(np.float64)).reshape(-1, 1, 1)
        wanted = sums * step * torch.from_numpy(scale).reshape(-1, 1, 1) + bias
        assert seen[node.output[0]].dtype == torch.float32
        assert torch.equal(seen[node.output[0]].double(), wanted), node.name
        checked += 1
    assert checked == sum(node.op_type == "Conv" for node in frame.graph.node) - 1  # the projection's is FP16


def test_a_bias_is_in_whole_units_of_the_products_it_is_added_to(models, observed: Observed):
    """The steps are so wide that FP16 holds parts of them."""
    fp32, fp16 = models["frame", "fp32"], models["frame", "fp16"]
    conv = next(node for node in fp16.graph.node if node.op_type == "Conv")
    (name,) = next(site for site in sites(fp32) if site.node == conv.name).tensors
    bias = initializers(fp16)[conv.input[2]].astype(np.float64)
    for step, whole in ((2.0**12, True), (3000.0, False)):
        ranges = {**observed.ranges("max"), name: LEVELS * step}
        made = quantize_graph(fp32, fp16, ranges, QuantizeConfig())
        (node,) = (node for node in made.graph.node if node.name == conv.name)
        values = initializers(made)
        found = values[node.input[2]].astype(np.float64)
        if not whole:
            assert np.array_equal(found, bias), "with another scale there is no such unit"
            continue
        scale = next(values[maker.input[1]] for maker in made.graph.node if maker.output[0] == node.input[1])
        unit = step * np.exp2(np.frexp(scale.astype(np.float64))[1] - 4.0)
        assert not (found / unit % 1).any() and (bias / unit % 1).any()
        assert (np.abs(found - bias) <= unit / 2).all()


@pytest.mark.parametrize("fusions", [True, False])
def test_tokens_are_the_same_bit_by_bit(frame: onnx.ModelProto, golden_clips, fusions: bool):
    options = onnxruntime.SessionOptions()
    if not fusions:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(frame.SerializeToString(), options, providers=["CPUExecutionProvider"])
    reference = Reference(frame)
    for clip in golden_clips:
        feed = {"frame": clip[:1]}
        (own,) = session.run(None, feed)
        (wanted,) = reference.run(feed).values()
        assert own.tobytes() == wanted.tobytes()
