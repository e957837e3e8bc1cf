"""The user's own trust store: trusted engines, trusted keys, caches of own programs.

An engine is native code, and a hash in the same folder proves nothing: whoever can write the folder can write both.
So what this user built, or chose to trust, is remembered in a place that only this user can write:

    $XDG_STATE_HOME/logoformer/trust.json, or ~/.local/state/logoformer/trust.json

The file is sealed, replaced in one step, and refused when somebody else owns it or may write it or its folder.
"""

from __future__ import annotations

import datetime
import os
import pwd
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ...bundle.files import MAX_JSON_BYTES, atomic_path, read_regular, require_private, sha256, writing_failed
from ...bundle.sealed import hex256, only_writer, reading_fields, seal, typed, unseal
from ...errors import LogoformerError, MachineError, RefusedError, UsageError, advising, command
from ..machine.environment import Running
from .signature import SIGNATURE_BYTES, signer

FORMAT = "logoformer-trust"
SCHEMA_VERSION = 1
BUILT = "built here"
KEPT_BUILDS = 4000  # the newest; what was trusted by hand is never dropped
MAX_RUNTIME_CACHE_BYTES = 256 << 20
_WAIT_S = 10.0  # for another build that records at the same moment
_PREFIX = 8  # digits of a hash that name an entry
_LIST = command("logoformer", "trust", "--list")


@dataclass(frozen=True)
class Trusted:
    """The reason why an engine may run.

    Attributes:
        origin: 'built here', or where it came from.
        file: its name when it was recorded.
        added: day and time, UTC.
        graph: SHA-256 of the ONNX file that it was built from: as an engine of another graph it is not trusted. Empty
            in what older versions recorded, which fits no graph.
    """

    origin: str
    file: str
    added: str
    graph: str = ""


@dataclass(frozen=True)
class Contents:
    """Contents of the store.

    Attributes:
        engines: by SHA-256.
        keys: name of the owner by public Ed25519 key in hex.
        caches: SHA-256 by name; one file each, so that no older one can be put back.
    """

    engines: Mapping[str, Trusted] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    caches: Mapping[str, str] = field(default_factory=dict)


def state_folder() -> Path:
    """The folder of this user's state, by XDG's specification (relative values are ignored)."""
    named = os.environ.get("XDG_STATE_HOME", "")
    home = Path.home()
    if not home.is_absolute():  # a relative HOME would move the store with the working directory
        home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    base = Path(named) if named.startswith("/") else home / ".local" / "state"
    return base / "logoformer"


class TrustStore:
    """The store of one user.

    Every question reads the file anew: trust that was taken back ends at once.

    Args:
        folder: of `trust.json`; the user's own when None.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = state_folder() if folder is None else Path(folder)
        self.path = self.folder / "trust.json"

    def read(self) -> Contents:
        """Reads the store; empty when there is none yet.

        Raises:
            RefusedError: it is damaged, a link, or not this user's alone.
        """
        if not os.path.lexists(self.path):
            return Contents()
        with advising(f"look at {self.path}; without it nothing is trusted, and engines must be built or trusted anew"):
            require_private(self.folder.stat(), str(self.folder))
            data = read_regular(self.folder, self.path.name, MAX_JSON_BYTES, private=True)
            stored = unseal(data, str(self.path), FORMAT, SCHEMA_VERSION)
            with reading_fields(str(self.path)):
                return Contents(
                    engines={hex256(digest): _trusted(item) for digest, item in stored["engines"].items()},
                    keys={hex256(key): typed(name, str) for key, name in stored["keys"].items()},
                    caches={typed(name, str): hex256(digest) for name, digest in stored["caches"].items()},
                )

    def prepare(self) -> None:
        """Checks that something can be recorded, before a long build.

        Raises:
            RefusedError: see `read`.
            MachineError: the folder may not be written.
        """
        self._change(lambda contents: contents)

    # ----------------------------------------------------------------------------------------------------- engines
    def record_engine(self, digest: str, graph: str, file: str, origin: str = BUILT) -> None:
        """Trusts an engine, by SHA-256, as one of a graph, by SHA-256, from now on; see `Trusted`.

        Raises:
            RefusedError, MachineError: see `prepare`.
        """
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds")
        entry = Trusted(origin, file, now, graph)
        self._change(lambda contents: replace(contents, engines=_newest({**contents.engines, digest: entry})))

    def require_engine(self, digest: str, graph: str, shown: str, signature: bytes | None) -> str:
        """Checks that an engine may run in place of a graph; returns why.

        Args:
            digest: SHA-256 of the very bytes that shall run.
            graph: SHA-256 of the graph that they shall answer for.
            shown: the file, as to be named in a message and in a command.
            signature: of the file `FILE.sig`, or None.

        Returns:
            'built here', the origin that was trusted, or 'signed by ...'.

        Raises:
            RefusedError: nobody vouches for it, or the store cannot be believed.
        """
        contents = self.read()
        known = contents.engines.get(digest)
        if known is not None and known.graph == graph:
            return known.origin
        by_hand = command("logoformer", "trust", shown)
        what = f"{shown} is not trusted: SHA-256 {digest} is neither in {self.path} nor under a trusted signature."
        if known is not None and signature is None:
            what = f"{shown} is not trusted as an engine of the graph {graph[:12]}: {self.path} knows it, "
            if known.graph:
                what += f"built from the graph {known.graph[:12]}."
                cause = "an engine of another model or version was put in its place, together with its index"
            else:
                what += "without the graph that it was built from."
                cause = "it was recorded by a version of logoformer that did not keep the graph"
            advice = f"build it anew: {command('logoformer', 'build', 'BUNDLE')}"
        elif signature is None:
            cause = "it was built elsewhere, exchanged together with its index, or built by another user"
            advice = f"build it here, or, if you know where it comes from: {by_hand}"
        elif not contents.keys:
            cause = "it is signed, but no key is trusted here yet"
            advice = "logoformer trust --add-key PUBKEY, with a key that its owner gave you"
        else:
            try:
                whole = len(signature) == SIGNATURE_BYTES
                key = signer(digest, graph, signature, contents.keys) if whole else None
            except MachineError as error:  # without the package no signature counts
                raise RefusedError(what, cause=error.what, next=f"{error.next}, or: {by_hand}") from error
            if key is not None:
                return f"signed by {contents.keys[key]}"
            cause = "its signature is of another file or graph, or by a key that is not trusted here"
            advice = f"get it again from its builder, or, if you know where it comes from: {by_hand}"
        raise RefusedError(what, cause=cause, next=advice)

    # -------------------------------------------------------------------------------------------------------- keys
    def add_key(self, key: str, name: str) -> None:
        """Trusts what this public Ed25519 key (hex) signs.

        Raises:
            RefusedError, MachineError: see `prepare`.
        """
        self._change(lambda contents: replace(contents, keys={**contents.keys, key: name}))

    def remove(self, prefix: str) -> list[str]:
        """Removes engines and keys.

        Args:
            prefix: at least 8 first digits of an engine's SHA-256 or of a key.

        Returns:
            What was removed, in full.

        Raises:
            UsageError: the prefix is too short, or fits nothing.
            RefusedError, MachineError: see `prepare`.
        """
        wanted = prefix.lower()
        if len(wanted) < _PREFIX:
            raise UsageError(f"{prefix!r} is too short; {_PREFIX} digits of a hash are needed.", next=_LIST)
        contents = self.read()
        gone = [name for name in (*contents.engines, *contents.keys) if name.startswith(wanted)]
        if not gone:
            raise UsageError(f"Nothing that is trusted begins with {prefix!r}.", next=_LIST)

        def without(items: Mapping[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in items.items() if name not in gone}

        self._change(lambda now: replace(now, engines=without(now.engines), keys=without(now.keys)))
        return gone

    # ------------------------------------------------------------------------------------------------------ caches
    def cache_path(self, name: str) -> Path:
        """The file of a cache: in the store's own folder, for caches are native code."""
        return self.folder / "caches" / name

    def admit_cache(self, name: str, limit: int) -> tuple[bytes | None, str]:
        """Reads a timing cache or runtime cache that this user's own programs left.

        Args:
            name: a file name that says what it fits: kind, TensorRT, GPU.
            limit: bytes at most.

        Returns:
            Its bytes and ''; or None and why it must not be used. There being none is no reason: (None, '').
        """
        path = self.cache_path(name)
        if not os.path.lexists(path):
            return None, ""
        try:
            known = self.read().caches.get(name)
            data = read_regular(path.parent, name, limit, private=True)
        except LogoformerError as error:
            return None, f"{path} is not used: {error.what}"
        if sha256(data) != known:
            why = "no program of yours recorded it" if known is None else "it is not the file that was recorded"
            return None, f"{path} is not used: {why}"
        return data, ""

    def record_cache(self, name: str, data: bytes) -> None:
        """Writes a cache and records its hash, in place of an older one of that name.

        Raises:
            RefusedError, MachineError: see `prepare`.
        """

        def put(contents: Contents) -> Contents:  # under the lock: two programs that end together keep file and hash
            _make_private(self.cache_path(name).parent)
            _write_private(self.cache_path(name), data)
            return replace(contents, caches={**contents.caches, name: sha256(data)})

        self._change(put)

    # ------------------------------------------------------------------------------------------------------ inside
    def _change(self, change: Callable[[Contents], Contents]) -> None:
        _make_private(self.folder)
        with only_writer(self.folder, _WAIT_S):
            before = self.read()
            after = change(before)
            if after != before or not os.path.lexists(self.path):
                index = {"format": FORMAT, "schema_version": SCHEMA_VERSION, **asdict(after)}
                _write_private(self.path, seal(index))


class RuntimeCache:
    """TensorRT-RTX's kernels for one engine on one GPU, kept so that the next start is quick.

    They are native code, so they live in the trust store, outside the bundle.
    """

    def __init__(self, running: Running, engine_sha256: str, trust: TrustStore | None = None) -> None:
        self.name = cache_name("runtime", running, engine_sha256[:16])
        self._trust = trust or TrustStore()

    def load(self) -> bytes | None:
        """The cache, if it is still trusted; warns when there is one that is not."""
        data, why = self._trust.admit_cache(self.name, MAX_RUNTIME_CACHE_BYTES)
        if why:
            warnings.warn(f"{why}; kernels are compiled anew", RuntimeWarning, stacklevel=2)
        return data

    def save(self, data: bytes) -> None:
        """Keeps it; where that fails, the next start is slow again and no more than that."""
        try:
            self._trust.record_cache(self.name, data)
        except LogoformerError as error:
            warnings.warn(f"the runtime cache was not kept: {error.what}", RuntimeWarning, stacklevel=2)


def cache_name(kind: str, running: Running, key: str = "") -> str:
    """A file name for a cache of one TensorRT, one model of GPU in one power mode, and `key`.

    >>> cache_name("timing", Running("tensorrt", "10.3.0", "sm87", "linux-aarch64"))
    'timing.tensorrt10.3.0.sm87.linux-aarch64'
    """
    gpu = (running.compute_capability, running.platform, running.gpu, running.power_mode)
    parts = (kind, f"{running.target}{running.tensorrt_version}", *gpu, key)
    return ".".join(re.sub(r"[^A-Za-z0-9.+_-]", "", part) for part in parts if part)


def _newest(engines: dict[str, Trusted]) -> dict[str, Trusted]:
    built = sorted((d for d, t in engines.items() if t.origin == BUILT), key=lambda d: engines[d].added)
    dropped = set(built[:-KEPT_BUILDS])
    return {digest: entry for digest, entry in engines.items() if digest not in dropped}


def _trusted(item: Mapping[str, Any]) -> Trusted:
    graph = typed(item.get("graph", ""), str)
    return Trusted(typed(item["origin"], str), typed(item["file"], str), typed(item["added"], str), graph)


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        failed = writing_failed(error, folder)
        failed.next = "name a folder that may be written: XDG_STATE_HOME=/some/folder logoformer ..."
        raise failed from error
    require_private(status, str(folder))


def _write_private(path: Path, data: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.chmod(0o600)
        temporary.write_bytes(data)
