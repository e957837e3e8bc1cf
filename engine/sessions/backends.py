"""Choice of the backend and the precision that run a bundle.

'auto' takes the card where one is, with an engine that was built for it and that somebody vouches for; else ONNX
Runtime. The reason why a backend was passed over is kept.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...bundle import GRAPHS, MIXED, Bundle, GraphEntry
from ...bundle.descriptors import HeldFolder
from ...errors import MachineError, RefusedError, UsageError, VerificationError, advising, command, one_of, printable
from ..cuda.layer import Cuda
from ..cuda.open import open_cuda
from ..machine.environment import Running, platform_name
from ..machine.tensorrt import TrtModule, find_module
from ..trust.admit import admit_engine, choose_engine, read_signature
from ..trust.index import EngineEntry, engines_folder, read_index
from ..trust.store import RuntimeCache, TrustStore
from .contract import Backend, Session

_log = logging.getLogger(__name__)

BACKENDS = ("auto", "tensorrt", "tensorrt_rtx", "onnxruntime", "onnxruntime-cuda")
_TARGETS = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx"}
# First choice first. ONNX Runtime's CPU kernels compute FP16 by way of FP32: slower, and no proof of anything. On a
# card INT8, whole or mixed, comes last: whether it is faster there than FP16 only a measurement says.
_PREFERENCE = {
    "onnxruntime": ("fp32", "fp16", "int8", MIXED),
    "tensorrt": ("fp16", "fp32", "int8", MIXED),
    "tensorrt_rtx": ("fp16", "fp32", "int8", MIXED),
    "onnxruntime-cuda": ("fp16", "fp32", "int8", MIXED),
}


@dataclass(frozen=True)
class TrtDevice:
    """A GPU and the TensorRT that runs engines on it.

    Attributes:
        trt, cuda: found here.
        running: what engines must have been built for.
    """

    trt: TrtModule
    cuda: Cuda
    running: Running

    @property
    def name(self) -> str:
        """Shown to people, such as 'TensorRT 10.3.0 on sm87 by cuda-python (CUDA 12.6)'."""
        return f"{self.trt} on {self.cuda.compute_capability} by {self.cuda.name}"

    def open(
        self, folder: str | os.PathLike[str], engine: EngineEntry, graph: GraphEntry, trust: TrustStore
    ) -> Session:
        """Admits an engine and opens it.

        Raises:
            RefusedError: see `admit_engine`.
            MachineError: TensorRT does not take it, or memory is short.
            DeviceLostError: a sticky error.
        """
        from .trt import TrtSession

        data = admit_engine(folder, engine, self.running, trust=trust)
        cache = RuntimeCache(self.running, engine.sha256, trust) if self.running.target == "rtx" else None
        return TrtSession(self.trt, self.cuda, data, graph, cache)


def open_trt_device(target: str, options: Mapping[str, Any]) -> TrtDevice:
    """Find a GPU and TensorRT for it.

    Args:
        target: 'rtx' or 'tensorrt'.
        options: see `open_backend`.

    Raises:
        MachineError: one of them is not here.
    """
    cuda = open_cuda(options.get("cuda", "auto"), options.get("device", 0))
    trt = find_module(target)
    return TrtDevice(trt, cuda, Running(target, trt.version, cuda.compute_capability, platform_name()))


def open_backend(bundle: Bundle, backend: str, precision: str, options: Mapping[str, Any]) -> Backend:
    """Choose a backend and a precision.

    Args:
        bundle: opened for reading.
        backend: one of `BACKENDS`.
        precision: 'verdict', or a precision by name.
        options: `threads`: CPU threads of one session, or None; `device`: which card, from 0; `engines_dir`: where
            built engines live, or None; `cuda`: 'auto', 'cuda-python' or 'pycuda'.

    Raises:
        UsageError: an unknown backend, or the bundle has no such precision.
        VerificationError: no precision was accepted.
        MachineError: the backend is not installed, there is no card, or no engine for it.
        RefusedError: nobody vouches for the engine.
    """
    if backend not in BACKENDS:
        raise UsageError(f"Unknown backend {backend!r}.", next=f"choose from {one_of(BACKENDS)}")
    if backend in _TARGETS:
        return _open_tensorrt(bundle, backend, precision, options)
    passed_over: list[str] = []
    for name in _TARGETS if backend == "auto" else ():
        try:
            return replace(_open_tensorrt(bundle, name, precision, options), passed_over=tuple(passed_over))
        except (MachineError, RefusedError) as error:
            passed_over.append(f"{name}: {error.what}")
            _log.info("%s is not used: %s", name, printable(error.what))
            if isinstance(error, RefusedError):  # an engine is there and may not run: nobody should learn it by chance
                warnings.warn(f"{name} is passed over: {error}", RuntimeWarning, stacklevel=3)
    named = "onnxruntime" if backend == "auto" else backend
    return replace(_open_onnxruntime(bundle, named, precision, options), passed_over=tuple(passed_over))


def _open_onnxruntime(bundle: Bundle, backend: str, precision: str, options: Mapping[str, Any]) -> Backend:
    """The CPU, or the CUDA provider by name: 'auto' never takes that, as it is not judged."""
    from . import ort

    chosen = choose_precisions(bundle, precision, backend)[0]
    given, title = dict(options), "CPU"
    if backend == "onnxruntime-cuda":
        ort.require_cuda()
        given["card"], title = options.get("device", 0), "CUDA"

    def open_session(entry: GraphEntry) -> Session:
        with advising(command("logoformer", "export", "CHECKPOINT", "-o", bundle.path)):
            return ort.open_session(bundle.read_graph(entry), entry, given)

    batches = bundle.frame_batches(chosen)
    bundle.hold(_graphs(bundle, chosen, batches))
    return Backend(ort.runtime_name(title), chosen, open_session, batches)


def _graphs(bundle: Bundle, precision: str, batches: Sequence[int]) -> list[GraphEntry]:
    """Every graph that a runtime of this precision may open, now or later."""
    wanted = [(graph, 1) for graph in GRAPHS] + [("frame", batch) for batch in batches if batch > 1]
    return [bundle.graph(graph, precision, batch) for graph, batch in wanted]


def _open_tensorrt(bundle: Bundle, backend: str, precision: str, options: Mapping[str, Any]) -> Backend:
    """Cheap checks come first: without an engine or a card, TensorRT is never loaded."""
    target = _TARGETS[backend]
    wanted = choose_precisions(bundle, precision, backend)
    folder = HeldFolder(engines_folder(bundle.path, options.get("engines_dir")))
    entries = [entry for entry in read_index(folder) if entry.kind == target]
    if not entries:
        raise MachineError(
            f"{folder} holds no engine for {backend}.",
            next=command("logoformer", "build", bundle.path, "--target", target),
        )
    card = open_trt_device(target, options)
    running = card.running

    def fits(graph: GraphEntry) -> bool:
        with contextlib.suppress(MachineError):
            return bool(choose_engine(entries, graph, running, folder=folder).file)
        return False

    whole = [p for p in wanted if all(fits(bundle.graph(graph, p)) for graph in GRAPHS)]
    built = [p for p in wanted if p in {entry.precision for entry in entries}]  # of these it can be said why not
    chosen = (*whole, *built, *wanted)[0]
    trust = TrustStore()
    batches = tuple(batch for batch in bundle.frame_batches(chosen) if fits(bundle.graph("frame", chosen, batch)))
    for graph in _graphs(bundle, chosen, batches):
        engine = choose_engine(entries, graph, running, folder=folder)
        folder.hold(engine.file)
        folder.hold(f"{engine.file}.sig")
        if graph.batch == 1:  # before 'auto' settles on it; the bytes are asked about again when they are read
            shown = f"{os.fspath(folder)}/{engine.file}"
            trust.require_engine(engine.sha256, shown, read_signature(folder, engine.file))

    def open_session(entry: GraphEntry) -> Session:
        return card.open(folder, choose_engine(entries, entry, running, folder=folder), entry, trust)

    return Backend(card.name, chosen, open_session, batches)


def choose_precisions(bundle: Bundle, wanted: str, backend: str) -> tuple[str, ...]:
    """The precisions that may run, first choice first; never empty.

    Args:
        bundle: opened for reading.
        wanted: 'verdict' (those of the bundle), or a precision by name.
        backend: one of `BACKENDS` but 'auto'.

    Raises:
        VerificationError: no precision was accepted.
        UsageError: the bundle has no such precision.
    """
    if wanted != "verdict":
        if wanted not in bundle.runnable:
            raise UsageError(
                f"{bundle.path} has no precision {wanted!r}.", next=f"choose from {one_of(bundle.runnable)}"
            )
        return (wanted,)
    held = bundle.accepted
    accepted = tuple(name for name in _PREFERENCE[backend] if name in held)
    if accepted:
        return accepted
    reasons = [f"{name}: {entry.get('reason', 'no verdict')}" for name, entry in bundle.precisions.items()]
    reasons += [f"{name}: failed logoformer verify" for name in sorted(bundle.failed)]
    raise VerificationError(
        f"No precision of {bundle.path} was accepted.",
        cause="; ".join(reasons),
        next=command("logoformer", "export", "CHECKPOINT", "-o", bundle.path),
    )
