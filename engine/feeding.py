"""Checks of clips and times, and writing of frames and clips into a session's input.

Frames on the host are resized and turned to RGB; arrays on the GPU are taken as they are.
"""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from ..clips import Clip, Frame, to_input
from ..errors import BadInputError, UsageError
from .cuda.device_arrays import is_on_device
from .sessions.contract import Session


def check_clip(clip: object, frames: int) -> Clip:
    """Accepts uint8 `[T, H, W, 3]` with T = `frames` and nothing else; nothing is cast.

    Raises:
        BadInputError: names both sides.
    """
    if not isinstance(clip, np.ndarray) or clip.dtype != np.uint8:
        kind = f"dtype {clip.dtype}" if isinstance(clip, np.ndarray) else type(clip).__name__
        raise BadInputError(
            f"The clip is of {kind}; a numpy array of uint8 (0..255) is expected and nothing is cast silently.",
            next="pass the camera's bytes: scaling is inside the graph",
        )
    if clip.ndim != 4 or clip.shape[3] != 3 or 0 in clip.shape:
        raise BadInputError(
            f"The clip has shape {list(clip.shape)}; [T, H, W, 3] with T={frames} is expected.",
            cause="a batch axis, channels first, or an empty crop",
            next="pass one clip at a time: np.stack(frames) of pictures [H, W, 3]",
        )
    if clip.shape[0] != frames:
        raise BadInputError(
            f"The clip has {clip.shape[0]} frames; this model reads {frames}.",
            next="pick them with logoformer.clips.centre_indices(count, bundle.sampling), or use runtime.stream(...)",
        )
    return clip


def check_time(time_s: object) -> float:
    """Accepts a number of any real type as a time in seconds, finite or not.

    Raises:
        BadInputError: another type, or an integer that no float holds.
    """
    if not isinstance(time_s, Real):
        raise BadInputError(
            f"The frame's time is {time_s!r} ({type(time_s).__name__}); a number of seconds is expected.",
            next="float(time_s)",
        )
    try:
        return float(time_s)
    except OverflowError as error:
        raise BadInputError(
            "The frame's time is a number that no float holds; a number of seconds is expected.",
            cause="a counter of another unit",
        ) from error


def put_frame(session: Session, frame: Frame | Any, size: int, color: str) -> None:
    """Writes one frame into the input `frame` of a session of batch 1.

    Args:
        session: of the frame graph.
        frame: uint8 `[H, W, 3]`, resized when it has another size; or an array on the card, exactly `[S, S, 3]`.
        size: S.
        color: 'rgb' or 'bgr'.

    Raises:
        BadInputError: an array on the card of another dtype, shape, layout or card; or this session has no card.
        UsageError: an array on the card that is not RGB.
    """
    if is_on_device(frame):
        _feed(session, "frame", frame, color)
    else:
        to_input(frame, size, color, session.input("frame")[0])


def put_clip(session: Session, clip: Clip | Any, color: str) -> None:
    """Writes one clip into the input `clip` of a session.

    Args:
        session: of the clip graph.
        clip: uint8 `[T, H, W, 3]` of any size, or on the GPU exactly `[T, S, S, 3]`.
        color: 'rgb' or 'bgr'.

    Raises:
        BadInputError, UsageError: as `put_frame`.
    """
    if is_on_device(clip):
        _feed(session, "clip", clip, color)
        return
    out = session.input("clip")[0]  # [T, S, S, 3]
    for frame, place in zip(check_clip(clip, len(out)), out, strict=True):
        to_input(frame, place.shape[0], color, place)


def _feed(session: Session, name: str, array: Any, color: str) -> None:
    if color != "rgb":
        raise UsageError(
            f"The {name} is on a card and in the order {color!r}; channels are not turned round there.",
            next="turn them round on the card: tensor.flip(-1).contiguous(), and pass color='rgb'",
        )
    feed = getattr(session, "feed", None)
    if feed is None:
        raise BadInputError(
            f"The {name} is on a card, and this runtime is on the CPU; nothing is moved silently.",
            cause="no TensorRT engine fits this machine, see runtime.passed_over",
            next="pass a numpy array: tensor.cpu().numpy()",
        )
    feed(name, array)
