"""`logoformer.load`: a bundle, ready to answer."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter_ns
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..bundle import Bundle, GraphEntry
from ..clips import Clip, Frame, check_color
from ..errors import UsageError, VerificationError, command, printable
from .feeding import put_clip
from .result import Result, make_result
from .sessions.backends import open_backend
from .sessions.contract import Session
from .step import Job, advance
from .stream import Stream
from .thread_owner import ThreadOwner

if TYPE_CHECKING:
    from .worker import Worker

_log = logging.getLogger(__name__)


class Runtime:
    """Runs one bundle. Sessions open when they are first needed.

    One engine, one thread: the first that uses it (with `load(selftest=True)` the one that loads it). A call from
    another thread is refused; `worker()` is the way in from any thread. `close()` may come from anywhere.

    Args:
        bundle: opened for reading.
        open_session: turns an index entry into a session.
        backend: shown to people, such as 'onnxruntime 1.24.4 CPU'.
        precision: of every graph that is opened.
        frame_batches: batches of the `frame` graph that `open_session` can open; None: those of the bundle.

    Attributes:
        not_finite: answers that were NaN or infinite; each raised an error, and no label was made of it.
        turn: entered by every call that touches a session.
    """

    def __init__(
        self,
        bundle: Bundle,
        open_session: Callable[[GraphEntry], Session],
        backend: str,
        precision: str,
        frame_batches: Sequence[int] | None = None,
    ) -> None:
        self.bundle, self.backend, self.precision = bundle, backend, precision
        self.frame_batches = bundle.frame_batches(precision) if frame_batches is None else tuple(frame_batches)
        self._open_session = open_session
        self._sessions: dict[tuple[str, int], Session] = {}
        self._free_faces = list(range(bundle.stream.faces))
        self._sequence = 0
        self._worker: Worker | None = None
        self.not_finite = 0
        self.passed_over: tuple[str, ...] = ()  # with backend='auto': the backends before this one, and why not they
        self.owner = ThreadOwner(self.close_sessions)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.owner.closed

    @property
    def labels(self) -> tuple[str, ...]:
        """C class names, in the order of `Result.probabilities`."""
        return self.bundle.labels

    def session(self, graph: str, batch: int = 1) -> Session:
        """The session of one graph, opened at the first call.

        Raises:
            UsageError: the engine is closed, or the call came from another thread than the engine's.
            RefusedError: the file is not what the index promises.
        """
        self.owner.check()
        if (graph, batch) not in self._sessions:
            entry, began = self.bundle.graph(graph, self.precision, batch), perf_counter_ns()
            self._sessions[graph, batch] = self._open_session(entry)
            _log.info("session of %s opened in %.1f ms", printable(entry.file), (perf_counter_ns() - began) / 1e6)
        return self._sessions[graph, batch]

    def __call__(self, clip: Clip, *, color: str | None = None) -> Result:
        """Answers for one clip.

        Args:
            clip: uint8 `[T, H, W, 3]`, T as `bundle.frames`; frames of another size are resized by `clips.resize`. Or
                an array on the card (DLPack, `__cuda_array_interface__`): exactly `[T, S, S, 3]`, RGB, taken as it is.
            color: 'rgb' or 'bgr'; there is no default.

        Raises:
            BadInputError: another dtype, rank, channel count or number of frames.
            UsageError: `color` is missing, or the call came from another thread than the engine's.
            VerificationError: the answer is not finite; no label was made of it.
            DeviceLostError: the device is gone, now or at an earlier call.
        """
        started = perf_counter_ns()
        with self.owner:
            return self.take_clip(clip, color, started, {})

    def take_clip(self, clip: Clip, color: str | None, started_ns: int, marks: dict[str, int]) -> Result:
        """`__call__` within a turn; `marks` holds the stages that passed since `started_ns`."""
        session = self.session("clip")
        put_clip(session, clip, check_color(color))
        marks["preprocess"] = perf_counter_ns()
        session.run()
        marks["clip"] = perf_counter_ns()
        probabilities = session.output("probabilities")[0]
        marks["postprocess"] = perf_counter_ns()
        result = self.result(probabilities, marks, started_ns, started_ns, None, self._sequence)
        self._sequence += 1
        return result

    def result(
        self,
        probabilities: npt.NDArray[np.float32],
        marks: Mapping[str, int],
        started_ns: int,
        received_ns: int,
        time_s: float | None,
        sequence: int,
    ) -> Result:
        """`make_result`, counting what was not finite."""
        try:
            return make_result(self.labels, probabilities, marks, started_ns, received_ns, time_s, sequence)
        except VerificationError:
            self.not_finite += 1
            raise

    def stream(
        self, hop: int = 4, *, color: str | None = None, warmup: str = "wait", max_gap_s: float | None = None
    ) -> Stream:
        """Opens the stream of one face.

        Args:
            hop: kept frames from one answer to the next.
            color: 'rgb' or 'bgr' of the frames that will be pushed; there is no default.
            warmup: 'wait' answers once the ring reaches over the training pattern; 'repeat' answers from the first
                frame on, the first frame standing for what is missing.
            max_gap_s: a longer pause empties the ring (two scenes never mix in one clip); None: half the span;
                math.inf: never.

        Raises:
            UsageError: a wrong argument, all faces of the arena are taken, or another thread owns the engine.
        """
        self.owner.check()
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
        """Pushes one frame to each of several streams, in batches where the bundle has `frame` graphs for them.

        Args:
            frames: (frame, time_s) by stream.

        Returns:
            What `Stream.push` would have given, by stream.

        Raises:
            BadInputError, UsageError: one of them is refused; then none was pushed.
            VerificationError, DeviceLostError: as `Stream.push`; the other faces' frames are kept, their answers of
                this step are not given.
        """
        started = perf_counter_ns()
        jobs = [Job(stream, frame, time_s, started) for stream, (frame, time_s) in frames.items()]
        with self.owner:
            for job in jobs:
                if job.stream.engine is not self:
                    raise UsageError("A stream of another engine was given.", next="its own engine.step(...)")
                job.stream.check(job.frame, job.time_s)
            advance(self, jobs)
        results: dict[Stream, Result | None] = {}
        for job in jobs:
            if isinstance(job.outcome, Exception):
                raise job.outcome
            results[job.stream] = job.outcome
        return results

    def worker(self, queue: int = 2, drop: str = "oldest") -> Worker:
        """Starts the thread that owns this engine from now on; frames come to it from any thread.

        Args:
            queue: submissions of one stream that may wait; see `Worker`.
            drop: what happens to one too many: 'oldest', 'newest' or 'block'.

        Raises:
            UsageError: a wrong argument, streams that are still open, a worker that already runs, or another thread
                than the engine's.
        """
        from .worker import Worker

        self.owner.check()
        if len(self._free_faces) < self.bundle.stream.faces:
            raise UsageError(
                "Streams of this engine are open; a worker has its own.",
                next="stream.close(), then worker.stream(...)",
            )
        self._worker = Worker(self, queue, drop)
        return self._worker

    def release(self, face: int) -> None:
        """Takes a face's place back; called by `Stream.close`."""
        self._free_faces.append(face)

    def close_sessions(self) -> None:
        """Frees every session; they open again when they are needed."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            session.close()

    def close(self) -> None:
        """Frees every session. A second call does nothing.

        Any thread may call it: the call that runs is waited for, what comes after it is refused. A worker ends first;
        what waits in its queues is dropped.
        """
        if self._worker is not None:
            self._worker.close(cancel=True)
        self.owner.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def load(
    path: str | os.PathLike[str] | Bundle,
    *,
    backend: str = "auto",
    precision: str = "verdict",
    device: int = 0,
    threads: int | None = None,
    engines_dir: str | os.PathLike[str] | None = None,
    selftest: bool = False,
    cuda: str = "auto",
) -> Runtime:
    """Opens a bundle for running.

    Args:
        path: the bundle's folder, or an opened `Bundle`.
        backend: 'auto', or one of `backends.BACKENDS`.
        precision: 'verdict' takes the cheapest that was accepted and that this backend runs well; or 'fp32',
            'fp16', 'int8', or 'mixed' where that is the verdict on INT8.
        device: which GPU, counted from 0; a backend on the CPU does not look at it.
        threads: CPU threads of one session; None leaves the choice to the backend.
        engines_dir: where built engines live, if not inside the bundle.
        selftest: answer the golden clips before anything else (`selftest.py`), and refuse to start if they are wrong.
        cuda: which CUDA layer drives a TensorRT engine; 'auto' takes what is installed.

    Raises:
        BadInputError: there is no bundle.
        RefusedError: something in it is not what its index promises.
        MachineError: the backend is not installed, or there is no such device.
        VerificationError: no precision was accepted, or the self-test failed.
        UsageError: a wrong argument.
    """
    if not isinstance(device, int) or device < 0:
        raise UsageError(f"device is {device!r}; GPUs are counted from 0.")
    bundle = path if isinstance(path, Bundle) else Bundle(path)
    options = {"threads": threads, "device": device, "engines_dir": engines_dir, "cuda": cuda}
    chosen = open_backend(bundle, backend, precision, options)
    engine = Runtime(bundle, chosen.open_session, chosen.name, chosen.precision, chosen.frame_batches)
    engine.passed_over = chosen.passed_over
    if selftest:
        from .selftest import selftest as run_selftest

        try:
            run_selftest(engine).require()
        except BaseException:
            engine.close()
            raise
    return engine
