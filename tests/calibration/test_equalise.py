"""Moved scales: the function stays, channels fill the range, and INT8 holds where it did not."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from logoformer.calibration.collect import collect_ranges, observe_channels
from logoformer.calibration.equalise import (
    FARTHEST,
    ChannelStatistics,
    choose_factors,
    equalise,
    initializers,
    seams,
    with_weights,
)
from logoformer.calibration.gate import BUDGETS
from logoformer.calibration.quantize import QuantizeConfig, quantize_graph
from logoformer.calibration.sensitivity import holds
from logoformer.export.parity import RoundingClip

FFN = "temporal.blocks.0.norm_ffn/LayerNormalization"
TRUNK = "frame.trunk."


def tokens(model: onnx.ModelProto, frame: np.ndarray) -> np.ndarray:
    """By ONNX Runtime, which shares no code with what is tested."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"frame": frame[None]})[0]
    return found.astype(np.float32)


def random_factors(clip: onnx.ModelProto, seed: int = 0) -> dict[str, np.ndarray]:
    values, weights = initializers(clip), {node.name: node.input[1] for node in clip.graph.node if len(node.input) > 1}
    rng = np.random.default_rng(seed)
    return {seam.name: rng.uniform(0.1, 1, len(values[weights[seam.name]])).astype(np.float32) for seam in seams(clip)}


def test_maps_that_are_added_belong_together_and_pooling_keeps_a_norm(models):
    found = {seam.name: seam for seam in seams(models["clip", "fp32"])}
    stem = found[f"{TRUNK}conv1/Conv"]
    assert stem.writers == (f"{TRUNK}conv1/Conv", f"{TRUNK}layer1.0.conv2/Conv"), "the shortcut takes the same factor"
    assert stem.readers == tuple(
        f"{TRUNK}{name}/Conv" for name in ("layer1.0.conv1", "layer2.0.downsample.0", "layer2.0.conv1")
    )
    assert found[f"{TRUNK}layer1.0.conv1/Conv"].readers == (f"{TRUNK}layer1.0.conv2/Conv",)
    assert found[f"{TRUNK}layer3.0.downsample.0/Conv"].readers == ("frame.project/Conv",)
    assert FFN in found and "temporal.blocks.0.norm_local/LayerNormalization" in found
    assert not any("norm_global" in name or "norm_pool" in name or name.startswith("temporal.norm") for name in found)
    assert not any("project" in name for name in found), "tokens are seen outside: the ring holds them"
    assert len(found) == 10


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_function_stays_whatever_the_factors(models, golden_clips, precision: str):
    clip, frame = models["clip", "fp32"], models["frame", precision]
    moved = equalise(frame, random_factors(clip), clip)
    before, after = (tokens(one, golden_clips[0, 0]) for one in (frame, moved))
    allowed = 1e-4 if precision == "fp32" else 2e-2
    assert np.abs(after - before).max() <= allowed * np.abs(before).max()
    old, new = initializers(frame), initializers(moved)
    assert [(name, value.dtype, value.shape) for name, value in old.items()] == [
        (name, value.dtype, value.shape) for name, value in new.items()
    ]
    assert sum(not np.array_equal(old[name], new[name]) for name in old) >= 18


def test_all_three_graphs_take_the_same(models, golden_clips):
    clip = models["clip", "fp32"]
    factors = random_factors(clip)
    whole, *pair = (
        initializers(equalise(models[name, "fp32"], factors, clip)) for name in ("clip", "frame", "temporal")
    )
    for half in pair:
        assert all(np.array_equal(half[name], whole[name]) for name in half if name.endswith(("weight", "bias")))
    answers = [RoundingClip(one).answers(golden_clips[:2]) for one in (clip, equalise(clip, factors, clip))]
    np.testing.assert_allclose(*answers, atol=1e-5)


def test_channels_fill_the_range(models, golden_clips):
    clip = models["clip", "fp32"]
    seen = observe_channels(clip, golden_clips)
    after = observe_channels(equalise(clip, choose_factors(clip, seen), clip), golden_clips)

    def evenness(found: dict[str, ChannelStatistics]) -> float:
        shares = [np.median(one.largest) / one.largest.max() for name, one in found.items() if name.startswith("frame")]
        return float(np.mean(shares))

    assert evenness(after) > evenness(seen) + 0.1
    for name, one in seen.items():
        assert after[name].largest.max() <= 1.001 * one.largest.max(), "the largest channel stays"


def test_small_channels_are_raised_to_what_they_were(models, golden_clips):
    """Channels of one map are made small and their readers large, by hand: moving scales takes it back."""
    clip = models["clip", "fp32"]
    values = initializers(clip)
    factor = np.where(np.arange(16) % 4, 100.0, 1.0)
    first, second = (f"{TRUNK}layer1.0.{name}" for name in ("conv1", "conv2"))
    changed = {f"{first}.{part}": (values[f"{first}.{part}"].T / factor).T for part in ("weight", "bias")}
    changed[f"{second}.weight"] = values[f"{second}.weight"] * factor[:, None, None]
    spoilt = with_weights(clip, changed)
    found = choose_factors(spoilt, observe_channels(spoilt, golden_clips))[f"{first}/Conv"]
    plain = choose_factors(clip, observe_channels(clip, golden_clips))[f"{first}/Conv"]
    np.testing.assert_allclose(found * factor / (found * factor).max(), plain / plain.max(), rtol=0.05)


def test_a_channel_that_is_never_seen_stays_finite(models, golden_clips):
    clip = models["clip", "fp32"]
    seen = observe_channels(clip, golden_clips[:2])
    name = f"{TRUNK}layer1.0.relu/Relu"
    dead = np.where(np.arange(16) == 3, 0.0, 1.0)
    seen[name] = ChannelStatistics(seen[name].largest * dead, seen[name].power * dead)
    found = choose_factors(clip, seen)
    assert found[f"{TRUNK}layer1.0.conv1/Conv"][3] >= np.float32(FARTHEST)
    silent = {key: ChannelStatistics(np.zeros_like(one.largest), np.zeros_like(one.power)) for key, one in seen.items()}
    assert all(np.isfinite(factor).all() and (factor > 0).all() for factor in choose_factors(clip, silent).values())


def test_what_readers_would_lose_is_weighed():
    """One output reads two channels, the small one through the larger weight."""
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Conv", ["x", "w", "b"], ["y"], name="one"),
            onnx.helper.make_node("Relu", ["y"], ["z"], name="relu"),
            onnx.helper.make_node("Conv", ["z", "v"], ["out"], name="two"),
        ],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 2, 1, 1])],
        [onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [1, 1, 1, 1])],
        [
            onnx.numpy_helper.from_array(value.astype(np.float32), name)
            for name, value in {"w": np.eye(2)[..., None, None], "b": np.zeros(2), "v": np.ones((1, 2, 1, 1))}.items()
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    (seam,) = seams(model)
    assert (seam.writers, seam.readers, seam.tensors) == (("one",), ("two",), ("z",))
    even = {"z": ChannelStatistics(np.array([1.0, 1.0]), np.array([0.1, 0.1]))}
    assert choose_factors(model, even) == {}, "nothing to gain"
    # Never large, but always there: raised to the range it would fill it with power that weights are rounded under.
    loud = {"z": ChannelStatistics(np.array([1.0, 0.01]), np.array([1e-6, 1e-4]))}
    rare = {"z": ChannelStatistics(np.array([1.0, 0.01]), np.array([1e-2, 1e-9]))}
    assert choose_factors(model, rare)["one"][1] < choose_factors(model, loud).get("one", np.ones(2))[1]


def test_int8_holds_on_the_outlier_model(planted):
    factors = choose_factors(planted.fp32, observe_channels(planted.fp32, planted.calibration))
    assert int(factors[FFN].argmax()) == int(np.argmax(initializers(planted.fp32)[f"{FFN.split('/')[0]}.weight"]))
    fp32, fp16 = (equalise(one, factors, planted.fp32) for one in (planted.fp32, planted.fp16))
    assert planted.compared(fp32).max_share < 1e-3 and planted.compared(fp16).max_share < 0.05
    config = QuantizeConfig()
    int8 = quantize_graph(fp32, fp16, collect_ranges(fp32, planted.calibration, config), config)
    assert not holds(planted.compared(planted.quantize()), BUDGETS["int8"])
    assert holds(planted.compared(int8), BUDGETS["int8"])
