"""The index of built engines: `engines/index.json`, by default inside the bundle.

    engines/index.json
    engines/<target>/<graph>.<precision>.b<N>.<hash8>.engine

Engines are tied to a TensorRT version and to GPUs, so they live apart from the manifest: the folder may be elsewhere
(`--engines-dir`) when the bundle's own may not be written. The rules are those of `bundle/sealed.py`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...bundle import GraphEntry
from ...bundle.files import MAX_JSON_BYTES, read_regular, require_place, require_space, sha256, write_atomic, writing
from ...bundle.sealed import (
    content_name,
    count,
    only_writer,
    read_stored,
    reading_fields,
    seal,
    stored,
    sweep,
    typed,
    unseal,
)
from ...errors import MachineError, RefusedError, UsageError, advising, command

FORMAT = "logoformer-engines"
SCHEMA_VERSION = 1
MAX_ENGINE_BYTES = 2 << 30
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,120}/[A-Za-z0-9][A-Za-z0-9._+-]{0,120}\.engine")
_OURS = re.compile(r"(clip|frame|temporal)\.[a-z0-9]+\.b\d+\.[0-9a-f]{8}\.engine(\.sig)?|\.part-.*")
NOT_RUN = "built, not run"
VERIFIED, FAILED = "verified", "failed"
STALE = "stale: built from another graph than the bundle's"


@dataclass(frozen=True)
class EngineEntry:
    """One engine file.

    Attributes:
        graph, precision, batch: which graph of the bundle.
        target: folder name, such as 'rtx-1.7.1.116-sm75+sm86'.
        file: path below the engines folder.
        sha256, size: of the file.
        graph_sha256: of the ONNX file that it was built from.
        tensorrt_version: of the builder.
        compute_capabilities: GPUs that it holds code for, such as 'sm86'.
        platform: operating system and processor that it was built on and runs on.
        cuda: newest CUDA that the builder's driver knows, such as '12.6'; empty when there was no driver.
        flags: how it was built.
        plan: kernel plan summary by GPU ('sm86'), from a build of its own; empty when it was not asked for.
        verdict: 'built, not run' until a device has answered the golden clips with it; then 'verified' or 'failed'.
        fallback: {'precision': 'int8', 'reason': ...} when it replaces one that could not be built; else empty.
        gpu, power_mode: of the machine whose GPU measured its kernels, see `environment.Running`; empty where none
            did (TensorRT-RTX) and where an older version did not record them.
    """

    graph: str
    precision: str
    batch: int
    target: str
    file: str
    sha256: str
    size: int
    graph_sha256: str
    tensorrt_version: str
    compute_capabilities: tuple[str, ...]
    platform: str
    flags: Mapping[str, Any]
    plan: Mapping[str, Any] = field(default_factory=dict)
    verdict: str = NOT_RUN
    cuda: str = ""
    fallback: Mapping[str, str] = field(default_factory=dict)
    gpu: str = ""
    power_mode: str = ""

    @property
    def key(self) -> tuple[str, str, int, str, str, str]:
        """What a newer build of the same replaces; models of GPU stand side by side."""
        return self.graph, self.precision, self.batch, self.target, self.gpu, self.power_mode

    @property
    def kind(self) -> str:
        """'rtx' or 'tensorrt': which of the two reads it."""
        return "rtx" if self.target.startswith("rtx") else "tensorrt"


def engines_folder(
    bundle: str | os.PathLike[str], engines_dir: str | os.PathLike[str] | None, *, to_write: bool = False
) -> Path:
    """The folder of a bundle's engines.

    Args:
        bundle: its folder.
        engines_dir: named by the user; None: the bundle's own, which need not be there.
        to_write: a named one need not be there either.

    Raises:
        UsageError: there is no folder of that name.
        RefusedError: the bundle's own `engines` is a link: what is written below it would lie elsewhere.
    """
    if engines_dir is not None:
        if not to_write and not Path(engines_dir).is_dir():
            raise UsageError(
                f"There is no folder {engines_dir} of engines.",
                cause="a mistyped --engines-dir, or engines that were not built yet",
                next=command("logoformer", "build", bundle, "--engines-dir", engines_dir),
            )
        return Path(engines_dir)
    folder = Path(bundle) / "engines"
    if folder.is_symlink():
        raise RefusedError(
            f"{folder} is a symbolic link; links inside a bundle are not followed.",
            next=command("logoformer", "build", bundle, "--engines-dir", os.path.realpath(folder)),
        )
    return folder


def verdict_of(entry: EngineEntry, graphs: Iterable[GraphEntry]) -> str:
    """An engine's verdict, or that it was built from a graph that the bundle no longer holds."""
    current = {graph.sha256 for graph in graphs}
    return entry.verdict if entry.graph_sha256 in current else STALE


def read_index(folder: str | os.PathLike[str]) -> tuple[EngineEntry, ...]:
    """The engines of a folder; none when there is no index.

    Raises:
        RefusedError: the index is damaged, hostile or too new.
    """
    path = Path(folder) / "index.json"
    if not os.path.lexists(path):
        return ()
    bundle, *elsewhere = _folder_words(Path(folder))
    with advising(f"remove {path}, then: {command('logoformer', 'build', bundle, *elsewhere)}"):
        index = unseal(read_regular(folder, "index.json", MAX_JSON_BYTES), str(path), FORMAT, SCHEMA_VERSION)
        with reading_fields(str(path)):
            return tuple(_entry(item) for item in typed(index["engines"], list))


def read_engine(folder: str | os.PathLike[str], entry: EngineEntry) -> bytes:
    """An engine's bytes, checked against the index. Trust is not checked.

    Raises:
        RefusedError: missing, a link, or not the file that the index names.
    """
    with advising(build_command(folder, entry.graph, entry.precision, entry.kind)):
        return read_stored(folder, entry.file, entry.sha256, entry.size, MAX_ENGINE_BYTES)


def build_command(
    folder: str | os.PathLike[str],
    graph: str,
    precision: str,
    target: str,
    device: int = 0,
    *,
    every_graph: bool = False,
) -> str:
    """The command that builds an engine, or every graph of its precision, anew into that folder."""
    bundle, *elsewhere = _folder_words(Path(folder))
    words = ["logoformer", "build", bundle, "--target", target]
    words += [*([] if every_graph else ["--graph", graph]), "--precision", precision]
    words += ["--device", str(device)] if device and target == "tensorrt" else []  # RTX builds without a GPU
    return command(*words, *elsewhere)


def _folder_words(path: Path) -> list[str]:
    """The words that name a folder of engines: its bundle, or also `--engines-dir`."""
    return [str(path.parent)] if path.name == "engines" else ["BUNDLE", "--engines-dir", str(path)]


def write_engine(folder: str | os.PathLike[str], target: str, stem: str, plan: bytes) -> tuple[str, str]:
    """Writes one engine file; returns (path below the folder, SHA-256). No index names it yet."""
    file = content_name(target, stem, plan, ".engine")
    write_atomic(Path(folder) / file, plan)
    return file, sha256(plan)


def add_to_index(folder: str | os.PathLike[str], entries: Iterable[EngineEntry]) -> tuple[EngineEntry, ...]:
    """Puts entries into the index, each in place of an older build of the same, and returns all.

    Raises:
        RefusedError: the index is damaged, hostile or too new; it is left alone.
        MachineError: it may not be written, or another build is writing it.
    """
    path = Path(folder)
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    with only_writer(path):
        before = read_index(path)
        merged = {entry.key: entry for entry in (*before, *entries)}
        everything = tuple(merged[key] for key in sorted(merged))
        index = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "engines": [asdict(entry) for entry in everything]}
        write_atomic(path / "index.json", seal(index))
        leftovers = [p for name in ("*/*.engine", "*/*.engine.sig", ".part-*", "*/.part-*") for p in path.glob(name)]
        sweep(path, leftovers, _OURS, {entry.file for entry in everything}, {entry.file for entry in before})
    return everything


def require_writable(folder: str | os.PathLike[str], needed_bytes: int) -> None:
    """Checks that engines can be written, before a long build.

    Args:
        folder: of the index; not made yet when it is not there.
        needed_bytes: what will be written, about.

    Raises:
        RefusedError: the index is damaged, hostile or too new.
        MachineError: the folder may not be written, another build is writing it, or the disk has not that much left.
    """
    path = Path(folder)
    elsewhere = "name a place that may be written, and has space: --engines-dir DIR"
    existing = next((place for place in (path, *path.absolute().parents) if place.exists()), path)
    try:
        with writing(path):
            if existing == path:
                with only_writer(path):
                    read_index(path)
            else:
                require_place(existing, path)
    except MachineError as error:
        error.next = error.next if "another process" in error.what else elsewhere
        raise
    require_space(existing, needed_bytes, "the engines", elsewhere)


def _entry(item: Mapping[str, Any]) -> EngineEntry:
    file, digest, size = stored(item, _FILE)
    return EngineEntry(
        graph=typed(item["graph"], str),
        precision=typed(item["precision"], str),
        batch=count(item["batch"]),
        target=typed(item["target"], str),
        file=file,
        sha256=digest,
        size=size,
        graph_sha256=typed(item["graph_sha256"], str),
        tensorrt_version=typed(item["tensorrt_version"], str),
        compute_capabilities=tuple(typed(sm, str) for sm in typed(item["compute_capabilities"], list)),
        platform=typed(item["platform"], str),
        flags=typed(item["flags"], dict),
        plan={typed(sm, str): typed(summary, dict) for sm, summary in item["plan"].items()},
        verdict=typed(item["verdict"], str),
        cuda=typed(item.get("cuda", ""), str),
        fallback={name: typed(value, str) for name, value in item.get("fallback", {}).items()},
        gpu=typed(item.get("gpu", ""), str),
        power_mode=typed(item.get("power_mode", ""), str),
    )
