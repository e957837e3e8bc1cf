"""Choice of the backend and the precision that run a bundle.

'auto' takes the card where one is, with an engine that was built for it and that somebody vouches for; else OpenVINO
where it is installed, else ONNX Runtime. The reason why a backend was passed over is kept.

Why that order on a CPU: benchmarks/results/openvino.json. OpenVINO runs FP32 no slower than ONNX Runtime, and INT8
several times faster where the CPU multiplies INT8; ONNX Runtime takes longer for our INT8 graphs than for FP32. INT8 is
chosen only where OpenVINO's own answers were accepted.
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
from ..machine.environment import Running, find_gpu, multiplies_int8, platform_name, read_power_mode
from ..machine.tensorrt import TrtModule, find_module
from ..trust.admit import admit_engine, choose_engine, read_signature, require_same_model
from ..trust.index import EngineEntry, engines_folder, read_index
from ..trust.store import RuntimeCache, TrustStore
from . import openvino, ort
from .contract import Backend, Session

_log = logging.getLogger(__name__)

BACKENDS = (
    "auto", "tensorrt", "tensorrt_rtx", "openvino", "onnxruntime", "onnxruntime-cuda", "openvino-gpu", "openvino-npu",
)  # fmt: skip
CPU_BACKENDS = ("openvino", "onnxruntime")  # as 'auto' takes them; `verify` judges each by its own answers
_TARGETS = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx"}
BACKEND_OF_TARGET = {target: name for name, target in _TARGETS.items()}
_MODULES: Mapping[str, Any] = {
    "openvino": openvino, "openvino-gpu": openvino, "openvino-npu": openvino,
    "onnxruntime": ort, "onnxruntime-cuda": ort,
}  # fmt: skip
# First choice first. ONNX Runtime's CPU kernels compute FP16 by way of FP32: slower, and no proof of anything. On a
# card INT8, whole or mixed, comes last: whether it is faster there than FP16 only a measurement says.
_PREFERENCE = {
    "openvino": ("fp32", "fp16", "int8", MIXED),  # see `_preference`
    "openvino-gpu": ("fp16", "fp32", "int8", MIXED),
    "openvino-npu": ("fp16", "fp32", "int8", MIXED),
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
        mode, priority = self.cuda.queue.wait_mode, self.cuda.queue.priority
        waits = "" if mode == "auto" else f", waits by {mode}"
        first = "" if priority == "normal" else f", {priority} priority"
        return f"{self.trt} on {self.cuda.compute_capability} by {self.cuda.name}{waits}{first}"

    def open(
        self,
        folder: str | os.PathLike[str],
        engine: EngineEntry,
        graph: GraphEntry,
        trust: TrustStore,
        arena: Session | None = None,
    ) -> Session:
        """Admits an engine and opens it, on the ring of another session if one is given.

        Raises:
            RefusedError: see `admit_engine`.
            MachineError: TensorRT does not take it, or memory is short.
            DeviceLostError: a sticky error.
        """
        from .trt import TrtSession

        data = admit_engine(folder, engine, self.running, trust=trust)
        cache = RuntimeCache(self.running, engine.sha256, trust) if self.running.target == "rtx" else None
        return TrtSession(self.trt, self.cuda, data, graph, cache, arena)


def open_trt_device(target: str, options: Mapping[str, Any]) -> TrtDevice:
    """Find a GPU and TensorRT for it.

    Args:
        target: 'rtx' or 'tensorrt'.
        options: see `open_backend`.

    Raises:
        MachineError: one of them is not here.
    """
    asked = {name: options[name] for name in ("device", "wait", "priority") if name in options}
    cuda = open_cuda(options.get("cuda", "auto"), **asked)
    trt = find_module(target)
    gpu = find_gpu(cuda.device)
    model = "" if gpu is None else gpu.model
    sm, mode = cuda.compute_capability, read_power_mode()
    here = Running(target, trt.version, sm, platform_name(), model, mode, cuda.device)
    return TrtDevice(trt, cuda, here)


def open_backend(bundle: Bundle, backend: str, precision: str, options: Mapping[str, Any]) -> Backend:
    """Choose a backend and a precision.

    Args:
        bundle: opened for reading.
        backend: one of `BACKENDS`.
        precision: 'verdict', or a precision by name.
        options: `threads`: CPU threads of one session, or None; `device`: which card, from 0; `engines_dir`: where
            built engines live, or None; `cuda`: 'auto', 'cuda-python' or 'pycuda'; `wait`: one of `queue.WAITS`;
            `priority`: one of `queue.PRIORITIES`; `strict`: refuse engines of another model of GPU.

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
                warnings.warn(f"{name} is passed over: {error.line}", RuntimeWarning, stacklevel=3)
    if backend == "auto":
        try:
            return replace(_open_onnx(bundle, "openvino", precision, options), passed_over=tuple(passed_over))
        except (MachineError, VerificationError) as error:  # not installed, or its answers were refused
            passed_over.append(f"openvino: {error.what}")
            _log.info("openvino is not used: %s", printable(error.what))
        backend = "onnxruntime"
    return replace(_open_onnx(bundle, backend, precision, options), passed_over=tuple(passed_over))


def _open_onnx(bundle: Bundle, backend: str, precision: str, options: Mapping[str, Any]) -> Backend:
    """A runtime that takes the ONNX graphs; those off the CPU by name only: none judges them."""
    module = _MODULES[backend]
    chosen = choose_precisions(bundle, precision, backend)[0]
    given, title = dict(options), "CPU"
    if backend == "onnxruntime-cuda":
        ort.require_cuda()
        given["card"], title = options.get("device", 0), "CUDA"
    elif backend != "openvino" and module is openvino:
        given["card"] = title = openvino.find_openvino_device(
            backend.removeprefix("openvino-").upper(), options.get("device", 0)
        )
    name = module.runtime_name(title)

    def open_session(entry: GraphEntry, arena: Session | None = None) -> Session:
        with advising(command("logoformer", "export", "CHECKPOINT", "-o", bundle.path)):
            session: Session = module.open_session(bundle.read_graph(entry), entry, {**given, "arena": arena})
            return session

    frames, temporals = bundle.frame_batches(chosen), bundle.temporal_batches(chosen)
    bundle.hold(_graphs(bundle, chosen, frames, temporals))
    return Backend(name, chosen, open_session, frames, temporals)


def _graphs(bundle: Bundle, precision: str, frames: Sequence[int], temporals: Sequence[int]) -> list[GraphEntry]:
    """Every graph that a runtime of this precision may open, now or later."""
    wanted = [(graph, 1) for graph in GRAPHS]
    for graph, batches in (("frame", frames), ("temporal", temporals)):
        wanted += [(graph, batch) for batch in batches if batch > 1]
    return [bundle.graph(graph, precision, batch) for graph, batch in wanted]


def _open_tensorrt(bundle: Bundle, backend: str, precision: str, options: Mapping[str, Any]) -> Backend:
    """Cheap checks come first: without an engine or a card, TensorRT is never loaded."""
    target = _TARGETS[backend]
    wanted = choose_precisions(bundle, precision, backend)
    folder = HeldFolder(engines_folder(bundle.path, options.get("engines_dir")))
    entries = [entry for entry in read_index(folder) if entry.kind == target]
    if not entries:
        words = ["--device", str(options["device"])] if options.get("device") and target == "tensorrt" else []
        raise MachineError(
            f"{os.fspath(folder)} holds no engine for {backend}.",
            next=command("logoformer", "build", bundle.path, "--target", target, *words),
        )
    card = open_trt_device(target, options)
    here = card.running

    def fits(graph: GraphEntry) -> bool:
        with contextlib.suppress(MachineError):
            return bool(choose_engine(entries, graph, here, folder=folder).file)
        return False

    whole = [p for p in wanted if all(fits(bundle.graph(graph, p)) for graph in GRAPHS)]
    built = [p for p in wanted if p in {entry.precision for entry in entries}]  # of these it can be said why not
    chosen = (*whole, *built, *wanted)[0]
    trust = TrustStore()
    frames = tuple(batch for batch in bundle.frame_batches(chosen) if fits(bundle.graph("frame", chosen, batch)))
    temporals = tuple(b for b in bundle.temporal_batches(chosen) if fits(bundle.graph("temporal", chosen, b)))
    engines: list[EngineEntry] = []
    for graph in _graphs(bundle, chosen, frames, temporals):
        engine = choose_engine(entries, graph, here, folder=folder)
        engines.append(engine)
        folder.hold(engine.file)
        folder.hold(f"{engine.file}.sig")
        if graph.batch == 1:  # before 'auto' settles on it; the bytes are asked about again when they are read
            shown = f"{os.fspath(folder)}/{engine.file}"
            trust.require_engine(engine.sha256, graph.sha256, shown, read_signature(folder, engine.file))

    require_same_model(engines, here, folder, strict=bool(options.get("strict")))

    def open_session(entry: GraphEntry, arena: Session | None = None) -> Session:
        return card.open(folder, choose_engine(entries, entry, here, folder=folder), entry, trust, arena)

    return Backend(card.name, chosen, open_session, frames, temporals)


def _preference(bundle: Bundle, backend: str) -> tuple[str, ...]:
    """Precisions, first choice first; INT8 leads on OpenVINO where it was judged there."""
    usual = _PREFERENCE[backend]
    if backend != "openvino" or not multiplies_int8():
        return usual
    first = [name for name in ("int8", MIXED) if name in bundle.judged_on(backend)]
    return (*first, *(name for name in usual if name not in first))


def cpu_backends() -> tuple[str, ...]:
    """Backends on the CPU that can answer here.

    Raises:
        MachineError: none is installed.
    """
    found: list[str] = []
    missing: MachineError | None = None
    for name in CPU_BACKENDS:
        try:
            _MODULES[name].runtime_name()
            found.append(name)
        except MachineError as error:
            missing = missing or error
    if not found and missing is not None:
        raise missing
    return tuple(found)


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
    held = bundle.accepted_on(backend)
    for note in bundle.void_notes():
        warnings.warn(printable(note), RuntimeWarning, stacklevel=3)
    accepted = tuple(name for name in _preference(bundle, backend) if name in held)
    if accepted:
        return accepted
    given = {name: str(entry.get("reason", "no verdict")) for name, entry in bundle.precisions.items()}
    reasons = [f"{name}: {reason}" for name, reason in {**given, **bundle.void}.items()]
    reasons += [f"{name}: failed logoformer verify" for on, name in sorted(bundle.verdicts.failed) if on == backend]
    reasons += [f"{name}: {told}" for (on, name), told in bundle.verdicts.judged.items() if on == backend]
    raise VerificationError(
        f"No precision of {bundle.path} was accepted.",
        cause="; ".join(reasons),
        next=command("logoformer", "export", "CHECKPOINT", "-o", bundle.path),
    )
