"""Clips: labels, the resize, and which frames are sampled.

Training, calibration, evaluation and the camera all use the functions of this file, so that the network sees the same
thing everywhere. Only numpy and Pillow are needed.

A clip is uint8 `[T, H, W, 3]`. Two sampling rules agree with each other:

* `centre_indices` picks T of a recording's n frames (Former-DFER's test rule: S segments, D neighbouring frames from
  the middle of each);
* `pick` picks the same places out of a *live* history by timestamp: the last `span_s` seconds are read as if they were
  a recording. On a camera of the training frame rate the two give the same frames exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from .errors import BadInputError, UsageError

Frame = npt.NDArray[np.uint8]  # [H, W, 3]
Clip = npt.NDArray[np.uint8]  # [T, H, W, 3]

DFEW_LABELS = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
COLORS = ("rgb", "bgr")
PATTERN_TOLERANCE_S = 0.001  # camera timestamps are rounded to milliseconds by many drivers


@dataclass(frozen=True)
class Sampling:
    """How T frames stand for a stretch of time.

    Attributes:
        segments: S, equal parts that the stretch is cut into.
        frames_per_segment: D, neighbouring frames taken from each; T = S * D.
        span_s: seconds of a typical training clip; the stretch that a stream looks back over.
        fps: frames per second of the training clips; 1/fps is the distance between neighbours.
    """

    segments: int = 8
    frames_per_segment: int = 2
    span_s: float = 2.8
    fps: float = 25.0

    def __post_init__(self) -> None:
        if self.segments < 1 or self.frames_per_segment < 1:
            raise UsageError(f"Sampling needs at least 1 segment and 1 frame in each; got {self}.")
        # Below 400 frames/s the tolerance of `pick` stays under half a frame, so that it never takes a neighbour.
        if not (0 < self.fps <= 400 and 0 < self.span_s <= 3600):
            raise UsageError(f"Sampling needs 0 < fps <= 400 and 0 < span_s <= 3600; got {self}.")
        if self.span_frames < self.frames:
            raise UsageError(
                f"A span of {self.span_s} s at {self.fps} frames/s holds {self.span_frames} frames, "
                f"fewer than the {self.frames} that are picked from it.",
                next="raise span_s or lower segments",
            )

    @property
    def frames(self) -> int:
        """T, the frames of one clip."""
        return self.segments * self.frames_per_segment

    @property
    def span_frames(self) -> int:
        """Frames in `span_s` seconds at the training frame rate."""
        return round(self.span_s * self.fps)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Sampling:
        return cls(
            segments=int(data["segments"]),
            frames_per_segment=int(data["frames_per_segment"]),
            span_s=float(data["span_s"]),
            fps=float(data["fps"]),
        )


# ----------------------------------------------------------------------------------------------------------- sampling
def centre_indices(count: int, sampling: Sampling) -> npt.NDArray[np.int64]:
    """The frames of a recording that stand for it, without chance (test, calibration).

    Former-DFER's rule: tick = (n - D + 1) / S, segment k starts at int(tick / 2 + tick * k); its D neighbours follow,
    clamped to the last frame. A recording of at most S + D - 1 frames starts every segment at 0.

    Args:
        count: n, frames in the recording, at least 1.
        sampling: the pattern.

    Returns:
        int64 `[T]`, ascending within a segment.

    Raises:
        BadInputError: the recording is empty.
    """
    s, d = sampling.segments, sampling.frames_per_segment
    if count > s + d - 1:
        tick = (count - d + 1) / s
        starts = np.array([int(tick / 2.0 + tick * k) for k in range(s)], np.int64)
    else:
        starts = np.zeros(s, np.int64)
    return _with_neighbours(starts, d, count)


def random_indices(count: int, sampling: Sampling, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """The same with one random start inside each segment (training; Former-DFER's rule).

    Returns:
        int64 `[T]`.

    Raises:
        BadInputError: the recording is empty.
    """
    s, d = sampling.segments, sampling.frames_per_segment
    length = (count - d + 1) // s
    if length > 0:
        starts = np.arange(s, dtype=np.int64) * length + rng.integers(length, size=s)
    elif count > s and count >= d:
        starts = np.sort(rng.integers(count - d + 1, size=s)).astype(np.int64)
    else:
        starts = np.zeros(s, np.int64)
    return _with_neighbours(starts, d, count)


def pattern_ages(sampling: Sampling) -> npt.NDArray[np.float64]:
    """Ages of the T frames against the newest one, were the span a recording.

    Returns:
        float64 `[T]`, seconds, in the order of the clip.
    """
    n = sampling.span_frames
    ages: npt.NDArray[np.float64] = (n - 1 - centre_indices(n, sampling)) / sampling.fps
    return ages


def pick(times: Sequence[float] | npt.NDArray[np.float64], ages: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Picks the training pattern out of a live history.

    Args:
        times: when each kept frame was taken, seconds, strictly ascending; the last one is now.
        ages: `pattern_ages(sampling)`.

    Returns:
        int64 `[T]`: for each place of the clip, the newest frame taken no later than wanted; places that lie before
        the history began repeat its first frame.
    """
    stamps = np.asarray(times, np.float64)
    wanted = stamps[-1] - ages + PATTERN_TOLERANCE_S
    found: npt.NDArray[np.int64] = stamps.searchsorted(wanted, side="right") - 1
    return np.maximum(found, 0)


def _with_neighbours(starts: npt.NDArray[np.int64], d: int, count: int) -> npt.NDArray[np.int64]:
    if count < 1:
        raise BadInputError("The recording has no frames.", cause="an empty folder or a video that cannot be decoded")
    indices: npt.NDArray[np.int64] = np.minimum(starts[:, None] + np.arange(d), count - 1).reshape(-1)
    return indices


# ------------------------------------------------------------------------------------------------------------- pixels
def check_frame(frame: object, *, shown: str = "frame") -> Frame:
    """Accepts uint8 `[H, W, 3]` and nothing else; nothing is cast.

    Raises:
        BadInputError: another type, dtype, rank or channel count; the message names both sides.
    """
    if not isinstance(frame, np.ndarray):
        raise BadInputError(
            f"The {shown} is a {type(frame).__name__}; a numpy array, uint8 [H, W, 3], is expected.",
            next="np.asarray(frame, dtype=np.uint8)",
        )
    if frame.dtype != np.uint8:
        raise BadInputError(
            f"The {shown} has dtype {frame.dtype}; uint8 (0..255) is expected and nothing is cast silently.",
            cause="a frame that was already scaled or normalised",
            next="pass the camera's bytes: scaling is inside the graph",
        )
    if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise BadInputError(
            f"The {shown} has shape {list(frame.shape)}; [H, W, 3] is expected.",
            cause="an empty crop, a grey image, an alpha channel, or channels first",
            next="np.asarray(PIL.Image.fromarray(frame).convert('RGB')), for a grey or transparent picture",
        )
    return frame


def check_color(color: str | None) -> str:
    """Accepts 'rgb' or 'bgr'. There is no default: a wrong guess is a silent loss of accuracy.

    Raises:
        UsageError: missing or unknown.
    """
    if color not in COLORS:
        raise UsageError(
            "The channel order was not given." if color is None else f"Unknown channel order {color!r}.",
            cause="OpenCV delivers BGR; Pillow, imageio and most decoders deliver RGB",
            next="pass color='bgr' or color='rgb'",
        )
    return color


def resize(frame: Frame, size: int) -> Frame:
    """Resize by Pillow's bilinear filter, antialiased; the only resize of this program.

    Training, calibration and the runtime all call this, because two libraries' "bilinear" differ by up to 30 grey
    levels on textured input.

    Args:
        frame: uint8 `[H, W, 3]`.
        size: S, the side wanted.

    Returns:
        uint8 `[S, S, 3]`; the frame itself when it has that size already.
    """
    if frame.shape[:2] == (size, size):
        return frame
    return np.asarray(resize_image(Image.fromarray(np.ascontiguousarray(frame)), size))


def resize_image(image: Image.Image, size: int) -> Image.Image:
    """`resize` for a Pillow image: the same pixels, without an array in between."""
    if image.size == (size, size):
        return image
    # Columns first, then rows, asked for one by one: what lies between is rounded to bytes, so the order shows, and
    # from Pillow 13 on it depends on the shape. Two machines would see the same frame differently.
    image = image.resize((size, image.height), Image.Resampling.BILINEAR)
    return image.resize((size, size), Image.Resampling.BILINEAR)


def to_input(frame: Frame, size: int, color: str, out: Frame) -> None:
    """Writes one frame as the network reads it: RGB, `[S, S, 3]`.

    Args:
        frame: uint8 `[H, W, 3]` in the order `color`.
        size: S.
        color: 'rgb' or 'bgr'.
        out: uint8 `[S, S, 3]`, other memory; written.
    """
    pixels = resize(frame, size)
    np.copyto(out, pixels)
    if color == "bgr":
        # Channel by channel, the green one being right already: numpy copies a reversed last axis three bytes at a go,
        # five times slower.
        out[..., 0] = pixels[..., 2]
        out[..., 2] = pixels[..., 0]


def centre_square(frame: Frame) -> Frame:
    """The largest centred square of a frame, uint8 `[S, S, 3]`, as a view."""
    height, width = frame.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return frame[top : top + side, left : left + side]


# ------------------------------------------------------------------------------------------------------------- tokens
def window_order(frames: int, grid: int, window: tuple[int, int, int]) -> npt.NDArray[np.int64]:
    """The order in which the graphs hold a clip's tokens: window after window.

    Natural order is time, row, column. The window (f, h, w) cuts the `frames x grid x grid` tokens into boxes; boxes
    follow each other in natural order, and so do the tokens inside each.

    Args:
        frames: T.
        grid: g, side of one frame's token map.
        window: (f, h, w); each divides its axis.

    Returns:
        int64 `[T*g*g]`: the natural index at each place.
    """
    f, h, w = window
    natural = np.arange(frames * grid * grid).reshape(frames // f, f, grid // h, h, grid // w, w)
    order: npt.NDArray[np.int64] = natural.transpose(0, 2, 4, 1, 3, 5).reshape(-1).astype(np.int64)
    return order
