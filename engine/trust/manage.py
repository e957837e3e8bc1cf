"""The verb `trust`: a user's decisions about engines that were not built here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...bundle.files import read_file, sha256, write_atomic
from ...errors import RefusedError, UsageError, command
from .index import MAX_ENGINE_BYTES, EngineEntry, read_index
from .signature import read_public_key, sign
from .store import TrustStore


@dataclass(frozen=True)
class TrustOutcome:
    """Outcome of one command.

    Attributes:
        lines: for people.
        data: the same as JSON.
    """

    lines: tuple[str, ...]
    data: dict[str, Any]


def manage(
    file: str | None,
    *,
    add_key: str | None = None,
    name: str = "",
    sign: str | None = None,
    key: str | None = None,
    remove: str | None = None,
    list_all: bool = False,
) -> TrustOutcome:
    """Runs the one command that was given.

    Args:
        file: an engine to trust.
        add_key: a public key to trust.
        name: whose key that is.
        sign: an engine to sign.
        key: the private key for it.
        remove: first digits of an engine's hash, or of a key.
        list_all: show what is trusted.

    Raises:
        UsageError: nothing was asked for, or more than one thing.
        RefusedError, BadInputError, MachineError: see `TrustStore`, `signature`.
    """
    store = TrustStore()
    asked = [file is not None, add_key is not None, sign is not None, remove is not None, list_all]
    if sum(asked) != 1 or (sign is None) != (key is None) or (name and add_key is None):
        raise UsageError(
            "One thing at a time: an engine FILE, --add-key PUBKEY, --sign FILE --key PRIVATE, --list or --remove HASH."
        )
    if file == "list" and not Path(file).exists():
        raise UsageError("trust has no subcommand 'list'.", next=command("logoformer", "trust", "--list"))
    if file is not None:
        return _trust(Path(file), store)
    if add_key is not None:
        return _add_key(Path(add_key), name or Path(add_key).name, store)
    if sign is not None and key is not None:
        return _sign(Path(sign), Path(key))
    if remove is not None:
        gone = store.remove(remove)
        return TrustOutcome(tuple(f"no longer trusted: {item}" for item in gone), {"removed": gone})
    return _list(store)


def _trust(path: Path, store: TrustStore) -> TrustOutcome:
    digest = sha256(read_file(path, MAX_ENGINE_BYTES))
    entry = _entry_of(path, digest)
    origin = _origin(entry)
    known = store.read().engines.get(digest)
    lines = [f"{path}", f"  SHA-256  {digest}", f"  graph    {entry.graph_sha256}", f"  origin   {origin}"]
    if known is not None and known.graph == entry.graph_sha256:
        lines.append(f"  already trusted since {known.added}: {known.origin}")
    else:
        store.record_engine(digest, entry.graph_sha256, path.name, f"trusted by hand; {origin}")
        lines.append(f"  trusted from now on; an engine is native code. To take it back: --remove {digest[:12]}")
    already = known is not None and known.graph == entry.graph_sha256
    data = {"file": str(path), "sha256": digest, "graph": entry.graph_sha256, "origin": origin, "already": already}
    return TrustOutcome(tuple(lines), data)


def _entry_of(path: Path, digest: str) -> EngineEntry:
    """The engine's entry in its index; trust binds it to the graph that is named there.

    Raises:
        RefusedError: no index names the file, it names another one, or cannot be believed.
    """
    folder = path.absolute().parent.parent
    entry = next((e for e in read_index(folder) if Path(e.file).parts == path.absolute().parts[-2:]), None)
    if entry is None:
        raise RefusedError(
            f"No index names {path}: which graph it was built from is not known.",
            cause="an engine that was copied without its folder's index.json, or is no engine of a bundle",
            next="copy the whole folder engines/ from where it was built, with its index.json",
        )
    if entry.sha256 != digest:
        raise RefusedError(
            f"{path} is not the file that {folder}/index.json names: its SHA-256 is {digest}, not {entry.sha256}.",
            cause="a damaged copy, or an exchanged file",
            next="get it again from where it was built",
        )
    return entry


def _origin(entry: EngineEntry) -> str:
    """The origin that the index claims, without a proof."""
    gpus = "+".join(entry.compute_capabilities) or "a GPU that was not recorded"
    return (
        f"its index says: {entry.graph} {entry.precision} b{entry.batch}, built on {entry.platform} with TensorRT "
        f"{entry.tensorrt_version} for {gpus}"
    )


def _add_key(path: Path, owner: str, store: TrustStore) -> TrustOutcome:
    key = read_public_key(path)
    store.add_key(key, owner)
    lines = (key, f"  whatever this key of {owner} signs is trusted from now on")
    return TrustOutcome(lines, {"key": key, "name": owner})


def _sign(path: Path, key: Path) -> TrustOutcome:
    digest = sha256(read_file(path, MAX_ENGINE_BYTES))
    graph = _entry_of(path, digest).graph_sha256
    beside = path.with_name(f"{path.name}.sig")
    write_atomic(beside, sign(digest, graph, key))
    lines = (f"{beside}", f"  signs SHA-256 {digest}", f"  as an engine of the graph {graph}")
    return TrustOutcome(lines, {"signature": str(beside), "sha256": digest, "graph": graph})


def _list(store: TrustStore) -> TrustOutcome:
    contents = store.read()
    lines = [f"{store.path}"]
    lines += [f"  key     {key}  {owner}" for key, owner in sorted(contents.keys.items())]
    newest = sorted(contents.engines.items(), key=lambda item: item[1].added)
    lines += [f"  engine  {digest}  {e.added[:19]}  {e.file}  ({e.origin})" for digest, e in newest]
    lines += [f"  cache   {digest}  {name}" for name, digest in sorted(contents.caches.items())]
    if len(lines) == 1:
        lines.append("  nothing is trusted; an engine that is built here will be")
    return TrustOutcome(tuple(lines), {"store": str(store.path), **asdict(contents)})
