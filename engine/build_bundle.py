"""The verb `build`: engines for every graph of a bundle, and the record of what was built."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..bundle import Bundle, GraphEntry
from ..errors import MachineError, UsageError, one_of
from .build import BuildOptions, BuiltEngine, build_engine
from .engine_index import EngineEntry, add_to_index, engines_folder, write_engine
from .proof import prove, prove_build
from .targets import folder_name
from .trt_module import find_module

Progress = Callable[[str, int, int], None]
_UNSUPPORTED = re.compile(r"\(SM(\d+)\): (.*?not supported)")


@dataclass(frozen=True)
class BuildReport:
    """What a build made.

    Attributes:
        folder: of the engines.
        engines: one entry a file.
        left_out: by engine file, GPUs that this graph could not be compiled for, with the builder's reason.
        seconds: build time by engine file.
    """

    folder: Path
    engines: tuple[EngineEntry, ...]
    left_out: dict[str, dict[str, str]]
    seconds: dict[str, float]


def build_bundle(
    path: str | os.PathLike[str],
    options: BuildOptions | None = None,
    *,
    precisions: Sequence[str] = (),
    graphs: Sequence[str] = (),
    per_sm: bool = False,
    plan_sm: str | None = None,
    engines_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Builds engines and files them in the engine index.

    Args:
        path: the bundle.
        options: how; by default one TensorRT-RTX engine for all its GPUs.
        precisions: which; those that the export accepted when empty.
        graphs: which; all when empty.
        per_sm: one engine for each GPU instead of one for all.
        plan_sm: file the kernel plan's summary for this GPU too.
        engines_dir: where to, if not inside the bundle.
        progress: called with (stage, done, total).

    Raises:
        UsageError: the bundle has no such precision or graph.
        RefusedError: a graph is not what the index promises.
        BadInputError: TensorRT does not parse a graph.
        VerificationError: a graph is not compiled to the precision that it promises.
        MachineError: TensorRT is missing, a graph does not compile, memory ran out, or the folder may not be written.
    """
    options = options or BuildOptions()
    bundle = Bundle(path)
    wanted = _select(bundle, precisions, graphs)
    folder = engines_folder(bundle.path, engines_dir)
    find_module(options.target)  # missing TensorRT is said before any graph is read
    jobs = [(entry, group) for entry in wanted for group in _groups(options, per_sm)]
    entries: list[EngineEntry] = []
    left_out: dict[str, dict[str, str]] = {}
    seconds: dict[str, float] = {}
    for done, (entry, group) in enumerate(jobs):
        if progress is not None:
            progress("build", done, len(jobs))
        data = bundle.read_graph(entry)
        proven = prove_build(data, bundle, entry, replace(options, compute_capabilities=group))
        built, dropped = _build(data, replace(options, compute_capabilities=proven.gpus), entry)
        dropped = {**proven.left_out, **dropped}
        target = folder_name(built.target, built.tensorrt_version, built.compute_capabilities or ("this-gpu",))
        file, digest = write_engine(folder, target, f"{entry.graph}.{entry.precision}.b{entry.batch}", built.plan)
        plan = dict(proven.plans)
        if plan_sm is not None and plan_sm not in plan:
            plan[plan_sm] = prove(data, bundle, entry, plan_sm, options).summary()
        entries.append(
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
                platform=f"{platform.system().lower()}-{platform.machine()}",
                flags={**built.flags, "left_out": dropped, "tensor_types": dict(built.tensor_types)},
                plan=plan,
            )
        )
        left_out[file], seconds[file] = dropped, built.seconds
    if progress is not None:
        progress("build", len(jobs), len(jobs))
    add_to_index(folder, entries)
    return BuildReport(
        folder, tuple(entries), {file: dropped for file, dropped in left_out.items() if dropped}, seconds
    )


def _groups(options: BuildOptions, per_sm: bool) -> list[tuple[str, ...]]:
    if options.target != "rtx":
        return [()]
    everything = options.compute_capabilities
    return [(sm,) for sm in everything] if per_sm else [everything]


def _build(data: bytes, options: BuildOptions, entry: GraphEntry) -> tuple[BuiltEngine, dict[str, str]]:
    """Builds; a GPU that the builder names as unable to run the graph is left out and the rest is built.

    TensorRT-RTX 1.7.1 has no FP32 matrix product for Turing (sm75): FP32 graphs cover the other five.
    """
    dropped: dict[str, str] = {}
    while True:
        try:
            return build_engine(data, options, shown=entry.file), dropped
        except MachineError as error:
            found = next((match for line in error.log if (match := _UNSUPPORTED.search(line))), None)
            left = tuple(sm for sm in options.compute_capabilities if found is None or sm != f"sm{found[1]}")
            if found is None or not left or left == options.compute_capabilities:
                raise
            dropped[f"sm{found[1]}"] = found[2]
            options = replace(options, compute_capabilities=left)


def _select(bundle: Bundle, precisions: Sequence[str], graphs: Sequence[str]) -> list[GraphEntry]:
    for given, known, what in (
        (precisions, list(bundle.precisions), "precision"),
        (graphs, sorted({entry.graph for entry in bundle.graphs}), "graph"),
    ):
        unknown = set(given) - set(known)
        if unknown:
            raise UsageError(
                f"{bundle.path} has no {what} {one_of(sorted(unknown))}.", next=f"choose from {one_of(known)}"
            )
    accepted = [name for name, p in bundle.precisions.items() if str(p.get("verdict", "")).startswith("accept")]
    return [
        entry
        for entry in bundle.graphs
        if entry.precision in (precisions or accepted) and (not graphs or entry.graph in graphs)
    ]
