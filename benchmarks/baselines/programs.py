"""Baselines in ONNX Runtime, OpenVINO, Polygraphy and PyTorch.

PyTorch runs the bundle's architecture with random weights: a bundle holds none for it.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...bundle import Bundle
from ..report.records import CPU
from .contract import (
    COMPILED,
    EAGER,
    OPENVINO,
    ORT,
    ORT_CUDA,
    OTHER_RUNTIME,
    POLYGRAPHY,
    REPEAT_TOLERANCE,
    Baseline,
    Inputs,
    StepAnswer,
    clip_graph,
)

COMPILE_TOLERANCE = 1e-3  # between the compiled model's probabilities and the eager one's
PROVIDERS = {ORT: "CPUExecutionProvider", ORT_CUDA: "CUDAExecutionProvider"}
FATAL = 4  # of log severity: a provider without its card prints a page before it falls back


def ort_baseline(
    bundle: Bundle, precision: str, threads: int, inputs: Inputs, name: str = ORT, device: str = CPU
) -> Baseline:
    """The clip graph in a plain `InferenceSession.run`.

    Args:
        bundle: gives the graph.
        precision: of the graph.
        threads: of the CPU.
        inputs: what is fed.
        name: one of `PROVIDERS`.
        device: the GPU's name for a provider that runs on one.

    Raises:
        RuntimeError: the provider is not there: ONNX Runtime itself would silently take the CPU, and a CPU's time
            would stand under a GPU's name.
    """
    import onnxruntime

    provider = PROVIDERS[name]
    if provider not in onnxruntime.get_available_providers():
        raise RuntimeError(f"this onnxruntime has no {provider}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3 if name == ORT else FATAL
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    asked = [(provider, {"use_tf32": "0"} if name == ORT_CUDA else {})]  # FP32 stays FP32
    session = onnxruntime.InferenceSession(clip_graph(bundle, precision), options, providers=asked)
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"{provider} could not start (no NVIDIA GPU, or its libraries are missing)")
    feed = session.get_inputs()[0].name

    def answer(index: int) -> StepAnswer:
        return StepAnswer(session.run(None, {feed: inputs.clip(index)[None]})[0][0], {})

    what = f"InferenceSession.run on the bundle's clip graph with {provider}, nothing around it"
    backend = f"onnxruntime {onnxruntime.__version__} {provider.removesuffix('ExecutionProvider')}"
    tolerance = REPEAT_TOLERANCE if name == ORT else OTHER_RUNTIME
    return Baseline(name, what, precision, True, answer, backend, device, tolerance=tolerance)


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

    def answer(index: int) -> StepAnswer:
        request.infer([inputs.clip(index)[None]])
        return StepAnswer(request.get_output_tensor(0).data[0].copy(), {})

    what = "compiled model on the CPU, latency hint, one stream, FP32 kept: infer on the bundle's clip graph"
    backend = f"openvino {openvino.__version__.split('-')[0]} CPU"
    return Baseline(OPENVINO, what, precision, True, answer, backend, tolerance=OTHER_RUNTIME)


def polygraphy_baseline(
    bundle: Bundle, precision: str, inputs: Inputs, device: str, closing: contextlib.ExitStack
) -> Baseline:
    """`TrtRunner.infer`, which copies from pageable memory and waits for each call.

    Args:
        bundle: gives the graph; strongly typed, TF32 cleared, as `logoformer build` does.
        precision: of the graph.
        inputs: what is fed.
        device: the GPU's name.
        closing: frees the runner.

    Raises:
        ModuleNotFoundError: TensorRT or Polygraphy is not installed.
        Exception: whatever either raises without a GPU.
    """
    import tensorrt  # before Polygraphy, whose own imports are lazy and whose errors then come late
    from polygraphy.backend.trt import CreateConfig, EngineFromNetwork, NetworkFromOnnxBytes, TrtRunner

    graph = clip_graph(bundle, precision)
    network = NetworkFromOnnxBytes(graph, strongly_typed=True)
    runner = closing.enter_context(TrtRunner(EngineFromNetwork(network, CreateConfig(tf32=False))))
    entry = bundle.graph("clip", precision)
    given, wanted = entry.inputs[0].name, entry.outputs[0].name

    def answer(index: int) -> StepAnswer:
        return StepAnswer(runner.infer({given: inputs.clip(index)[None]})[wanted][0].copy(), {})

    what = "polygraphy TrtRunner.infer on an engine of the bundle's clip graph, copies included, no CUDA graph"
    backend = f"tensorrt {tensorrt.__version__} by polygraphy"
    return Baseline(POLYGRAPHY, what, precision, True, answer, backend, device, tolerance=OTHER_RUNTIME)


def torch_baseline(model: Any, name: str, inputs: Inputs) -> Baseline:
    """A torch module on the same uint8 clip: scaling, forward in inference mode, softmax."""
    import torch

    from ...model.networks.logoformer import to_tensor

    def answer(index: int) -> StepAnswer:
        with torch.inference_mode():
            logits = model(to_tensor(inputs.clip(index)[None]))
            return StepAnswer(torch.softmax(logits, -1)[0].numpy(), {})

    how = "LogoFormer in eval and inference mode" + (", compiled" if name == COMPILED else "")
    what = f"{how}: uint8 clip -> float, /255 -> probabilities; random weights (time does not depend on them)"
    return Baseline(name, what, "fp32", False, answer, f"torch {torch.__version__} CPU")


def eager_model(bundle: Bundle) -> Any:
    """The bundle's architecture with random weights; a bundle holds no torch weights."""
    from ...model.networks.config import ModelConfig
    from ...model.networks.logoformer import untrained

    # The index keeps derived figures beside the configuration; they do not build a model.
    config = {name: value for name, value in bundle.manifest["model"].items() if name != "complexity"}
    return untrained(ModelConfig.from_json(config))


def compiled_baseline(model: Any, inputs: Inputs) -> Baseline:
    """The same model through `torch.compile`, compiled here and compared with the eager one.

    Raises:
        RuntimeError: its answer is not the eager one's.
        Exception: whatever torch raises where its compiler cannot work.
    """
    import torch

    baseline = torch_baseline(torch.compile(model, dynamic=False), COMPILED, inputs)
    want = torch_baseline(model, EAGER, inputs).answer(0).probabilities
    difference = float(np.abs(baseline.answer(0).probabilities - want).max())
    if difference > COMPILE_TOLERANCE:
        raise RuntimeError(f"its probabilities differ by {difference:.2g} from eager torch's")
    return baseline


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Sets torch's number of threads, and gives the old one back."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
