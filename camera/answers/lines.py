"""Answers as lines of JSON: this package's own fields, or NVIDIA's `nv.Frame`."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from ...bundle.files import writing_failed
from .contract import AnswerSink, FaceAnswer, FaceEvent, FaceFrame, utc

NV_VERSION = "4.0"
SCHEMAS = ("own", "nv")
Write = Callable[[Mapping[str, Any]], None]


class LineSink(AnswerSink):
    """A line for each answer, or with `events` one for each change of state instead.

    Args:
        write: takes a line, see `json_lines`.
        schema: 'own', or 'nv' for one `nv.Frame` a frame.
        events: changes of state instead of answers; not with 'nv', which has no message for them.
        span_s: seconds that an answer looks back over; part of 'nv'.
        digest: of the bundle; part of 'nv'.
    """

    def __init__(
        self, write: Write, schema: str = "own", *, events: bool = False, span_s: float = 0.0, digest: str = ""
    ) -> None:
        self._write, self._schema, self._events = write, schema, events
        self._span_s, self._digest = span_s, digest

    def answers(self, seen: FaceFrame, given: Sequence[FaceAnswer]) -> None:
        if self._schema == "nv":
            self._write(nv_frame(seen, given, self._span_s, self._digest))
        elif not self._events:
            for answer in given:
                self._write(answer.to_json())

    def event(self, event: FaceEvent) -> None:
        if self._events and self._schema != "nv":
            self._write(event.to_json())


def nv_frame(seen: FaceFrame, given: Sequence[FaceAnswer], span_s: float, digest: str) -> dict[str, Any]:
    """The answers to one frame as NVIDIA's Metropolis `nv.Frame`.

    Args:
        seen: the frame.
        given: at least one answer.
        span_s: seconds that an answer looks back over.
        digest: of the bundle.

    Returns:
        `version`, `id`, `timestamp`, `sensorId`, `objects` and `info`; in an object `id`, `bbox`, `type` and
        `confidence` (the detector's), and `info`, whose values are strings.
    """
    return {
        "version": NV_VERSION,
        "id": str(seen.index),
        "timestamp": utc(seen.captured_at),
        "sensorId": given[0].source,
        "objects": [
            {
                "id": str(answer.face),
                "bbox": dict(zip(("leftX", "topY", "rightX", "bottomY"), map(_pixel, answer.box), strict=True)),
                "type": "Face",
                "confidence": round(answer.score, 4),
                "info": {
                    "expression": answer.label,
                    "expression.confidence": f"{answer.confidence:.4f}",
                    "expression.span_s": f"{span_s:g}",
                    "model.digest": digest,
                },
            }
            for answer in given
        ],
        "info": {"age_ms": f"{given[0].age_ms:.1f}", "epoch": str(seen.epoch)},
    }


def _pixel(side: float) -> float:
    return round(float(side), 1)


def json_lines(stream: TextIO) -> Callable[[Mapping[str, Any]], None]:
    """Make a function that writes one line of JSON and flushes it.

    The function raises BrokenPipeError when the reader went away (which `run` takes as the end), and MachineError when
    the disk behind the stream is full.
    """

    def write(line: Mapping[str, Any]) -> None:
        try:
            stream.write(json.dumps(line, allow_nan=False) + "\n")
            stream.flush()
        except BrokenPipeError:
            # The interpreter flushes its output once more at exit and would complain of the same pipe there.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            raise
        except OSError as error:
            raise writing_failed(error, getattr(stream, "name", "the output")) from error

    return write
