"""Still pictures: upright 8-bit RGB by Pillow; and the frames of a folder.

Training, `data-check`, calibration, evaluation and `run` read pictures here and nowhere else, so a picture is the same
for all of them or refused by all:

* EXIF orientation is obeyed;
* grey, palette and CMYK become RGB; an alpha channel is dropped, the colours under it stay;
* grey of more than 8 bits, with alpha or without, is refused: its white may be 65535, 4095 or anything, and a guess
  would be silent; of colours with 16 bits the high byte is taken.
"""

from __future__ import annotations

import io
import os
import re
from pathlib import PurePath

from PIL import Image, ImageOps, UnidentifiedImageError

from ..bundle.files import natural_order
from ..errors import BadInputError

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")  # a content of another kind reaches no decoder: PostScript runs a program
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
MAX_IMAGE_BYTES = 64 << 20
MAX_PIXELS = 40_000_000  # a little more than 8K; a small file can declare far more (a decompression bomb)

_ORIENTATION = 0x0112  # EXIF tag; 1 is upright
_DEEP_GREY = {(16, 0), (16, 4)}  # bits and colour type of a PNG; with alpha Pillow would keep the high byte
_COPY = re.compile(r"^(?P<name>.+?)(?: \(\d+\)| - [Cc]opy(?: \(\d+\))?| copy(?: \d+)?)$")


def decode_still(data: bytes, shown: str) -> Image.Image:
    """Decode one picture at its full size.

    Pillow decodes everywhere: two JPEG decoders may differ by a grey level, and so does libjpeg's own shrinking while
    it decodes (`draft`), which is why neither is used to save time.

    Args:
        data: the encoded file.
        shown: its name, for messages.

    Returns:
        Mode RGB, upright.

    Raises:
        BadInputError: another format under whatever name, a damaged picture, one of absurd size, or grey of more than
            8 bits.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadInputError(f"{shown} has {image.width} x {image.height} pixels; {MAX_PIXELS} are read.")
            deep_grey = image.format == "PNG" and tuple(data[24:26]) in _DEEP_GREY  # IHDR comes first
            if deep_grey or image.mode.startswith(("I", "F")):
                raise BadInputError(
                    f"{shown} has more than 8 bits per channel (mode {image.mode}).",
                    cause="a depth or infrared camera, whose white is not known",
                    next="scale it to 8 bits",
                )
            image.load()  # now, so that a damaged file is met here
            turned = ImageOps.exif_transpose(image) if image.getexif().get(_ORIENTATION, 1) != 1 else image
            return turned if turned.mode == "RGB" else turned.convert("RGB")
    except BadInputError:
        raise
    # Pillow's decoders raise many types: OSError, SyntaxError, ValueError, struct.error...
    except Exception as error:
        unread = isinstance(error, UnidentifiedImageError)
        why = "no JPEG, PNG, BMP or WebP by its content, and nothing else is read" if unread else error
        raise BadInputError(
            f"{shown} is not an image that can be decoded: {why}.",
            cause="a copy that was cut off, or another kind of file under an image's name",
            next="copy it again, save it as PNG, or take it out of the folder",
        ) from error


def still_names(folder: str | os.PathLike[str]) -> list[str]:
    """Names of the pictures of a folder that are frames, frame 9 before frame 10.

    Hidden files are passed over, such as the `._1.jpg` that a Mac writes beside each file.

    Raises:
        BadInputError: the folder is missing, may not be listed or holds no picture; or a frame is there twice: under
            two suffixes, or as a file manager's copy (`1 (1).jpg` beside `1.jpg`).
    """
    shown = os.fspath(folder)
    try:
        with os.scandir(folder) as entries:
            there = [entry.name for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise BadInputError(
            f"{shown} cannot be listed: {error.strerror}.",
            cause="the frames are not unpacked, or the list belongs to another release",
        ) from error
    found = sorted((name for name in there if name.lower().endswith(IMAGE_SUFFIXES)), key=natural_order)
    if not found:
        raise BadInputError(f"The folder {shown} holds no image ({', '.join(IMAGE_SUFFIXES)}).")
    stems: dict[str, str] = {}
    for name in found:
        other = stems.setdefault(PurePath(name).stem, name)
        if other != name:
            raise _twice(shown, other, name)
    for stem, name in stems.items():
        copied = _COPY.match(stem)
        if copied and copied["name"] in stems:
            raise _twice(shown, stems[copied["name"]], name)
    return found


def _twice(folder: str, first: str, second: str) -> BadInputError:
    return BadInputError(
        f"The folder {folder} holds one frame twice: {first} and {second}.",
        cause="a conversion that left its originals, or a file manager's copy",
        next="keep one of each",
    )
