"""A whole bundle in milliseconds: three graphs of a few nodes, of the `tiny` preset's shapes; and a report by hand.

Every frame becomes the mean of its colours, and a clip's answer is a softmax over the means *in their order*. The three
graphs compute one function, so everything that `bench` proves about a real bundle holds here, and a fault planted in
one of them must be found.
"""

from __future__ import annotations

import io
import math
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from logoformer.benchmarks.accuracy import Accuracy
from logoformer.benchmarks.baselines.contract import Skipped
from logoformer.benchmarks.load.overhead import WrapperCost
from logoformer.benchmarks.report.records import (
    CacheCheck,
    ColdStart,
    IdleGap,
    Qualification,
    ReportRow,
    RowComparison,
    Series,
    Settings,
    Subject,
    Telemetry,
    TrtexecRun,
)
from logoformer.benchmarks.report.report import Report
from logoformer.benchmarks.roofline.devices import Device
from logoformer.benchmarks.roofline.floor import Floor, Heavy, Work
from logoformer.benchmarks.roofline.report import OverFloor, Roofline
from logoformer.benchmarks.sensors.machine import Machine
from logoformer.benchmarks.statistics import Ratio, Summary
from logoformer.bundle import BundleWriter, Golden, StreamSpec, TensorSpec
from logoformer.model.networks.configs import preset
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


# ------------------------------------------------------------- a report made by hand; its figures are nobody's
MACHINE = Machine(
    cpu="Example CPU", architecture="x86_64", logical_cpus=2, usable_cpus=2, cpu_quota=None, memory_gib=16.0,
    system="Example Linux, kernel 6.1", board=None, governor=None, max_mhz=None, load_1min=0.1, python="3.12.1",
    packages={"numpy": "2.1.0"}, revision=None,
)  # fmt: skip


def latencies(seed: int = 0, rounds: int = 20, block: int = 7, base: float = 5.0) -> np.ndarray:
    """float64 `[R, K]`, skewed as latencies are."""
    return base + np.random.default_rng(seed).gamma(2, 0.02 * base, (rounds, block))


def make_row(name: str = "clip", ms: np.ndarray | None = None, begin_s: float = 0.0, **changes: Any) -> ReportRow:
    """A row of the closed loop whose latencies follow one another without a pause."""
    ms = latencies() if ms is None else ms
    ends = begin_s + np.cumsum(ms.reshape(-1)) / 1e3
    at = (ends - ms.reshape(-1) / 1e3).reshape(ms.shape)
    fields: dict[str, Any] = {
        "name": name, "what": f"what {name} does", "mode": "closed", "precision": "fp32",
        "backend": "onnxruntime 1.2.3 CPU", "device": "cpu", "streams": 1, "hop": None, "summary": Summary.of(ms),
        "throughput_hz": 1e3 / float(ms.mean()), "stages_p50_ms": (("preprocess", 0.125), ("clip", 4.5)),
        "device_ms": None, "energy": None, "pace": None,
        "at_s": tuple(tuple(map(float, block)) for block in at),
        "latency_ms": tuple(tuple(map(float, block)) for block in ms),
    }  # fmt: skip
    return ReportRow(**{**fields, **changes})


def make_roofline() -> Roofline:
    """Two devices, one of which has no FP16 peak in the table."""
    devices = (
        Device("Example board", 100.0, {"fp32": 2.0, "fp16": 16.0}, "its data sheet", "halved: printed with sparsity"),
        Device("this CPU, 2 threads (Example CPU)", 20.0, {"fp32": 0.4}, "measured here", "", True),
    )
    works = tuple(
        Work(graph, precision, {precision: 10**8}, 10**7, 3 * 10**7, (), "ONNX nodes, nothing fused")
        for precision in ("fp32", "fp16")
        for graph in ("clip", "frame", "temporal")
    )
    heavy = (Heavy("conv1/Conv", "Conv", 0.5, "compute"),)
    floors = tuple(
        Floor(device.name, work.graph, work.precision, 0.5, 0.2, 0.5, "compute", 0.9, heavy, "")
        if work.precision in device.peak_tops
        else Floor(device.name, work.graph, work.precision, None, 0.2, None, "unknown", None, (), "no peak")
        for work in works
        for device in devices
    )
    over = (OverFloor("clip", devices[1].name, "fp32", 5.0, 0.5, 10.0),)
    return Roofline("computed from documents, not measured", works, devices, floors, over)


def make_report(rows: tuple[ReportRow, ...] | None = None, **changes: Any) -> Report:
    """A whole report, every optional part there."""
    rows = (make_row(), make_row("stream", latencies(1, base=2.0), hop=1)) if rows is None else rows
    load = Series("steal", "steal", "%", "proc/stat", (0.0, 0.1), (0.0, 0.5))
    fields: dict[str, Any] = {
        "command": "logoformer bench face.bundle",
        "created": "2026-01-02T03:04:05+00:00",
        "machine": MACHINE,
        "subject": Subject("face.bundle", "base", "fp32", "onnxruntime 1.2.3 CPU", "cpu", {"clip": "ab" * 32}),
        "settings": Settings(20, 7, 2, 0.05, 10, 0, modes=("closed",), threads=2, inputs=8, rate_hz=25.0),
        "rows": rows,
        "skipped": (Skipped("torch.compile", "RuntimeError: no compiler"),),
        "comparisons": (RowComparison("stream", "clip", Ratio(0.31, 0.3, 0.32), 0.021),),
        "accuracy": (Accuracy("fp32", {"clip": "ab" * 32}, "accept", 8, 1e-5, 2e-5, 1.0, 280, 0.0, 10, 1e-5),),
        "cache": CacheCheck(Ratio(1.001, 0.99, 1.01), 0.02, 3, 3, False),
        "cold": ColdStart((30.0, 31.0), (80.0, 81.0), (200.0, 201.0), (9.0, 9.5), (5.0, 5.1), (319.0, 322.5)),
        "idle_gaps": (IdleGap(0.0, (5.0, 5.1), None), IdleGap(1.0, (7.5, 7.7), 1.5)),
        "telemetry": Telemetry(0.1, 0.2, {"governor": "performance"}, (load,), ("gpu: no permission",)),
        "qualification": Qualification(False, ("load average 1.90 on 2 CPUs before the run",), ("140 samples",)),
        "trtexec": (TrtexecRun("clip", "10.3", "trtexec --x", (("median", 2.0),), (("median", 1.5),), 400.0),),
        "roofline": make_roofline(),
        "wrapper": WrapperCost(1000, 20.4, 30.0, 15.0, 25.0, 61.0, 90.0),
        "harness_us": 0.13,
        "seconds": 12.5,
        "notes": ("Measured on the CPU.",),
    }  # fmt: skip
    return Report(**{**fields, **changes})


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """`made.report(**changes)`, `made.row(...)`, `made.latencies(seed)`: a report with every optional part there."""
    return SimpleNamespace(report=make_report, row=make_row, latencies=latencies, machine=MACHINE)


# ------------------------------------------------------------------------------------------- machines as trees of files
class Tree:
    """A machine's readable files below a folder; `data/SOURCES.md` says where their shapes come from."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, **files: object) -> None:
        """Replaces files: `write(**{"proc/stat": "..."})`."""
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")


@pytest.fixture
def tree(tmp_path):
    """`tree("orin-nano")` -> a machine of `data/`, in a folder of its own."""

    def make(name: str) -> Tree:
        made = Tree(tmp_path / name)
        for line in (Path(__file__).parent / "data" / f"{name}.tree").read_text().splitlines():
            path, _, content = line.partition(" = ")
            made.write(**{path: content.replace("\\n", "\n").replace("\\t", "\t").replace("\\0", "\0")})
        return made

    return make
