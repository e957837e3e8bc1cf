from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from logoformer.bundle.files import atomic_folder, atomic_path, read_file, write_atomic
from logoformer.errors import MachineError, RefusedError


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
        "import sys, time\nfrom logoformer.bundle.files import atomic_path\n"
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
        "import sys\nfrom logoformer.bundle.files import write_atomic\n"
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
    assert (tmp_path / "a").read_bytes() == b"x"


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(MachineError) as caught:
        write_atomic(tmp_path / "link" / "a", b"x")
    assert "a link that leads nowhere" in caught.value.cause


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


# -------------------------------------------------------------------------------------------------------------- folders
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, PermissionError])
@pytest.mark.parametrize("rename", [1, 2])
def test_an_error_at_either_rename_of_a_folder_puts_the_old_one_back(tmp_path, monkeypatch, rename, error):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"old")
    replace, calls = Path.replace, []

    def interrupted(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == rename:
            raise error
        return replace(self, target)

    def write() -> None:
        with atomic_folder(tmp_path / "a") as part:
            (part / "file").write_bytes(b"new")
            monkeypatch.setattr(Path, "replace", interrupted)

    with pytest.raises(MachineError if error is PermissionError else error):
        write()
    assert (tmp_path / "a" / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_an_interrupt_after_both_renames_of_a_folder_leaves_the_new_one_alone(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    replace, calls = Path.replace, []

    def interrupted(self: Path, target: Path) -> Path:
        calls.append(target)
        done = replace(self, target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return done

    def write() -> None:
        with atomic_folder(tmp_path / "a") as part:
            (part / "file").write_bytes(b"new")
            monkeypatch.setattr(Path, "replace", interrupted)

    with pytest.raises(KeyboardInterrupt):
        write()
    assert (tmp_path / "a" / "file").read_bytes() == b"new"
    assert names(tmp_path) == ["a"]
