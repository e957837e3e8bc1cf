from __future__ import annotations

import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logoformer.bundle.files import natural_order
from logoformer.camera.sources.contract import TimedFrame
from logoformer.camera.sources.folder import FrameFolder
from logoformer.errors import BadInputError, RefusedError
from PIL import Image


def test_frames_come_in_natural_order_with_their_pixels(tmp_path):
    for number in (10, 9, 100, 1):
        Image.fromarray(np.full((4, 6, 3), number, np.uint8)).save(tmp_path / f"frame{number}.png")
    captured = list(FrameFolder(tmp_path, 25.0))
    assert [int(one.frame[0, 0, 0]) for one in captured] == [1, 9, 10, 100]
    assert [one.index for one in captured] == [0, 1, 2, 3]
    assert [one.time_s for one in captured] == pytest.approx([0, 0.04, 0.08, 0.12])
    assert {one.frame.shape for one in captured} == {(4, 6, 3)}
    assert {str(one.frame.dtype) for one in captured} == {"uint8"}


def test_an_rgb_png_keeps_its_channel_order(make_folder, tools):
    folder = make_folder([tools.solid("red")])
    (captured,) = FrameFolder(folder, 25.0)
    assert captured.color == "rgb"
    assert captured.frame[0, 0].tolist() == tools.solid("red")[0, 0].tolist()


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".bmp", ".webp", ".PNG", ".JPG"])
def test_every_promised_format_is_read(make_folder, tools, suffix):
    (captured,) = FrameFolder(make_folder([tools.solid("green")], suffix=suffix), 25.0)
    assert np.abs(captured.frame.astype(int) - tools.solid("green")).max() < 8


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_other_modes_become_three_channels(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode).save(tmp_path / f"0.{suffix}")
    (captured,) = FrameFolder(tmp_path, 25.0)
    assert captured.frame.shape == (4, 5, 3)
    assert captured.frame.min() > 250


def test_sixteen_bits_are_refused_not_clipped(tmp_path):
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "0.png")
    with pytest.raises(BadInputError, match="more than 8 bits"):
        list(FrameFolder(tmp_path, 25.0))


def test_a_photo_is_turned_the_way_its_camera_was_held(tmp_path):
    image = Image.new("RGB", (8, 4))
    exif = image.getexif()
    exif[0x0112] = 6  # rotate by 90 degrees to see it upright
    image.save(tmp_path / "0.jpg", exif=exif)
    (captured,) = FrameFolder(tmp_path, 25.0)
    assert captured.frame.shape == (8, 4, 3)


def test_the_size_may_change_from_frame_to_frame(make_folder, tools):
    folder = make_folder([tools.solid("red", 10, 20), tools.solid("red", 30, 12)])
    assert [one.frame.shape for one in FrameFolder(folder, 25.0)] == [(10, 20, 3), (30, 12, 3)]


def test_hidden_files_and_other_files_are_passed_over(make_folder, tools):
    folder = make_folder([tools.solid("red")])
    (folder / "._0.png").write_bytes(b"resource fork")
    (folder / "notes.txt").write_text("hello")
    assert FrameFolder(folder, 25.0).count == 1


@pytest.mark.parametrize("damage", ["cut", "junk", "empty"])
def test_a_damaged_image_is_named_after_the_good_ones_were_delivered(make_folder, tools, damage):
    folder = make_folder([tools.textured(index) for index in range(5)], suffix=".jpg")
    bad = folder / "3.jpg"
    whole = bad.read_bytes()
    bad.write_bytes({"cut": whole[: len(whole) // 2], "junk": b"\x00" * 500, "empty": b""}[damage])
    delivered: list[TimedFrame] = []
    with pytest.raises(BadInputError, match=r"3\.jpg is not an image") as caught:
        delivered.extend(FrameFolder(folder, 25.0))
    assert [one.index for one in delivered] == [0, 1, 2]
    assert caught.value.cause
    assert caught.value.next


@given(data=st.binary(max_size=300), kind=st.sampled_from(["PNG", "JPEG", "BMP", "WEBP"]), place=st.integers(0, 200))
def test_a_hostile_image_is_decoded_or_is_bad_input(tmp_path_factory, data, kind, place):
    buffer = io.BytesIO()
    Image.fromarray(np.arange(12 * 12 * 3, dtype=np.uint8).reshape(12, 12, 3)).save(buffer, kind)
    changed = bytearray(buffer.getvalue())
    changed[place : place + len(data)] = data
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "0.png").write_bytes(changed)
    try:
        (captured,) = FrameFolder(folder, 25.0)
    except BadInputError:
        return
    assert captured.frame.ndim == 3
    assert captured.frame.dtype == np.uint8


def test_a_small_file_that_declares_a_huge_image_is_refused_unread(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8000, 8000, 8, 2, 0, 0, 0))
    (tmp_path / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(BadInputError, match="8000 x 8000"):
        list(FrameFolder(tmp_path, 25.0))


def test_a_link_among_the_frames_is_refused(make_folder, tools, tmp_path):
    folder = make_folder([tools.solid("red")])
    secret = tmp_path / "secret.png"
    Image.fromarray(tools.solid("blue")).save(secret)
    (folder / "1.png").symlink_to(secret)
    with pytest.raises(RefusedError, match="symbolic link"):
        list(FrameFolder(folder, 25.0))


def test_a_fifo_among_the_frames_is_refused(make_folder, tools):
    folder = make_folder([tools.solid("red")])
    os.mkfifo(folder / "1.png")
    with pytest.raises(RefusedError, match="not a regular file"):
        list(FrameFolder(folder, 25.0))


def test_an_empty_folder_points_to_the_folders_inside(tmp_path):
    with pytest.raises(BadInputError, match="holds no image") as caught:
        FrameFolder(tmp_path, 25.0)
    assert caught.value.next == "name a folder of frames or a video"
    (tmp_path / "00002").mkdir()
    (tmp_path / "00001").mkdir()
    with pytest.raises(BadInputError) as caught:
        FrameFolder(tmp_path, 25.0)
    assert caught.value.next.endswith("/00001")


def test_a_folder_that_may_not_be_listed_is_bad_input(monkeypatch, tmp_path):
    def denied(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("logoformer.media.stills.os.scandir", denied)
    with pytest.raises(BadInputError, match="cannot be listed: Permission denied"):
        FrameFolder(tmp_path, 25.0)


@given(st.lists(st.integers(0, 10**12), unique=True, max_size=20), st.sampled_from(["", "frame_", "a1b"]))
def test_numbers_sort_as_numbers_whatever_their_padding(numbers, prefix):
    names = [f"{prefix}{number:0{number % 7}d}.jpg" for number in numbers]
    assert sorted(names, key=natural_order) == [name for _, name in sorted(zip(numbers, names, strict=True))]


@given(st.lists(st.text(max_size=12), max_size=12))
def test_any_names_can_be_ordered_and_the_order_is_total(names):
    once = sorted(names, key=natural_order)
    names.reverse()
    assert sorted(names, key=natural_order) == once
