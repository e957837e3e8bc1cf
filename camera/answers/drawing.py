"""The picture with a box and a label for each face, drawn with Pillow alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...clips import Frame
from .contract import Box, FaceAnswer, FaceFrame

# Red, green, blue. Told apart with every common kind of colour blindness (Okabe and Ito's set).
COLORS = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (204, 121, 167), (213, 94, 0))
WAITING, DARK, LIGHT = (170, 170, 170), (16, 18, 20), (245, 245, 245)
MAX_SIDE, LEAST_SIDE = 1280, 480  # pixels of a picture that is shown: labels must be legible on it


def color_of(face: int) -> tuple[int, int, int]:
    """The colour of a face, the same as long as it is followed."""
    return COLORS[face % len(COLORS)]


def to_image(frame: Frame, color: str) -> Image.Image:
    """A frame `[H, W, 3]` as a Pillow image, RGB."""
    height, width = frame.shape[:2]
    mode = "BGR" if color == "bgr" else "RGB"
    # Through bytes: numpy reverses a last axis of three several times slower than Pillow reads it.
    return Image.frombytes("RGB", (width, height), np.ascontiguousarray(frame).tobytes(), "raw", mode)


def draw_frame(seen: FaceFrame, held: Mapping[int, FaceAnswer], max_side: int = MAX_SIDE) -> Image.Image:
    """The frame, `LEAST_SIDE` to `max_side` pixels long, with its faces.

    Args:
        seen: the frame.
        held: newest answer by face; a face without one is drawn in grey.
        max_side: pixels.
    """
    image = to_image(seen.picture, seen.color)
    scale = min(max(1.0, LEAST_SIDE / max(image.size)), max_side / max(image.size))
    if scale != 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.5)
    draw = ImageDraw.Draw(image)
    for face in seen.faces:
        answer = held.get(face.id)
        box = (face.box[0] * scale, face.box[1] * scale, face.box[2] * scale, face.box[3] * scale)
        text = f"#{face.id}" if answer is None else f"#{face.id} {answer.label} {answer.confidence:.0%}"
        draw_box(draw, image.size, box, text, WAITING if answer is None else color_of(face.id))
    return image


def draw_box(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], box: Box, text: str, color: tuple[int, int, int]
) -> None:
    """A box with a label that stays inside the picture.

    Args:
        draw: on the picture.
        size: width and height of the picture.
        box: in its pixels.
        text: the label.
        color: red, green, blue.
    """
    width, height = size
    left, top = max(0, round(box[0])), max(0, round(box[1]))
    right, bottom = min(width - 1, round(box[2])), min(height - 1, round(box[3]))
    if right <= left or bottom <= top:
        return
    line = max(2, round(min(size) / 200))
    draw.rectangle((left, top, right, bottom), outline=color, width=line)
    letters = max(11, round(min(size) / 28))
    wide, high = text_size(text, letters)
    pad = max(2, letters // 4)
    x = max(0, min(left, width - wide - 2 * pad))
    y = top - high - 2 * pad if top - high - 2 * pad >= 0 else min(top + line, max(0, height - high - 2 * pad))
    draw.rectangle((x, y, x + wide + 2 * pad, y + high + 2 * pad), fill=color)
    write_text(draw, (x + pad, y + pad), text, letters, DARK)


def draw_bars(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int, int],
    answer: FaceAnswer,
    color: tuple[int, int, int],
    letters: int,
) -> int:
    """A bar for every class, one below the other.

    Args:
        draw: on the picture.
        place: left, top and width in its pixels.
        answer: whose smoothed probabilities are drawn.
        color: of the held label's bar.
        letters: height of the text in pixels.

    Returns:
        Where the next thing may begin, pixels from the top.
    """
    left, top, width = place
    names = max(text_size(name, letters)[0] for name in answer.labels) + letters // 2
    names = min(names, width // 2)
    step = round(letters * 1.5)
    for name, share in zip(answer.labels, answer.probabilities, strict=True):
        best = name == answer.label
        write_text(draw, (left, top), fit_width(name, letters, names), letters, LIGHT if best else WAITING)
        low, high = left + names, left + width
        middle = top + letters // 2
        draw.rectangle((low, middle - letters // 4, high, middle + letters // 4), fill=(52, 56, 60))
        end = low + round((high - low) * float(share))
        if end > low:
            shade = color if best else (120, 126, 132)
            draw.rectangle((low, middle - letters // 4, end, middle + letters // 4), fill=shade)
        top += step
    return top


def draw_readings(size: tuple[int, int], labels: Sequence[str], held: Sequence[FaceAnswer], note: str) -> Image.Image:
    """The bars of several faces, for beside a picture.

    Args:
        size: width and height in pixels.
        labels: the C class names; decides how much room a face takes.
        held: newest answer of each face, in the order of their ids.
        note: the last line.
    """
    width, height = size
    panel = Image.new("RGB", size, (24, 26, 28))
    draw = ImageDraw.Draw(panel)
    margin = max(6, width // 24)
    letters = max(9, min(round(height / 34), round(width / 16)))
    of_face = round(letters * 2.2) + round(letters * 1.5) * len(labels)
    bottom = height - round(letters * 1.8)
    top = margin
    for answer in held:
        if top + of_face > bottom:
            break
        text = f"#{answer.face} {answer.label} {answer.confidence:.0%}"
        write_text(draw, (margin, top), fit_width(text, letters, width - 2 * margin), letters, color_of(answer.face))
        place = (margin, top + round(letters * 1.6), width - 2 * margin)
        top = draw_bars(draw, place, answer, color_of(answer.face), letters) + round(letters * 0.6)
    if not held:
        write_text(draw, (margin, top), "no answer yet", letters, WAITING)
    write_text(draw, (margin, bottom), fit_width(note, letters, width - 2 * margin), letters, WAITING)
    return panel


# ---------------------------------------------------------------------------------------------------------------- text
@lru_cache(maxsize=16)
def _font(letters: int) -> Any:
    try:
        return ImageFont.load_default(letters)
    except (TypeError, ImportError, OSError):  # Pillow before 10.1, or without FreeType: one size only
        return ImageFont.load_default()


def text_size(text: str, letters: int) -> tuple[int, int]:
    """Width of a text and height of a line in pixels."""
    left, _, right, _ = _font(letters).getbbox(_printed(text))
    return int(right - left), letters


def write_text(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, letters: int, color: tuple[int, int, int]
) -> None:
    """Writes a line of text, its letters' top at `place`."""
    draw.text((place[0], place[1] - letters // 8), _printed(text), fill=color, font=_font(letters))


def fit_width(text: str, letters: int, width: int) -> str:
    """The text, cut to `width` pixels and marked with '..' where it was cut."""
    if text_size(text, letters)[0] <= width:
        return text
    while text and text_size(text + "..", letters)[0] > width:
        text = text[:-1]
    return text + ".."


def _printed(text: str) -> str:
    """The text in Latin-1, which is all that the bitmap font knows."""
    return text.encode("latin-1", "replace").decode("latin-1")
