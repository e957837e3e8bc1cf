"""Graphs of an untrained `tiny` with ranges of eight clips; and with an outlier, one channel of one norm times 200."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from logoformer.bundle import Bundle
from logoformer.calibration.collect import Observed, collect_ranges, observe
from logoformer.calibration.paired import PairedComparison, compare_answers
from logoformer.calibration.quantize import QuantizeConfig, Ranges, quantize_graph
from logoformer.export.graphs import build_graph, example_inputs
from logoformer.export.parity import RoundingClip
from logoformer.export.precision import protect, scan, to_fp16
from logoformer.export.trace import trace
from logoformer.model.networks.configs import PRESETS
from logoformer.model.synthetic.recordings import synthetic_clips
from logoformer.studies.int8 import plant_outlier
from logoformer.workflows.init import initialise

GRAPHS = ("clip", "frame", "temporal")
TINY = PRESETS["tiny"]


@dataclass(frozen=True)
class Planted:
    """The clip graph of the outlier model with what quantizes and judges it."""

    fp32: onnx.ModelProto
    fp16: onnx.ModelProto
    calibration: np.ndarray
    ranges: Ranges
    clips: np.ndarray
    labels: np.ndarray
    truth: np.ndarray

    def quantize(self, exclude: tuple[str, ...] = ()) -> onnx.ModelProto:
        return quantize_graph(self.fp32, self.fp16, self.ranges, QuantizeConfig(exclude=exclude))

    def answers(self, graph: onnx.ModelProto) -> np.ndarray:
        return RoundingClip(graph).answers(self.clips)

    def compared(self, graph: onnx.ModelProto) -> PairedComparison:
        return compare_answers(self.truth, self.answers(graph), self.labels, [str(i) for i in range(len(self.labels))])


@pytest.fixture(scope="session")
def planted() -> Planted:
    model = plant_outlier(initialise(TINY), block=0)
    calibration, _, _ = synthetic_clips(32, TINY.sampling, TINY.image_size, seed=1)
    clips, labels, _ = synthetic_clips(63, TINY.sampling, TINY.image_size, seed=2)
    fp32 = trace(build_graph("clip", model), example_inputs("clip", TINY, 20), "probabilities")
    kept = protect(fp32, scan(fp32, [{"clip": clip[None]} for clip in calibration[:8]]))
    fp16 = to_fp16(fp32, {"clip": calibration[:1]}, kept)
    ranges = collect_ranges(fp32, calibration, QuantizeConfig())
    return Planted(fp32, fp16, calibration, ranges, clips, labels, RoundingClip(fp32).answers(clips))


@pytest.fixture(scope="session")
def models(untrained_bundle: Path) -> dict[tuple[str, str], onnx.ModelProto]:
    """By (graph, precision). Copy one before changing it."""
    bundle = Bundle(untrained_bundle)
    return {
        (graph, precision): onnx.load_from_string(bundle.read_graph(bundle.graph(graph, precision)))
        for graph in GRAPHS
        for precision in ("fp32", "fp16")
    }


@pytest.fixture(scope="session")
def golden_clips(untrained_bundle: Path) -> Any:
    """Eight clips, uint8 `[8, T, S, S, 3]`."""
    return Bundle(untrained_bundle).golden().clips


@pytest.fixture(scope="session")
def observed(models: dict[tuple[str, str], onnx.ModelProto], golden_clips: Any) -> Observed:
    """What the clip graph's activations do on them."""
    return observe(models["clip", "fp32"], golden_clips)
