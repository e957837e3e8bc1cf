"""CUDA and TensorRT that do nothing, under a runtime of `base`'s sizes: what is left is our own Python and memory.

Nothing is computed and no device memory exists. Checkouts from 2e91556 on are understood, the last one before sessions
shared a stream; so names are looked up where either of them has them.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

SIZE, CELLS, DIM, SLOTS, FACES, FRAMES = 112, 16, 512, 107, 4, 16


class Card:
    """What was taken of memory, in bytes.

    Attributes:
        pinned: of the host, page-locked.
        device: of the card; on one that shares the CPU's memory the host's too.
        most_device: the greatest that `device` was.
    """

    def __init__(self) -> None:
        self.pinned = self.device = self.most_device = 0
        self._blocks: dict[int, np.ndarray] = {}
        self._sizes: dict[int, int] = {}

    def host_alloc(self, size: int, flags: int) -> tuple[int, int]:
        block = np.zeros(size, np.uint8)
        self._blocks[block.ctypes.data] = block
        self.pinned += size
        return 0, block.ctypes.data

    def free_host(self, pointer: int) -> tuple[int]:
        self.pinned -= self._blocks.pop(pointer).nbytes
        return (0,)

    def malloc(self, size: int) -> tuple[int, int]:
        pointer = (1 << 40) + (len(self._sizes) << 32)
        self._sizes[pointer] = size
        self.device += size
        self.most_device = max(self.most_device, self.device)
        return 0, pointer

    def free(self, pointer: int) -> tuple[int]:
        self.device -= self._sizes[pointer]
        return (0,)


class _Calls(types.ModuleType):
    """Every call of `cuda.bindings` succeeds at once."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)
        answer: tuple[Any, ...] = (0, 64)
        call = lambda *words: answer  # noqa: E731
        setattr(self, name, call)
        return call


def install(*, integrated: bool = False) -> Card:
    """Puts a `cuda.bindings` that does nothing into `sys.modules`."""
    card = Card()
    rt, cu = _Calls("cuda.bindings.runtime"), _Calls("cuda.bindings.driver")
    enum = types.SimpleNamespace
    rt.cudaHostAlloc, rt.cudaFreeHost = card.host_alloc, card.free_host
    rt.cudaMalloc, rt.cudaFree = card.malloc, card.free
    rt.cudaHostGetDevicePointer = lambda pointer, flags: (0, pointer)
    rt.cudaGetDeviceCount, rt.cudaGetDevice = (lambda: (0, 1)), (lambda: (0, 0))
    rt.cudaRuntimeGetVersion = lambda: (0, 13050)
    said = {"major": 8, "minor": 7, "integrated": int(integrated), "concurrent": 0}
    rt.cudaDeviceGetAttribute = lambda what, card: (0, said[what])
    rt.cudaDeviceAttr = enum(
        cudaDevAttrComputeCapabilityMajor="major",
        cudaDevAttrComputeCapabilityMinor="minor",
        cudaDevAttrIntegrated="integrated",
        cudaDevAttrConcurrentManagedAccess="concurrent",
    )
    kinds = ("HostToDevice", "DeviceToHost", "DeviceToDevice", "Default")
    rt.cudaMemcpyKind = enum(**{f"cudaMemcpy{name}": number for number, name in enumerate(kinds, 1)})
    rt.cudaError_t = enum(cudaErrorNotReady=600)
    rt.cudaStreamCaptureMode = enum(cudaStreamCaptureModeThreadLocal=1)
    for name, value in (
        ("cudaStreamNonBlocking", 1), ("cudaEventDisableTiming", 2), ("cudaEventBlockingSync", 1),
        ("cudaHostAllocMapped", 2), ("cudaHostAllocDefault", 0),
    ):  # fmt: skip
        setattr(rt, name, value)
    rt.cudaGraphGetNodes = lambda graph, count=0: (0, [], 1)
    bindings, cuda = types.ModuleType("cuda.bindings"), types.ModuleType("cuda")
    bindings.runtime, bindings.driver, cuda.bindings = rt, cu, bindings  # type: ignore[attr-defined]
    sys.modules.update({"cuda": cuda, "cuda.bindings": bindings, rt.__name__: rt, cu.__name__: cu})
    return card


class Engine:
    """Takes every call of a `TrtEngine` and does nothing."""

    def __init__(self, module: Any, cuda: Any, data: bytes, entry: Any, cache: Any) -> None:
        self.trt = "nothing"
        self.inputs = {tensor.name: tensor for tensor in entry.inputs}
        self.outputs = {tensor.name: tensor for tensor in entry.outputs}

    def set_address(self, name: str, pointer: int) -> None:
        return None

    def capturable(self, stream: int) -> bool:
        return True

    def enqueue(self, stream: int) -> bool:
        return True

    def save_cache(self) -> None:
        return None

    def close(self) -> None:
        return None


def open_runtime(*, checked: bool = False, dtype: str = "float32") -> Any:
    """A runtime of `base`'s sizes after `install`.

    Args:
        checked: captures of CUDA graphs are checked, as ever; else they are taken for good, or none would pass.
        dtype: of tokens and ring.
    """
    from logoformer.bundle import GraphEntry, StreamSpec, TensorSpec
    from logoformer.clips import Sampling

    try:
        from logoformer.engine import Runtime
        from logoformer.engine.cuda.open import open_cuda
        from logoformer.engine.sessions import trt
        from logoformer.engine.sessions.contract import Backend
    except ImportError:  # the folders of 2e91556
        from logoformer.engine import Engine as Runtime
        from logoformer.engine import trt_session as trt
        from logoformer.engine.cuda import open_cuda

        Backend = None

    spec = StreamSpec(slots=SLOTS, faces=FACES, frames=FRAMES, grid=4, window=(4, 2, 2), embed_dim=DIM)
    rows, places = SLOTS * FACES * CELLS, FRAMES * CELLS
    sides = {
        "frame": (
            (TensorSpec("frame", "uint8", (1, SIZE, SIZE, 3)),),
            (TensorSpec("tokens", dtype, (1, CELLS, DIM)),),
        ),
        "temporal": (
            (TensorSpec("ring", dtype, (rows, DIM)), TensorSpec("order", "int32", (places,))),
            (TensorSpec("probabilities", "float32", (1, 7)),),
        ),
    }
    trt.TrtEngine = Engine  # type: ignore[misc, assignment]
    if not checked:
        trt.capture_checked = lambda *words: (1, "")  # type: ignore[assignment]
    cuda = open_cuda("cuda-python")
    cuda._graphs[1] = (64, 64)  # type: ignore[attr-defined]

    def entry(graph: str, precision: str, batch: int = 1) -> GraphEntry:
        return GraphEntry(graph, precision, batch, graph, "", 0, 20, *sides[graph], {})

    def open_session(one: GraphEntry) -> Any:
        return trt.TrtSession(None, cuda, b"", one)  # type: ignore[arg-type]

    bundle = types.SimpleNamespace(
        stream=spec, sampling=Sampling(8, 2, 2.8, 25.0), labels=tuple("abcdefg"), image_size=SIZE, frames=FRAMES,
        graph=entry, path=Path("null.bundle"),
    )  # fmt: skip
    if Backend is None:
        return Runtime(bundle, open_session, "nothing", "fp16", (1,))
    return Runtime(bundle, Backend("nothing", "fp16", open_session))  # type: ignore[arg-type]
