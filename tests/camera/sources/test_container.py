from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logoformer.camera.sources.container import has_exact_length, presented_seconds


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def track(kind: bytes, duration: int, wide: bool) -> bytes:
    head = b"\1\0\0\0" + bytes(24) if wide else b"\0\0\0\0" + bytes(16)
    header = head + duration.to_bytes(8 if wide else 4, "big") + bytes(60)
    handler = box(b"hdlr", bytes(8) + kind + bytes(12))
    return box(b"trak", box(b"tkhd", header) + box(b"mdia", box(b"mdhd", bytes(20)) + handler))


def movie(*tracks: bytes, timescale: int = 600, wide: bool = False) -> bytes:
    head = (b"\1\0\0\0" + bytes(16)) if wide else (b"\0\0\0\0" + bytes(8))
    header = box(b"mvhd", head + timescale.to_bytes(4, "big") + bytes(80))
    return box(b"ftyp", b"isom") + box(b"mdat", bytes(50)) + box(b"moov", header + b"".join(tracks))


def test_a_real_file_of_opencv_gives_its_length(make_video, tools):
    path = make_video([tools.solid("red")] * 30, fps=20.0)
    assert presented_seconds(path) == pytest.approx(1.5)
    assert has_exact_length(path.read_bytes()[:12])


def test_an_edit_list_shortens_it(make_video, tools, tmp_path):
    whole = make_video([tools.solid("red")] * 30, fps=20.0)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(tools.hide_frames(whole.read_bytes(), 0.5))
    assert presented_seconds(cut) == pytest.approx(0.5)


@pytest.mark.parametrize("wide", [False, True])
def test_the_video_track_is_found_behind_the_sound(tmp_path, wide):
    path = tmp_path / "a.mp4"
    path.write_bytes(movie(track(b"soun", 9999, wide), track(b"vide", 1500, wide), wide=wide))
    assert presented_seconds(path) == pytest.approx(2.5)


def test_a_box_of_64_bits_and_one_up_to_the_end_are_walked(tmp_path):
    data = movie(track(b"vide", 1200, False))
    at = data.find(b"mdat") - 4
    large = struct.pack(">I4sQ", 1, b"mdat", 16 + 50) + bytes(50)
    last = bytearray(data[at + 58 :])
    last[:4] = bytes(4)  # length 0: up to the end of the file
    path = tmp_path / "a.mp4"
    path.write_bytes(data[:at] + large + bytes(last))
    assert presented_seconds(path) == pytest.approx(2.0)


@pytest.mark.parametrize(
    "data",
    [b"", b"1234", movie(), movie(track(b"soun", 10, False)), movie(track(b"vide", 10, False), timescale=0)],
    ids=["empty", "short", "no track", "sound only", "no timescale"],
)
def test_what_has_no_length_gives_none(tmp_path, data):
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    assert presented_seconds(path) is None


@pytest.mark.parametrize("length", [2, 7])
def test_a_box_that_is_shorter_than_its_header_ends_the_walk(tmp_path, length):
    path = tmp_path / "a.mp4"
    path.write_bytes(struct.pack(">I4s", length, b"free")[:length] + movie(track(b"vide", 1200, False)))
    assert presented_seconds(path) is None


def test_a_file_of_nothing_but_boxes_ends_the_walk(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(box(b"free", b"") * 1_000_000 + movie(track(b"vide", 1200, False)))
    assert presented_seconds(path) is None


@given(st.binary(max_size=400), st.integers(0, 400), st.integers(0, 120))
def test_damage_never_raises(tmp_path_factory, noise, place, keep):
    data = bytearray(movie(track(b"vide", 1200, False)))
    data[place : place + len(noise)] = noise
    path = tmp_path_factory.getbasetemp() / "noise.mp4"
    path.write_bytes(bytes(data)[: len(data) - keep])
    seconds = presented_seconds(path)
    assert seconds is None or seconds > 0


@pytest.mark.parametrize(
    ("head", "exact"),
    [
        (b"\0\0\0\x1cftypisom", True),
        (b"RIFF\0\0\0\0AVI ", True),
        (b"RIFF\0\0\0\0WAVE", False),
        (b"\x1a\x45\xdf\xa3" + bytes(8), False),
        (b"", False),
    ],
)
def test_which_containers_count_their_frames(head, exact):
    assert has_exact_length(head) is exact
