"""Ed25519 signatures by the real package, and what is said where it is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from logoformer.bundle.files import sha256
from logoformer.engine.trust import signature as module
from logoformer.engine.trust.admit import read_signature
from logoformer.engine.trust.signature import read_public_key, sign, signed_message, signer
from logoformer.engine.trust.store import TrustStore
from logoformer.errors import BadInputError, MachineError, RefusedError

DIGEST, GRAPH = sha256(b"engine"), sha256(b"graph")


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A private and a public key file, as OpenSSL writes them."""
    ed25519 = pytest.importorskip(
        "cryptography.hazmat.primitives.asymmetric.ed25519", reason="the extra 'sign' is not installed"
    )
    return write_keys(tmp_path, ed25519.Ed25519PrivateKey.generate())


def write_keys(folder: Path, key: object) -> tuple[Path, Path]:
    from cryptography.hazmat.primitives import serialization as s

    private, public = folder / "key.pem", folder / "key.pub"
    pem, plain = s.Encoding.PEM, s.NoEncryption()
    private.write_bytes(key.private_bytes(pem, s.PrivateFormat.PKCS8, plain))  # type: ignore[attr-defined]
    private.chmod(0o600)
    written = key.public_key().public_bytes(pem, s.PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    public.write_bytes(written)
    return private, public


@pytest.fixture
def store(tmp_path: Path) -> TrustStore:
    return TrustStore(tmp_path / "state")


def test_what_a_trusted_key_signed_may_run(keys, store):
    private, public = keys
    store.add_key(read_public_key(public), "the build farm")
    assert store.require_engine(DIGEST, GRAPH, "x.engine", sign(DIGEST, GRAPH, private)) == "signed by the build farm"


def test_a_signature_is_of_one_file_by_one_key(keys, store, tmp_path):
    private, public = keys
    store.add_key(read_public_key(public), "the build farm")
    (tmp_path / "other").mkdir()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    stranger = write_keys(tmp_path / "other", Ed25519PrivateKey.generate())[0]
    good = sign(DIGEST, GRAPH, private)
    other = sha256(b"other")
    wrong = [sign(other, GRAPH, private), sign(DIGEST, other, private), sign(GRAPH, DIGEST, private)]
    wrong += [sign(DIGEST, GRAPH, stranger), bytes([good[0] ^ 1]) + good[1:], b"", good[:63]]
    for signature in wrong:
        with pytest.raises(RefusedError, match="not trusted") as caught:
            store.require_engine(DIGEST, GRAPH, "x.engine", signature)
        assert "by a key that is not trusted here" in caught.value.cause


def test_a_signature_of_other_text_is_none(keys):
    """The same key may sign other things; a signature over the bare hash, or over another purpose, opens nothing."""
    from cryptography.hazmat.primitives import serialization

    private = serialization.load_pem_private_key(keys[0].read_bytes(), None)
    public = read_public_key(keys[1])
    assert signer(DIGEST, GRAPH, private.sign(signed_message(DIGEST, GRAPH)), [public]) == public  # type: ignore[union-attr,call-arg]
    old = b"logoformer-engine-v1 " + DIGEST.encode() + b"\n"
    bare = f"{DIGEST} {GRAPH}\n".encode()  # what `sha256sum` of the two might print
    for other in (DIGEST.encode(), bytes.fromhex(DIGEST), old, bare, signed_message(GRAPH, DIGEST)):
        assert signer(DIGEST, GRAPH, private.sign(other), [public]) is None  # type: ignore[union-attr,call-arg]


def test_a_key_that_is_taken_back_signs_nothing_any_more(keys, store):
    private, public = keys
    key = read_public_key(public)
    store.add_key(key, "the build farm")
    store.remove(key[:12])
    with pytest.raises(RefusedError) as caught:
        store.require_engine(DIGEST, GRAPH, "x.engine", sign(DIGEST, GRAPH, private))
    assert "no key is trusted here" in caught.value.cause
    assert "--add-key" in caught.value.next


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PUBLIC KEY-----\nxx\n-----END PUBLIC KEY-----\n", b"\0" * 99])
def test_what_is_no_key_is_bad_input(keys, tmp_path, content):
    path = tmp_path / "no.key"
    path.write_bytes(content)
    path.chmod(0o600)
    for read in (read_public_key, lambda p: sign(DIGEST, GRAPH, p)):
        with pytest.raises(BadInputError, match="Ed25519") as caught:
            read(path)
        assert "openssl genpkey" in caught.value.next


def test_keys_of_another_kind_are_bad_input(tmp_path):
    x25519 = pytest.importorskip(
        "cryptography.hazmat.primitives.asymmetric.x25519", reason="the extra 'sign' is not installed"
    )
    private, public = write_keys(tmp_path, x25519.X25519PrivateKey.generate())
    with pytest.raises(BadInputError, match="private Ed25519"):
        sign(DIGEST, GRAPH, private)
    with pytest.raises(BadInputError, match="public Ed25519"):
        read_public_key(public)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_a_private_key_that_others_can_read_or_write_signs_nothing(keys, mode):
    keys[0].chmod(mode)
    with pytest.raises(RefusedError, match="other users"):
        sign(DIGEST, GRAPH, keys[0])


def test_without_the_package_no_signature_counts(keys, store, monkeypatch):
    private, public = keys
    signature = sign(DIGEST, GRAPH, private)
    store.add_key(read_public_key(public), "the build farm")
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(RefusedError) as caught:
        store.require_engine(DIGEST, GRAPH, "x.engine", signature)
    assert "cryptography" in caught.value.cause
    assert "pip install 'logoformer[sign]'" in caught.value.next
    store.record_engine(DIGEST, GRAPH, "x.engine")
    store.require_engine(DIGEST, GRAPH, "x.engine", signature)  # trust by hand needs no package
    for ask in (lambda: sign(DIGEST, GRAPH, private), lambda: read_public_key(public)):
        with pytest.raises(MachineError):
            ask()


def test_the_file_beside_an_engine_is_read_with_the_same_care(tmp_path, impatient):
    folder = tmp_path / "rtx"
    folder.mkdir()
    assert read_signature(tmp_path, "rtx/a.engine") is None
    beside = folder / "a.engine.sig"
    beside.write_bytes(b"s" * 64)
    assert read_signature(tmp_path, "rtx/a.engine") == b"s" * 64
    beside.write_bytes(b"s" * 65)
    with pytest.raises(RefusedError, match="65 bytes"):
        read_signature(tmp_path, "rtx/a.engine")
    beside.unlink()
    beside.symlink_to("elsewhere")
    with pytest.raises(RefusedError):
        read_signature(tmp_path, "rtx/a.engine")


def test_the_package_is_asked_for_only_when_a_signature_is_there():
    assert "cryptography" not in vars(module)
