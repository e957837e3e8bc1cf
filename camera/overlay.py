"""Overlay video: the frame, and beside it its answer (label, probability bars, time).

The panel is beside the picture, not on it: a face crop of 64 pixels is too small to draw on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle.files import atomic_path
from ..clips import Frame
from ..errors import MachineError
from ..media.files import ascii_name
from ..media.marks import mark_video
from ..media.opencv import load_cv2
from .sources.contract import TimedFrame

MIN_HEIGHT, MAX_HEIGHT = 320, 1080
PANEL_SHARE = 0.75  # width of the panel over the height of the picture
MAX_BARS = 12

# blue, green, red: OpenCV's order
BACKGROUND, TRACK, BAR, BEST, TEXT, DIM = (
    (24, 22, 20),
    (52, 48, 44),
    (150, 120, 80),
    (60, 180, 250),
    (240,) * 3,
    (150,) * 3,
)


class Overlay:
    """Writer of an overlay video, frame by frame. Made by `open_overlay`.

    Args:
        part: the file to write, of an ASCII name.
        labels: the C class names, in the order of the bars.
        fps: frames per second of the video.
    """

    def __init__(self, part: str, labels: Sequence[str], fps: float) -> None:
        self._cv2 = load_cv2("Writing an overlay video")
        self._part, self._labels, self._fps = part, labels, fps
        self._writer: Any = None
        self._size = (0, 0)  # width, height of the picture
        self.frames = 0

    def add(self, captured: TimedFrame, box: tuple[int, int, int, int], line: Mapping[str, Any] | None) -> None:
        """Writes one frame.

        Args:
            captured: the frame; the size of the first decides, later ones are fitted into it.
            box: left, top, width, height of the face in that frame.
            line: the last answer, as `run` prints it, or None before the first.

        Raises:
            MachineError: OpenCV cannot write such a video here.
        """
        if self._writer is None:
            self._open(*captured.frame.shape[:2])
        picture = fit(self._cv2, captured, box, self._size)
        panel = draw_panel(self._cv2, self._size[1], self._labels, line, captured.time_s)
        self._writer.write(np.concatenate([picture, panel], axis=1))
        self.frames += 1

    def _open(self, height: int, width: int) -> None:
        scale = min(max(height, MIN_HEIGHT), MAX_HEIGHT) / height
        self._size = (_even(width * scale), _even(height * scale))
        total = (self._size[0] + panel_width(self._size[1]), self._size[1])
        fourcc = self._cv2.VideoWriter_fourcc(*"mp4v")
        self._writer = self._cv2.VideoWriter(self._part, fourcc, self._fps, total)
        if not self._writer.isOpened():
            raise MachineError(
                f"OpenCV cannot write an mp4 of {total[0]} x {total[1]} pixels at {self._fps:g} frames/s here.",
                cause="an OpenCV without FFmpeg, or a frame that is too wide",
                next="run without -o",
            )

    def close(self) -> None:
        """Write the file's index, without which nothing can play the video."""
        if self._writer is not None:
            self._writer.release()

    def check(self) -> None:
        """Read the length back: OpenCV's writer does not report a full disk.

        Raises:
            MachineError: the file does not hold what was written to it.
        """
        capture = self._cv2.VideoCapture(self._part)
        found = int(capture.get(self._cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        if not Path(self._part).exists():
            raise MachineError("The overlay video was taken away while it was written.", next="name another place")
        if found != self.frames:
            raise MachineError(
                f"The overlay video could not be written: {max(found, 0)} of {self.frames} frames are in the file.",
                cause="the disk is full, or a limit on file sizes was reached",
                next="free space or name another place",
            )


@contextlib.contextmanager
def open_overlay(target: Path, labels: Sequence[str], fps: float) -> Iterator[Overlay]:
    """Open an overlay video that appears at `target` when the block ends well.

    Otherwise nothing is left behind. At least one frame must be added.

    Raises:
        MachineError: the folder or the disk does not take it, or OpenCV is not installed.
    """
    with atomic_path(target) as part, ascii_name(part) as name:
        overlay = Overlay(name, labels, fps)
        try:
            yield overlay
        finally:
            overlay.close()
        overlay.check()
        mark_video(part)


def panel_width(height: int) -> int:
    """Width in pixels of the panel beside a picture of that height."""
    return _even(height * PANEL_SHARE)


def fit(cv2: Any, captured: TimedFrame, box: tuple[int, int, int, int], size: tuple[int, int]) -> Frame:
    """Scale a frame to fit `size`, on black, with a box around a face that is not the whole.

    Args:
        cv2: the module.
        captured: the frame, `[H, W, 3]`.
        box: left, top, width, height of the face.
        size: width, height wanted.

    Returns:
        uint8 `[height, width, 3]`, BGR.
    """
    height, width = captured.frame.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    inner = (max(1, min(size[0], round(width * scale))), max(1, min(size[1], round(height * scale))))
    bgr = captured.frame if captured.color == "bgr" else captured.frame[:, :, ::-1]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(np.ascontiguousarray(bgr), inner, interpolation=method)
    canvas: Frame = np.zeros((size[1], size[0], 3), np.uint8)
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    canvas[top : top + inner[1], left : left + inner[0]] = small
    if box[2:] != (width, height):
        corner = (left + round(box[0] * scale), top + round(box[1] * scale))
        opposite = (corner[0] + round(box[2] * scale) - 1, corner[1] + round(box[3] * scale) - 1)
        cv2.rectangle(canvas, corner, opposite, BEST, max(2, size[1] // 320))
    return canvas


def draw_panel(cv2: Any, height: int, labels: Sequence[str], line: Mapping[str, Any] | None, time_s: float) -> Frame:
    """Draw the panel: label, a bar for every class (the likeliest `MAX_BARS` of many), time.

    Args:
        cv2: the module.
        height: in pixels; all else is a share of it.
        labels: the C class names.
        line: the last answer, or None before the first.
        time_s: of the frame, in seconds.

    Returns:
        uint8 `[height, panel_width(height), 3]`, BGR.
    """
    width, unit = panel_width(height), height / 320.0
    panel: Frame = np.full((height, width, 3), BACKGROUND, np.uint8)
    margin = round(12 * unit)

    def write(text: str, left: float, base: float, scale: float, limit: float, color: tuple[int, ...]) -> None:
        thickness = max(1, round(2 * scale * unit))
        # OpenCV's letters are ASCII; another character would come out as several question marks.
        text = fit_text(cv2, text.encode("ascii", "replace").decode(), scale * unit, thickness, limit)
        place = (round(left), round(base))
        cv2.putText(panel, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale * unit, color, thickness, cv2.LINE_AA)

    inner = width - 2 * margin
    write(f"t = {time_s:.2f} s", margin, height - 12 * unit, 0.5, inner, DIM)
    if line is None:
        write("warming up", margin, 38 * unit, 0.8, inner, DIM)
        return panel
    shares: Mapping[str, float] = line["probabilities"]
    write(line["label"], margin, 38 * unit, 0.9, inner, BEST)
    if line.get("partial"):
        write("(short clip)", width / 2, height - 12 * unit, 0.5, width / 2 - margin, DIM)
    shown = list(labels)
    if len(shown) > MAX_BARS:
        shown = sorted(shown, key=lambda name: -shares[name])[:MAX_BARS]
    first, last = 56 * unit, height - 36 * unit
    row = min((last - first) / len(shown), 34 * unit)
    names, figures = inner * 0.44, inner * 0.20
    for place, name in enumerate(shown):
        base = first + row * (place + 0.5) + 5 * unit
        best = name == line["label"]
        write(name, margin, base, 0.45, names - 4 * unit, TEXT if best else DIM)
        left, length = margin + names, inner - names - figures
        low, high = round(first + row * place + row * 0.2), round(first + row * (place + 1) - row * 0.2)
        cv2.rectangle(panel, (round(left), low), (round(left + length), high), TRACK, cv2.FILLED)
        end = round(left + length * shares[name])
        cv2.rectangle(panel, (round(left), low), (end, high), BEST if best else BAR, cv2.FILLED)
        write(f"{100 * shares[name]:.0f}%", left + length + 5 * unit, base, 0.45, figures, TEXT if best else DIM)
    return panel


def fit_text(cv2: Any, text: str, scale: float, thickness: int, limit: float) -> str:
    """Cut a text to `limit` pixels, marked with '..' where it was cut."""

    def wide(candidate: str) -> bool:
        return bool(cv2.getTextSize(candidate, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)[0][0] > limit)

    if not wide(text):
        return text
    while text and wide(text + ".."):
        text = text[:-1]
    return text + ".."


def _even(size: float) -> int:
    """The nearest even number, at least 2: MPEG-4 stores colour at half the resolution."""
    return max(2, 2 * round(size / 2))
