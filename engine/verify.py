"""The verb `verify`: golden answers of all precisions, backends and engines here.

Each precision's clip graph and streaming pair answer the golden clips through the same sessions that will run them, on
each backend that is installed, and are compared with the PyTorch answers in the bundle. The verdict is kept per
precision and backend; what a backend said that is not installed here stays.

Each engine is judged alone: an engine of `frame` works with ONNX Runtime's `temporal` of the same precision, and the
other way about, so that a wrong kernel in one of them casts no suspicion on the other. An engine that cannot run here
is reported as built, not run, and nothing is concluded from it.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..bundle import MIXED, Bundle, Golden, GraphEntry, replace_manifest
from ..bundle.verdicts import with_verdicts
from ..errors import MachineError, RefusedError, VerificationError, command, whole_number
from .golden import GoldenCheck, answers_of_clip, answers_of_pair, check_answers, check_runtime
from .machine.log import Progress
from .runtime import load
from .sessions.backends import BACKEND_OF_TARGET, TrtDevice, cpu_backends, open_trt_device
from .sessions.contract import Session
from .trust.admit import mismatches, require_same_model
from .trust.index import (
    FAILED,
    STALE,
    VERIFIED,
    EngineEntry,
    add_to_index,
    engines_folder,
    read_engine,
    read_index,
    verdict_of,
)
from .trust.store import TrustStore

AGREES = {
    "fp32": VERIFIED,
    "fp16": "agrees, not judged: CPU kernels hide FP16 overflow; the export's rounding reference decided",
    "int8": "agrees, not judged: golden clips are too few; logoformer verify --accuracy",
}


@dataclass(frozen=True)
class VerifyRow:
    """The verdict on one graph path or engine.

    Attributes:
        what: 'clip', 'frame + temporal', or an engine's file.
        precision: of it.
        backend: what ran it, by name.
        evaluator: the same, with its version.
        share: largest logit difference over the deviation between golden clips; None when it was not run.
        agreement: share of golden clips with PyTorch's class; None when it was not run.
        verdict: 'verified', 'failed', 'built, not run', or a sentence that begins with 'agrees, not judged'.
        why_not: why it was not run here; empty when it was.
    """

    what: str
    precision: str
    backend: str
    evaluator: str
    share: float | None
    agreement: float | None
    verdict: str
    why_not: str = ""


@dataclass(frozen=True)
class VerifyReport:
    """All verdicts on one bundle.

    Attributes:
        bundle: its path.
        golden_clips: how many were answered.
        rows: the verdicts.
        export_verdicts: what the export decided, by precision.
        unrecorded: why the rows could not be written into the bundle; empty when they were, or need not be.
    """

    bundle: str
    golden_clips: int
    rows: tuple[VerifyRow, ...]
    export_verdicts: dict[str, str]
    unrecorded: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def require(self) -> None:
        """Raises when a row failed.

        Raises:
            VerificationError: names the rows.
        """
        failed = [row for row in self.rows if row.verdict == FAILED]
        if failed:
            engines = all(row.what.endswith(".engine") for row in failed)
            again = ("build", self.bundle) if engines else ("export", "CHECKPOINT", "-o", self.bundle)
            cause = "a runtime with a wrong kernel, or a graph of another checkpoint"
            exact = {row.backend for row in self.rows if row.precision == "fp32" and row.verdict == VERIFIED}
            if all(row.precision != "fp32" and row.backend in exact for row in failed):
                cause = "a backend that computes this precision otherwise than its graph says; FP32 is right there"
                again = ("inspect", self.bundle)  # says which precision runs now
            raise VerificationError(
                f"{len(failed)} of {len(self.rows)} checks failed on the golden clips.",
                cause=cause,
                next=command("logoformer", *again),
                log=[f"{row.what} {row.precision} on {row.evaluator}: {_why(row)}" for row in failed],
            )


def _why(row: VerifyRow) -> str:
    return row.why_not if row.share is None else f"off by {row.share:.2%} of the deviation between clips"


def verify(
    path: str | os.PathLike[str],
    *,
    engines_dir: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    device: int = 0,
    strict: bool = False,
    write: bool = True,
    progress: Progress | None = None,
) -> VerifyReport:
    """Verifies a bundle on this machine; an engine that failed before is tried again.

    Args:
        path: the bundle.
        engines_dir: where its engines live, if not inside.
        threads: CPU threads.
        device: which GPU runs its engines, counted from 0.
        strict: refuse engines that were built on another model of GPU, or in another power mode, before anything is
            run. Without it a warning says so.
        write: record the verdicts in the manifest and in the index of engines.
        progress: called with (stage, done, total).

    Raises:
        RefusedError: something is not what its index promises (engine files are hashed too); or see `strict`.
        MachineError: no backend on the CPU is installed.
        DeviceLostError: the device is gone.
    """
    show = progress or (lambda stage, done, total: None)
    bundle = Bundle(path)
    golden = bundle.golden()
    folder = engines_folder(bundle.path, engines_dir)
    entries = read_index(folder)
    checker = _EngineChecker(bundle, golden, folder, threads, whole_number(device, "device", 0))
    checker.require_same_model(entries, strict=strict)
    graphs: list[VerifyRow] = []
    pairs = [(backend, precision) for backend in cpu_backends() for precision in bundle.runnable]
    for done, pair in enumerate(pairs):
        show("golden clips", done, len(pairs))
        graphs += _rows(bundle, golden, *pair, threads)
    engines: list[VerifyRow] = []
    for done, entry in enumerate(entries):
        show("engines", done, len(entries))
        engines.append(checker.check(entry))
    show("golden clips", len(pairs), len(pairs))
    verdicts = {name: str(entry.get("verdict", "none")) for name, entry in bundle.precisions.items()}
    report = VerifyReport(str(bundle.path), len(golden.clips), (*graphs, *engines), verdicts)
    if write:
        try:
            # Engines keep their verdicts in their own index: the manifest would outlive them. They come first: a failed
            # one must not be chosen again, whatever becomes of the bundle.
            new = [
                replace(entry, verdict=row.verdict)
                for entry, row in zip(entries, engines, strict=True)
                if row.agreement is not None and row.verdict != entry.verdict
            ]
            if new:
                add_to_index(folder, new)
            machine = machine_named()
            replace_manifest(bundle, with_verdicts(bundle.manifest, machine, rows=[asdict(row) for row in graphs]))
        except MachineError as error:  # a read-only bundle is verified all the same
            report = replace(report, unrecorded=error.what)
    return report


def machine_named() -> str:
    """System, processor and Python; no host name."""
    return f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"


def _rows(bundle: Bundle, golden: Golden, backend: str, precision: str, threads: int | None) -> list[VerifyRow]:
    """Both paths of one precision on one backend; a graph that it cannot load has failed there."""
    with load(bundle, backend=backend, precision=precision, threads=threads) as runtime:
        try:
            checks = check_runtime(runtime, golden)
        except MachineError as error:
            paths = ("clip", "frame + temporal")
            return [VerifyRow(w, precision, backend, runtime.backend, None, None, FAILED, error.what) for w in paths]
        return [
            VerifyRow(check.what, precision, backend, runtime.backend, check.share, check.agreement,
                      AGREES.get(precision, AGREES["int8"]) if check.passed else FAILED)
            for check in checks
        ]  # fmt: skip


class _EngineChecker:
    """Runs engines of one bundle, each beside ONNX Runtime's session of the other graph."""

    def __init__(self, bundle: Bundle, golden: Golden, folder: Path, threads: int | None, device: int) -> None:
        self._bundle, self._golden, self._folder, self._threads = bundle, golden, folder, threads
        self._device = device
        self._cards: dict[str, TrtDevice | MachineError] = {}
        self._trust = TrustStore()

    def require_same_model(self, entries: Sequence[EngineEntry], *, strict: bool) -> None:
        """Warn of engines that would run here and were built on another model of GPU.

        Raises:
            RefusedError: `strict` is asked for.
        """
        live = [entry for entry in entries if verdict_of(entry, self._bundle.graphs) != STALE]
        for kind in dict.fromkeys(entry.kind for entry in live):
            card = self._card(kind)
            if not isinstance(card, MachineError):
                here = [entry for entry in live if entry.kind == kind and not mismatches(entry, card.running)]
                require_same_model(here, card.running, self._folder, strict=strict)

    def check(self, entry: EngineEntry) -> VerifyRow:
        read_engine(self._folder, entry)  # proves that the file is whole, also of one that cannot run here
        before, backend = verdict_of(entry, self._bundle.graphs), BACKEND_OF_TARGET[entry.kind]

        def not_run(why: str) -> VerifyRow:
            builder = f"TensorRT {entry.tensorrt_version} ({entry.target})"
            return VerifyRow(Path(entry.file).name, entry.precision, backend, builder, None, None, before, why)

        if before == STALE:
            return not_run("")
        card = self._card(entry.kind)
        if isinstance(card, MachineError):
            return not_run(card.what)
        wrong = mismatches(entry, card.running)
        if wrong:
            return not_run("; ".join(wrong))
        graph = next(graph for graph in self._bundle.graphs if graph.sha256 == entry.graph_sha256)
        try:
            session = card.open(self._folder, entry, graph, self._trust)
        except (RefusedError, MachineError) as error:  # not trusted, memory is short, TensorRT does not take it
            return not_run(error.what)
        try:
            check = self._run(session, graph)
        finally:
            session.close()
        verdict = VERIFIED if check.passed else FAILED
        shown = Path(entry.file).name
        return VerifyRow(shown, entry.precision, backend, card.name, check.share, check.agreement, verdict)

    def _card(self, kind: str) -> TrtDevice | MachineError:
        if kind not in self._cards:
            try:
                self._cards[kind] = open_trt_device(kind, {"device": self._device})
            except MachineError as error:
                self._cards[kind] = error
        return self._cards[kind]

    def _run(self, session: Session, graph: GraphEntry) -> GoldenCheck:
        golden, spec = self._golden, self._bundle.stream
        # An INT8 graph of a mixture is judged with the FP16 graph that it works with.
        mixed = graph.precision == "int8" == self._bundle.mixture.get(graph.graph)
        precision = MIXED if mixed else graph.precision
        with load(self._bundle, backend="onnxruntime", precision=precision, threads=self._threads) as partner:
            if graph.graph == "clip":
                answers = answers_of_clip(session, golden)
            elif graph.graph == "frame":
                answers = answers_of_pair(session, partner.session("temporal"), spec, golden, graph.batch)
            else:
                answers = answers_of_pair(partner.session("frame"), session, spec, golden, together=graph.batch)
        return check_answers(f"{graph.graph} b{graph.batch}", answers, golden, graph.precision)
