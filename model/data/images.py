"""Decoding of single images, and the order of file names."""

from __future__ import annotations

import io
import re

from PIL import Image, UnidentifiedImageError

from ...errors import BadInputError

SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_BYTES = 16 << 20
_MAX_SIDE = 4096


def open_image(data: bytes, shown: str) -> Image.Image:
    """Decodes one image, at its full size.

    Pillow decodes here and in the torch-free runtime: two JPEG decoders may differ by a grey level, and so does
    libjpeg's own shrinking while it decodes (`draft`), which is why neither is used to save time.

    Args:
        data: the file.
        shown: how to name it in a message.

    Returns:
        Mode RGB.

    Raises:
        BadInputError: not an image, a damaged one, or one of absurd size.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if max(image.size) > _MAX_SIDE:
                raise BadInputError(f"{shown} has {image.size[0]} x {image.size[1]} pixels; that is no face crop.")
            if image.mode != "RGB":
                return image.convert("RGB")
            image.load()  # now, so that a damaged file is met here
            return image
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInputError(
            f"{shown} is not an image that can be decoded: {error}.", cause="a truncated copy or download"
        ) from error


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts frame 9 before frame 10 where names are not padded."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(part), part) if part.isascii() and part.isdigit() else (1, 0, part) for part in parts]
