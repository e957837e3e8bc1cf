"""A whole bundle in milliseconds: three graphs of a few nodes, of the `tiny` preset's shapes.

Every frame becomes the mean of its colours, and a clip's answer is a softmax over the means *in their order*. The three
graphs compute one function, so everything that `bench` proves about a real bundle holds here, and a fault planted in
one of them must be found.
"""

from __future__ import annotations

import io
import math
from dataclasses import asdict

import numpy as np
import onnx
import pytest
from logoformer.bundle import BundleWriter, Golden, StreamSpec, TensorSpec
from logoformer.model.config import preset
from onnx import TensorProto, helper, numpy_helper

SIZE, SPAN_S, FPS, CLASSES, WIDTH = 64, 2.8, 25.0, 7, 3
FRAMES = 8
SLOTS = math.ceil(SPAN_S * 30) + 2
WINDOW = (4, 1, 1)
LABELS = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")


def weights(seed: int = 0) -> np.ndarray:
    """float32 `[T * 3, C]`: every frame's place counts differently."""
    return (np.random.default_rng(seed).standard_normal((FRAMES * WIDTH, CLASSES)) / 64).astype(np.float32)


def clips(count: int = 4, seed: int = 1) -> np.ndarray:
    """uint8 `[count, T, S, S, 3]`, frames of different brightness."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 256, (count, FRAMES, 1, 1, WIDTH))
    return np.clip(base + rng.integers(-8, 9, (count, FRAMES, SIZE, SIZE, WIDTH)), 0, 255).astype(np.uint8)


def answers(given: np.ndarray, w: np.ndarray) -> np.ndarray:
    """What the graphs must say, in numpy: float32 `[N, C]`."""
    means = given.astype(np.float64).mean((2, 3)).reshape(len(given), -1)
    logits = means @ w
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return (powers / powers.sum(1, keepdims=True)).astype(np.float32)


def _model(nodes, inputs, output, constants) -> bytes:
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "toy", inputs, [output], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _value(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def _tail(flat: str):
    return [
        helper.make_node("Reshape", [flat, "row"], ["x"]),
        helper.make_node("MatMul", ["x", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]


def _graphs(w_clip: np.ndarray, w_temporal: np.ndarray) -> dict[str, bytes]:
    row = np.array([1, FRAMES * WIDTH], np.int64)
    probabilities = _value("probabilities", TensorProto.FLOAT, [1, CLASSES])
    clip_in = _value("clip", TensorProto.UINT8, [1, FRAMES, SIZE, SIZE, 3])
    frame_in = _value("frame", TensorProto.UINT8, [1, SIZE, SIZE, 3])
    clip_cast = helper.make_node("Cast", ["clip"], ["f"], to=TensorProto.FLOAT)
    frame_cast = helper.make_node("Cast", ["frame"], ["f"], to=TensorProto.FLOAT)
    ring = _value("ring", TensorProto.FLOAT, [SLOTS * 2, WIDTH])
    order = _value("order", TensorProto.INT32, [FRAMES])
    return {
        "clip": _model(
            [clip_cast, helper.make_node("ReduceMean", ["f", "axes"], ["m"], keepdims=0), *_tail("m")],
            [clip_in],
            probabilities,
            {"axes": np.array([2, 3], np.int64), "row": row, "w": w_clip},
        ),
        "frame": _model(
            [
                frame_cast,
                helper.make_node("ReduceMean", ["f", "axes"], ["m"], keepdims=0),
                helper.make_node("Reshape", ["m", "one"], ["tokens"]),
            ],
            [frame_in],
            _value("tokens", TensorProto.FLOAT, [1, 1, WIDTH]),
            {"axes": np.array([1, 2], np.int64), "one": np.array([1, 1, WIDTH], np.int64)},
        ),
        "temporal": _model(
            [helper.make_node("Gather", ["ring", "order"], ["g"], axis=0), *_tail("g")],
            [ring, order],
            probabilities,
            {"row": row, "w": w_temporal},
        ),
    }


def _specs(values) -> tuple[TensorSpec, ...]:
    def spec(value):
        tensor = value.type.tensor_type
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        return TensorSpec(value.name, dtype.name, tuple(axis.dim_value for axis in tensor.shape.dim))

    return tuple(map(spec, values))


def write_toy(path, *, clip_seed=0, temporal_seed=0, golden_seed=0, count=4):
    """Writes a bundle; a seed that differs plants a fault in that graph, or in the golden answers.

    Args:
        path: the bundle's folder.
        clip_seed, temporal_seed, golden_seed: of the weights behind each.
        count: golden clips.
    """
    writer = BundleWriter(path)
    entries = []
    for name, data in _graphs(weights(clip_seed), weights(temporal_seed)).items():
        graph = onnx.load(io.BytesIO(data)).graph
        sides = {"inputs": _specs(graph.input), "outputs": _specs(graph.output)}
        entries.append(
            writer.add_graph(data, graph=name, precision="fp32", batch=1, opset=20, macs={"fp32": 1}, **sides)
        )
    given = clips(count)
    stream = StreamSpec(SLOTS, 2, FRAMES, 1, WINDOW, WIDTH)
    return writer.commit(
        {
            "model": preset("tiny").to_json(),
            "labels": list(LABELS),
            "preprocessing": {"size": SIZE},
            "sampling": {"segments": FRAMES, "frames_per_segment": 1, "span_s": SPAN_S, "fps": FPS},
            "stream": {**asdict(stream), "window": list(WINDOW)},
            "graphs": entries,
            "precisions": {"fp32": {"verdict": "accept"}},
            "golden": writer.add_golden(Golden(given, answers(given, weights(golden_seed))), "toy"),
            "provenance": {},
        }
    )


@pytest.fixture
def make_toy(tmp_path):
    """`make_toy(**faults)` -> a bundle."""
    return lambda **faults: write_toy(tmp_path / "toy.bundle", **faults)


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """One sound toy bundle."""
    return write_toy(tmp_path_factory.mktemp("toy") / "toy.bundle")
