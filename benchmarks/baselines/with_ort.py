"""Plain ONNX Runtime on the same clip graph: its CPU provider, and where a card is, its CUDA and TensorRT providers."""

from __future__ import annotations

from ...bundle import Bundle
from ..report.records import CPU
from .contract import ORT, ORT_CUDA, ORT_TENSORRT, OTHER_RUNTIME, REPEAT_TOLERANCE, Answer, Baseline, Inputs, clip_graph

PROVIDERS = {ORT: "CPUExecutionProvider", ORT_CUDA: "CUDAExecutionProvider", ORT_TENSORRT: "TensorrtExecutionProvider"}
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
    if name == ORT_CUDA:
        asked = [(provider, {"use_tf32": "0"})]  # FP32 stays FP32
    else:
        asked = [(provider, {})]
    session = onnxruntime.InferenceSession(clip_graph(bundle, precision), options, providers=asked)
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"{provider} could not start (no NVIDIA GPU, or its libraries are missing)")
    feed = session.get_inputs()[0].name

    def answer(index: int) -> Answer:
        return Answer(session.run(None, {feed: inputs.clip(index)[None]})[0][0], {})

    what = f"InferenceSession.run on the bundle's clip graph with {provider}, nothing around it"
    backend = f"onnxruntime {onnxruntime.__version__} {provider.removesuffix('ExecutionProvider')}"
    tolerance = REPEAT_TOLERANCE if name == ORT else OTHER_RUNTIME
    return Baseline(name, what, precision, True, answer, backend, device, tolerance=tolerance)
