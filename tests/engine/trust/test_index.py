"""The index of engines: written, read again, refused when it was changed."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.bundle.files import sha256
from logoformer.bundle.sealed import only_writer, seal
from logoformer.engine.trust import index as module
from logoformer.engine.trust.index import (
    NOT_RUN,
    EngineEntry,
    add_to_index,
    engines_folder,
    read_engine,
    read_index,
    write_engine,
)
from logoformer.errors import LogoformerError, MachineError, RefusedError

TARGET = "rtx1.7.1-sm75+sm86"
PLAN = {"sm86": {"kernels": 71, "sync": 0, "fused_attentions": 8, "movement": 0, "bytes": 123456}}


def file_engine(folder: Path, graph: str, plan: bytes, target: str = TARGET) -> EngineEntry:
    file, digest = write_engine(folder, target, f"{graph}.fp16.b1", plan)
    return EngineEntry(
        graph=graph, precision="fp16", batch=1, target=target, file=file, sha256=digest, size=len(plan),
        graph_sha256="0" * 64, tensorrt_version="1.7.1.116", compute_capabilities=("sm75", "sm86"),
        platform="linux-x86_64", flags={"strongly_typed": True, "left_out": {}}, plan=PLAN,
    )  # fmt: skip


@pytest.fixture
def entries(tmp_path: Path) -> tuple[EngineEntry, ...]:
    folder = tmp_path / "engines"
    return add_to_index(folder, [file_engine(folder, graph, graph.encode() * 99) for graph in ("clip", "frame")])


@pytest.fixture
def folder(entries: tuple[EngineEntry, ...], tmp_path: Path) -> Path:
    """Two engines of some bytes, and their index."""
    return tmp_path / "engines"


def reseal(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    index = json.loads((folder / "index.json").read_bytes())
    change(index)
    (folder / "index.json").write_bytes(seal(index))


def read_everything(folder: Path) -> list[bytes]:
    return [read_engine(folder, entry) for entry in read_index(folder)]


def refused(folder: Path) -> RefusedError:
    """Reads the index and its engines, and expects a refusal with a next step."""
    with pytest.raises(LogoformerError) as caught:
        read_everything(folder)
    assert type(caught.value) is RefusedError, caught.value
    assert caught.value.next
    assert str(folder) in caught.value.what
    return caught.value


# ---------------------------------------------------------------------------------------------------------------- whole
def test_what_was_filed_is_found_again(folder, entries):
    found = read_index(str(folder))
    assert found == entries
    assert [entry.graph for entry in found] == ["clip", "frame"]
    assert [read_engine(folder, entry) for entry in found] == [b"clip" * 99, b"frame" * 99]
    assert found[0].file == f"{TARGET}/clip.fp16.b1.{sha256(b'clip' * 99)[:8]}.engine"
    assert found[0].verdict == NOT_RUN
    assert found[0].compute_capabilities == ("sm75", "sm86")


def test_without_an_index_there_are_no_engines(tmp_path):
    assert read_index(tmp_path) == ()
    assert read_index(tmp_path / "nothing") == ()


def test_engines_live_in_the_bundle_or_where_the_user_says():
    assert engines_folder("face.bundle", None) == Path("face.bundle/engines")
    assert engines_folder("face.bundle", "elsewhere", to_write=True) == Path("elsewhere")


def test_a_newer_build_of_the_same_replaces_the_entry_and_no_file(folder, entries):
    newer = file_engine(folder, "clip", b"newer")
    assert newer.key == entries[0].key
    assert add_to_index(folder, [newer]) == (newer, entries[1])
    assert read_engine(folder, entries[0]) == b"clip" * 99  # who opened the old index still reads


@pytest.mark.parametrize("change", [{"graph": "temporal"}, {"precision": "int8"}, {"batch": 2}, {"target": "tensorrt"}])
def test_a_build_of_another_kind_stands_beside_it(folder, entries, change):
    other = replace(entries[0], **change)
    add_to_index(folder, [other])
    assert sorted(entry.key for entry in read_index(folder)) == sorted([*(e.key for e in entries), other.key])


def test_the_order_of_building_does_not_show(tmp_path, entries, folder):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "index.json").unlink()
    for entry in reversed(entries):
        add_to_index(copy, [entry])
    assert (copy / "index.json").read_bytes() == (folder / "index.json").read_bytes()


# -------------------------------------------------------------------------------------------------------------- refused
def test_one_flipped_bit_anywhere_is_refused(folder):
    rng = random.Random(5)
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock"):
        good = path.read_bytes()
        for place in rng.sample(range(len(good)), min(150, len(good))):
            changed = bytearray(good)
            changed[place] ^= 1 << rng.randrange(8)
            path.write_bytes(changed)
            assert str(path) in refused(folder).what
        path.write_bytes(good)
    assert len(read_index(folder)) == 2


def test_a_missing_short_or_long_engine_is_refused(folder, entries):
    path = folder / entries[0].file
    for change in (
        lambda: path.write_bytes(b"clip" * 98),
        lambda: path.write_bytes(b"clip" * 100),
        lambda: path.write_bytes(b""),
        path.unlink,
    ):
        change()
        again = f"logoformer build {folder.parent} --target rtx --graph clip --precision fp16"
        assert refused(folder).next == again


def test_a_link_or_a_pipe_is_no_engine(folder, entries, tmp_path):
    path = folder / entries[0].file
    path.rename(tmp_path / "aside")
    path.symlink_to(tmp_path / "aside")
    refused(folder)
    path.unlink()
    os.mkfifo(path)
    refused(folder)
    path.unlink()
    (tmp_path / "aside").rename(path)
    (folder / TARGET).rename(tmp_path / "target")
    (folder / TARGET).symlink_to(tmp_path / "target")
    refused(folder)


def test_a_link_or_a_pipe_is_no_index(folder, tmp_path):
    (folder / "index.json").rename(tmp_path / "aside")
    (folder / "index.json").symlink_to(tmp_path / "aside")
    refused(folder)
    (folder / "index.json").unlink()
    os.mkfifo(folder / "index.json")
    refused(folder)


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 50_000, b"{" + b" " * (5 << 20) + b"}"])
def test_an_index_that_is_none_is_refused_and_left_alone(folder, entries, data):
    (folder / "index.json").write_bytes(data)
    at = f"{folder.parent}" if folder.name == "engines" else f"BUNDLE --engines-dir {folder}"
    assert refused(folder).next == f"remove {folder}/index.json, then: logoformer build {at}"
    with pytest.raises(RefusedError):
        add_to_index(folder, entries)
    assert (folder / "index.json").read_bytes() == data


def test_a_newer_index_is_refused_and_left_alone(folder, entries):
    reseal(folder, lambda index: index.update(schema_version=2))
    newer = (folder / "index.json").read_bytes()
    assert refused(folder).next == "pip install --upgrade logoformer-VERSION-py3-none-any.whl"
    with pytest.raises(RefusedError):
        add_to_index(folder, entries)
    assert (folder / "index.json").read_bytes() == newer


CLIMBING = ["../x", "a/../../x", "/a/x", "a/b/x", "x", "a/", "a/x\n", "a/x\0", "a b/x", "../a/x", "a/.x"]


@pytest.mark.parametrize("path", [*(f"{name}.engine" for name in CLIMBING), "a/x.onnx", "a/x.engine\n", ""])
def test_a_path_that_leads_elsewhere_is_refused(folder, path):
    reseal(folder, lambda index: index["engines"][0].update(file=path))
    assert "lacks or garbles a field" in refused(folder).what


@pytest.mark.parametrize("engines", [{}, "", None, {"a": 1}, ["x"], [[]], 7])
def test_a_list_of_engines_that_is_none_is_refused(folder, engines):
    reseal(folder, lambda index: index.update(engines=engines))
    assert "lacks or garbles a field" in refused(folder).what


def test_an_index_of_the_bundle_is_none_of_engines(folder):
    reseal(folder, lambda index: index.update(format="logoformer-bundle"))
    assert "not a logoformer-engines index" in refused(folder).what


# ------------------------------------------------------------------------------------------------------------- writing
def test_two_builds_at_once_lose_nothing(folder, entries):
    with only_writer(folder), pytest.raises(MachineError, match="another process") as caught:
        add_to_index(folder, [file_engine(folder, "temporal", b"t")])
    assert caught.value.next
    assert read_index(folder) == entries
    assert len(add_to_index(folder, [file_engine(folder, "temporal", b"t")])) == 3


def test_the_index_is_replaced_last_and_in_one_step(folder, entries, monkeypatch):
    before = (folder / "index.json").read_bytes()

    def full(*_: object) -> None:
        raise MachineError("The disk is full.")

    newer = file_engine(folder, "clip", b"newer")
    assert (folder / "index.json").read_bytes() == before
    monkeypatch.setattr(module, "write_atomic", full)
    with pytest.raises(MachineError):
        add_to_index(folder, [newer])
    assert read_index(folder) == entries


def test_a_place_that_cannot_be_a_folder_is_a_machine_error(tmp_path, entries):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(MachineError) as caught:
        add_to_index(tmp_path / "file" / "engines", entries)
    assert caught.value.next


# ---------------------------------------------------------------------------------------------------------------- fuzz
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.sampled_from(["", "a/x.engine", "sm86", "0" * 64]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_resealed_index_brings_anything_but_a_refusal(folder, data):
    good = (folder / "index.json").read_bytes()
    index = json.loads(good)
    holder = data.draw(st.sampled_from([index, *index["engines"], index["engines"][0]["flags"]]))
    key = data.draw(st.sampled_from(sorted(holder)))
    if data.draw(st.booleans()):
        holder[key] = data.draw(VALUES)
    else:
        del holder[key]
    target = folder.with_name("fuzzed")
    if not target.exists():
        shutil.copytree(folder, target)
    (target / "index.json").write_bytes(seal(index))
    try:
        found = read_index(target)
        for entry in found:
            read_engine(target, entry)
    except RefusedError:
        return
    texts = (
        "graph",
        "precision",
        "target",
        "file",
        "sha256",
        "graph_sha256",
        "tensorrt_version",
        "platform",
        "verdict",
    )
    for entry in found:
        assert all(type(getattr(entry, name)) is str for name in texts)
        assert all(type(sm) is str for sm in entry.compute_capabilities)
        assert (type(entry.batch), type(entry.size)) == (int, int)
        assert all(type(plan) is dict for plan in entry.plan.values())
        assert type(entry.flags) is dict
    assert len({entry.key for entry in add_to_index(target, found)}) <= 2
