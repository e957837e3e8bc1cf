"""npz files from anywhere: only plain arrays come out, and nothing is allocated on the word of a header."""

from __future__ import annotations

import io
import pickle
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from logoformer.bundle.npz import MAX_ARRAYS, dump_npz, load_npz
from logoformer.errors import RefusedError

MIB = 1 << 20
ARRAYS = {"clips": np.arange(24, dtype=np.uint8).reshape(2, 3, 4), "p": np.float32([[0.25, 0.75]])}


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as out:
        for name, data in members.items():
            out.writestr(name, data)
    return stream.getvalue()


def npy(header: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode("latin1") + b"\n"
    size = len(text).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + size + text + body


def described(descr: str, shape: str, fortran: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}}}"


def saved(array: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


# ---------------------------------------------------------------------------------------------------------------- whole
@given(hnp.arrays(st.sampled_from([np.uint8, np.int32, np.float16, np.float32]), hnp.array_shapes(min_side=0)))
def test_arrays_come_back_as_they_were(array):
    back = load_npz(dump_npz({"a": array, "b": array[::-1]}), "x", MIB)
    assert list(back) == ["a", "b"]
    assert back["a"].dtype == array.dtype
    assert back["a"].tobytes() == array.tobytes()
    assert back["b"].tobytes() == array[::-1].tobytes()


def test_what_numpy_writes_is_read_too():
    stream = io.BytesIO()
    np.savez(stream, **ARRAYS)
    back = load_npz(stream.getvalue(), "x", MIB)
    assert {name: value.tolist() for name, value in back.items()} == {k: v.tolist() for k, v in ARRAYS.items()}
    with np.load(io.BytesIO(dump_npz(ARRAYS))) as read:
        assert all(np.array_equal(read[name], value) for name, value in ARRAYS.items())


def test_equal_arrays_give_equal_bytes_whatever_the_clock_says(monkeypatch):
    first = dump_npz(ARRAYS)
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    assert dump_npz({name: np.asfortranarray(value) for name, value in ARRAYS.items()}) == first


# ------------------------------------------------------------------------------------------------------------- hostile
PICKLED = saved(np.array([print, {}], dtype=object), allow_pickle=True)
TERABYTES = npy(described("'<f4'", "(1099511627776, 4)"), bytes(64))
HOSTILE = {
    "empty": b"",
    "no zip": b"PK\x03\x04" + bytes(60),
    "a pickle": pickle.dumps(ARRAYS),
    "a plain npy": saved(ARRAYS["p"]),
    "no npy inside": archive({"clips.npy": b"text"}),
    "a text inside": archive({"readme.txt": b"text"}),
    "objects": archive({"a.npy": PICKLED}),
    "objects in a record": archive({"a.npy": npy(described("[('x', '|O')]", "(1,)"), bytes(8))}),
    "a header that promises terabytes": archive({"a.npy": TERABYTES}),
    "more bytes than promised": archive({"a.npy": saved(ARRAYS["p"]) + b"\0"}),
    "fewer bytes than promised": archive({"a.npy": saved(ARRAYS["p"])[:-1]}),
    "Fortran order": archive({"a.npy": saved(np.asfortranarray(np.ones((2, 3))))}),
    "another version": archive({"a.npy": saved(ARRAYS["p"], version=(2, 0))}),
    "only the number of another version": archive({"a.npy": saved(ARRAYS["p"]).replace(b"\x01\0", b"\x03\0", 1)}),
    "two negative sides": archive({"a.npy": npy(described("'|u1'", "(-2, -3)"), bytes(6))}),
    "a negative side": archive({"a.npy": npy(described("'|u1'", "(-1,)"), bytes(6))}),
    "a side that is no number": archive({"a.npy": npy(described("'|u1'", "('2',)"), bytes(2))}),
    "a side beyond 64 bits": archive({"a.npy": npy(described("'|u1'", f"(0, {2**70})"))}),
    "a type of no size": archive({"a.npy": npy(described("'|V0'", "(3,)"))}),
    "an unknown type": archive({"a.npy": npy(described("'<q9'", "(1,)"), bytes(8))}),
    "a header that does not end": archive({"a.npy": npy("{'descr': '<f4', 'shape': (1L", bytes(8))}),
    "a header of brackets": archive({"a.npy": npy("(" * 9000)}),
    "a header that is code": archive({"a.npy": npy("__import__('os').system('true')")}),
    "a header with a strange key": archive({"a.npy": npy("{1: 2, 'descr': 3, (): 4}")}),
    "encrypted": archive({"a.npy": saved(ARRAYS["p"])}).replace(b"\x14\0\0\0", b"\x14\0\x01\0"),
    "an unknown compression": archive({"a.npy": bytes(200)}).replace(b"\0\0\x08\0", b"\0\0\x63\0"),
}


@pytest.mark.filterwarnings("ignore")  # numpy's, about strange headers
@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_plain_npz_is_refused(what):
    with pytest.raises(RefusedError, match="golden") as caught:
        load_npz(HOSTILE[what], "golden.npz", MIB)
    assert caught.value.cause


def test_what_expands_past_the_limit_is_refused_before_it_is_expanded():
    bomb = archive({"a.npy": saved(np.zeros(8 * MIB, np.uint8))})
    assert len(bomb) < MIB // 64
    tracemalloc.start()
    try:
        with pytest.raises(RefusedError, match="expands"):
            load_npz(bomb, "x", MIB)
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()
    assert load_npz(bomb, "x", 9 * MIB)["a"].nbytes == 8 * MIB


def test_the_limit_counts_all_arrays_together():
    half = saved(np.zeros(MIB // 2, np.uint8))
    load_npz(archive({"a.npy": half}), "x", MIB)
    with pytest.raises(RefusedError, match="expands"):
        load_npz(archive({"a.npy": half, "b.npy": half}), "x", MIB)


def test_too_many_arrays_are_refused():
    one = saved(np.zeros(1, np.uint8))
    assert len(load_npz(archive({f"{n}.npy": one for n in range(MAX_ARRAYS)}), "x", MIB)) == MAX_ARRAYS
    with pytest.raises(RefusedError):
        load_npz(archive({f"{n}.npy": one for n in range(MAX_ARRAYS + 1)}), "x", MIB)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_that_lies_about_its_size_is_not_expanded_past_its_word(method):
    body = saved(np.zeros(64 * MIB, np.uint8))
    raw = archive({"a.npy": body}, method)
    said = len(body).to_bytes(4, "little")
    assert raw.count(said) == 2  # in the local header and in the directory
    lie = raw.replace(said, (200).to_bytes(4, "little"))
    tracemalloc.start()
    try:
        with pytest.raises(RefusedError):
            load_npz(lie, "x", MIB)
        assert tracemalloc.get_traced_memory()[1] < 2 * MIB
    finally:
        tracemalloc.stop()


def test_a_flipped_bit_in_the_packed_bytes_is_found_by_the_checksum():
    raw = archive({"a.npy": saved(np.arange(100, dtype=np.uint8))}, zipfile.ZIP_STORED)
    place = raw.index(bytes(range(40, 60)))
    changed = bytearray(raw)
    changed[place] ^= 1
    with pytest.raises(RefusedError, match="CRC"):
        load_npz(bytes(changed), "x", MIB)


# ---------------------------------------------------------------------------------------------------------------- fuzz
GOOD = [dump_npz(ARRAYS), archive({f"{name}.npy": saved(value) for name, value in ARRAYS.items()}, zipfile.ZIP_STORED)]


def loads_or_refuses(data: bytes) -> None:
    """Nothing but a refusal may come out, and what comes out is plain and bounded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            arrays = load_npz(data, "x", MIB)
        except RefusedError:
            return
    assert not any(array.dtype.hasobject for array in arrays.values())
    assert sum(array.nbytes for array in arrays.values()) <= MIB


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(GOOD), st.data())
def test_damaged_archives_are_read_or_refused(raw, data):
    changed = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(changed) - 1))
        action = data.draw(st.sampled_from(["flip", "set", "cut", "insert"]))
        if action == "flip":
            changed[place] ^= 1 << data.draw(st.integers(0, 7))
        elif action == "set":
            changed[place] = data.draw(st.integers(0, 255))
        elif action == "cut" and len(changed) > 20:
            del changed[place : place + data.draw(st.integers(1, 9))]
        else:
            changed[place:place] = data.draw(st.binary(max_size=9))
    loads_or_refuses(bytes(changed))


HEADER_PARTS = st.sampled_from(
    [
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        ",",
        ":",
        "'",
        '"',
        "\\",
        "\n",
        "\t",
        " ",
        "#",
        "...",
        "lambda",
        "None",
        "True",
        "False",
    ]
) | st.sampled_from(
    ["'descr'", "'shape'", "'fortran_order'", "'<f4'", "'O'", "'|V0'", "1", "-1", "1L", "2**9", "9" * 30, "1e9", "b''"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(HEADER_PARTS, max_size=14).map("".join), st.binary(max_size=8))
def test_any_header_is_read_or_refused(header, body):
    loads_or_refuses(archive({"a.npy": npy(header, body)}, zipfile.ZIP_STORED))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data):
    loads_or_refuses(data)
    loads_or_refuses(archive({"a.npy": data}, zipfile.ZIP_STORED))
    loads_or_refuses(archive({"a.npy": b"\x93NUMPY\x01\x00" + data}, zipfile.ZIP_STORED))
