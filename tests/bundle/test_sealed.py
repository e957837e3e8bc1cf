"""The rules that the bundle and the engines share: a seal, checked fields, files by content, one writer."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logoformer.bundle.files import dump_json, sha256
from logoformer.bundle.sealed import (
    MAX_COUNT,
    content_name,
    count,
    only_writer,
    read_stored,
    reading_fields,
    seal,
    stored,
    typed,
    unseal,
)
from logoformer.errors import MachineError, RefusedError, UsageError

FORMAT = "logoformer-test"
FIELDS = st.dictionaries(st.text(max_size=5), st.integers(-9, 9) | st.text(max_size=5) | st.booleans(), max_size=4)


def sealed(fields: dict[str, Any]) -> bytes:
    return seal({**fields, "format": FORMAT, "schema_version": 3})


# ----------------------------------------------------------------------------------------------------------------- seal
@given(FIELDS)
def test_what_was_sealed_is_unsealed(fields):
    index = unseal(sealed(fields), "x", FORMAT, 3)
    assert index == {**fields, "format": FORMAT, "schema_version": 3, "digest": index["digest"]}
    assert seal(index) == sealed(fields)  # an old digest is not part of what the new one covers


@given(FIELDS, st.data())
def test_no_change_of_a_byte_gets_through(fields, data):
    changed = bytearray(sealed(fields))
    place = data.draw(st.integers(0, len(changed) - 1))
    action = data.draw(st.sampled_from(["flip", "cut", "insert"]))
    if action == "flip":
        changed[place] ^= 1 << data.draw(st.integers(0, 7))
    elif action == "cut":
        del changed[place]
    else:
        changed.insert(place, data.draw(st.integers(0, 255)))
    with pytest.raises(RefusedError):
        unseal(bytes(changed), "x", FORMAT, 3)


@given(st.binary(max_size=100))
def test_any_bytes_are_refused(data):
    with pytest.raises(RefusedError):
        unseal(data, "x", FORMAT, 3)


def test_older_schemas_are_read_and_newer_ones_are_not():
    assert unseal(sealed({}), "x", FORMAT, 9)["schema_version"] == 3
    with pytest.raises(RefusedError, match="version 3; this program reads up to 2") as caught:
        unseal(sealed({}), "x", FORMAT, 2)
    assert caught.value.next.startswith("pip install --upgrade")


def test_another_format_is_refused_though_it_is_sealed():
    with pytest.raises(RefusedError, match="not a logoformer-other index"):
        unseal(sealed({}), "x", "logoformer-other", 3)


def test_a_seal_of_other_white_space_is_refused():
    data = sealed({"a": 1})
    with pytest.raises(RefusedError, match="own digest"):
        unseal(data.replace(b"\n  ", b"\n "), "x", FORMAT, 3)
    with pytest.raises(RefusedError, match="own digest"):
        unseal(dump_json({"format": FORMAT, "schema_version": 3}), "x", FORMAT, 3)


# --------------------------------------------------------------------------------------------------------------- fields
@pytest.mark.parametrize(
    "kind", [KeyError, IndexError, TypeError, ValueError, AttributeError, ZeroDivisionError, UsageError]
)
def test_whatever_a_strange_field_raises_is_a_refusal(kind):
    with (
        pytest.raises(RefusedError, match=r"here/index\.json lacks or garbles a field"),
        reading_fields("here/index.json"),
    ):
        raise kind("x")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MachineError("disk"), MemoryError()])
def test_what_is_no_fault_of_a_field_gets_through(error):
    with pytest.raises(type(error)), reading_fields("x"):
        raise error


def test_a_field_is_of_its_type_or_nothing():
    assert typed("a", str) == "a"
    assert typed(True, bool) is True
    for value, kind in ((True, int), (1.0, int), ("1", int), (1, str), (None, dict), ([], dict)):
        with pytest.raises(TypeError, match="is not of type"):
            typed(value, kind)


@given(st.integers())
def test_counts_are_positive_and_fit_31_bits(number):
    if 1 <= number <= MAX_COUNT:
        assert count(number) == number
        return
    with pytest.raises(ValueError, match="out of range"):
        count(number)


def test_the_ends_of_a_count():
    assert (count(1), count(2**31 - 1)) == (1, 2**31 - 1)
    for number in (0, 2**31):
        with pytest.raises(ValueError, match="out of range"):
            count(number)


@pytest.mark.parametrize("change", [{"file": "b/x"}, {"file": 1}, {"sha256": "A" * 64}, {"sha256": None}, {"size": 0}])
def test_an_entry_names_a_place_a_hash_and_a_size(change):
    good = {"file": "a/x", "sha256": "0" * 64, "size": 5}
    assert stored(good, re.compile("a/[a-z]")) == ("a/x", "0" * 64, 5)
    with pytest.raises((ValueError, TypeError)):
        stored({**good, **change}, re.compile("a/[a-z]"))
    for name in good:
        with pytest.raises(KeyError):
            stored({key: value for key, value in good.items() if key != name}, re.compile("a/[a-z]"))


# ---------------------------------------------------------------------------------------------------------------- files
def test_names_come_from_the_content():
    assert content_name("graphs", "clip.fp32.b1", b"abc", ".onnx") == "graphs/clip.fp32.b1.ba7816bf.onnx"
    assert content_name("golden", "", b"abc", ".npz") == "golden/ba7816bf.npz"


def test_a_stored_file_is_read_only_if_it_is_the_one(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    right = sha256(b"abc")
    assert read_stored(tmp_path, "a", right, 3, 100) == b"abc"
    assert read_stored(tmp_path, "a", right, 3, 3) == b"abc"
    for digest, size, limit in ((sha256(b"abd"), 3, 100), (right, 4, 100), (right, 2, 100), (right, 3, 2)):
        with pytest.raises(RefusedError):
            read_stored(tmp_path, "a", digest, size, limit)
    with pytest.raises(RefusedError, match="is named by the index but cannot be read"):
        read_stored(tmp_path, "b", right, 3, 100)


# ----------------------------------------------------------------------------------------------------------- one writer
def write(folder: Path) -> None:
    with only_writer(folder):
        (folder / "written").touch()


def test_one_writer_at_a_time(tmp_path, descriptors):
    with only_writer(tmp_path):
        with pytest.raises(MachineError, match="is being written by another process") as caught:
            write(tmp_path)
        assert caught.value.next
        assert not (tmp_path / "written").exists()
    write(tmp_path)
    assert (tmp_path / "written").exists()


def test_an_error_inside_gives_the_lock_back(tmp_path, descriptors):
    with pytest.raises(KeyError), only_writer(tmp_path):
        raise KeyError
    write(tmp_path)


def test_another_process_keeps_the_lock_until_it_is_killed(tmp_path):
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom logoformer.bundle.sealed import only_writer\n"
        "with only_writer(Path(sys.argv[1])):\n    print('locked', flush=True)\n    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(MachineError):
            write(tmp_path)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    write(tmp_path)  # what the killed one left behind is in nobody's way


def test_a_pipe_a_link_or_a_folder_in_the_place_of_the_lock_is_no_lock(tmp_path, impatient, descriptors):
    def link(place: Path) -> None:
        place.symlink_to(tmp_path / "victim")

    strange = ((os.mkfifo, RefusedError), (link, RefusedError), (Path.mkdir, MachineError))
    for number, (make, kind) in enumerate(strange):
        folder = tmp_path / str(number)
        folder.mkdir()
        make(folder / ".lock")
        with pytest.raises(kind):
            write(folder)
        assert not (folder / "written").exists()
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_a_machine_error(tmp_path, monkeypatch, code, descriptors):
    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(MachineError, match=os.strerror(code)) as caught:
        write(tmp_path)
    assert caught.value.next


def test_a_file_system_without_locks_is_a_machine_error(tmp_path, monkeypatch, descriptors):
    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", fail)
    with pytest.raises(MachineError, match="No locks"):
        write(tmp_path)
