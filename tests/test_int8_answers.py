"""INT8 answers on the CPU's backends: as near to FP32 as the rounding reference, and nearer still to the reference.

The second holds only because the trunk's sums are those of integers (`calibration/powers.py`) and nothing rounds
between them: one value that moves to the next step moves others behind it, and two computations that differ in a last
bit end as far from each other as INT8 is from FP32.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from logoformer import load
from logoformer.bundle import Bundle
from logoformer.calibration.choose import choose
from logoformer.engine.golden import centred_logits
from logoformer.export.entries import read_model
from logoformer.export.parity import RoundingClip
from logoformer.export.reference import Reference
from logoformer.model.data.datasets import clips_for
from logoformer.model.synthetic.recordings import SyntheticClips, synthetic_clips
from logoformer.studies.int8 import quantize_on_faces

Answer = Callable[[Bundle, np.ndarray], np.ndarray]
FARTHER, APART = 1.1, 1 / 3  # than the reference from FP32, and from the reference


def by_the_runtime(bundle: Bundle, clips: np.ndarray) -> np.ndarray:
    with load(bundle, backend="onnxruntime", precision="int8") as runtime:
        return np.stack([runtime(clip, color="rgb").probabilities for clip in clips])


def by_onnx_runtime_as_others_use_it(bundle: Bundle, clips: np.ndarray) -> np.ndarray:
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    data = bundle.read_graph(bundle.graph("clip", "int8"))
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["probabilities"], {"clip": clip[None]})[0] for clip in clips])


def by_openvino_as_others_use_it(bundle: Bundle, clips: np.ndarray) -> np.ndarray:
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    core = openvino.Core()
    model = core.read_model(bundle.path / bundle.graph("clip", "int8").file)
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.concatenate([compiled({"clip": clip[None]})["probabilities"] for clip in clips])


ANSWERS: tuple[Answer, ...] = (by_the_runtime, by_onnx_runtime_as_others_use_it, by_openvino_as_others_use_it)


def distances(bundle: Bundle, clips: np.ndarray, answer: Answer) -> tuple[float, float, float]:
    """RMS of logits over FP32's deviation: reference from FP32, answer from FP32, answer from reference."""
    with load(bundle, backend="onnxruntime", precision="fp32") as runtime:
        exact = centred_logits(np.stack([runtime(clip, color="rgb").probabilities for clip in clips]))
    reference = centred_logits(RoundingClip(read_model(bundle, "clip", "int8")).answers(clips))
    given = centred_logits(answer(bundle, clips).astype(np.float32))
    deviation = np.sqrt(exact.var(0).mean())

    def rms(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.sqrt(np.square(one - other).mean()) / deviation)

    return rms(reference, exact), rms(given, exact), rms(given, reference)


def check(bundle: Bundle, clips: np.ndarray, answer: Answer) -> None:
    reference, own, between = distances(bundle, clips, answer)
    print(f"{answer.__name__}: reference {reference:.4f}, {own:.4f} from FP32, {between:.4f} from the reference")
    assert own <= FARTHER * reference
    assert between <= APART * reference


@pytest.mark.parametrize("answer", ANSWERS)
def test_untrained(int8_bundle: Path, answer: Answer):
    bundle = Bundle(int8_bundle)
    check(bundle, synthetic_clips(35, bundle.sampling, bundle.image_size, seed=13)[0], answer)


@pytest.fixture(scope="module")
def demo_int8(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("answers") / "face.bundle"
    return quantize_on_faces(Bundle(shutil.copytree(tiny_bundle, path)), clips=64)


@pytest.mark.slow
@pytest.mark.xdist_group("demo_run")
@pytest.mark.parametrize("answer", ANSWERS)
def test_the_demos_held_out_clips(demo_int8: Bundle, demo_run, answer: Answer):
    source = clips_for(demo_run[1] / "faces", "test", 1, demo_int8.image_size, demo_int8.labels)
    clips = choose(source, demo_int8.sampling, 280).clips
    assert len(clips) == 280
    check(demo_int8, clips, answer)


@pytest.mark.slow
@pytest.mark.xdist_group("base_bundle")
@pytest.mark.parametrize("answer", ANSWERS)
def test_full_size(base_int8: Path, answer: Answer):
    bundle = Bundle(base_int8)
    people = SyntheticClips(7, range(4_000_000, 4_000_002), 7, bundle.image_size)
    check(bundle, choose(people, bundle.sampling, 14).clips, answer)


def test_a_silent_fall_back_to_fp32_is_found(int8_bundle: Path):
    """What the second bound is for: FP32's own answers are nearer to FP32 than any INT8."""

    def in_fp32(bundle: Bundle, clips: np.ndarray) -> np.ndarray:
        with load(bundle, backend="onnxruntime", precision="fp32") as runtime:
            return np.stack([runtime(clip, color="rgb").probabilities for clip in clips])

    bundle = Bundle(int8_bundle)
    reference, own, between = distances(
        bundle, synthetic_clips(14, bundle.sampling, bundle.image_size, seed=13)[0], in_fp32
    )
    assert own == 0 and between > APART * reference


def test_only_what_a_kernel_stores_is_rounded(int8_bundle: Path):
    """Residual streams, norms that something else reads and answers are; what lies between integers is not."""
    model = read_model(Bundle(int8_bundle), "clip", "int8")
    kinds: dict[str, str] = {}
    clip = np.zeros([size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim], np.uint8)
    Reference(model).run({"clip": clip}, lambda name, value: kinds.update({name: str(value.dtype)}))
    trunk = {kind for name, kind in kinds.items() if name.startswith("frame.trunk") and not name.endswith(".int8")}
    assert trunk == {"torch.float32"}
    for name, node in ((node.output[0], node) for node in model.graph.node):
        if node.op_type == "Add" and node.name.count("/") == 1 and node.name.split("/")[0].endswith("blocks.0"):
            assert kinds[name] == "torch.float16", f"{name} is the residual stream"
    assert kinds["frame.project/Conv"] == "torch.float16", "what a stream's ring holds"


def test_an_overflow_inside_a_kernel_is_infinite():
    """An INT8 product that FP16 cannot hold, then a quantizer that would clip it away."""
    make = onnx.helper.make_node
    half = np.float16
    constants = {
        "s": half(1.0), "z": np.int8(0), "w": np.full((64, 1), 127, np.int8), "ws": half(16.0), "wide": np.float32(1.0)
    }  # fmt: skip
    graph = onnx.helper.make_graph(
        [
            make("QuantizeLinear", ["x", "s", "z"], ["q"]),
            make("DequantizeLinear", ["q", "s", "z"], ["d"]),
            make("DequantizeLinear", ["w", "ws", "z"], ["v"]),
            make("MatMul", ["d", "v"], ["y"]),
            make("Cast", ["y"], ["c"], to=onnx.TensorProto.FLOAT),
            make("QuantizeLinear", ["c", "wide", "z"], ["p"]),
            make("DequantizeLinear", ["p", "s", "z"], ["out"]),
        ],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT16, [1, 64])],
        [onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT16, [1, 1])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    seen: dict[str, float] = {}
    for sign in (1, -1):
        Reference(model).run(
            {"x": np.full((1, 64), sign * 100, half)},
            lambda name, value: seen.update({name: float(value.float().ravel()[0])}),
        )
        assert seen["y"] == sign * np.inf
