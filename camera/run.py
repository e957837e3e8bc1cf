"""Run a source of frames through a runtime: one JSON line an answer, and an overlay video.

The face is the whole frame or its centre, or with 'detect' every face that is found and followed. Nothing is smoothed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..clips import Frame
from ..errors import LogoformerError, UsageError, VerificationError, one_of
from .answers.contract import FaceAnswer, FaceFrame
from .answers.lines import json_lines as json_lines
from .answers.smoothing import AnswerConfig
from .answers.streams import AnswerStreams
from .answers.video import OverlaySink, name_mp4
from .faces.tracker import DOUBT_S
from .overlay import Overlay, open_overlay
from .pipeline.cutters import open_cutter
from .pipeline.faces import MODES, given_face
from .pipeline.pipeline import shown_name
from .rates import SourceRate
from .sources.contract import FrameSource, TimedFrame
from .sources.live import LiveSource

if TYPE_CHECKING:
    from ..engine import Result, Runtime

Line = dict[str, Any]
FACES, GIVEN = MODES, ("whole", "center")


@dataclass(frozen=True)
class RunSummary:
    """Counts of a run, and how it ended.

    Attributes:
        frames: frames looked at.
        results: lines given out.
        skipped: frames that came faster than the model's ring keeps them.
        resets: pauses so long that the history was dropped and the stream began anew.
        seconds: wall clock of the whole run, decoding and drawing included.
        stopped: "" at the end of the source; "interrupt" after Ctrl-C; "pipe" when the reader of the lines went away.
        out: the overlay video, where one was written.
        notes: what makes the answers doubtful, in words.
        live: of a live source, what was lost: (number, in words).
    """

    frames: int
    results: int
    skipped: int
    resets: int
    seconds: float
    stopped: str
    out: Path | None
    notes: tuple[str, ...] = ()
    live: tuple[tuple[int, str], ...] = ()


def run_source(
    runtime: Runtime,
    source: FrameSource,
    face: str = "whole",
    hop: int = 4,
    warmup: str = "wait",
    out: str | os.PathLike[str] | None = None,
    *,
    on_result: Callable[[Line], None],
    progress: Callable[[str, int, int], None] | None = None,
) -> RunSummary:
    """Stream a source through a runtime.

    A source that ends before the first answer was due gets one answer at the end from what there is, marked
    `"partial": true`. Ctrl-C and a closed pipe end the run, not the program: the overlay video is whole up to there.

    Args:
        runtime: what `logoformer.load` gave.
        source: opened by the caller, who also closes it.
        face: 'whole' or 'center', see `find_face`; or 'detect' for every face that is found and followed, whose lines
            also have its id as `face`, and its `box`.
        hop: frames from one answer to the next.
        warmup: 'wait' for a full span before the first answer, or 'repeat' the first frame until there is one.
        out: the overlay video to write, an .mp4; it appears when it is whole.
        on_result: receives each line as soon as it is there, see `result_line`.
        progress: called with ("run", frames done, frames in all or 0).

    Returns:
        The summary.

    Raises:
        UsageError: a wrong argument; nothing was read.
        BadInputError: the source is damaged, or a recording's frames are so far apart that each begins anew. Lines
            given out before stay, the overlay video shows what was decoded.
        MachineError: the camera went away, or the overlay video cannot be written.
    """
    if face == "detect":
        return _run_faces(runtime, source, hop, warmup, out, on_result, progress)
    check_face(face)
    target = None if out is None else _check_target(Path(out), source)
    began_s = time.perf_counter()
    feed = _Feed(source)
    frames = results = 0
    stopped = ""
    last: TimedFrame | None = None
    rate = SourceRate()
    overlay: Overlay | None = None
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(runtime.stream(hop=hop, color=source.color, warmup=warmup))
        line: Line | None = None
        try:
            for captured in feed:
                if target is not None and overlay is None:
                    # Opened at the first frame: a source without one leaves no video behind.
                    overlay = stack.enter_context(open_overlay(target, runtime.bundle.labels, source.fps))
                if last is not None and captured.epoch != last.epoch:
                    stream.reset()  # no clip spans two connections to a camera
                found = find_face(captured.frame, face)
                result = stream.push(found.pixels, captured.time_s)
                frames, last = frames + 1, captured
                rate.add(captured, stream.resets)
                if result is not None and rate.alone < 2:
                    line = result_line(runtime.bundle.labels, result, captured)
                    results += 1
                    on_result(line)
                if overlay is not None:
                    overlay.add(captured, found.box, line)
                if progress is not None:
                    progress("run", frames, source.count or 0)
            if 1 < frames == rate.alone and not source.live:
                feed.fail(rate.too_low(source.name, stream.max_gap_s))
            elif last is not None and results == 0 and (result := stream.flush()) is not None:
                line = result_line(runtime.bundle.labels, result, last) | {"partial": True}
                results = 1
                on_result(line)
                if overlay is not None:  # every frame was written without an answer: show the last one once more
                    overlay.add(last, find_face(last.frame, face).box, line)
        except KeyboardInterrupt:
            stopped = "interrupt"
        except BrokenPipeError:
            stopped = "pipe"
    feed.raise_failure(stopped)
    return RunSummary(
        frames=frames,
        results=results,
        skipped=stream.skipped,
        resets=stream.resets,
        seconds=time.perf_counter() - began_s,
        stopped=stopped,
        out=target if overlay is not None else None,
        notes=rate.notes(runtime.bundle.sampling),
        live=_lost(source),
    )


def _lost(source: FrameSource) -> tuple[tuple[int, str], ...]:
    if not isinstance(source, LiveSource):
        return ()
    status = source.status()
    return (
        (status.dropped, "dropped: a newer one was there first, or they were damaged"),
        (status.reconnects, "reconnects to the camera, each with a new beginning"),
    )


class _Feed:
    """A source's frames; its failure is kept, the frames before it are finished first."""

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self._failure: LogoformerError | None = None

    def __iter__(self) -> Iterator[TimedFrame]:
        try:
            yield from self._source
        except LogoformerError as error:
            self._failure = error

    def fail(self, error: LogoformerError) -> None:
        """Keeps a failure, unless there is one."""
        self._failure = self._failure or error

    def raise_failure(self, stopped: str) -> None:
        """Raises it, unless somebody ended the run."""
        if self._failure is not None and not stopped:
            raise self._failure


def _run_faces(
    runtime: Runtime,
    source: FrameSource,
    hop: int,
    warmup: str,
    out: str | os.PathLike[str] | None,
    on_result: Callable[[Line], None],
    progress: Callable[[str, int, int], None] | None,
) -> RunSummary:
    """`run_source` with every face that is found and followed."""
    overlay = None if out is None else OverlaySink(_check_target(Path(out), source), runtime.bundle.labels)
    began_s = time.perf_counter()
    feed = _Feed(source)
    cutter = open_cutter("detect", runtime.bundle)
    raw = AnswerConfig(smooth_s=0.0, margin=0.0, gate=0.0)
    streams = AnswerStreams(runtime, (shown_name(source),), hop, warmup, raw)
    frames = results = 0
    stopped = ""
    seen: FaceFrame | None = None
    rate, breaks = SourceRate(), 0
    # A face that was away for longer begins anew, whatever its stream would still keep.
    kept_s = min(DOUBT_S, runtime.bundle.sampling.span_s / 2)

    def give(answers: list[FaceAnswer], captured: FaceFrame, **more: object) -> None:
        nonlocal results
        for answer in answers:
            results += 1
            shown = {"face": answer.face, "box": [round(float(side), 1) for side in answer.box]}
            on_result(result_line(runtime.bundle.labels, answer.result, captured) | shown | more)
        if overlay is not None and (answers or not more):
            overlay.frame(source.name, captured, streams.held(0))

    with contextlib.ExitStack() as stack:
        if overlay is not None:
            stack.callback(overlay.close)
        stack.callback(streams.close)
        try:
            for captured in feed:
                cut, now = cutter.cut(captured), time.monotonic()
                breaks += seen is not None and captured.time_s - seen.time_s > kept_s
                seen = FaceFrame(
                    captured.frame, captured.color, captured.time_s, captured.index, captured.epoch, now, time.time(),
                    cut.faces, cut.gone, cut.skipped,
                )  # fmt: skip
                answers = streams.advance({0: seen}).answers.get(0, [])
                frames += 1
                rate.add(captured, breaks)
                give(answers if rate.alone < 2 else [], seen)
                if progress is not None:
                    progress("run", frames, source.count or 0)
            if 1 < frames == rate.alone and not source.live:
                feed.fail(rate.too_low(source.name, kept_s))
            elif seen is not None and results == 0:
                give(streams.flush(0, seen), seen, partial=True)
        except KeyboardInterrupt:
            stopped = "interrupt"
        except BrokenPipeError:
            stopped = "pipe"
        skipped, resets = streams.skipped, streams.resets
    feed.raise_failure(stopped)
    written = overlay is not None and overlay.frames > 0
    return RunSummary(
        frames, results, skipped, resets, time.perf_counter() - began_s, stopped,
        Path(out) if out and written else None, rate.notes(runtime.bundle.sampling),
        _lost(source),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Face:
    """A face inside a frame.

    Attributes:
        pixels: uint8 `[h, w, 3]`, a view into the frame.
        box: left, top, width, height in pixels of the frame.
    """

    pixels: Frame
    box: tuple[int, int, int, int]


def check_face(mode: str) -> str:
    """Check that a mode takes a given part of the frame.

    Raises:
        UsageError: anything else.
    """
    if mode not in GIVEN:
        raise UsageError(f"Unknown face {mode!r}.", next=f"give --face one of {one_of(MODES)}")
    return mode


def find_face(frame: Frame, mode: str) -> Face:
    """Crop the face of one frame.

    Args:
        frame: uint8 `[H, W, 3]`.
        mode: 'whole' for footage that was cropped to a face before; 'center' for the largest centred square.

    Returns:
        The face; nothing is copied.

    Raises:
        UsageError: unknown mode.
    """
    return Face(*given_face(frame, check_face(mode)))


def result_line(labels: tuple[str, ...], result: Result, captured: TimedFrame | FaceFrame) -> Line:
    """Convert an answer to plain JSON values.

    Args:
        labels: the C class names.
        result: with `probabilities` float32 `[C]`.
        captured: the newest frame that it has seen.

    Returns:
        `time_s` (of that frame), `label`, `probabilities` (label -> share), `age_ms` (from
        handing the frame over to the answer), `frame` (its index), `sequence` (a count of the answers).

    Raises:
        VerificationError: a probability is not a finite number.
    """
    if not np.isfinite(result.probabilities).all():
        raise VerificationError(
            f"The answer at {captured.time_s:.3f} s is not a number: {result.probabilities.tolist()}.",
            cause="an overflow in a 16-bit engine, or a damaged model",
            next="logoformer verify BUNDLE",
        )
    return {
        "time_s": round(captured.time_s, 6),
        "label": result.label,
        "probabilities": {
            name: round(float(share), 6) for name, share in zip(labels, result.probabilities, strict=True)
        },
        "age_ms": round(float(result.age_ms), 3),
        "frame": captured.index,
        "sequence": int(result.sequence),
    }


def _check_target(target: Path, source: FrameSource) -> Path:
    if target.suffix.lower() != ".mp4":
        raise UsageError(f"The overlay video is an .mp4; {target} is named otherwise.", next=name_mp4(target))
    if target.is_dir():
        raise UsageError(f"{target} is a folder; the overlay video needs a file name.")
    if source.path is not None and target.exists() and target.samefile(source.path):
        raise UsageError(f"The overlay video {target} would replace the video it is made from.", next="-o another.mp4")
    return target
