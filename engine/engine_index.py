"""The index of built engines: `engines/index.json`, by default inside the bundle.

    engines/index.json
    engines/<target>/<graph>.<precision>.b<N>.<hash8>.engine

Engines are tied to a TensorRT version and to GPUs, so they live apart from the manifest: the folder may be elsewhere
(`--engines-dir`) when the bundle's own may not be written. The rules are those of `bundle.py`: files named by content,
the index sealed by its own digest and replaced last.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..bundle import content_name, seal, unseal
from ..errors import RefusedError, command
from ..files import read_regular, sha256, write_atomic

FORMAT = "logoformer-engines"
SCHEMA_VERSION = 1
MAX_ENGINE_BYTES = 2 << 30
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,120}/[A-Za-z0-9][A-Za-z0-9._+-]{0,120}\.engine")
NOT_RUN = "built, not run"


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
        platform: operating system and processor that it was built for.
        flags: how it was built.
        plan: kernel plan summary by GPU ('sm86'), from a build of its own; empty when it was not asked for.
        verdict: 'built, not run' until a device has answered the golden clips with it.
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

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What a newer build of the same replaces."""
        return self.graph, self.precision, self.batch, self.target


def engines_folder(bundle: str | os.PathLike[str], engines_dir: str | os.PathLike[str] | None) -> Path:
    """Where the engines of a bundle live."""
    return Path(engines_dir) if engines_dir is not None else Path(bundle) / "engines"


def read_index(folder: str | os.PathLike[str]) -> tuple[EngineEntry, ...]:
    """The engines that stand in a folder; none when there is no index.

    Raises:
        RefusedError: the index is damaged, hostile or too new.
    """
    path = Path(folder) / "index.json"
    if not os.path.lexists(path):
        return ()
    index = unseal(read_regular(folder, "index.json", 4 << 20), str(path), FORMAT, SCHEMA_VERSION)
    try:
        return tuple(_entry(item) for item in index["engines"])
    except (KeyError, TypeError, ValueError) as error:
        raise RefusedError(
            f"{path} lacks or garbles a field: {error!r}.", cause="not written by this program"
        ) from error


def read_engine(folder: str | os.PathLike[str], entry: EngineEntry) -> bytes:
    """An engine's bytes, checked against the index. Says nothing of trust.

    Raises:
        RefusedError: missing, a link, or not the file that the index names.
    """
    data = read_regular(folder, entry.file, min(entry.size, MAX_ENGINE_BYTES))
    if len(data) != entry.size or sha256(data) != entry.sha256:
        raise RefusedError(
            f"{Path(folder) / entry.file} is not the engine that the index names.",
            cause="a damaged copy, or an exchanged file",
            next=command("logoformer", "build", "BUNDLE"),
        )
    return data


def write_engine(folder: str | os.PathLike[str], target: str, stem: str, plan: bytes) -> tuple[str, str]:
    """Writes one engine file; returns (path below the folder, SHA-256). No index names it yet."""
    file = content_name(target, stem, plan, ".engine")
    write_atomic(Path(folder) / file, plan)
    return file, sha256(plan)


def add_to_index(folder: str | os.PathLike[str], entries: Iterable[EngineEntry]) -> tuple[EngineEntry, ...]:
    """Puts entries into the index, each in place of an older build of the same, and returns all."""
    merged = {entry.key: entry for entry in (*read_index(folder), *entries)}
    everything = tuple(merged[key] for key in sorted(merged))
    index = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "engines": [asdict(entry) for entry in everything]}
    write_atomic(Path(folder) / "index.json", seal(index))
    return everything


def _entry(item: Mapping[str, Any]) -> EngineEntry:
    if not _FILE.fullmatch(str(item["file"])):
        raise ValueError(f"the path {item['file']!r:.200}")
    for name in ("batch", "size"):
        if not isinstance(item[name], int) or not 1 <= item[name] <= MAX_ENGINE_BYTES:
            raise ValueError(f"{name} {item[name]!r:.40}")
    known = {name: item[name] for name in EngineEntry.__dataclass_fields__}
    return EngineEntry(**{**known, "compute_capabilities": tuple(map(str, item["compute_capabilities"]))})
