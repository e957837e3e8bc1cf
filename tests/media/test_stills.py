"""Still pictures: one rule for orientation, depth, alpha; and which files of a folder are frames."""

from __future__ import annotations

import os
import struct
import zlib

import media_files
import numpy as np
import pytest
from logoformer.errors import BadInputError
from logoformer.media.stills import MAX_PIXELS, decode_still, still_names
from PIL import EpsImagePlugin, Image


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_eight_orientations_are_obeyed(kind, orientation):
    upright = media_files.quarters(16, 32)
    # How a camera stored it, by the table of the EXIF standard: what is done to the upright picture.
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1), 7: upright[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    data = media_files.turned(Image.fromarray(np.ascontiguousarray(stored)), orientation, kind)
    seen = np.asarray(decode_still(data, "x"))
    assert seen.shape == upright.shape
    assert np.abs(seen[4::8, 8::16].astype(int) - upright[4::8, 8::16]).max() < 60


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3"]
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_gives_no_orientation(exif):
    data = media_files.image_bytes(Image.fromarray(media_files.quarters()), "JPEG", exif=exif)
    assert decode_still(data, "x").size == (48, 32)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK"])
def test_other_modes_become_rgb(mode):
    image = Image.new("RGB", (5, 4), (255, 255, 255)).convert("RGBA" if mode == "PA" else mode)
    kind = "JPEG" if mode == "CMYK" else "PNG"
    if mode == "PA":
        image = image.quantize(4)
    seen = decode_still(media_files.image_bytes(image, kind), "x")
    assert seen.mode == "RGB" and np.asarray(seen).min() > 250


def test_an_alpha_channel_is_dropped_and_the_colour_under_it_stays():
    image = Image.new("RGBA", (4, 4), (200, 100, 50, 0))
    assert np.asarray(decode_still(media_files.image_bytes(image), "x"))[0, 0].tolist() == [200, 100, 50]


@pytest.mark.parametrize("white", [65535, 4095, 255])
def test_grey_of_sixteen_bits_is_refused_whatever_its_white(white):
    data = media_files.image_bytes(Image.fromarray(np.full((4, 4), white, np.uint16)))
    with pytest.raises(BadInputError, match="more than 8 bits"):
        decode_still(data, "x")


def sixteen_bits(kind: int, channels: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel: its colour type, and values `[H, W, C]`."""
    height, width, _ = channels.shape
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in channels)
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(raw)),
        (b"IEND", b""),
    )
    chunks = (struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("white", [65535, 4095])
def test_grey_of_sixteen_bits_with_alpha_is_refused_too(white):
    grey = np.stack([np.full((4, 5), white), np.full((4, 5), 65535)], axis=-1)
    with pytest.raises(BadInputError, match="more than 8 bits"):
        decode_still(sixteen_bits(4, grey), "x")
    eight = media_files.image_bytes(Image.new("LA", (5, 4), (255, 9)))
    assert np.asarray(decode_still(eight, "x")).min() == 255


@pytest.mark.parametrize("kind", [2, 6])
def test_colours_of_sixteen_bits_keep_their_high_byte(kind):
    colours = np.full((4, 5, 3 + (kind == 6)), 0)
    colours[..., :3] = (200 * 256 + 99, 100 * 256, 65535)
    assert np.asarray(decode_still(sixteen_bits(kind, colours), "x"))[0, 0].tolist() == [200, 100, 255]


def test_postscript_under_a_pictures_name_starts_no_program(tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    for name in ("gs", "gswin32c", "gswin64c"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {ran}\necho 9.99\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # what an earlier test found out
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(BadInputError, match="JPEG, PNG, BMP or WebP"):
        decode_still(page, "x.jpg")
    assert not ran.exists()


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PPM", "TGA", "ICO", "PCX", "JPEG2000", "AVIF"])
def test_other_formats_are_not_decoded_and_the_error_says_what_is_read(kind):
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {kind}")
    data = media_files.image_bytes(Image.new("RGB", (32, 32), (9, 99, 199)), kind)
    with pytest.raises(BadInputError, match="no JPEG, PNG, BMP or WebP"):
        decode_still(data, "x.png")


def test_a_phones_jpeg_of_several_pictures_is_read():
    first, second = Image.new("RGB", (16, 16), (200, 0, 0)), Image.new("RGB", (16, 16), (0, 0, 200))
    data = media_files.image_bytes(first, "MPO", save_all=True, append_images=[second])
    assert np.asarray(decode_still(data, "x"))[0, 0, 0] > 150


def test_a_huge_picture_is_refused_unread():
    side = int(MAX_PIXELS**0.5) + 1
    data = media_files.image_bytes(Image.new("1", (side, side)))
    with pytest.raises(BadInputError, match=f"{side} x {side}"):
        decode_still(data, "x")


# ------------------------------------------------------------------------------------------------------------ folders
def names(tmp_path, *files: str | bytes) -> list[str]:
    for file in files:
        place = os.fsencode(tmp_path) + b"/" + (file if isinstance(file, bytes) else file.encode())
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY))
    return still_names(tmp_path)


def test_frames_come_in_natural_order_and_other_files_do_not(tmp_path):
    assert names(tmp_path, "10.jpg", "9.jpg", "1.PNG", "._9.jpg", ".DS_Store", "Thumbs.db", "notes.txt") == [
        "1.PNG", "9.jpg", "10.jpg",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1.jpg", "1.png"), ("1.jpg", "1.JPG"), ("00001.jpg", "00001 (1).jpg"), ("a.png", "a - Copy.png"),
        ("a.png", "a copy.png"), ("a.png", "a copy 2.png"), ("1.jpg", "1 (2).png"),
    ],
)  # fmt: skip
def test_a_frame_that_is_there_twice_is_refused(tmp_path, first, second):
    with pytest.raises(BadInputError, match="one frame twice") as caught:
        names(tmp_path, first, second, "other.jpg")
    assert first in caught.value.what and second in caught.value.what


def test_numbers_in_parentheses_alone_are_no_copies(tmp_path):
    assert len(names(tmp_path, "face (1).jpg", "face (2).jpg", "face (10).jpg")) == 3


def test_names_that_are_no_text_are_listed(tmp_path):
    assert [os.fsencode(name) for name in names(tmp_path, b"v\xe91.jpg", b"v\xe92.jpg")] == [
        b"v\xe91.jpg",
        b"v\xe92.jpg",
    ]


def test_a_folder_without_pictures_or_that_is_not_there_is_bad_input(tmp_path):
    with pytest.raises(BadInputError, match="holds no image"):
        names(tmp_path, "a.txt")
    with pytest.raises(BadInputError, match="cannot be listed"):
        still_names(tmp_path / "none")
