"""Ed25519 signatures of engines, for fleets whose engines are built in one place.

A detached signature `FILE.sig` is the 64 raw bytes over one line of text that names the engine and the ONNX graph that
it was built from, each by its SHA-256. OpenSSL can make and check one too; no signature of another purpose fits:

    logoformer-engine-v2 <SHA-256 of the engine in hex> <SHA-256 of the graph in hex>

Without the graph (`v1`, no longer taken) a signed engine of an older model could be put under a newer one's name.

The arithmetic is the package `cryptography`'s (the extra `sign`). Without it no signature counts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ...bundle.files import read_file, read_regular
from ...errors import BadInputError, MachineError, RefusedError, missing_package

SIGNATURE_BYTES = 64
_MAX_KEY_BYTES = 64 << 10


def signed_message(digest: str, graph: str) -> bytes:
    """The bytes to sign for an engine of that SHA-256, built from the graph of that SHA-256."""
    return f"logoformer-engine-v2 {digest} {graph}\n".encode("ascii")


def sign(digest: str, graph: str, key_file: str | os.PathLike[str]) -> bytes:
    """Signs that an engine was built from a graph.

    Args:
        digest: SHA-256 of the engine in hex.
        graph: SHA-256 of the ONNX file in hex.
        key_file: a private Ed25519 key as PEM without a password, readable by its owner alone.

    Raises:
        MachineError: the package `cryptography` is missing.
        RefusedError: others may read or write the key.
        BadInputError: it is no such key.
    """
    crypto = _cryptography("Signing an engine")
    path = Path(key_file)
    data = read_regular(path.parent, path.name, _MAX_KEY_BYTES, private=True)
    if path.stat().st_mode & 0o077:
        raise RefusedError(
            f"{path} can be read by other users: it is no secret.", next="make a new key, and keep it at mode 0600"
        )
    key = _key(path, "private", crypto, lambda: crypto.load_pem_private_key(data, password=None))
    signed: bytes = key.sign(signed_message(digest, graph))
    return signed


def read_public_key(key_file: str | os.PathLike[str]) -> str:
    """A public Ed25519 key as 64 hex digits.

    Args:
        key_file: PEM, as `openssl pkey -pubout` writes it.

    Raises:
        MachineError: the package `cryptography` is missing.
        BadInputError: it is no such key.
    """
    crypto = _cryptography("Reading a key")
    data = read_file(key_file, _MAX_KEY_BYTES)
    key = _key(key_file, "public", crypto, lambda: crypto.load_pem_public_key(data))
    raw: bytes = key.public_bytes_raw()
    return raw.hex()


def signer(digest: str, graph: str, signature: bytes, keys: Iterable[str]) -> str | None:
    """The first of these public keys (hex) that signed this engine for this graph, or None.

    Raises:
        MachineError: the package `cryptography` is missing.
    """
    crypto = _cryptography("Checking a signature")
    message = signed_message(digest, graph)
    for key in keys:
        try:
            crypto.Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(signature, message)
        except (crypto.InvalidSignature, ValueError):
            continue
        return key
    return None


def _key(path: str | os.PathLike[str], kind: str, crypto: SimpleNamespace, load: Callable[[], Any]) -> Any:
    """The key that `load` reads, if it is of the kind 'private' or 'public'."""
    try:
        key, why = load(), "a key of another kind"
    except (ValueError, TypeError, crypto.UnsupportedAlgorithm) as error:
        key, why = None, str(error)
    if not isinstance(key, crypto.Ed25519PrivateKey if kind == "private" else crypto.Ed25519PublicKey):
        make = "openssl genpkey -algorithm ed25519 -out key.pem && openssl pkey -in key.pem -pubout -out key.pub"
        raise BadInputError(f"{path} is not a {kind} Ed25519 key in PEM: {why}", next=make)
    return key


def _cryptography(purpose: str) -> SimpleNamespace:
    try:
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
    except ModuleNotFoundError as error:
        raise missing_package("cryptography", "sign", purpose) from error
    except ImportError as error:
        raise MachineError(
            f"{purpose} needs the package cryptography, which does not import: {error}",
            next="pip install --force-reinstall cryptography",
        ) from error
    return SimpleNamespace(
        InvalidSignature=InvalidSignature,
        UnsupportedAlgorithm=UnsupportedAlgorithm,
        Ed25519PrivateKey=Ed25519PrivateKey,
        Ed25519PublicKey=Ed25519PublicKey,
        load_pem_private_key=load_pem_private_key,
        load_pem_public_key=load_pem_public_key,
    )
