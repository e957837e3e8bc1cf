"""The three graphs of an untrained `tiny`, FP32 and FP16, and ranges of eight clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from logoformer.bundle import Bundle
from logoformer.calibration.collect import Observed, observe

GRAPHS = ("clip", "frame", "temporal")


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
