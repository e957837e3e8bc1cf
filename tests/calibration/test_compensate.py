"""Compensated rounding: what it saves, what it may not touch, and that all graphs take the same."""

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logoformer.calibration.amax import LEVELS
from logoformer.calibration.collect import Observed
from logoformer.calibration.compensate import compensate, compensation_record, round_columns
from logoformer.calibration.paired import logit_differences
from logoformer.calibration.quantize import QuantizeConfig, Steps, quantize_graph
from logoformer.export.parity import RoundingClip
from logoformer.export.reference import Reference
from logoformer.model.networks.configs import PRESETS
from logoformer.model.synthetic.recordings import synthetic_clips
from onnx import numpy_helper

Models = Mapping[tuple[str, str], onnx.ModelProto]
Found = Mapping[str, Steps]
TINY = PRESETS["tiny"]
CONFIG = QuantizeConfig("max")


def run(models: Models, observed: Observed, clips: np.ndarray, config: QuantizeConfig = CONFIG) -> Found:
    fp32 = models["clip", "fp32"]
    return compensate(fp32, models["clip", "fp16"], Reference(fp32).side_by_side, observed.ranges("max"), config, clips)


@pytest.fixture(scope="module")
def found(models: Models, golden_clips, observed: Observed) -> Found:
    return run(models, observed, golden_clips)


def graph(models: Models, observed: Observed, found: Found | None, name: str = "clip", **more: bool):
    ranges = observed.ranges("max")
    return quantize_graph(models[name, "fp32"], models[name, "fp16"], ranges, QuantizeConfig(**more), found)


def constants(model: onnx.ModelProto) -> dict[str, bytes]:
    return {item.name: numpy_helper.to_array(item).tobytes() for item in model.graph.initializer}


# --------------------------------------------------------------------------------------------------------- one matrix
def test_errors_cancel_where_inputs_go_together():
    random = np.random.default_rng(0)
    rows = (random.normal(size=(400, 6)) @ random.normal(size=(6, 48)) + 0.1 * random.normal(size=(400, 48))).astype(
        np.float32
    )
    wanted = random.normal(size=(16, 48))
    scale = np.abs(wanted).max(1) / LEVELS
    nearest = np.rint(wanted / scale[:, None])
    steps = round_columns(wanted, scale, rows)
    errors = [np.square(rows @ ((s * scale[:, None]) - wanted).T).mean() for s in (nearest, steps)]
    assert errors[1] < 0.2 * errors[0]
    assert np.abs(steps - nearest).max() >= 1 and np.abs(steps.astype(int)).max() <= LEVELS


@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 1000))
def test_inputs_that_have_nothing_in_common_leave_the_nearest_step(columns: int, outputs: int, seed: int):
    wanted = np.random.default_rng(seed).normal(size=(outputs, columns))
    scale = np.abs(wanted).max(1) / LEVELS
    rows = np.diag(np.arange(1, columns + 1)).astype(np.float32)  # each input is seen alone
    np.testing.assert_array_equal(round_columns(wanted, scale, rows), np.rint(wanted / scale[:, None]))


def test_a_dead_input_is_no_error():
    wanted, rows = np.ones((2, 3)), np.zeros((5, 3), np.float32)
    np.testing.assert_array_equal(round_columns(wanted, np.full(2, 1 / LEVELS), rows), np.full((2, 3), LEVELS))


# ---------------------------------------------------------------------------------------------------------- the graphs
def test_answers_come_nearer_to_fp32(models: Models, observed: Observed, found: Found):
    clips, _, _ = synthetic_clips(63, TINY.sampling, TINY.image_size, seed=3)
    truth = RoundingClip(models["clip", "fp32"]).answers(clips)

    def rms(given: Found | None) -> float:
        answers = RoundingClip(graph(models, observed, given)).answers(clips)
        return float(np.sqrt(np.square(logit_differences(truth, answers)).mean()))

    nearest, compensated = rms(None), rms(found)
    print(f"nearest step {nearest:.4f}, compensated {compensated:.4f}")
    assert compensated < 0.97 * nearest


def test_outputs_come_nearer_layer_by_layer(models: Models, observed: Observed, golden_clips, found: Found):
    name = "frame.trunk.layer1.0.conv1/Conv"

    def outputs(model: onnx.ModelProto) -> np.ndarray:
        seen: list[np.ndarray] = []
        wanted = next(node.output[0] for node in model.graph.node if node.name == name)
        for clip in golden_clips:
            Reference(model).run(
                {"clip": clip[None].copy()}, lambda n, v: seen.append(v.numpy()) if n == wanted else None
            )
        return np.stack(seen)

    exact = outputs(models["clip", "fp32"])
    nearest, compensated = (np.square(outputs(graph(models, observed, g)) - exact).mean() for g in (None, found))
    print(f"error of {name}: {compensated / nearest:.2f} of the nearest step's")
    assert compensated < 0.8 * nearest


def test_the_pair_takes_what_the_clip_graph_takes(models: Models, observed: Observed, found: Found):
    whole, *pair = (constants(graph(models, observed, found, name)) for name in ("clip", "frame", "temporal"))
    both = pair[0] | pair[1]
    names = {name for name in whole if name.endswith((".int8", ".scale"))}
    assert len(names) > 50 and {name: whole[name] for name in names} == {name: both[name] for name in names}


def test_scales_and_nodes_stay(models: Models, observed: Observed, found: Found):
    plain, made = (graph(models, observed, given) for given in (None, found))
    assert [(n.op_type, n.name) for n in plain.graph.node] == [(n.op_type, n.name) for n in made.graph.node]
    old, new = constants(plain), constants(made)
    assert all(new[name] == old[name] for name in old if name.endswith((".scale", ".zero_point")))
    assert sum(new[name] != old[name] for name in old if name.endswith(".int8")) > 15


def test_stored_steps_answer_as_quantized_weights_do(models: Models, observed: Observed, golden_clips, found: Found):
    answers = [
        RoundingClip(graph(models, observed, found, fold_weights=fold)).answers(golden_clips[:2])
        for fold in (True, False)
    ]
    np.testing.assert_array_equal(*answers)


def test_what_is_excluded_is_left_alone(models: Models, observed: Observed, golden_clips, found: Found):
    config = QuantizeConfig(exclude=("trunk.conv1", "block0.ffn"))
    less = run(models, observed, golden_clips, config)
    gone = set(found) - set(less)
    assert {name.split("/")[0] for name in gone} == {
        "frame.trunk.conv1",
        "temporal.blocks.0.ffn.fc1",
        "temporal.blocks.0.ffn.fc2",
    }
    # Found for everything, used with an exclusion: what is excluded is as it was.
    made = quantize_graph(models["clip", "fp32"], models["clip", "fp16"], observed.ranges("max"), config, found)
    old, new = constants(models["clip", "fp16"]), constants(made)
    assert new["frame.trunk.conv1.weight"] == old["frame.trunk.conv1.weight"]


def test_equal_clips_give_equal_bytes_and_the_record_says_how(
    models: Models, observed: Observed, golden_clips, found: Found
):
    again = run(models, observed, golden_clips)
    assert again.keys() == found.keys()
    for name, one in found.items():
        assert again[name].tobytes() == one.tobytes()
    record = compensation_record(found, 8)
    assert record["clips"] == 8 and record["weights"] == len(found)
    assert compensation_record(found, 999)["clips"] == 32
