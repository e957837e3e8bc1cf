from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logoformer import files
from logoformer.errors import BadInputError, MachineError, RefusedError
from logoformer.files import atomic_path, dump_json, parse_json, read_file, read_regular, sha256, write_atomic


@pytest.fixture
def bundle(tmp_path) -> Path:
    """A folder with one file and one file in a sub-folder, beside a secret."""
    root = tmp_path / "bundle"
    (root / "graphs").mkdir(parents=True)
    (root / "manifest.json").write_bytes(b"manifest")
    (root / "graphs" / "clip.onnx").write_bytes(b"graph")
    (tmp_path / "secret").write_bytes(b"secret")
    return root


@pytest.fixture
def descriptors():
    """Fails the test when it leaves a file descriptor open."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_digest_is_sha256_in_hex():
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(memoryview(b"abc")) == sha256(b"abc")


# ------------------------------------------------------------------------------------------------------------ reading
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
        "import sys\nfrom logoformer.files import read_regular\n"
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
    with pytest.raises(BadInputError, match="cannot be read: Permission denied"):
        read_regular(bundle, "manifest.json", 100)


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
    real = os.read

    def growing(descriptor: int, length: int) -> bytes:
        with path.open("ab") as stream:
            stream.write(b"y" * 10)
        return real(descriptor, length)

    monkeypatch.setattr(os, "read", growing)
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


# ------------------------------------------------------------------------------------------------------------ writing
def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_bytes_are_written_and_replaced(tmp_path, descriptors):
    target = tmp_path / "deep" / "er" / "a.bin"
    write_atomic(target, b"old")
    write_atomic(target, memoryview(b"new"))
    assert target.read_bytes() == b"new"
    assert names(target.parent) == ["a.bin"]


def test_the_mode_follows_the_umask_as_that_of_an_ordinary_file(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a", b"x")
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
        assert os.umask(0o027) == 0o027
        with atomic_path(tmp_path / "b") as part:
            assert stat.S_IMODE(part.stat().st_mode) == 0o640  # from its first moment on
    finally:
        os.umask(before)


def test_the_temporary_stands_beside_the_target_with_its_suffix(tmp_path):
    with atomic_path(tmp_path / "a.mp4") as part:
        assert part.parent == tmp_path
        assert part.suffix == ".mp4"
        assert part.name != "a.mp4"
        assert not (tmp_path / "a.mp4").exists()
        part.write_bytes(b"x")
    assert names(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, SystemExit, RefusedError("x")])
def test_any_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    (tmp_path / "a").write_bytes(b"old")

    def half() -> None:
        with atomic_path(tmp_path / "a") as part:
            part.write_bytes(b"ne")
            raise error

    with pytest.raises(error if isinstance(error, type) else type(error)):
        half()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("code", "cause"),
    [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "quota"), (errno.EROFS, "read-only"), (errno.EIO, "")],
)
def test_a_disk_that_fails_is_a_machine_error_that_names_the_cause(tmp_path, monkeypatch, code, cause):
    (tmp_path / "a").write_bytes(b"old")

    def full(path: Path, data: bytes) -> None:
        with path.open("wb") as stream:
            stream.write(data[:1])
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(MachineError) as caught:
        write_atomic(tmp_path / "a", b"new")
    assert caught.value.exit_code == 6
    assert str(tmp_path / "a") in caught.value.what
    assert cause in caught.value.cause
    assert bool(caught.value.cause) is bool(cause)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_real_limit_of_the_kernel_stops_a_write_and_nothing_is_lost(tmp_path, descriptors):
    (tmp_path / "a").write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(MachineError, match="File too large"):
            write_atomic(tmp_path / "a", bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_after_the_write_leaves_the_old_file(tmp_path, monkeypatch, step):
    (tmp_path / "a").write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[step], fail)
    with pytest.raises(MachineError, match="No space left"):
        write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_the_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(descriptor: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def watched_replace(path: Path, target: Path) -> Path:
        calls.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    write_atomic(tmp_path / "a", b"new")
    assert calls == ["file", "rename", "folder"]


def test_places_that_cannot_be_written_are_machine_errors(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "file" / "a", tmp_path / "folder", tmp_path / ("x" * 300), Path("/proc/nothing/a")):
        with pytest.raises(MachineError) as caught:
            write_atomic(target, b"new")
        assert caught.value.next
    assert names(tmp_path) == ["file", "folder"]


def test_a_link_in_the_place_of_the_target_is_replaced_not_followed(tmp_path):
    (tmp_path / "victim").write_bytes(b"old")
    (tmp_path / "a").symlink_to("victim")
    write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "victim").read_bytes() == b"old"
    assert not (tmp_path / "a").is_symlink()


def test_a_kill_between_the_write_and_the_rename_leaves_the_old_file(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    script = (
        "import sys, time\nfrom logoformer.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as part:\n"
        "    part.write_bytes(b'new' * 1000)\n"
        "    print('written', flush=True)\n"
        "    time.sleep(600)\n"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "a")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "written\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "a").read_bytes() == b"old"
    leftovers = [name for name in names(tmp_path) if name != "a"]
    assert len(leftovers) == 1
    assert leftovers[0].startswith(".part-")
    write_atomic(tmp_path / "a", b"newer")  # a leftover is in nobody's way
    assert (tmp_path / "a").read_bytes() == b"newer"


def test_a_kill_at_any_moment_leaves_a_whole_file_and_readers_never_see_a_part(tmp_path):
    target = tmp_path / "a"
    write_atomic(target, b"a" * 200_000)
    script = (
        "import sys\nfrom logoformer.files import write_atomic\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    write_atomic(sys.argv[1], b'b' * 300_000)\n"
        "    write_atomic(sys.argv[1], b'a' * 200_000)\n"
    )
    whole = {(200_000, frozenset(b"a")), (300_000, frozenset(b"b"))}
    seen = set()
    with subprocess.Popen([sys.executable, "-c", script, str(target)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        for _ in range(200):
            data = read_file(target, 1 << 20)
            seen.add((len(data), frozenset(data)))
        process.kill()
    data = read_file(target, 1 << 20)
    assert seen | {(len(data), frozenset(data))} <= whole


def test_the_umask_of_the_process_is_never_touched(tmp_path, monkeypatch):
    # It belongs to every thread: another one would create its files with the mask that was set in between.
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("umask was changed"))
    write_atomic(tmp_path / "a", b"x")


def test_a_temporary_name_that_is_taken_is_never_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "urandom", lambda count: bytes(count))
    victim = tmp_path / "victim"
    victim.write_bytes(b"old")
    (tmp_path / f".part-{'00' * 8}.bin").symlink_to(victim)
    with pytest.raises(MachineError, match="File exists"):
        write_atomic(tmp_path / "a.bin", b"new")
    assert victim.read_bytes() == b"old"


def test_two_writers_leave_the_whole_file_of_one_of_them(tmp_path):
    contents = [bytes([index]) * 50_000 for index in range(8)]
    threads = [threading.Thread(target=write_atomic, args=(tmp_path / "a", data)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_bytes() in contents
    assert names(tmp_path) == ["a"]


# --------------------------------------------------------------------------------------------------------------- JSON
SAFE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * depth + closing * depth


@given(SAFE)
def test_what_is_written_is_read_back(value):
    data = dump_json(value)
    assert parse_json(data, "x") == value
    assert data.endswith(b"\n")
    assert data.isascii()


def test_the_same_value_gives_the_same_bytes_whatever_the_order():
    assert dump_json({"b": 1, "a": [1, 2]}) == dump_json({"a": [1, 2], "b": 1})
    assert dump_json({"a": 1}) == b'{\n  "a": 1\n}\n'


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]])
def test_no_number_that_json_lacks_is_written(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_json(value)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"NaN", "NaN"),
        (b"[Infinity]", "Infinity"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b"1e999", "1e999"),
        (b"-1e999", "-1e999"),
        (b"1" * 400 + b".0", "the number"),
        (b"9" * 5000, "an integer of 5000 digits"),
        (b"-" + b"9" * 20, "an integer of"),
        (b"9223372036854775808", "64 bits"),
        (b"-9223372036854775809", "64 bits"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"b": {"a": 1, "\\u0061": 1}}', "twice"),
        (nested(33), "nested deeper than 32"),
        (nested(100_000), "nested deeper"),
        (nested(100_000, b'{"a":', b"}"), "nested deeper"),
        (b"[" * 1_000_000, "nested deeper"),
        (b"\xff\xfe[]", "not UTF-8"),
        (b"\xef\xbb\xbf[]", "BOM"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (b"", "Expecting value"),
        (b"{}{}", "Extra data"),
        (b"{} // comment", "Extra data"),
        (b"{'a': 1}", "Expecting property name"),
        (b"[1,]", ""),
        (b'"a\nb"', "control character"),
        (b"]" * 40 + b"[" * 40, "Expecting value"),
    ],
)
def test_json_that_cannot_be_trusted_is_refused_with_its_reason(data, why):
    with pytest.raises(RefusedError) as caught:
        parse_json(data, "manifest.json")
    assert caught.value.what.startswith("manifest.json is not JSON that can be trusted")
    assert why in caught.value.what


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (nested(32), None),
        (b"9223372036854775807", 2**63 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b"1e-999", 0.0),
        (b'"[[[[{{{{"', "[[[[{{{{"),
        (b'"\\"[[[["', '"[[[['),
        (b'"\\\\"', "\\"),
        (b'{"a": {"a": 1}}', {"a": {"a": 1}}),
        (" \u00e4".encode()[:1] + b"true", True),
    ],
)
def test_json_at_the_edge_of_the_limits_is_read(data, value):
    parsed = parse_json(data, "x")
    assert parsed == value or value is None


def test_brackets_inside_strings_are_not_nesting():
    text = json.dumps({"a": '\\"[' * 1000, "b\\": ["]}" * 100]})
    assert parse_json(text.encode(), "x") == json.loads(text)


def test_the_size_limit_is_exact_and_comes_first():
    assert parse_json(b"[1]", "x", max_bytes=3) == [1]
    with pytest.raises(RefusedError, match="3 bytes, at most 2 are read"):
        parse_json(b"[[[", "x", max_bytes=2)
    with pytest.raises(RefusedError, match="at most 4194304"):
        parse_json(b" " * (files.MAX_JSON_BYTES + 1), "x")


@given(st.binary(max_size=200) | st.text(alphabet='[]{}",:\\ 0123456789.eE+-truefalsn\n', max_size=60).map(str.encode))
def test_any_bytes_are_a_value_or_are_refused(data):
    try:
        value = parse_json(data, "x")
    except RefusedError:
        return
    assert parse_json(dump_json(value), "x") == value


@given(SAFE, st.data())
def test_one_changed_byte_is_read_or_refused_but_never_more(value, data):
    changed = bytearray(dump_json(value))
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(RefusedError):
        parse_json(bytes(changed), "x")
