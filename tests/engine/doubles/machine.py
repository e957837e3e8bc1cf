"""A machine with a card: a CUDA layer and a TensorRT that `import` finds, and a bundle with engines for it."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from logoformer.bundle import Bundle
from logoformer.engine.cuda.layer import Cuda
from logoformer.engine.cuda.open import open_cuda
from logoformer.engine.machine.environment import platform_name
from logoformer.engine.machine.targets import folder_name
from logoformer.engine.machine.tensorrt import TrtModule
from logoformer.engine.sessions import trt_memory
from logoformer.engine.sessions.trt import TrtSession
from logoformer.engine.trust.index import EngineEntry, add_to_index, write_engine
from logoformer.engine.trust.store import TrustStore

from . import container, cuda_bindings, pycuda, trt
from .gpu import Gpu

FACES = {"cuda-python": cuda_bindings, "pycuda": pycuda}
_HIDDEN = dict.fromkeys(
    ("cuda.bindings.runtime", "cuda.bindings.driver", "cuda.bindings", "pycuda", "pycuda.driver", "pycuda.autoinit",
     "tensorrt", "tensorrt_bindings", "tensorrt_rtx", "tensorrt_rtx_bindings")
)  # fmt: skip


@dataclass
class Machine:
    """What is installed: one TensorRT, one CUDA layer, one card."""

    gpu: Gpu
    trt: TrtModule
    layer: str

    @property
    def backend(self) -> str:
        """The backend's name that uses this TensorRT."""
        return "tensorrt_rtx" if self.trt.target == "rtx" else "tensorrt"

    def engine_of(self, onnx: bytes) -> bytes:
        """What a build gives here."""
        return container.pack(self.trt.version, self.trt.target, onnx)

    def open(self, bundle: Bundle, graph: str, cuda: Cuda | None = None, cache: Any = None) -> TrtSession:
        """A session on a graph of a bundle, FP32."""
        entry = bundle.graph(graph, "fp32")
        data = self.engine_of(bundle.read_graph(entry))
        return TrtSession(self.trt, cuda or open_cuda(self.layer), data, entry, cache)

    def plant_engines(self, bundle: Bundle, precision: str = "fp32", folder: Path | None = None) -> Path:
        """Writes the engines of a bundle, and vouches for them, as a build does."""
        folder = folder or bundle.path / "engines"
        target = folder_name(self.trt.target, self.trt.version, [self.gpu.sm])
        entries = []
        for graph in (entry for entry in bundle.graphs if entry.precision == precision):
            data = self.engine_of(bundle.read_graph(graph))
            file, digest = write_engine(folder, target, f"{graph.graph}.{precision}.b{graph.batch}", data)
            entries.append(
                EngineEntry(
                    graph=graph.graph,
                    precision=precision,
                    batch=graph.batch,
                    target=target,
                    file=file,
                    sha256=digest,
                    size=len(data),
                    graph_sha256=graph.sha256,
                    tensorrt_version=self.trt.version,
                    compute_capabilities=(self.gpu.sm,),
                    platform=platform_name(),
                    flags={},
                )
            )
            TrustStore().record_engine(digest, graph.sha256, file)
        add_to_index(folder, entries)
        return folder


@contextlib.contextmanager
def machine(version: str, layer: str, **card: Any) -> Iterator[Machine]:
    """Installs a machine for a while; what was done wrong on its card fails the test at the end.

    Where memory is chosen by measuring, every run takes a second, unless the test has a clock there: no kind is faster
    than another, and on a card with memory of its own nothing is tried.

    Args:
        version: a key of `trt.VERSIONS`.
        layer: 'cuda-python' or 'pycuda'.
        card: see `Gpu`.
    """
    gpu = Gpu(**card)
    module = trt.make_module(version, gpu)
    installed = {**_HIDDEN, **FACES[layer].make_modules(gpu), module.__name__: module}
    clock = trt_memory.perf_counter_ns
    if clock is time.perf_counter_ns:
        clock = mock.Mock(side_effect=itertools.count(0, 10**9))
    with mock.patch.dict(sys.modules, installed), mock.patch.object(trt_memory, "perf_counter_ns", clock):
        target = "rtx" if version.startswith("rtx") else "tensorrt"
        yield Machine(gpu, TrtModule(target, module.__name__, module.__version__, module), layer)
    assert gpu.violations == []
