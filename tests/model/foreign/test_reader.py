"""Foreign checkpoints are read as torch would read them; what has no values is named; damage is told."""

from __future__ import annotations

import argparse
import io
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
from foreign_files import archive, former_like, mae_like, opened_up, saved, weights
from logoformer.errors import BadInputError, LogoformerError, RefusedError
from logoformer.model.foreign.inert import Inert, StoredTensor
from logoformer.model.foreign.reader import ForeignFile, open_foreign
from logoformer.model.foreign.source import ByteSource

torch = pytest.importorskip("torch")
from safetensors.torch import save as safetensors_bytes  # noqa: E402


def opened(path: Path, data: bytes) -> tuple[ForeignFile, dict[str, Any]]:
    """The file, and the tensors of its content that could be read, by path."""
    path.write_bytes(data)
    with open_foreign(path) as found:
        return found, {name: found.read(t) for name, t in tensors(found.content).items() if t.readable}


def tensors(content: Any, name: str = "") -> dict[str, StoredTensor]:
    if isinstance(content, StoredTensor):
        return {name: content}
    if isinstance(content, dict):
        return {k: v for key, value in content.items() for k, v in tensors(value, f"{name}/{key}").items()}
    return {}


def same(found: dict[str, Any], wanted: dict[str, Any], prefix: str) -> bool:
    return all(torch.equal(found[f"{prefix}{name}"], value) for name, value in wanted.items())


# ---------------------------------------------------------------------------------------------------- real-shaped files
@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_with_a_namespace(tmp_path, legacy):
    found, values = opened(tmp_path / "checkpoint-best.pth", saved(mae_like(), legacy=legacy))
    assert same(values, weights(), "/model/")
    assert found.names == ("argparse.Namespace",)
    args = found.content["args"]
    assert isinstance(args, Inert)
    wanted = {"depth": 2, "lg_region_size": [2, 2, 4], "data_set": "DFEW", "opt_betas": (0.9, 0.999), "gpu": 0}
    assert args.attributes() == wanted
    assert found.content["epoch"] == "best"
    assert not isinstance(args, argparse.Namespace)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_with_a_class_of_the_training_script(tmp_path, legacy):
    found, values = opened(tmp_path / "model_best.pth", saved(former_like(), legacy=legacy))
    assert same(values, weights("module."), "/state_dict/")
    assert "__main__.RecorderMeter" in found.names and any("numpy" in name for name in found.names)
    assert found.content["recorder"].attributes()["total_epoch"] == 3
    assert found.format == ("torch before 1.6" if legacy else "torch")


def test_a_safetensors_file(tmp_path):
    data = safetensors_bytes(weights(), {"labels": "happy,sad"})
    found, values = opened(tmp_path / "model.safetensors", data)
    assert same(values, weights(), "/") and found.metadata == {"labels": "happy,sad"}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "dtype", ["float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
)
def test_every_dtype_that_is_read(tmp_path, dtype, legacy):
    value = torch.arange(-3, 9).reshape(3, 4).abs().to(getattr(torch, dtype))
    _, values = opened(tmp_path / "x.pth", saved({"x": value}, legacy=legacy))
    assert values["/x"].dtype == value.dtype and torch.equal(values["/x"], value)


@pytest.mark.parametrize("legacy", [False, True])
def test_views_parameters_and_tensors_that_share(tmp_path, legacy):
    base = torch.arange(60.0).reshape(5, 12)
    content = {
        "whole": base, "rows": base[1:3], "columns": base[:, 2:9:3], "turned": base.t(), "one": base[4, 11],
        "none": base[:0], "parameter": torch.nn.Parameter(base[2]), "channels last": torch.randn(2, 3, 4, 5).to(
            memory_format=torch.channels_last),
    }  # fmt: skip
    content["again"] = content["parameter"]
    _, values = opened(tmp_path / "x.pth", saved(content, legacy=legacy))
    assert len(values) == len(content)
    for name, wanted in content.items():
        assert torch.equal(values[f"/{name}"], wanted) and values[f"/{name}"].is_contiguous()


def test_tensors_with_attributes_and_of_subclasses(tmp_path):
    marked = torch.ones(3)
    marked.note = "mine"
    buffer = torch.nn.Buffer(torch.zeros(2))
    found, values = opened(tmp_path / "x.pth", saved({"marked": marked, "buffer": buffer}))
    assert torch.equal(values["/marked"], marked)
    assert tensors(found.content)["/buffer"].kind in ("dense", "wrapped")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_that_torch_can_be_told_to_write(tmp_path, protocol, legacy):
    path = tmp_path / "x.pth"
    torch.save(mae_like(), path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    found, values = opened(path, path.read_bytes())
    assert same(values, weights(), "/model/") and found.content["args"].attributes()["depth"] == 2


def test_archives_of_older_and_other_writers(tmp_path, monkeypatch):
    pickled, storages = opened_up(saved(mae_like()))
    storages = {key: value for key, value in storages.items() if key.isdecimal()}
    old = entries_of(archive(pickled, storages, root="checkpoint-best \xe9"))
    without = zipped([(name, data) for name, data in old.items() if not name.endswith("byteorder")])
    assert same(opened(tmp_path / "x.pth", without)[1], weights(), "/model/")
    torch.serialization.set_crc32_options(False)
    try:
        unchecked = saved(mae_like())
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(opened(tmp_path / "x.pth", unchecked)[1], weights(), "/model/")


def test_only_the_tensors_that_are_asked_for_are_read(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(saved({"model": {"a": torch.ones(1000)}, "optimizer": {"m": torch.ones(4_000_000)}}))
    tracemalloc.start()
    with open_foreign(path) as found:
        found.read(found.content["model"]["a"])
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 200_000


# -------------------------------------------------------------------------------------------- what has no plain values
NO_VALUES = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "sparse ": lambda: torch.eye(3).to_sparse_csr(),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    "meta": lambda: torch.empty(3, device="meta"),
    "complex64": lambda: torch.ones(3, dtype=torch.complex64),
    "complex128": lambda: torch.ones(3, dtype=torch.complex128),
    "float8_e4m3fn": lambda: torch.ones(3).to(torch.float8_e4m3fn),
    "float8_e5m2": lambda: torch.ones(3).to(torch.float8_e5m2),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", NO_VALUES)
def test_what_cannot_be_read_is_named(tmp_path, kind):
    path = tmp_path / "x.pth"
    path.write_bytes(saved({"x": NO_VALUES[kind]()}))
    with open_foreign(path) as found:
        tensor = found.content["x"]
        assert tensor.shown == kind.strip() and not tensor.readable
        with pytest.raises(BadInputError, match=kind.strip()):
            found.read(tensor)


@pytest.mark.parametrize("dtype", ["C64", "F8_E4M3", "F4"])
def test_the_same_in_a_safetensors_file(tmp_path, dtype):
    bits = {"C64": 64, "F8_E4M3": 8, "F4": 4}[dtype]
    header = f'{{"x":{{"dtype":"{dtype}","shape":[16],"data_offsets":[0,{2 * bits}]}}}}'.encode()
    found, values = opened(tmp_path / "x.safetensors", struct.pack("<Q", len(header)) + header + bytes(2 * bits))
    assert values == {} and not found.content["x"].readable


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_archive_is_refused_by_name(tmp_path):
    stream = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), stream)
    with pytest.raises(RefusedError, match="TorchScript"):
        opened(tmp_path / "x.pt", stream.getvalue())


# --------------------------------------------------------------------------------------------------------------- damage
def test_every_cut_of_a_file_is_told(tmp_path):
    for whole in (saved(mae_like()), saved(former_like(), legacy=True), safetensors_bytes(weights())):
        for keep in {*range(0, len(whole) - 1, max(1, len(whole) // 60)), len(whole) - 1}:
            with pytest.raises(LogoformerError) as caught:
                opened(tmp_path / "x.pth", whole[:keep])
            assert caught.value.cause, keep


def test_a_changed_value_is_found_by_its_checksum(tmp_path):
    data = bytearray(saved({"x": torch.full((100,), 7.0)}))
    place = data.index(struct.pack("<f", 7.0) * 4)
    data[place + 1] ^= 4
    with pytest.raises(BadInputError, match="checksum"):
        opened(tmp_path / "x.pth", bytes(data))


@pytest.mark.parametrize("part", ["first", "second", "gap"])
def test_a_changed_value_is_found_where_tensors_share_a_storage_too(tmp_path, part):
    values = torch.arange(1.0, 1_000_001)  # 4 MB: several pieces
    marks = {"first": 100.0, "second": 900_000.0, "gap": 500_000.0}
    values[[100, 500_000, 900_000]] = -torch.tensor([marks["first"], marks["gap"], marks["second"]]) - 0.25
    data = bytearray(saved({"a": values[:200_000], "b": values[800_000:]}))
    assert len(opened(tmp_path / "x.pth", bytes(data))[1]) == 2
    data[data.index(struct.pack("<f", -marks[part] - 0.25)) + 3] ^= 2
    (tmp_path / "x.pth").write_bytes(data)
    for name in "ab":  # whichever is read, and each time
        with open_foreign(tmp_path / "x.pth") as found:
            for _ in range(2):
                with pytest.raises(BadInputError, match="checksum"):
                    found.read(found.content[name])


def test_a_storage_is_checked_once_however_many_tensors_share_it(tmp_path, monkeypatch):
    values = torch.arange(1000.0)
    path = tmp_path / "x.pth"
    path.write_bytes(saved({"tensors": list(values.split(10))}))
    sizes = []
    original = ByteSource.crc32
    monkeypatch.setattr(ByteSource, "crc32", lambda s, at, count: sizes.append(count) or original(s, at, count))
    with open_foreign(path) as found:
        read = [found.read(tensor) for tensor in found.content["tensors"]]
    assert torch.equal(torch.cat(read), values) and sizes == [4000]


def changed(pickled: bytes, before: bytes, after: bytes) -> bytes:
    assert pickled.count(before) == 1
    return pickled.replace(before, after)


TENSOR = {"x": torch.arange(6.0).reshape(2, 3)}


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        (b"K\x06tq", b"K\x07tq", "24 bytes where 28"),  # the storage's number of values
        (b"K\x06tq", b"J\xff\xff\xff\xfftq", "persistent id"),
        (b"K\x06tq", b"\x88tq", "persistent id"),
        (b"K\x02K\x03\x86", b"K\x02K\x04\x86", "in a storage of 6"),
        (b"K\x02K\x03\x86", b"K\x02J\xfd\xff\xff\xff\x86", "that are none"),
        (b"K\x02K\x03\x86", b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86", "in a storage of 6"),
        (b"K\x02K\x03\x86", b"K\x06\x85", "do not fit"),
        (b"K\x03K\x01\x86", b"K\x04K\x01\x86", "reaches value 6"),  # stride
        (b"K\x03K\x01\x86", b"J\xfd\xff\xff\xffK\x01\x86", "that are none"),
        (b"QK\x00", b"QK\x01", "reaches value 6"),  # offset
        (b"QK\x00", b"QJ\xff\xff\xff\xff", "that are none"),
        (b"FloatStorage", b"QuintStorage", "unknown kind"),
        (b"storage", b"garbage", "persistent id"),
        (b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x009", "'9' is missing"),
        (b"X\x01\x00\x00\x000", b"X\x07\x00\x00\x00../../x", "is missing"),
        (b"X\x01\x00\x00\x000", b"K\x00", "persistent id"),
    ],
)
def test_a_tensor_that_lies_about_its_place(tmp_path, before, after, word):
    pickled, storages = opened_up(saved(TENSOR))
    with pytest.raises(BadInputError, match=word):
        opened(tmp_path / "x.pth", archive(changed(pickled, before, after), storages))


def test_an_expanded_tensor_does_not_fill_the_memory(tmp_path):
    with pytest.raises(BadInputError, match="in a storage of 1 values"):
        opened(tmp_path / "x.pth", saved({"x": torch.ones(1).expand(1 << 40)}))


# ----------------------------------------------------------------------------------------------------- hostile archives
def entries_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as files:
        return {name: files.read(name) for name in files.namelist()}


def zipped(entries: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as files:
        for name, data in entries:
            files.writestr(name, data)
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_that_torch_does_not_write(tmp_path):
    inside = list(entries_of(saved(TENSOR)).items())
    path = tmp_path / "x.pth"
    bomb = zipped([*inside, ("archive/data/9", bytes(50 << 20))], zipfile.ZIP_DEFLATED)
    assert len(bomb) < 1 << 20
    for data, word in (
        (bomb, "is compressed"),
        (zipped([*inside, inside[0]]), "two entries of one name"),
        (zipped([("x.npy", b"")]), "numpy"),
        (zipped([("download/model_best.pth", b"x")]), "zip archive around 'download/model_best.pth'"),
        (zipped([]), "empty or split"),
        (zipped([*inside, ("other/data.pkl", b".")]), "none that torch.save wrote"),
        (archive(b"N.").replace(b"little", b"big\0\0\0"), "little-endian"),
    ):
        with pytest.raises(LogoformerError, match=word):
            opened(path, data)


def test_an_entry_that_reaches_into_the_directory(tmp_path):
    data = bytearray(archive(b"N."))
    for place in (data.index(b"archive/version") - 30 + 18, data.rindex(b"archive/version") - 46 + 20):
        data[place : place + 8] = struct.pack("<II", 40, 40)  # packed and plain size, in both headers
    with pytest.raises(BadInputError, match="outside the file"):
        opened(tmp_path / "x.pth", bytes(data))


def test_entries_that_overlap(tmp_path):
    """An entry that lies inside another one, with both of its headers in order: how a small file becomes a huge one."""
    plain = archive(b"N.", {"1": bytes(64)})
    start = plain.index(b"PK\x03\x04", plain.index(b"archive/byteorder"))
    record = plain[start : plain.index(b"PK\x03\x04", start + 4)]  # of data/1: its header and its values
    assert b"archive/data/1" in record
    data = bytearray(archive(b"N.", {"0": b"before" + record, "1": bytes(64)}))
    assert opened(tmp_path / "x.pth", bytes(data))[0].content is None  # in order so far
    central = data.rindex(b"archive/data/1") - 46
    data[central + 42 : central + 46] = struct.pack("<I", data.index(record))
    with pytest.raises(BadInputError, match="overlap"):
        opened(tmp_path / "x.pth", bytes(data))


@pytest.mark.parametrize(
    ("header", "word"),
    [
        (b'{"x":{"dtype":"F32","shape":[4],"data_offsets":[0,8]}}', "8 bytes for 4 values"),
        (b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}', "before it begins"),
        (b'{"x":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}', "none"),
        (b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"y":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
         "overlap"),
        (b'{"x":{"dtype":"F32","shape":[2]}}', "not described"),
        (b'{"x":[1]}', "not described"),
        (b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"x":1}', "twice"),
        (b'{"__metadata__":{"a":1}}', "no texts"),
        (b"{" + b'"x":{' * 100, "nested"),
        (b'{"x":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,8]}}', "64 bits"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)  # fmt: skip
def test_safetensors_headers_that_lie(tmp_path, header, word):
    with pytest.raises(BadInputError, match=word):
        opened(tmp_path / "x.safetensors", struct.pack("<Q", len(header)) + header + bytes(8))


def test_values_that_no_header_announces(tmp_path):
    data = safetensors_bytes({"x": torch.ones(4)})
    for changed in (data + b"more", data[:-4]):
        with pytest.raises(BadInputError, match="end"):
            opened(tmp_path / "x.safetensors", changed)


@pytest.mark.parametrize("length", range(0x78, 0x88))
def test_a_header_whose_length_begins_as_another_format(tmp_path, length):
    header = b'{"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}'.ljust(length)
    found, values = opened(tmp_path / "x.bin", struct.pack("<Q", length) + header + b"ab")
    assert found.format == "safetensors" and values["/x"].tolist() == [97, 98]


@pytest.mark.parametrize("length", [1 << 20, 1 << 39, 9])
def test_a_huge_header(tmp_path, length):
    with pytest.raises(BadInputError, match="header"):
        opened(tmp_path / "x.safetensors", struct.pack("<Q", length) + b"{" + b" " * 100)


# ---------------------------------------------------------------------------------------------------------------- paths
def test_what_is_no_file(tmp_path, impatient):
    real = tmp_path / "real.pth"
    real.write_bytes(saved(TENSOR))
    (tmp_path / "link.pth").symlink_to("real.pth")
    (tmp_path / "dead.pth").symlink_to("nothing")
    (tmp_path / "round.pth").symlink_to("round.pth")
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "folder").mkdir()
    for name, word in (
        ("link.pth", f"logoformer import {real}"),
        ("dead.pth", "leads nowhere"),
        ("round.pth", "leads nowhere"),
        ("pipe.pth", "not a regular file"),
        ("folder", "is a folder"),
        ("nothing", "no file at"),
        ("x" * 300, "too long"),
    ):
        with pytest.raises(LogoformerError) as caught, open_foreign(tmp_path / name):
            pass
        assert word in str(caught.value) and caught.value.next
