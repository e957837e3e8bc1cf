"""CUDA graph capture with a checked replay.

A graph can be empty, or have baked in what must not be: then it launches without an error and leaves the old answer
standing. So two different inputs are answered plainly and by a replay, with the output poisoned before the replay.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from ..cuda.layer import Cuda, CudaError
from .contract import Array
from .trt_buffers import CHUNK, DEVICE, DeviceBuffers, DeviceTensor
from .trt_engine import TrtEngine

_POISON = 0x5A
_TOLERANCE = 1e-3  # kernels may add in another order from run to run; a wrong graph is off by far more


def capture_checked(
    cuda: Cuda,
    engine: TrtEngine,
    buffers: DeviceBuffers,
    stream: int,
    place: int,
    enqueue: Callable[[], bool],
    run: Callable[[int | None], None],
) -> tuple[int | None, str]:
    """Captures one whole run and compares its replays with plain runs.

    Args:
        cuda: the device.
        engine: after a plain warm-up.
        buffers: its tensors; what was `overwritten` of the inputs is zero afterwards.
        stream: idle.
        place: which copy of an input on the host the run reads; below 0: none; -2: nor does it write outputs there.
        enqueue: puts a run into the stream, plainly.
        run: one run, by a graph or plainly, that is waited for.

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
        graph, nodes = cuda.capture(stream, enqueue)
        reason = _compare(cuda, engine, buffers, stream, place, run, graph) if nodes else "the capture was empty"
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
    place: int,
    run: Callable[[int | None], None],
    graph: int,
) -> str:
    alike = functools.partial(np.allclose, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)
    plain = []
    for seed in range(2):
        for name in engine.inputs:
            _put(buffers, name, place, functools.partial(_noise, seed))
        run(None)
        plain.append({name: buffers.read(name) for name in engine.outputs})
        for name in engine.outputs:
            tensor = buffers.tensors[name]
            cuda.fill(tensor.pointers[0], _POISON, tensor.size, stream)
        run(graph)
        wrong = [name for name in engine.outputs if not alike(_got(buffers, name, place), plain[seed][name])]
        if wrong:
            return f"a replay answers otherwise than a plain run in {', '.join(wrong)}"
    for name in engine.inputs:
        _put(buffers, name, place, np.zeros)
    if all(np.array_equal(plain[0][name], plain[1][name], equal_nan=True) for name in engine.outputs):
        return "two inputs gave one answer, so a comparison proves nothing"
    return ""


def overwritten(tensor: DeviceTensor) -> int:
    """How many of an input's bytes a check overwrites: all, but of a ring the first rows alone."""
    return min(tensor.size, CHUNK) if tensor.kind == DEVICE else tensor.size


def _put(buffers: DeviceBuffers, name: str, place: int, make: Callable[[int, np.dtype], Array]) -> None:
    """Where a run reads it: on the host, which is copied to the device, and there."""
    tensor = buffers.tensors[name]
    dtype = np.dtype(tensor.spec.dtype)
    values = make(overwritten(tensor) // dtype.itemsize, dtype)
    if tensor.kind != DEVICE:
        host = tensor.host[max(place, 0) if len(tensor.host) > 1 else 0]
        np.copyto(host, values.reshape(host.shape))
    buffers.write(name, values)


def _got(buffers: DeviceBuffers, name: str, place: int) -> Array:
    """Where the host reads it."""
    tensor = buffers.tensors[name]
    return buffers.read(name) if tensor.kind == DEVICE or place == -2 else tensor.host[0]


def _noise(seed: int, count: int, dtype: np.dtype) -> Array:
    """Noise; an integer input holds indices 0 or 1, which are always valid: the first rows."""
    rng = np.random.default_rng(seed)
    if dtype.kind == "f":
        return rng.standard_normal(count, np.float32).astype(dtype, copy=False)
    if dtype == np.uint8:
        return rng.integers(0, 256, count, dtype=np.uint8)
    return np.full(count, seed, dtype)
