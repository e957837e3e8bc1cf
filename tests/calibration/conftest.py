"""The outlier model: an untrained `tiny` with one channel of one norm scaled by 200, in FP32 and FP16 graphs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from logoformer.calibration.collect import collect_ranges
from logoformer.calibration.paired import Comparison, compare
from logoformer.calibration.quantize import QuantizeConfig, Ranges, quantize_graph
from logoformer.experiments_int8 import plant_outlier
from logoformer.export.graphs import build_graph, example_inputs
from logoformer.export.parity import RoundingClip
from logoformer.export.precision import to_fp16
from logoformer.export.ranges import protect, scan
from logoformer.export.trace import trace
from logoformer.model.config import PRESETS
from logoformer.model.init import initialise
from logoformer.model.synthetic import synthetic_clips

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

    def compared(self, graph: onnx.ModelProto) -> Comparison:
        return compare(self.truth, self.answers(graph), self.labels, [str(i) for i in range(len(self.labels))])


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
