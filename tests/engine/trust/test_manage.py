"""The verb `trust`, by its command line."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from logoformer.bundle.files import sha256
from logoformer.cli import main as cli
from logoformer.engine.trust.admit import Running, admit_engine
from logoformer.engine.trust.index import EngineEntry, add_to_index, write_engine
from logoformer.engine.trust.store import TrustStore
from logoformer.errors import RefusedError

PLAN = b"engine code " * 50
ORIN = Running("tensorrt", "10.3.0", "sm87", "linux-aarch64")


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrustStore:
    """This user's own store, empty."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    return TrustStore()


@pytest.fixture
def entry(tmp_path: Path) -> EngineEntry:
    """An engine that came with a bundle from elsewhere."""
    file, digest = write_engine(tmp_path / "my engines", "tensorrt10.3.0-sm87", "frame.fp16.b1", PLAN)
    entry = EngineEntry(
        graph="frame", precision="fp16", batch=1, target="tensorrt10.3.0-sm87", file=file, sha256=digest, size=600,
        graph_sha256="0" * 64, tensorrt_version="10.3.0", compute_capabilities=("sm87",), platform="linux-aarch64",
        flags={},
    )  # fmt: skip
    add_to_index(tmp_path / "my engines", [entry])
    return entry


@pytest.fixture
def path(entry: EngineEntry, tmp_path: Path) -> Path:
    return tmp_path / "my engines" / entry.file


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A key pair of OpenSSL's form: `key.pem`, and `key.pub` beside it."""
    ed25519 = pytest.importorskip(
        "cryptography.hazmat.primitives.asymmetric.ed25519", reason="the extra 'sign' is not installed"
    )
    from cryptography.hazmat.primitives import serialization as s

    made = ed25519.Ed25519PrivateKey.generate()
    pem = made.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    public = made.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(pem)
    (tmp_path / "key.pem").chmod(0o600)
    (tmp_path / "key.pub").write_bytes(public)
    return tmp_path / "key.pem"


@pytest.fixture
def trust(capsys: pytest.CaptureFixture[str]):
    def run(*words: object) -> str:
        assert cli.main(["trust", *map(str, words)]) == 0
        return capsys.readouterr().out

    return run


def test_an_engine_from_elsewhere_is_shown_and_trusted(entry, path, store, trust):
    with pytest.raises(RefusedError) as refused:
        admit_engine(path.parents[1], entry, ORIN)
    advised = refused.value.next.partition("from: ")[2]
    said = trust(*shlex.split(advised)[2:])
    for name in (entry.sha256, "frame fp16 b1", "built on linux-aarch64 with TensorRT 10.3.0 for sm87"):
        assert name in said
    assert "trusted from now on" in said
    assert admit_engine(path.parents[1], entry, ORIN) == PLAN
    assert "already trusted since" in trust(path)


def test_as_json(entry, path, trust):
    first = json.loads(trust(path, "--json"))
    assert (first["sha256"], first["already"]) == (entry.sha256, False)
    listed = json.loads(trust("--list", "--json"))
    assert listed["engines"][entry.sha256]["origin"].startswith("trusted by hand; its index says: frame fp16")


def test_a_file_that_no_index_names_has_no_graph_to_be_trusted_for(tmp_path, store, fails, key):
    (tmp_path / "lone.engine").write_bytes(PLAN)
    assert "index.json" in fails(4, "trust", tmp_path / "lone.engine", names=("which graph", "lone.engine"))
    fails(4, "trust", "--sign", tmp_path / "lone.engine", "--key", key)
    assert store.read().engines == {}


def test_an_exchanged_engine_is_not_trusted_by_its_name(path, store, fails):
    path.write_bytes(b"evil code!! " * 50)
    fails(4, "trust", path, names=(path, sha256(b"evil code!! " * 50)))
    assert store.read().engines == {}


def test_what_is_trusted_can_be_listed_and_taken_back(entry, path, store, trust, fails):
    assert "nothing is trusted" in trust("--list")
    assert "Next: logoformer trust --list" in fails(2, "trust", "list")
    trust(path)
    store.record_cache("timing.x", b"x")
    said = trust("--list")
    assert entry.sha256 in said and "timing.x" in said and str(store.path) in said
    assert entry.sha256 in trust("--remove", entry.sha256[:12])
    assert store.read().engines == {}
    fails(2, "trust", "--remove", entry.sha256[:12])


def test_signing_in_one_place_and_running_in_another(entry, path, store, key, trust, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "the builder"))
    said = trust("--sign", path, "--key", key)
    assert entry.sha256 in said and path.with_name(path.name + ".sig").stat().st_size == 64
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    with pytest.raises(RefusedError) as refused:
        admit_engine(path.parents[1], entry, ORIN)
    assert "--add-key" in refused.value.next
    said = trust("--add-key", key.with_suffix(".pub"), "--name", "the \x1b[31mfarm")
    assert "\x1b" not in said
    assert admit_engine(path.parents[1], entry, ORIN) == PLAN
    assert store.read().engines == {}
    assert "farm" in trust("--list")


def test_drill_a_signature_moved_to_another_engine(entry, path, key, trust):
    trust("--add-key", key.with_suffix(".pub"))
    trust("--sign", path, "--key", key)
    folder, signature = path.parents[1], path.with_name(path.name + ".sig").read_bytes()
    file, digest = write_engine(folder, entry.target, "frame.fp16.b1", b"evil")
    (folder / f"{file}.sig").write_bytes(signature)
    evil = EngineEntry(**{**vars(entry), "file": file, "sha256": digest, "size": 4})
    with pytest.raises(RefusedError, match="not trusted"):
        admit_engine(folder, evil, ORIN)


def test_drill_a_signed_engine_under_another_graph(entry, path, key, trust):
    trust("--add-key", key.with_suffix(".pub"))
    trust("--sign", path, "--key", key)
    assert admit_engine(path.parents[1], entry, ORIN) == PLAN
    newer = EngineEntry(**{**vars(entry), "graph_sha256": "1" * 64})
    with pytest.raises(RefusedError, match="not trusted") as caught:
        admit_engine(path.parents[1], newer, ORIN)
    assert "of another file or graph" in caught.value.cause


@pytest.mark.parametrize(
    "words",
    [[], ["x", "--list"], ["--sign", "x"], ["--key", "x"], ["--list", "--remove", "x" * 9], ["--name", "n", "--list"]],
)  # fmt: skip
def test_one_thing_at_a_time(fails, words):
    assert "One thing at a time" in fails(2, "trust", *words)


def test_files_that_are_not_there_or_no_files(fails, tmp_path, key):
    fails(3, "trust", tmp_path / "none.engine", names=("none.engine",))
    fails(4, "trust", tmp_path)
    fails(3, "trust", "--add-key", key)
    fails(3, "trust", "--sign", tmp_path / "none", "--key", key)
