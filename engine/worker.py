"""A thread that owns a runtime and answers frames from any other thread.

A camera's callback (GStreamer's appsink, a ROS subscription, a web handler) runs on a thread of its own and must not
wait for a GPU. It calls `submit`, which copies the frame, puts it into a bounded queue and returns a future at once.

What is defined, and tested:

* *order*: the submissions of one stream are computed in the order in which `submit` was called.
* *bound*: at most `queue` submissions of each stream wait, and as many clips. One face that is too fast never
  pushes another face's frames out.
* *drop*: what happens to one too many. 'oldest' drops the stream's oldest waiting one: what is answered is fresh.
  'newest' drops the one that was just handed over. 'block' makes `submit` wait for space.
* *a dropped submission's future is cancelled*: `future.cancelled()` is true and `future.result()` raises
  `concurrent.futures.CancelledError`. A future that the caller cancels before it began counts as dropped too.
* *counted*: `submitted == answered + dropped + failed + waiting`, less those that are being computed at this moment.
* *errors* of one submission are raised by its future; the worker goes on. A lost device (`DeviceLostError`) ends it for
  good: all that wait, and every later `submit`, get that error.
* *close* drains: everything that waits is answered first. `close(cancel=True)` drops what waits; so does leaving the
  `with` block by an exception. The call that runs is always waited for. A `submit` that comes later is refused.
* *sessions* open on this thread and close on it; those that the runtime had open before are closed and opened anew,
  because a CUDA context belongs to a thread. Afterwards the next thread that calls the runtime owns it.

Futures' callbacks run on the worker's thread (or, for a dropped submission, on the one that dropped it): keep them
short. A callback may submit; with drop='block' it must not, since it would wait for itself.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from time import perf_counter_ns
from typing import Any

import numpy as np

from ..clips import Clip, Frame, check_color, check_frame
from ..errors import DeviceLostError, UsageError
from .core import Result, RuntimeCore
from .feeding import check_clip
from .step import Job, advance
from .stream import Stream
from .task_queue import Lane, Task, TaskQueue


class _Server(TaskQueue):
    """The thread that owns a runtime, its queue and its streams.

    It holds no reference to the `Worker`, so that a dropped one can end it.
    """

    def __init__(self, runtime: RuntimeCore, queue: int, drop: str) -> None:
        super().__init__(queue, drop)
        self.runtime = runtime
        self.streams: list[Stream] = []
        self._handed_over = threading.Event()
        self.thread = threading.Thread(target=self._serve, name="logoformer-worker", daemon=True)
        runtime.close_sessions()
        self.thread.start()
        self._serving = self.thread.ident
        runtime.owner.give(self.thread.ident, self.thread.name, worker=True)
        self._handed_over.set()

    def end(self, cancel: bool) -> None:
        """Ends the thread and waits for it, but on the thread itself and in a forked child."""
        self._end(cancel)
        if os.getpid() == self._pid and threading.get_ident() != self.thread.ident:
            self.thread.join()

    def forget(self, stream: Stream) -> None:
        """Closes a stream; on this thread."""
        self.streams.remove(stream)
        stream.close()

    def _serve(self) -> None:
        self._handed_over.wait()
        try:
            while tasks := self._next(max(self.runtime.frame_batches, default=1)):
                self._do(tasks)
                del tasks  # their streams hold the worker: waiting for the next must not keep it
        finally:
            for stream in self.streams:
                stream.close()
            try:
                self.runtime.close_sessions()
            finally:
                self.runtime.owner.give(None)

    def _do(self, tasks: Sequence[Task]) -> None:
        chosen = [task for task in tasks if self._begins(task)]
        now = perf_counter_ns()
        outcomes: list[Any] = []
        try:
            jobs: list[Job] = []
            for task in chosen:
                if isinstance(task.work, Job):
                    task.work.marks["queue"] = now
                    jobs.append(task.work)
                else:  # which comes alone
                    outcomes = [task.work(now)]
            if jobs:
                with self.runtime.owner:
                    advance(self.runtime, jobs)
                outcomes = [job.outcome for job in jobs]
        except BaseException as error:  # any error belongs to who submitted
            outcomes = [error] * len(chosen)
        lost = next((outcome for outcome in outcomes if isinstance(outcome, DeviceLostError)), None)
        left = [] if lost is None else self._fail(lost)
        for task, outcome in [
            *zip(chosen, outcomes, strict=True),
            *((task, lost) for task in left if self._begins(task)),
        ]:
            self._settle(task, outcome)


class WorkerStream:
    """One face, made by `Worker.stream`. Every method may be called from any thread."""

    def __init__(self, worker: Worker, stream: Stream) -> None:
        self._worker, self._stream = worker, stream
        self._lane = Lane()
        self._closed = False

    @property
    def skipped(self) -> int:
        """Frames that were not kept because the camera is faster than the ring was made for."""
        return self._stream.skipped

    @property
    def resets(self) -> int:
        """Times the ring was emptied because of a gap."""
        return self._stream.resets

    def flush(self) -> Future[Result | None]:
        """`Stream.flush`, after all that was submitted so far. Neither counted nor dropped."""
        return self._worker._server._do_later(Task(self._lane, lambda _: self._stream.flush()))

    def reset(self) -> Future[None]:
        """`Stream.reset`, after all that was submitted so far. Neither counted nor dropped."""
        return self._worker._server._do_later(Task(self._lane, lambda _: self._stream.reset()))

    def close(self) -> None:
        """Gives the face's place back once all that was submitted is done; does not wait for it."""
        if not self._closed:
            self._closed = True
            with contextlib.suppress(UsageError, DeviceLostError):  # the worker has ended, and closed it
                server = self._worker._server
                server._do_later(Task(self._lane, lambda _: server.forget(self._stream)))

    def __enter__(self) -> WorkerStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Worker:
    """Made by `Runtime.worker`. Every method may be called from any thread.

    One that is dropped without `close` ends as `close(cancel=True)` does, but nobody waits for it.

    Args:
        runtime: owned by the calling thread, without open streams.
        queue: submissions of one stream that may wait, at least 1.
        drop: one of `DROPS`.

    Raises:
        UsageError: a wrong argument.
    """

    def __init__(self, runtime: RuntimeCore, queue: int, drop: str) -> None:
        self._server = _Server(runtime, queue, drop)
        self._calls, self._clips = Lane(), Lane()
        # Nobody waits for the thread of a worker that nobody holds any more.
        weakref.finalize(self, self._server._end, True).atexit = False

    def __repr__(self) -> str:
        counts = f"{self.submitted} submitted, {self.answered} answered, {self.dropped} dropped"
        return f"<Worker of {self._server.runtime.bundle.path.name}: {len(self._server.streams)} streams, {counts}>"

    @property
    def submitted(self) -> int:
        """Submissions whose future was handed out."""
        return self._server.submitted

    @property
    def answered(self) -> int:
        """Submissions that are done, with or without a `Result`."""
        return self._server.answered

    @property
    def dropped(self) -> int:
        """Submissions taken out before they began, by the drop policy, the caller or `close`."""
        return self._server.dropped

    @property
    def failed(self) -> int:
        """Submissions that ended with an exception."""
        return self._server.failed

    @property
    def waiting(self) -> int:
        """Submissions that have not begun."""
        return self._server.waiting

    @property
    def closed(self) -> bool:
        """Whether nothing can be submitted any more."""
        return self._server.closed

    def stream(
        self, hop: int = 4, *, color: str | None = None, warmup: str = "wait", max_gap_s: float | None = None
    ) -> WorkerStream:
        """Opens the stream of one face and waits until it is open.

        The arguments are those of `Runtime.stream`.

        Raises:
            UsageError: as `Runtime.stream`, or the worker is closed.
        """
        server = self._server

        def work(_: int) -> WorkerStream:
            stream = Stream(server.runtime, hop=hop, color=color, warmup=warmup, max_gap_s=max_gap_s)
            server.streams.append(stream)
            return WorkerStream(self, stream)

        if threading.get_ident() == server.thread.ident:  # a callback would wait for itself
            return work(0)
        made: WorkerStream = server._do_later(Task(self._calls, work)).result()
        return made

    def submit(self, stream: WorkerStream, frame: Frame, time_s: float) -> Future[Result | None]:
        """Hands over the next frame of a face and returns at once.

        Args:
            stream: made by this worker.
            frame: as for `Stream.push`; copied, so the caller may write into it again.
            time_s: as for `Stream.push`.

        Returns:
            What `Stream.push` returns or raises, later; cancelled when the submission was dropped.

        Raises:
            BadInputError: a frame of another dtype or shape.
            UsageError: the stream or the worker is closed, or a callback would wait for itself.
            DeviceLostError: the worker has ended because the device is gone.
        """
        received = perf_counter_ns()
        own = np.array(check_frame(frame))
        if stream._worker is not self:
            raise UsageError("This stream belongs to another worker.", next="worker.stream(...) opens one")
        if stream._closed:
            raise UsageError("This stream is closed.", next="worker.stream(...) opens a new one")
        return self._server._submit(Task(stream._lane, Job(stream._stream, own, time_s, received), submission=True))

    def submit_clip(self, clip: Clip, *, color: str | None = None) -> Future[Result]:
        """Hands over one clip and returns at once; see `Runtime.__call__` and `submit`.

        Raises:
            BadInputError, UsageError, DeviceLostError: as `submit`.
        """
        received = perf_counter_ns()
        own = np.array(check_clip(clip, self._server.runtime.bundle.frames))
        order = check_color(color)

        runtime = self._server.runtime

        def work(now: int) -> Result:
            with runtime.owner:
                return runtime.take_clip(own, order, received, {"queue": now})

        return self._server._submit(Task(self._clips, work, True))

    def close(self, *, cancel: bool = False) -> None:
        """Ends the thread and waits for it. A second call does nothing.

        Args:
            cancel: drop what waits instead of answering it first.
        """
        self._server.end(cancel)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.close(cancel=kind is not None)
