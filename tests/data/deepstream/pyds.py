"""Batch metadata in the form of DeepStream's Python bindings, made by hand. *Unverified shape*.

Names and lists are those of the bindings' own documents and samples (NVIDIA-AI-IOT/deepstream_python_apps): lists whose
nodes hold `data` to be cast and `next`, which is None at the end or raises StopIteration; frames with `source_id`,
`batch_id` and `buf_pts` in nanoseconds; objects with `class_id`, `object_id` and `rect_params`; frames as RGBA views.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

RATE = 25
_batches: dict[int, tuple[Any, list[np.ndarray]]] = {}


class Node:
    """A node of a GList."""

    def __init__(self, data: Any, following: Node | None, raises: bool) -> None:
        self.data, self._following, self._raises = data, following, raises

    @property
    def next(self) -> Node | None:
        if self._following is None and self._raises:
            raise StopIteration
        return self._following


def glist(items: Sequence[Any], raises: bool = True) -> Node | None:
    node = None
    for item in reversed(items):
        node = Node(item, node, raises)
    return node


class _Kind:
    def __init__(self, name: str) -> None:
        self._name = name

    def cast(self, data: Any) -> Any:
        assert data.kind == self._name, "an object of another kind was cast"
        return data


NvDsFrameMeta, NvDsObjectMeta = _Kind("frame"), _Kind("object")


def detected(number: int, box: tuple[float, float, float, float], kind: int = 0) -> SimpleNamespace:
    """An object: left, top, width, height."""
    rect = SimpleNamespace(**dict(zip(("left", "top", "width", "height"), box, strict=True)))
    return SimpleNamespace(kind="object", object_id=number, class_id=kind, rect_params=rect)


class Buffer:
    """A GstBuffer, whose hash is its address."""

    def __init__(self, frames: Sequence[tuple[int, float, np.ndarray, Sequence[SimpleNamespace]]]) -> None:
        metas = [
            SimpleNamespace(
                kind="frame",
                source_id=source,
                batch_id=place,
                buf_pts=round(time_s * 1e9),
                obj_meta_list=glist(found, place % 2 == 0),
            )
            for place, (source, time_s, _, found) in enumerate(frames)
        ]
        _batches[hash(self)] = SimpleNamespace(frame_meta_list=glist(metas)), [pixels for _, _, pixels, _ in frames]


def gst_buffer_get_nvds_batch_meta(buffer: int) -> Any:
    return _batches[buffer][0] if buffer in _batches else None


def get_nvds_buf_surface(buffer: int, batch_id: int) -> np.ndarray:
    return _batches[buffer][1][batch_id]


def play(video: str) -> Iterator[Buffer]:
    """A video as two sources that see the same: a face on the left, one on the right for 100 frames, and a car."""
    import cv2

    reader, number = cv2.VideoCapture(video), 0
    while (read := reader.read())[0]:
        rgba = cv2.cvtColor(read[1], cv2.COLOR_BGR2RGBA)
        side = read[1].shape[1] // 2
        found = [
            detected(7, (0, 0, side, side)),
            detected(9, (2, 2, 30, 30), kind=2),
            detected(0xFFFFFFFFFFFFFFFF, (0, 0, 9, 9)),
        ]
        if number < 100:
            found.append(detected(8, (side, 0, side, side)))
        buffer = Buffer([(source, number / RATE, rgba, found) for source in (0, 3)])
        yield buffer
        rgba[:] = 0  # the memory goes back to its pool
        del _batches[hash(buffer)]
        number += 1
