"""The verb `build`: engines for every graph of a bundle, and the record of what was built."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...bundle import MIXED, Bundle, GraphEntry
from ...errors import BadInputError, MachineError, UsageError, one_of, printable
from ..machine.environment import platform_name, read_power_mode, running
from ..machine.log import OverallProgress, Progress
from ..machine.memory import MIB
from ..machine.targets import folder_name
from ..machine.tensorrt import find_module
from ..trust.index import EngineEntry, add_to_index, engines_folder, require_writable, write_engine
from ..trust.store import TrustStore, cache_name
from .compile import BuildOptions, BuiltEngine
from .process import build_engine, inspect_engine
from .proof import prove, prove_build, prove_inspected

_log = logging.getLogger(__name__)

MAX_TIMING_CACHE_BYTES = 256 * MIB
_UNSUPPORTED = re.compile(r"\(SM(\d+)\): (.*?not supported)")


@dataclass(frozen=True)
class BuildReport:
    """Engines that a build made, and what was left out.

    Attributes:
        folder: of the engines.
        engines: one entry a file.
        left_out: by engine file, GPUs that this graph could not be compiled for, with the builder's reason.
        seconds: build time by engine file.
        notes: what a person should know: a precision that another one replaces, a cache that was not used.
    """

    folder: Path
    engines: tuple[EngineEntry, ...]
    left_out: dict[str, dict[str, str]]
    seconds: dict[str, float]
    notes: tuple[str, ...]


def build_bundle(
    path: str | os.PathLike[str],
    options: BuildOptions | None = None,
    *,
    precisions: Sequence[str] = (),
    graphs: Sequence[str] = (),
    per_sm: bool = False,
    plan_sm: str | None = None,
    engines_dir: str | os.PathLike[str] | None = None,
    allow_fallback: bool = False,
    trust: TrustStore | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Build the engines of a bundle, record them in the user's trust store and index them.

    Args:
        path: the bundle.
        options: how; by default one TensorRT-RTX engine for all its GPUs.
        precisions: which; those that the export accepted when empty.
        graphs: which; all when empty.
        per_sm: one engine for each GPU instead of one for all.
        plan_sm: file the kernel plan's summary for this GPU too.
        engines_dir: where to, if not inside the bundle.
        allow_fallback: where an INT8 graph cannot be built, build its FP16 graph, and record why.
        trust: where to record; the user's own store when None.
        progress: called with (stage, done, total).

    Raises:
        UsageError: the bundle has no such precision or graph.
        RefusedError: a graph is not what the index promises, or the trust store is not this user's alone.
        BadInputError: TensorRT does not parse a graph.
        VerificationError: a graph is not compiled to the precision that it promises.
        MachineError: TensorRT is missing, a graph does not compile, memory ran out, or a folder may not be written.
    """
    options = options or BuildOptions()
    bundle = Bundle(path)
    wanted = _select(bundle, precisions, graphs)
    folder = engines_folder(bundle.path, engines_dir, to_write=True)
    find_module(options.target)  # missing TensorRT is said before any graph is read
    store = trust or TrustStore()
    store.prepare()
    require_writable(folder, sum(entry.size for entry in wanted))
    work = _Work(bundle, options, folder, store, plan_sm, progress)
    gpus = options.compute_capabilities  # none with TensorRT, which builds for the one that is here
    groups = [(sm,) for sm in gpus] if per_sm and gpus else [gpus]
    jobs = [(entry, group) for entry in wanted for group in groups]
    for number, (entry, group) in enumerate(jobs):  # `jobs` may grow
        work.name = f"{entry.graph} {entry.precision} ({number + 1}/{len(jobs)})"
        data = bundle.read_graph(entry)
        try:
            compiled = work.compile(data, entry, group)
        except (MachineError, BadInputError) as error:
            other = _fallback_for(bundle, entry)
            if other is None:
                raise
            if not allow_fallback:
                error.next = f"--allow-fallback builds fp16 in its place and says so; or: {error.next}"
                raise
            work.note_fallback(other, entry, error)
            if (other, group) not in jobs:
                jobs.append((other, group))
        else:
            work.file(data, entry, *compiled)
    entries = tuple(replace(e, fallback=work.fallbacks.get(e.graph_sha256, {})) for e in work.entries)
    add_to_index(folder, entries)
    left_out = {entry.file: entry.flags["left_out"] for entry in entries if entry.flags["left_out"]}
    return BuildReport(folder, entries, left_out, work.seconds, tuple(work.notes))


@dataclass
class _Work:
    """The state of one build: its settings, and the entries, notes and times collected so far."""

    bundle: Bundle
    options: BuildOptions
    folder: Path
    store: TrustStore
    plan_sm: str | None
    progress: Progress | None
    name: str = ""
    entries: list[EngineEntry] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    fallbacks: dict[str, dict[str, str]] = field(default_factory=dict)  # by the SHA-256 of the FP16 graph

    def compile(
        self, data: bytes, entry: GraphEntry, group: tuple[str, ...]
    ) -> tuple[BuiltEngine, dict[str, str], dict[str, Any]]:
        """Prove and build; returns the engine, the GPUs left out, and kernel plans by GPU.

        A GPU that the builder names as unable to run the graph is left out and the rest is built.

        TensorRT-RTX 1.7.1 has no FP32 matrix product for Turing (sm75): FP32 graphs cover the other five.
        """
        options = replace(self.options, compute_capabilities=group)
        proven = prove_build(data, self.bundle, entry, options)
        options, dropped = replace(options, compute_capabilities=proven.gpus), dict(proven.left_out)
        while True:
            try:
                built = self._with_timing_cache(data, options, entry)
                plans = dict(proven.plans) if options.target == "rtx" else self._inspected(data, options, entry, built)
                return built, dropped, plans
            except MachineError as error:
                found = next((match for line in error.log if (match := _UNSUPPORTED.search(line))), None)
                left = tuple(sm for sm in options.compute_capabilities if found is None or sm != f"sm{found[1]}")
                if found is None or not left or left == options.compute_capabilities:
                    raise
                dropped[f"sm{found[1]}"] = found[2]
                options = replace(options, compute_capabilities=left)

    def _inspected(
        self, data: bytes, options: BuildOptions, entry: GraphEntry, built: BuiltEngine
    ) -> dict[str, dict[str, Any]]:
        """A device's kernel plan, checked against the promise; a note where there is none."""
        try:
            found = inspect_engine(data, built.plan, options, shown=entry.file)
        except MachineError as error:
            self.notes.append(
                f"{entry.graph} {entry.precision}: TensorRT does not tell its kernels ({error.what}); nothing proves "
                "that the precision was kept"
            )
            return {}
        return prove_inspected(found, self.bundle, entry)

    def file(
        self, data: bytes, entry: GraphEntry, built: BuiltEngine, dropped: dict[str, str], plan: dict[str, Any]
    ) -> None:
        """Write one engine file and record it in the trust store; it is indexed later."""
        if self.plan_sm is not None and self.plan_sm not in plan:
            like = replace(self.options, hardware_compatible=False)  # which TensorRT-RTX does not know
            plan[self.plan_sm] = prove(data, self.bundle, entry, self.plan_sm, like).summary()
        target = folder_name(built.target, built.tensorrt_version, built.compute_capabilities or ("unknown",))
        file, digest = write_engine(self.folder, target, f"{entry.graph}.{entry.precision}.b{entry.batch}", built.plan)
        self.store.record_engine(digest, entry.sha256, file)
        self.entries.append(
            EngineEntry(
                graph=entry.graph,
                precision=entry.precision,
                batch=entry.batch,
                target=target,
                file=file,
                sha256=digest,
                size=len(built.plan),
                graph_sha256=entry.sha256,
                tensorrt_version=built.tensorrt_version,
                compute_capabilities=built.compute_capabilities,
                platform=platform_name(),
                cuda=built.cuda,
                gpu=built.gpu,
                power_mode=read_power_mode() if built.gpu else "",
                flags={
                    **built.flags,
                    "left_out": dropped,
                    "tensor_types": dict(built.tensor_types),
                    "peak_bytes": built.peak_bytes,
                },
                plan=plan,
            )
        )
        self.seconds[file] = built.seconds

    def note_fallback(self, other: GraphEntry, entry: GraphEntry, error: MachineError | BadInputError) -> None:
        """Record that a graph is built because another one could not be."""
        reason = " ".join((error.what, *error.log[-1:]))
        self.fallbacks[other.sha256] = {"precision": entry.precision, "reason": reason}
        self.notes.append(f"{entry.graph} {entry.precision} was NOT built; {other.precision} takes its place: {reason}")

    def _with_timing_cache(self, data: bytes, options: BuildOptions, entry: GraphEntry) -> BuiltEngine:
        """Build with the timing cache of this GPU, if this user's own programs wrote it."""
        known, name = None, ""
        if options.target == "tensorrt":
            name = cache_name("timing", running("tensorrt", find_module("tensorrt").version, options.device))
            known, why = self.store.admit_cache(name, MAX_TIMING_CACHE_BYTES)
            self.notes += [why] if why and why not in self.notes else []
        _log.info("building %s for %s", printable(entry.file), options.target)
        built = build_engine(data, options, self._steps(), shown=entry.file, timing_cache=known or b"")
        if name and built.timing_cache is not None and built.timing_cache != known:
            self.store.record_cache(name, built.timing_cache)
        return built

    def _steps(self) -> Progress | None:
        """Progress of one engine in hundredths, as one stage, for an estimate of the time left."""
        tell, name, overall = self.progress, self.name, OverallProgress()
        if tell is None:
            return None
        return lambda phase, done, total: tell(name, int(100 * overall(phase, done, total)), 100)


def _fallback_for(bundle: Bundle, entry: GraphEntry) -> GraphEntry | None:
    """The FP16 graph that may be built in place of an INT8 one, or None."""
    if entry.precision != "int8":
        return None
    wanted = (entry.graph, "fp16", entry.batch)
    return next((g for g in bundle.graphs if (g.graph, g.precision, g.batch) == wanted), None)


def _select(bundle: Bundle, precisions: Sequence[str], graphs: Sequence[str]) -> list[GraphEntry]:
    for given, known, what in (
        (precisions, list(bundle.runnable), "precision"),
        (graphs, sorted({entry.graph for entry in bundle.graphs}), "graph"),
    ):
        unknown = set(given) - set(known)
        if unknown:
            raise UsageError(
                f"{bundle.path} has no {what} {one_of(sorted(unknown))}.", next=f"choose from {one_of(known)}"
            )
    accepted = [name for name, p in bundle.precisions.items() if str(p.get("verdict", "")).startswith("accept")]
    wanted = precisions or (*accepted, *((MIXED,) if bundle.mixture else ()))
    mixture = bundle.mixture if MIXED in wanted else {}
    return [
        entry
        for entry in bundle.graphs
        if (entry.precision in wanted or mixture.get(entry.graph) == entry.precision)
        and (not graphs or entry.graph in graphs)
    ]
