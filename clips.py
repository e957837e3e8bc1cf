"""Clips: labels, the resize, and which frames are sampled.

Training, calibration, evaluation and the camera all use the functions of this file, so that the network sees the same
thing everywhere. Only numpy and Pillow are needed.

A clip is uint8 `[T, H, W, 3]`. Two functions agree with each other:

* `centre_indices` picks T of a recording's n frames: by segments (Former-DFER's test rule: S segments, D neighbouring
  frames from the middle of each) or by a stride (MAE-DFER's: every k-th frame; `view_indices` gives its further views);
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
MAX_LABEL = 100  # characters
COLORS = ("rgb", "bgr")
PATTERN_TOLERANCE_S = 0.001  # camera timestamps are rounded to milliseconds by many drivers


def can_be_shown(label: str) -> bool:
    r"""Whether a class name is a line of text that people can read.

    >>> can_be_shown("happy"), can_be_shown(" "), can_be_shown("a\nb"), can_be_shown("\ud800"), can_be_shown("x" * 101)
    (True, False, False, False, False)
    """
    return bool(label.strip()) and label.isprintable() and len(label) <= MAX_LABEL


@dataclass(frozen=True)
class Sampling:
    """How T frames stand for a stretch of time.

    Attributes:
        segments: S, equal parts that the stretch is cut into.
        frames_per_segment: D, neighbouring frames taken from each; T = S * D.
        span_s: seconds of a typical training clip; the stretch that a stream looks back over.
        fps: frames per second of the training clips; 1/fps is the distance between neighbours.
        stride: 0 samples by segments; k takes every k-th frame from the first one on, T of them.
        views: clips that stand for a recording together; their answers are averaged.
    """

    segments: int = 8
    frames_per_segment: int = 2
    span_s: float = 2.8
    fps: float = 25.0
    stride: int = 0
    views: int = 1

    def __post_init__(self) -> None:
        if self.segments < 1 or self.frames_per_segment < 1:
            raise UsageError(f"Sampling needs at least 1 segment and 1 frame in each; got {self!r}.")
        # Below 400 frames/s the tolerance of `pick` stays under half a frame, so that it never takes a neighbour.
        if not (0 < self.fps <= 400 and 0 < self.span_s <= 3600):
            raise UsageError(f"Sampling needs 0 < fps <= 400 and 0 < span_s <= 3600; got {self!r}.")
        if self.span_frames < self.frames:
            raise UsageError(
                f"A span of {self.span_s} s at {self.fps} frames/s holds {self.span_frames} frames, "
                f"fewer than the {self.frames} that are picked from it.",
                next="raise span_s or lower segments",
            )
        if self.stride < 0 or self.views < 1:
            raise UsageError(f"Sampling needs stride >= 0 and at least 1 view; got {self!r}.")
        if self.stride and (self.frames_per_segment != 1 or self.span_frames != self.frames * self.stride):
            raise UsageError(
                f"{self.frames} frames at a stride of {self.stride} reach over {self.frames * self.stride}, a span of "
                f"{self.span_s} s holds {self.span_frames}.",
                next="Sampling.strided(frames, stride, fps) fits them",
            )
        if self.views > 1 and not self.stride:
            raise UsageError(f"Several views are defined for a stride; got {self!r}.")

    @classmethod
    def strided(cls, frames: int, stride: int, fps: float = 25.0, views: int = 2) -> Sampling:
        """Every `stride`-th of the frames, `frames` of them, from the first one on."""
        return cls(frames, 1, frames * stride / fps, fps, stride, views)

    @property
    def frames(self) -> int:
        """T, the frames of one clip."""
        return self.segments * self.frames_per_segment

    @property
    def span_frames(self) -> int:
        """Frames in `span_s` seconds at the training frame rate."""
        return round(self.span_s * self.fps)

    def __str__(self) -> str:
        if not self.stride:
            return f"{self.segments} segments x {self.frames_per_segment} over {self.span_s:g} s"
        views = f", {self.views} views of a recording" if self.views > 1 else ""
        return f"{self.frames} frames, {self.stride / self.fps:g} s apart, over {self.span_s:g} s{views}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Sampling:
        """Reads what `to_json` wrote, also before there were strides."""
        return cls(
            segments=int(data["segments"]),
            frames_per_segment=int(data["frames_per_segment"]),
            span_s=float(data["span_s"]),
            fps=float(data["fps"]),
            stride=int(data.get("stride", 0)),
            views=int(data.get("views", 1)),
        )


# ----------------------------------------------------------------------------------------------------------- sampling
def centre_indices(count: int, sampling: Sampling) -> npt.NDArray[np.int64]:
    """The frames of a recording that stand for it, without chance (test, calibration).

    By segments, Former-DFER's rule: tick = (n - D + 1) / S, segment k starts at int(tick / 2 + tick * k); its D
    neighbours follow, clamped to the last frame. A recording of at most S + D - 1 frames starts every segment at 0.

    By a stride k, MAE-DFER's rule for the first view: 0, k, 2k, ...; the last of these repeats up to T.

    Args:
        count: n, frames in the recording, at least 1.
        sampling: the pattern.

    Returns:
        int64 `[T]`, ascending within a segment.

    Raises:
        BadInputError: the recording is empty.
    """
    if sampling.stride:
        return view_indices(count, sampling)[0]
    s, d = sampling.segments, sampling.frames_per_segment
    if count > s + d - 1:
        tick = (count - d + 1) / s
        starts = np.array([int(tick / 2.0 + tick * k) for k in range(s)], np.int64)
    else:
        starts = np.zeros(s, np.int64)
    return _with_neighbours(starts, d, count)


def view_indices(count: int, sampling: Sampling) -> list[npt.NDArray[np.int64]]:
    """The frames of every view of a recording, without chance.

    By a stride, MAE-DFER's rule: of the frames 0, k, 2k, ... (the last of them repeated up to T) view v of V takes T
    neighbours from place int(v * (their number - T) / (V - 1)) on: the first T, and with two views the last T.

    Args:
        count: n, frames in the recording, at least 1.
        sampling: the pattern.

    Returns:
        `sampling.views` arrays, int64 `[T]`.

    Raises:
        BadInputError: the recording is empty.
    """
    if not sampling.stride:
        return [centre_indices(count, sampling)]
    _require_frames(count)
    taken = np.arange(0, count, sampling.stride, dtype=np.int64)
    taken = np.concatenate([taken, np.full(max(0, sampling.frames - len(taken)), taken[-1])])
    step = (len(taken) - sampling.frames) / max(1, sampling.views - 1)
    starts = [int(view * step) for view in range(sampling.views)]
    return [taken[start : start + sampling.frames] for start in starts]


def random_indices(count: int, sampling: Sampling, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """The same with one random start inside each segment (training; Former-DFER's rule).

    By a stride, one random start for the whole pattern.

    Returns:
        int64 `[T]`.

    Raises:
        BadInputError: the recording is empty.
    """
    if sampling.stride:
        _require_frames(count)
        reach = (sampling.frames - 1) * sampling.stride
        start = int(rng.integers(max(1, count - reach)))
        return start + view_indices(count - start, sampling)[0]
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

    A stride's last frame is the newest one.

    Returns:
        float64 `[T]`, seconds, in the order of the clip.
    """
    n = sampling.span_frames
    newest = n - max(1, sampling.stride)
    ages: npt.NDArray[np.float64] = (newest - centre_indices(n, sampling)) / sampling.fps
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
    # How many of the frames after the first are not too new: 0 is the first one, which stands for all before it.
    found: npt.NDArray[np.int64] = stamps[1:].searchsorted(wanted, side="right")
    return found


def _require_frames(count: int) -> None:
    if count < 1:
        raise BadInputError("The recording has no frames.", cause="an empty folder or a video that cannot be decoded")


def _with_neighbours(starts: npt.NDArray[np.int64], d: int, count: int) -> npt.NDArray[np.int64]:
    _require_frames(count)
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
