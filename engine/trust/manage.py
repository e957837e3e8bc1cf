"""The verb `trust`: a user's decisions about engines that were not built here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...bundle.files import read_file, sha256, write_atomic
from ...errors import RefusedError, UsageError
from .index import MAX_ENGINE_BYTES, read_index
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
    origin = _origin(path, digest)
    known = store.read().engines.get(digest)
    lines = [f"{path}", f"  SHA-256  {digest}", f"  origin   {origin}"]
    if known is not None:
        lines.append(f"  already trusted since {known.added}: {known.origin}")
    else:
        store.record_engine(digest, path.name, f"trusted by hand; {origin}")
        lines.append(f"  trusted from now on; an engine is native code. To take it back: --remove {digest[:12]}")
    data = {"file": str(path), "sha256": digest, "origin": origin, "already": known is not None}
    return TrustOutcome(tuple(lines), data)


def _origin(path: Path, digest: str) -> str:
    """The origin that the engine's index claims, without a proof.

    Raises:
        RefusedError: the index names another file of this name, or cannot be believed.
    """
    folder = path.absolute().parent.parent
    entry = next((e for e in read_index(folder) if Path(e.file).parts == path.absolute().parts[-2:]), None)
    if entry is None:
        return "unknown: no index names it"
    if entry.sha256 != digest:
        raise RefusedError(
            f"{path} is not the file that {folder}/index.json names: its SHA-256 is {digest}, not {entry.sha256}.",
            cause="a damaged copy, or an exchanged file",
            next="get it again from where it was built",
        )
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
    beside = path.with_name(f"{path.name}.sig")
    write_atomic(beside, sign(digest, key))
    return TrustOutcome((f"{beside}", f"  signs SHA-256 {digest}"), {"signature": str(beside), "sha256": digest})


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
