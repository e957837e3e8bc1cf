"""The trust store: entries, keys, caches, and refusal of a store that others may write."""

from __future__ import annotations

import os
import pwd
import threading
from pathlib import Path

import pytest
from logoformer.bundle.files import sha256
from logoformer.bundle.sealed import only_writer
from logoformer.engine.machine.environment import Running
from logoformer.engine.trust import store as module
from logoformer.engine.trust.store import BUILT, Contents, TrustStore, cache_name, state_folder
from logoformer.errors import LogoformerError, MachineError, RefusedError, UsageError

A, B, GRAPH = sha256(b"a"), sha256(b"b"), sha256(b"graph")


@pytest.fixture
def store(tmp_path: Path) -> TrustStore:
    store = TrustStore(tmp_path / "state")
    store.record_engine(A, GRAPH, "frame.engine")
    return store


# -------------------------------------------------------------------------------------------------------- where, who
def test_the_store_lives_where_the_user_keeps_state(monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "/some/state")
    assert state_folder() == Path("/some/state/logoformer")
    for ignored in ("", "relative/state"):
        monkeypatch.setenv("XDG_STATE_HOME", ignored)
        monkeypatch.setenv("HOME", "/home/ada")
        assert TrustStore().path == Path("/home/ada/.local/state/logoformer/trust.json")


def test_a_relative_home_does_not_move_the_store(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "somewhere")
    first = state_folder()
    monkeypatch.chdir(tmp_path)
    assert first.is_absolute() and state_folder() == first
    assert first.is_relative_to(pwd.getpwuid(os.geteuid()).pw_dir)


def test_nobody_else_may_read_or_write_it(store):
    before = os.umask(0)
    try:
        store.record_engine(B, GRAPH, "clip.engine")
        fresh = TrustStore(store.folder.parent / "deeper" / "state")
        fresh.prepare()
    finally:
        os.umask(before)
    for made in (store, fresh):
        assert made.path.stat().st_mode & 0o777 == 0o600
        assert made.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_store_that_others_may_write_is_not_believed(store, mode):
    store.path.chmod(mode)
    with pytest.raises(RefusedError, match=f"mode 0{mode:o}") as caught:
        store.require_engine(A, GRAPH, "frame.engine", None)
    assert caught.value.next == f"if only you wrote it: chmod go-w {store.path}"
    with pytest.raises(RefusedError):
        store.record_engine(B, GRAPH, "clip.engine")


def test_nor_one_in_a_folder_that_others_may_write(store):
    store.folder.chmod(0o777)
    for ask in (store.read, store.prepare):
        with pytest.raises(RefusedError, match=str(store.folder)):
            ask()


def test_nor_one_of_another_user(store, monkeypatch):
    real = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: real + 1)
    for ask in (store.read, store.prepare):
        with pytest.raises(RefusedError, match=f"belongs to user {real}"):
            ask()


@pytest.mark.parametrize("kind", ["link", "fifo", "flipped", "empty", "foreign"])
def test_nor_one_that_is_not_what_it_should_be(store, tmp_path, kind, impatient):
    data = store.path.read_bytes()
    store.path.unlink()
    if kind == "link":
        (tmp_path / "aside").write_bytes(data)
        store.path.symlink_to(tmp_path / "aside")
    elif kind == "fifo":
        os.mkfifo(store.path, 0o600)
    else:
        content = {"flipped": data.replace(b"built", b"Built"), "empty": b"", "foreign": b'{"format": "x"}\n'}[kind]
        store.path.write_bytes(content)
        store.path.chmod(0o600)
    with pytest.raises(RefusedError) as caught:
        store.require_engine(A, GRAPH, "frame.engine", None)
    assert caught.value.next


# ----------------------------------------------------------------------------------------------------------- engines
def test_what_was_recorded_is_trusted_and_nothing_else(store):
    assert store.require_engine(A, GRAPH, "frame.engine", None) == BUILT
    with pytest.raises(RefusedError) as caught:
        store.require_engine(B, GRAPH, "/x/my clip.engine", None)
    assert B in caught.value.what and str(store.path) in caught.value.what
    assert "logoformer trust '/x/my clip.engine'" in caught.value.next


def test_an_engine_is_trusted_for_the_graph_that_it_was_built_from(store):
    with pytest.raises(RefusedError, match="not trusted as an engine of the graph") as caught:
        store.require_engine(A, B, "frame.engine", None)
    assert B[:12] in caught.value.what and GRAPH[:12] in caught.value.what
    store.record_engine(A, B, "clip.engine")  # built again, from another graph
    assert store.require_engine(A, B, "frame.engine", None) == BUILT


def test_without_a_store_nothing_is_trusted(tmp_path):
    store = TrustStore(tmp_path / "nothing")
    assert store.read() == Contents()
    with pytest.raises(RefusedError, match="not trusted"):
        store.require_engine(A, GRAPH, "frame.engine", None)


def test_trust_that_is_taken_back_ends_at_once(store):
    assert store.remove(A[:8].upper()) == [A]
    with pytest.raises(RefusedError):
        store.require_engine(A, GRAPH, "frame.engine", None)


@pytest.mark.parametrize("prefix", ["", A[:7], B[:8], "zzzzzzzz"])
def test_nothing_is_removed_by_guess(store, prefix):
    with pytest.raises(UsageError):
        store.remove(prefix)
    assert store.require_engine(A, GRAPH, "frame.engine", None) == BUILT


def test_old_builds_are_forgotten_and_what_was_trusted_by_hand_is_not(store, monkeypatch):
    monkeypatch.setattr(module, "KEPT_BUILDS", 2)
    store.record_engine(B, GRAPH, "clip.engine", "trusted by hand")
    for content in (b"1", b"2"):
        store.record_engine(sha256(content), GRAPH, "x.engine")
    assert set(store.read().engines) == {B, sha256(b"1"), sha256(b"2")}


def test_builds_that_end_together_are_all_recorded(store):
    digests = [sha256(bytes([n])) for n in range(12)]
    threads = [threading.Thread(target=store.record_engine, args=(d, GRAPH, "x.engine")) for d in digests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(store.read().engines) == {A, *digests}


def test_a_writer_that_never_ends_is_not_waited_for_for_ever(store, monkeypatch):
    monkeypatch.setattr(module, "_WAIT_S", 0.05)
    with only_writer(store.folder), pytest.raises(MachineError, match="another process"):
        store.record_engine(B, GRAPH, "clip.engine")


def test_a_folder_that_cannot_be_is_said_before_a_build(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MachineError) as caught:
        TrustStore(tmp_path / "file" / "state").prepare()
    assert "XDG_STATE_HOME" in caught.value.next


# ------------------------------------------------------------------------------------------------------------ caches
ORIN = Running("tensorrt", "10.3.0", "sm87", "linux-aarch64")


def test_a_cache_is_named_by_what_it_fits():
    assert cache_name("timing", ORIN) == "timing.tensorrt10.3.0.sm87.linux-aarch64"
    assert cache_name("runtime", Running("rtx", "1.7.1", None, "linux-x86_64"), "../../x") == (
        "runtime.rtx1.7.1.linux-x86_64.....x"
    )


def test_a_cache_of_ours_comes_back(store):
    assert store.admit_cache("timing.x", 100) == (None, "")
    store.record_cache("timing.x", b"one")
    store.record_cache("timing.x", b"two")
    assert store.admit_cache("timing.x", 100) == (b"two", "")
    assert store.cache_path("timing.x").stat().st_mode & 0o777 == 0o600
    assert store.require_engine(A, GRAPH, "frame.engine", None) == BUILT


@pytest.mark.parametrize("kind", ["exchanged", "rolled back", "unknown", "link", "writable", "long", "store"])
def test_a_cache_of_anybody_else_is_not_used_and_that_is_said(store, kind):
    store.record_cache("timing.x", b"one")
    store.record_cache("timing.x", b"two")
    path, name = store.cache_path("timing.x"), "timing.x"
    if kind == "exchanged":
        path.write_bytes(b"six")
    elif kind == "rolled back":
        path.write_bytes(b"one")
    elif kind == "unknown":
        path.rename(store.cache_path(name := "timing.y"))
    elif kind == "link":
        path.rename(path.with_name("aside"))
        path.symlink_to("aside")
    elif kind == "writable":
        path.chmod(0o666)
    elif kind == "store":
        store.path.write_bytes(b"{}")
    data, why = store.admit_cache(name, 2 if kind == "long" else 100)
    assert data is None
    assert "is not used" in why


def test_an_engine_is_no_cache_and_a_cache_no_engine(store):
    store.record_cache("timing.x", b"b")
    with pytest.raises(RefusedError):
        store.require_engine(B, GRAPH, "x.engine", None)


def test_a_store_that_cannot_be_written_keeps_what_it_had(store, monkeypatch):
    def full(*_: object) -> None:
        raise MachineError("The disk is full.")

    monkeypatch.setattr(module, "_write_private", full)
    for change in (lambda: store.record_engine(B, GRAPH, "x"), lambda: store.record_cache("timing.x", b"x")):
        with pytest.raises(LogoformerError, match="disk is full"):
            change()
    assert set(store.read().engines) == {A}
