"""Run a source of frames through a runtime: one JSON line an answer, and an overlay video.

The face is the whole frame or its centre, as the user says; nothing is detected.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from ..bundle.files import writing_failed
from ..clips import Frame, centre_square
from ..errors import LogoformerError, UsageError, VerificationError, one_of
from .overlay import Overlay, open_overlay
from .sources.contract import FrameSource, TimedFrame

if TYPE_CHECKING:
    from ..engine import Result, Runtime

Line = dict[str, Any]
FACES = ("whole", "center")


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
    """

    frames: int
    results: int
    skipped: int
    resets: int
    seconds: float
    stopped: str
    out: Path | None


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
        face: 'whole' or 'center', see `find_face`.
        hop: frames from one answer to the next.
        warmup: 'wait' for a full span before the first answer, or 'repeat' the first frame until there is one.
        out: the overlay video to write, an .mp4; it appears when it is whole.
        on_result: receives each line as soon as it is there, see `result_line`.
        progress: called with ("run", frames done, frames in all or 0).

    Returns:
        The summary.

    Raises:
        UsageError: a wrong argument; nothing was read.
        BadInputError: the source is damaged. Lines given out before stay, the overlay video shows what was decoded.
        MachineError: the camera went away, or the overlay video cannot be written.
    """
    check_face(face)
    target = None if out is None else _check_target(Path(out), source)
    began_s = time.perf_counter()
    failure: LogoformerError | None = None

    def feed() -> Iterator[TimedFrame]:
        """The source's frames; its failure is kept, the frames before it are finished first."""
        nonlocal failure
        try:
            yield from source
        except LogoformerError as error:
            failure = error

    frames = results = 0
    stopped = ""
    last: TimedFrame | None = None
    overlay: Overlay | None = None
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(runtime.stream(hop=hop, color=source.color, warmup=warmup))
        line: Line | None = None
        try:
            for captured in feed():
                if target is not None and overlay is None:
                    # Opened at the first frame: a source without one leaves no video behind.
                    overlay = stack.enter_context(open_overlay(target, runtime.bundle.labels, source.fps))
                found = find_face(captured.frame, face)
                result = stream.push(found.pixels, captured.time_s)
                frames, last = frames + 1, captured
                if result is not None:
                    line = result_line(runtime.bundle.labels, result, captured)
                    results += 1
                    on_result(line)
                if overlay is not None:
                    overlay.add(captured, found.box, line)
                if progress is not None:
                    progress("run", frames, source.count or 0)
            if last is not None and results == 0 and (result := stream.flush()) is not None:
                line = result_line(runtime.bundle.labels, result, last) | {"partial": True}
                results = 1
                on_result(line)
                if overlay is not None:  # every frame was written without an answer: show the last one once more
                    overlay.add(last, find_face(last.frame, face).box, line)
        except KeyboardInterrupt:
            stopped = "interrupt"
        except BrokenPipeError:
            stopped = "pipe"
    if failure is not None and not stopped:
        raise failure
    return RunSummary(
        frames=frames,
        results=results,
        skipped=stream.skipped,
        resets=stream.resets,
        seconds=time.perf_counter() - began_s,
        stopped=stopped,
        out=target if overlay is not None else None,
    )


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
    """Check that a mode is one of `FACES`.

    Raises:
        UsageError: anything else.
    """
    if mode not in FACES:
        raise UsageError(f"Unknown face {mode!r}.", next=f"give --face one of {one_of(FACES)}")
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
    height, width = frame.shape[:2]
    if check_face(mode) == "whole":
        return Face(frame, (0, 0, width, height))
    pixels = centre_square(frame)
    side = pixels.shape[0]
    return Face(pixels, ((width - side) // 2, (height - side) // 2, side, side))


def result_line(labels: tuple[str, ...], result: Result, captured: TimedFrame) -> Line:
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


def json_lines(stream: TextIO) -> Callable[[Line], None]:
    """Make an `on_result` that writes one line of JSON for each answer and flushes it.

    The function it gives raises BrokenPipeError when the reader went away (which `run` takes as the end), and
    MachineError when the disk behind the stream is full.
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


def _check_target(target: Path, source: FrameSource) -> Path:
    if target.suffix.lower() != ".mp4":
        raise UsageError(f"The overlay video is an .mp4; {target} is named otherwise.", next=f"-o {target.stem}.mp4")
    if target.is_dir():
        raise UsageError(f"{target} is a folder; the overlay video needs a file name.")
    if source.path is not None and target.exists() and target.samefile(source.path):
        raise UsageError(f"The overlay video {target} would replace the video it is made from.", next="-o another.mp4")
    return target
