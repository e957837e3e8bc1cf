"""Captures an engine's start as a CUDA graph, and believes it only after a comparison.

A graph can be empty, or have baked in what must not be: then it launches without an error and leaves the old answer
standing. So two different inputs are answered plainly and by a replay, with the output poisoned before the replay.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..cuda.layer import Cuda, CudaError
from .contract import Array
from .device_buffers import DeviceBuffers
from .trt_engine import TrtEngine

_POISON = 0x5A
_TOLERANCE = 1e-3  # kernels may add in another order from run to run; a wrong graph is off by far more


def capture_checked(
    cuda: Cuda, engine: TrtEngine, buffers: DeviceBuffers, stream: int, run: Callable[[int | None], None]
) -> tuple[int | None, str]:
    """Captures and compares; every input and output is copied by `run`.

    Args:
        cuda: the device.
        engine: after a plain warm-up.
        buffers: its tensors.
        stream: idle.
        run: one whole run, by a graph or plainly.

    Returns:
        (graph, ''), or (None, why there is none).

    Raises:
        CudaError: a sticky error.
    """
    if not cuda.has_graphs:
        return None, f"{cuda.name} has no CUDA graphs (cuda-python has)"
    if not engine.capturable(stream):
        return None, f"{engine.trt} says that it cannot be captured"
    graph = None
    try:
        graph, nodes = cuda.capture(stream, lambda: engine.enqueue(stream))
        reason = _compare(cuda, engine, buffers, stream, run, graph) if nodes else "the capture was empty"
    except CudaError as fault:
        if fault.sticky:
            raise
        reason = f"the capture failed ({fault})"
        cuda.synchronize(stream)  # copies of a replay that did not start may still be under way
    if reason and graph is not None:
        cuda.free_graph(graph)
    return (None, reason) if reason else (graph, "")


def _compare(
    cuda: Cuda,
    engine: TrtEngine,
    buffers: DeviceBuffers,
    stream: int,
    run: Callable[[int | None], None],
    graph: int,
) -> str:
    plain = []
    for seed in range(2):
        for name in engine.inputs:
            _fill(buffers.host[name], seed)
        run(None)
        plain.append({name: buffers.host[name].copy() for name in engine.outputs})
        for name in engine.outputs:
            cuda.fill(buffers.pointers[name], _POISON, buffers.sizes[name], stream)
        run(graph)
        wrong = [name for name in engine.outputs if not _alike(buffers.host[name], plain[seed][name])]
        if wrong:
            return f"a replay answers otherwise than a plain run in {', '.join(wrong)}"
    for name in engine.inputs:
        buffers.host[name][...] = 0
    if all(np.array_equal(plain[0][name], plain[1][name], equal_nan=True) for name in engine.outputs):
        return "two inputs gave one answer, so a comparison proves nothing"
    return ""


def _fill(array: Array, seed: int) -> None:
    """Noise; an integer input holds indices, of which 0 and 1 are always valid."""
    rng = np.random.default_rng(seed)
    if array.dtype.kind == "f":
        array[...] = rng.standard_normal(array.shape)
    elif array.dtype == np.uint8:
        array[...] = rng.integers(0, 256, array.shape)
    else:
        array[...] = seed


def _alike(found: Array, wanted: Array) -> bool:
    return bool(np.allclose(found, wanted, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True))
