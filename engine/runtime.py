"""`logoformer.load`: a bundle, ready to answer."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from time import perf_counter_ns
from typing import ClassVar

from ..bundle import Bundle
from ..clips import Clip, Frame, Sampling
from ..errors import UsageError, printable, whole_number
from .core import Result, RuntimeCore
from .golden import selftest as run_selftest
from .sessions.backends import open_backend
from .step import Job, advance
from .stream import Stream
from .trust.index import engines_folder
from .worker import Worker

_log = logging.getLogger(__name__)
MAX_THREADS = 1024  # a session with many more takes minutes to open, or all of a machine's memory


class Runtime(RuntimeCore):
    """One bundle on one backend.

    Sessions open when they are first needed, from the files that `load` found. Those are kept open, so the runtime goes
    on answering with them when its bundle is replaced, moved or deleted; `logoformer.load` again takes the new one.

    One runtime, one thread: the first that uses it (with `load(selftest=True)` the one that loads it). A call from
    another thread is refused; `worker()` is the way in from any thread. `close()` may come from anywhere.

    Arguments and attributes are those of `RuntimeCore`; `load` gives them.

    Attributes:
        read_clip: reads a path as a clip, see `__call__`; set by the package root, because what reads files lies above.
    """

    read_clip: ClassVar[Callable[[str | os.PathLike[str], Sampling, int], Clip] | None] = None

    _end_worker: Callable[[bool], None] | None = None  # not the worker: a dropped one ends

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.owner.closed

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.precision} on {self.backend}"
        return f"<Runtime of {self.bundle.path.name}: {state}, {len(self.labels)} labels>"

    def __call__(self, clip: Clip | str | os.PathLike[str], *, color: str | None = None) -> Result:
        """Answers for one clip.

        Args:
            clip: uint8 `[T, H, W, 3]`, T as `bundle.frames`; frames of another size are resized by `clips.resize`. Or
                an array on the card (DLPack, `__cuda_array_interface__`): exactly `[T, S, S, 3]`, RGB, taken as it is.
                Or the path of a video file (extra `camera`) or of a folder of frames, from whose whole length T frames
                are picked as in training.
            color: 'rgb' or 'bgr' of an array; there is no default. A path needs none.

        Raises:
            BadInputError: another dtype, rank, channel count or number of frames; or a file that is no clip.
            UsageError: `color` is missing, or the call came from another thread than the runtime's.
            VerificationError: the answer is not finite; no label was made of it.
            DeviceLostError: the device is gone, now or at an earlier call.
        """
        started = perf_counter_ns()
        marks: dict[str, int] = {}
        if isinstance(clip, str | os.PathLike):
            read_clip = type(self).read_clip
            if read_clip is None:
                raise UsageError("This runtime reads no files.", next="logoformer.load(...) gives one that does")
            clip, color = read_clip(clip, self.bundle.sampling, self.bundle.image_size), "rgb"
            marks["decode"] = perf_counter_ns()
        with self.owner.lock(), self.owner:
            return self.take_clip(clip, color, started, marks)

    def stream(
        self, hop: int = 4, *, color: str | None = None, warmup: str = "wait", max_gap_s: float | None = None
    ) -> Stream:
        """Opens the stream of one face.

        Args:
            hop: kept frames from one answer to the next.
            color: 'rgb' or 'bgr' of the frames that will be pushed; there is no default.
            warmup: 'wait' answers once the ring reaches over the training pattern; 'repeat' answers from the first
                frame on, the first frame filling in for what is missing.
            max_gap_s: a longer pause empties the ring (two scenes never mix in one clip); None: half the span;
                math.inf: never.

        Raises:
            UsageError: a wrong argument, all faces of the arena are taken, or another thread owns the runtime.
        """
        return Stream(self, hop=hop, color=color, warmup=warmup, max_gap_s=max_gap_s)

    def step(self, frames: Mapping[Stream, tuple[Frame, float]]) -> dict[Stream, Result | None]:
        """Pushes one frame to each of several streams, in batches where possible.

        Faces share a batch where the bundle has graphs of that size (`export --batches`), and so do answers that are
        due together.

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
        with self.owner.lock(), self.owner:
            for job in jobs:
                if job.stream.runtime is not self:
                    raise UsageError("A stream of another runtime was given.", next="its own runtime.step(...)")
                job.stream.check(job.frame, job.time_s)
            advance(self, jobs)
        results: dict[Stream, Result | None] = {}
        for job in jobs:
            if isinstance(job.outcome, Exception):
                raise job.outcome
            results[job.stream] = job.outcome
        return results

    def worker(self, queue: int = 2, drop: str = "oldest") -> Worker:
        """Starts the thread that owns this runtime from now on; frames come to it from any thread.

        Args:
            queue: submissions of one stream that may wait; see `Worker`.
            drop: what happens to one too many: 'oldest', 'newest' or 'block'.

        Raises:
            UsageError: a wrong argument, streams that are still open, a worker that already runs, or another thread
                than the runtime's.
        """
        self.owner.check()
        if len(self._free_faces) < self.bundle.stream.faces:
            raise UsageError(
                "Streams of this runtime are open; a worker has its own.",
                next="stream.close(), then worker.stream(...)",
            )
        worker = Worker(self, queue, drop)
        self._end_worker = worker._thread.end
        return worker

    def close(self) -> None:
        """Frees every session. A second call does nothing.

        Any thread may call it: the call that runs is waited for, what comes after it is refused. A worker ends first;
        what waits in its queues is dropped.
        """
        if self._end_worker is not None:
            self._end_worker(True)
        self.owner.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def check_threads(threads: int | None) -> int | None:
    """The CPU threads of a session, as a plain number; None leaves the choice to the backend.

    Raises:
        UsageError: no whole number, below 1, or more than make sense.
    """
    if threads is None:
        return None
    threads = whole_number(threads, "threads")
    if threads > MAX_THREADS:
        raise UsageError(
            f"threads is {threads}; at most {MAX_THREADS} make sense.",
            next=f"give {os.cpu_count() or 1}, one for each core",
        )
    return threads


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
    wait: str = "auto",
    priority: str = "normal",
    strict: bool = False,
) -> Runtime:
    """Opens a bundle for running.

    Args:
        path: the bundle's folder, or an opened `Bundle`.
        backend: 'auto', or one of `backends.BACKENDS`.
        precision: 'verdict' takes the cheapest that was accepted and that this backend runs well; or 'fp32',
            'fp16', 'int8', or 'mixed' where that is the verdict on INT8.
        device: which GPU, counted from 0; ignored by a backend on the CPU.
        threads: CPU threads of one session; None leaves the choice to the backend.
        engines_dir: where built engines live, if not inside the bundle.
        selftest: answer the golden clips first (`golden.selftest`), and refuse to start if they are wrong.
        cuda: which CUDA layer drives a TensorRT engine; 'auto' takes what is installed.
        wait: how a thread waits for a TensorRT engine: 'block' sleeps, 'spin' asks in a loop, which answers sooner and
            keeps a core busy; 'auto' leaves it to the driver.
        priority: 'high' lets a TensorRT engine's kernels go before those that wait in other streams of this process,
            such as a detector's; needs cuda-python.
        strict: refuse engines that were built on another model of GPU or in another power mode, instead of warning.

    Raises:
        BadInputError: there is no bundle.
        RefusedError: something in it is not what its index promises.
        MachineError: the backend is not installed, or there is no such device.
        VerificationError: no precision was accepted, or the self-test failed.
        UsageError: a wrong argument.
    """
    device = whole_number(device, "device", 0)
    threads = check_threads(threads)
    bundle = path if isinstance(path, Bundle) else Bundle(path)
    if engines_dir is not None:
        engines_folder(bundle.path, engines_dir)  # a mistyped one is told on the CPU too
    options = {
        "threads": threads, "device": device, "engines_dir": engines_dir, "cuda": cuda, "wait": wait,
        "priority": priority, "strict": strict,
    }  # fmt: skip
    chosen = open_backend(bundle, backend, precision, options)
    _log.info("%s runs %s (asked for: %s, %s)", printable(chosen.name), chosen.precision, backend, precision)
    runtime = Runtime(bundle, chosen)
    if selftest:
        try:
            run_selftest(runtime).require()
        except BaseException:
            runtime.close()
            raise
    return runtime
