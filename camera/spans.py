"""Accuracy of a stream on long videos whose expressions are labelled.

At the end of each labelled span two readings are taken: the stream's, which picks the training pattern out of the last
seconds, and the naive one, the last T frames as they came. The second is what most camera programs would do.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..bundle.files import parse_json, read_file
from ..bundle.kinds import refuse_other_kinds
from ..clips import Frame
from ..errors import BadInputError, advising
from .sources.open import open_source

if TYPE_CHECKING:
    from ..engine import Runtime

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class SpanScore:
    """Two readings of the same spans.

    Attributes:
        stream: int64 `[C, C]`, rows the label, columns the stream's answer.
        naive: the same for the last T frames.
        frames: frames read.
    """

    stream: npt.NDArray[np.int64]
    naive: npt.NDArray[np.int64]
    frames: int

    @property
    def spans(self) -> int:
        """Spans that were read."""
        return int(self.stream.sum())

    @property
    def stream_uar(self) -> float:
        """Unweighted average recall of the stream."""
        return _uar(self.stream)

    @property
    def naive_uar(self) -> float:
        """Unweighted average recall of the last T frames."""
        return _uar(self.naive)

    def to_json(self) -> dict[str, Any]:
        return {
            "stream_uar": self.stream_uar,
            "naive_uar": self.naive_uar,
            "spans": self.spans,
            "frames": self.frames,
            "stream_confusion": self.stream.tolist(),
            "naive_confusion": self.naive.tolist(),
        }


def _uar(confusion: npt.NDArray[np.int64]) -> float:
    support = confusion.sum(1)
    return float((confusion.diagonal()[support > 0] / support[support > 0]).mean()) if support.any() else 0.0


def read_spans(path: str | os.PathLike[str], labels: Sequence[str]) -> list[tuple[int, float]]:
    """Read `[{"start_s", "end_s", "label"}]`, ascending.

    Returns:
        (class index, end in seconds, exclusive) of each.

    Raises:
        BadInputError: not such a list, or a label that the model does not have.
        RefusedError: not JSON that can be trusted.
    """
    making = "logoformer synth --kind video -o video.mp4"
    refuse_other_kinds(path, "list of labelled spans", making)
    with advising(making):
        items = parse_json(read_file(path, 4 << 20), str(path))
    try:
        spans = [(list(labels).index(item["label"]), float(item["end_s"])) for item in items]
    except (TypeError, KeyError, ValueError) as error:
        raise BadInputError(f"{path} is not a list of labelled spans: {error}.", next=making) from error
    if any(after <= before for (_, before), (_, after) in itertools.pairwise(spans)):
        raise BadInputError(f"The spans of {path} do not ascend.")
    return spans


def score_spans(
    runtime: Runtime, videos: Sequence[str | os.PathLike[str]], progress: Progress | None = None
) -> SpanScore:
    """Stream videos and take both readings at the last frame of every span.

    Args:
        runtime: what `logoformer.load` gave.
        videos: each with its spans in a `.json` of the same name beside it.
        progress: called with (stage, videos done, videos).
    """
    classes, size = len(runtime.labels), runtime.bundle.frames
    stream_confusion = np.zeros((classes, classes), np.int64)
    naive_confusion = np.zeros((classes, classes), np.int64)
    frames = 0
    for done, video in enumerate(videos):
        if progress is not None:
            progress("stream videos", done, len(videos))
        spans = deque(read_spans(Path(video).with_suffix(".json"), runtime.labels))
        last: deque[Frame] = deque(maxlen=size)
        with open_source(video) as source, runtime.stream(hop=1 << 30, color=source.color) as stream:
            step_s = 1.0 / source.fps
            for captured in source:
                stream.push(captured.frame, captured.time_s)
                last.append(captured.frame)
                frames += 1
                if spans and captured.time_s >= spans[0][1] - 1.5 * step_s and len(last) == size:
                    label, _ = spans.popleft()
                    answer = stream.flush()
                    if answer is not None:
                        stream_confusion[label, answer.index] += 1
                    naive_confusion[label, runtime(np.stack(last), color=source.color).index] += 1
    if progress is not None:
        progress("stream videos", len(videos), len(videos))
    return SpanScore(stream_confusion, naive_confusion, frames)
