"""Intel's OpenVINO on the CPU, on the same clip graph."""

from __future__ import annotations

import io

from ...bundle import Bundle
from .contract import OPENVINO, OTHER_RUNTIME, Answer, Baseline, Inputs, clip_graph


def openvino_baseline(bundle: Bundle, precision: str, threads: int, inputs: Inputs) -> Baseline:
    """A compiled model with one stream, tuned for latency.

    OpenVINO computes in BF16 on CPUs that are fast at it unless it is told otherwise; here it keeps to FP32.

    Raises:
        ModuleNotFoundError: OpenVINO is not installed.
        Exception: whatever it raises for a graph that it cannot take.
    """
    import openvino

    core = openvino.Core()
    model = core.read_model(io.BytesIO(clip_graph(bundle, precision)))
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()

    def answer(index: int) -> Answer:
        request.infer([inputs.clip(index)[None]])
        return Answer(request.get_output_tensor(0).data[0].copy(), {})

    what = "compiled model on the CPU, latency hint, one stream, FP32 kept: infer on the bundle's clip graph"
    backend = f"openvino {openvino.__version__.split('-')[0]} CPU"
    return Baseline(OPENVINO, what, precision, True, answer, backend, tolerance=OTHER_RUNTIME)
