from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logoformer.bundle.files import read_file, read_regular, sha256, writing_failed
from logoformer.errors import BadInputError, RefusedError


@pytest.fixture
def bundle(tmp_path) -> Path:
    """A folder with one file and one file in a sub-folder, beside a secret."""
    root = tmp_path / "bundle"
    (root / "graphs").mkdir(parents=True)
    (root / "manifest.json").write_bytes(b"manifest")
    (root / "graphs" / "clip.onnx").write_bytes(b"graph")
    (tmp_path / "secret").write_bytes(b"secret")
    return root


def test_a_digest_is_sha256_in_hex():
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(memoryview(b"abc")) == sha256(b"abc")


def test_files_are_read_whole(bundle, descriptors):
    assert read_regular(bundle, "manifest.json", 100) == b"manifest"
    assert read_regular(str(bundle), "graphs/clip.onnx", 100) == b"graph"
    assert read_file(bundle / "manifest.json", 100) == b"manifest"


def test_a_nul_in_the_folders_name_is_refused():
    with pytest.raises(RefusedError):
        read_file("a\0b/c", 100)


def test_an_empty_file_and_one_of_several_chunks_are_read(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    large = os.urandom((1 << 24) + 5)
    (tmp_path / "large").write_bytes(large)
    assert read_file(tmp_path / "empty", 0) == b""
    assert read_file(tmp_path / "large", 1 << 25) == large


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "graphs/../../secret",
        "/etc/passwd",
        "",
        ".",
        "..",
        "./manifest.json",
        "graphs//clip.onnx",
        "graphs/./clip.onnx",
        "graphs/",
        "a\0b",
    ],
)
def test_a_name_that_climbs_out_or_is_not_plain_is_refused(bundle, name, descriptors):
    with pytest.raises(RefusedError, match="leaves its folder"):
        read_regular(bundle, name, 100)


@given(name=st.text(alphabet=st.sampled_from("ab./\0"), max_size=12))
def test_no_name_reads_a_file_outside(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp() / "climb" / "a"
    root.mkdir(parents=True, exist_ok=True)
    for outside in ("b", "ab", "ba"):
        (root.parent / outside).write_bytes(b"secret")
    (root / "b").write_bytes(b"inside")
    with contextlib.suppress(RefusedError, BadInputError):
        assert read_regular(root, name, 100) == b"inside"


def test_a_link_in_the_place_of_the_file_is_refused(bundle, descriptors):
    (bundle / "graphs" / "clip.onnx").unlink()
    (bundle / "graphs" / "clip.onnx").symlink_to("../../secret")
    with pytest.raises(RefusedError, match="symbolic link"):
        read_regular(bundle, "graphs/clip.onnx", 100)
    with pytest.raises(RefusedError, match="symbolic link"):
        read_file(bundle / "graphs" / "clip.onnx", 100)


def test_even_a_link_inside_the_folder_is_refused(bundle):
    (bundle / "other").symlink_to("manifest.json")
    with pytest.raises(RefusedError):
        read_regular(bundle, "other", 100)


def test_a_link_in_the_place_of_a_folder_on_the_way_is_refused(bundle, tmp_path, descriptors):
    (bundle / "graphs").rename(tmp_path / "elsewhere")
    (bundle / "graphs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError):
        read_regular(bundle, "graphs/clip.onnx", 100)


def test_a_link_to_the_root_itself_is_followed_because_the_user_named_it(bundle, tmp_path):
    (tmp_path / "link").symlink_to(bundle)
    assert read_regular(tmp_path / "link", "graphs/clip.onnx", 100) == b"graph"


def test_a_fifo_is_refused_without_waiting_for_a_writer(bundle):
    # In a process of its own: were the pipe opened for reading, it would wait for ever.
    os.mkfifo(bundle / "pipe")
    script = (
        "import sys\nfrom logoformer.bundle.files import read_regular\n"
        "try: read_regular(sys.argv[1], 'pipe', 100)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(bundle)], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("RefusedError")
    assert "not a regular file" in done.stdout


def test_a_fifo_with_a_writer_is_refused_too(bundle, descriptors):
    os.mkfifo(bundle / "pipe")
    both = os.open(bundle / "pipe", os.O_RDWR)
    try:
        os.write(both, b"injected")
        with pytest.raises(RefusedError, match="not a regular file"):
            read_regular(bundle, "pipe", 100)
    finally:
        os.close(both)


def test_a_socket_a_device_and_a_folder_are_refused(bundle, tmp_path, monkeypatch, descriptors):
    monkeypatch.chdir(bundle)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(RefusedError, match="not a regular file"):
            read_regular(bundle, "socket", 100)
    with pytest.raises(RefusedError, match="not a regular file"):
        read_regular("/dev", "zero", 100)
    with pytest.raises(RefusedError, match="not a regular file"):
        read_regular(bundle, "graphs", 100)


def test_a_file_in_the_place_of_a_folder_is_refused(bundle):
    with pytest.raises(RefusedError, match="a folder was expected"):
        read_regular(bundle, "manifest.json/clip.onnx", 100)
    with pytest.raises(RefusedError, match="a folder was expected"):
        read_regular(bundle / "manifest.json", "clip.onnx", 100)


def test_what_is_missing_is_bad_input(bundle, descriptors):
    for root, name in ((bundle, "nothing"), (bundle, "nothing/at/all"), (bundle / "nothing", "manifest.json")):
        with pytest.raises(BadInputError, match="does not exist"):
            read_regular(root, name, 100)


def test_what_may_not_be_read_is_bad_input(bundle, monkeypatch):
    monkeypatch.setattr(
        os, "open", lambda *_, **__: (_ for _ in ()).throw(PermissionError(errno.EACCES, "Permission denied"))
    )
    with pytest.raises(BadInputError, match="cannot be read: Permission denied") as caught:
        read_regular(bundle, "manifest.json", 100)
    assert caught.value.next == f"ls -l {bundle}/manifest.json"


def test_what_may_not_be_written_is_no_matter_of_space(tmp_path):
    denied = writing_failed(PermissionError(errno.EACCES, "Permission denied"), tmp_path / "x.mp4").next
    assert denied.startswith(f"ls -ld {tmp_path} ") and "free space" not in denied
    assert writing_failed(OSError(errno.ENOSPC, "No space left"), tmp_path / "x").next.startswith("free space")


@pytest.mark.parametrize(("size", "limit", "good"), [(10, 10, True), (11, 10, False), (10, 9, False), (0, 0, True)])
def test_the_limit_is_exact(tmp_path, size, limit, good, descriptors):
    (tmp_path / "a").write_bytes(b"x" * size)
    if good:
        assert len(read_file(tmp_path / "a", limit)) == size
        return
    with pytest.raises(RefusedError, match=f"has {size} bytes; at most {limit}"):
        read_file(tmp_path / "a", limit)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "a").open("wb") as stream:
        stream.truncate(1 << 40)  # a terabyte of nothing
    with pytest.raises(RefusedError, match="1099511627776 bytes"):
        read_file(tmp_path / "a", 1 << 20)


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, monkeypatch, descriptors):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    real = os.pread

    def growing(descriptor: int, length: int, offset: int) -> bytes:
        with path.open("ab") as stream:
            stream.write(b"y" * 10)
        return real(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", growing)
    with pytest.raises(RefusedError, match="grew past 15 bytes"):
        read_file(path, 15)


def test_what_was_checked_is_what_is_read(bundle, monkeypatch):
    # Between the check and the read somebody puts another file into the place: the opened one is read.
    real = os.fstat

    def swapped(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        (bundle / "new").write_bytes(b"swapped")
        (bundle / "new").replace(bundle / "manifest.json")
        return status

    monkeypatch.setattr(os, "fstat", swapped)
    assert read_regular(bundle, "manifest.json", 100) == b"manifest"


def test_reading_gives_all_bytes_of_a_slow_disk(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(bytes(range(100)))
    real = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, length: real(descriptor, min(length, 7)))
    assert read_file(tmp_path / "a", 100) == bytes(range(100))
