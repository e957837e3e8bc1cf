"""`logoformer.load`: a bundle, ready to answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from time import perf_counter_ns
from types import TracebackType

import numpy as np

from ..bundle import Bundle, GraphEntry
from ..clips import Clip, Frame, check_color, to_input, write_rgb
from ..errors import BadInputError, UsageError, command
from .backends import open_backend
from .result import Result, make_result
from .session import Session
from .stream import Stream


class Engine:
    """Runs one bundle. Sessions open when they are first needed. Not thread-safe: one engine, one thread.

    Args:
        bundle: opened for reading.
        open_session: turns an index entry into a session.
        backend: shown to people, such as 'onnxruntime 1.24.4 CPU'.
        precision: of every graph that is opened.
    """

    def __init__(
        self, bundle: Bundle, open_session: Callable[[GraphEntry], Session], backend: str, precision: str
    ) -> None:
        self.bundle, self.backend, self.precision = bundle, backend, precision
        self._open_session = open_session
        self._sessions: dict[str, Session] = {}
        self._free_faces = list(range(bundle.stream.faces))
        self._sequence = 0
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def labels(self) -> tuple[str, ...]:
        """C class names, in the order of `Result.probabilities`."""
        return self.bundle.labels

    def session(self, graph: str) -> Session:
        """The session of one graph, opened at the first call.

        Raises:
            UsageError: the engine is closed.
            RefusedError: the file is not what the index promises.
        """
        if self._closed:
            raise UsageError("This engine is closed.", next="logoformer.load(...) opens a new one")
        if graph not in self._sessions:
            self._sessions[graph] = self._open_session(self.bundle.graph(graph, self.precision))
        return self._sessions[graph]

    def __call__(self, clip: Clip, *, color: str | None = None) -> Result:
        """Answers for one clip.

        Args:
            clip: uint8 `[T, H, W, 3]`, T as `bundle.frames`; frames of another size are resized by `clips.resize`.
            color: 'rgb' or 'bgr'; there is no default.

        Raises:
            BadInputError: another dtype, rank, channel count or number of frames.
            UsageError: `color` is missing.
        """
        started = perf_counter_ns()
        session = self.session("clip")
        _to_clip_input(clip, check_color(color), session.input("clip")[0])
        marks = {"preprocess": perf_counter_ns()}
        session.run()
        marks["clip"] = perf_counter_ns()
        probabilities = session.output("probabilities")[0]
        marks["postprocess"] = perf_counter_ns()
        self._sequence += 1
        return make_result(self.labels, probabilities, marks, started, None, self._sequence - 1)

    def stream(
        self, hop: int = 4, *, color: str | None = None, warmup: str = "wait", max_gap_s: float | None = None
    ) -> Stream:
        """Opens the stream of one face.

        Args:
            hop: kept frames from one answer to the next.
            color: 'rgb' or 'bgr' of the frames that will be pushed; there is no default.
            warmup: 'wait' answers once the ring reaches over the training pattern; 'repeat' answers from the first
                frame on, the first frame standing for what is missing.
            max_gap_s: a longer pause empties the ring (two scenes never mix in one clip); None: half the span.

        Raises:
            UsageError: a wrong argument, or all faces of the arena are taken.
        """
        if not self._free_faces:
            raise UsageError(
                f"All {self.bundle.stream.faces} faces of this bundle's ring arena are in use.",
                cause="streams that were not closed; or more faces than the bundle was exported for",
                next="stream.close() when a face is gone; or: "
                + command("logoformer", "export", "CHECKPOINT", "-o", self.bundle.path, "--faces", "8"),
            )
        stream = Stream(self, self._free_faces[0], hop=hop, color=color, warmup=warmup, max_gap_s=max_gap_s)
        self._free_faces.pop(0)
        return stream

    def step(self, frames: Mapping[Stream, tuple[Frame, float]]) -> dict[Stream, Result | None]:
        """Pushes one frame to each of several streams.

        Args:
            frames: (frame, time_s) by stream.

        Returns:
            What `Stream.push` gave, by stream.
        """
        return {stream: stream.push(frame, time_s) for stream, (frame, time_s) in frames.items()}

    def release(self, face: int) -> None:
        """Takes a face's place back; called by `Stream.close`."""
        self._free_faces.append(face)

    def close(self) -> None:
        """Frees every session. A second call does nothing."""
        self._closed = True
        for session in self._sessions.values():
            session.close()
        self._sessions = {}

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _to_clip_input(clip: object, color: str, out: Clip) -> None:
    """Writes a checked clip into uint8 `[T, S, S, 3]` RGB."""
    frames, size = out.shape[0], out.shape[1]
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
            next="pick them with logoformer.clips.centre_indices(count, bundle.sampling), or use engine.stream(...)",
        )
    if clip.shape[1:3] == (size, size):
        write_rgb(clip, color, out)
    else:
        for frame, place in zip(clip, out, strict=True):
            to_input(frame, size, color, place)


def load(
    path: str | os.PathLike[str] | Bundle,
    *,
    backend: str = "auto",
    precision: str = "verdict",
    threads: int | None = None,
) -> Engine:
    """Opens a bundle for running.

    Args:
        path: the bundle's folder, or an opened `Bundle`.
        backend: 'auto' or 'onnxruntime'.
        precision: 'verdict' takes the cheapest that was accepted and that this backend runs well; or 'fp32', 'fp16'.
        threads: CPU threads of one session; None leaves the choice to the backend.

    Raises:
        BadInputError: there is no bundle.
        RefusedError: something in it is not what its index promises.
        MachineError: the backend is not installed.
    """
    bundle = path if isinstance(path, Bundle) else Bundle(path)
    chosen = open_backend(bundle, backend, precision, {"threads": threads})
    return Engine(bundle, chosen.open_session, chosen.name, chosen.precision)
