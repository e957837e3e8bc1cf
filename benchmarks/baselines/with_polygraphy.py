"""NVIDIA's Polygraphy on TensorRT, on the same clip graph: what its own runner costs."""

from __future__ import annotations

import contextlib

from ...bundle import Bundle
from .contract import OTHER_RUNTIME, POLYGRAPHY, Answer, Baseline, Inputs, clip_graph


def polygraphy_baseline(
    bundle: Bundle, precision: str, inputs: Inputs, device: str, closing: contextlib.ExitStack
) -> Baseline:
    """`TrtRunner.infer`; it copies from pageable memory and waits for each call, so it is a lower bar, not a record.

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

    def answer(index: int) -> Answer:
        return Answer(runner.infer({given: inputs.clip(index)[None]})[wanted][0].copy(), {})

    what = "polygraphy TrtRunner.infer on an engine of the bundle's clip graph, copies included, no CUDA graph"
    backend = f"tensorrt {tensorrt.__version__} by polygraphy"
    return Baseline(POLYGRAPHY, what, precision, True, answer, backend, device, tolerance=OTHER_RUNTIME)
