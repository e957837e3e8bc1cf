"""A thread that owns a runtime and answers frames from any other thread.

A camera's callback (GStreamer's appsink, a ROS subscription, a web handler) runs on a thread of its own and must not
wait for a GPU. It calls `submit`, which resizes the frame into memory of its own (on the caller's thread, while the GPU
works), puts it into a bounded queue and returns a future at once.

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
* *sessions* that the runtime had open go on; the worker closes them at its end. Afterwards the next thread that calls
  the runtime owns it.
* *overlap*: while a GPU computes an answer and more frames wait, the next frame is already uploaded. Answers of one
  stream come in the order of its frames all the same.

Futures' callbacks run on the worker's thread (or, for a dropped submission, on the one that dropped it): keep them
short. A callback may submit; with drop='block' it must not, since it would wait for itself. What one raises on the
worker's thread, SystemExit too, is logged, and the worker goes on.
"""

from __future__ import annotations

import contextlib
import weakref
from concurrent.futures import Future
from time import perf_counter_ns

import numpy as np

from ..clips import Clip, Frame, check_color, check_frame, to_input
from ..errors import DeviceLostError, UsageError
from .core import Result, RuntimeCore
from .cuda.device_arrays import is_on_device
from .feeding import check_clip
from .step import Job
from .stream import Stream
from .worker_thread import Lane, Task, WorkerThread


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
        return self._worker._thread.do_later(Task(self._lane, lambda _: self._stream.flush()))

    def reset(self) -> Future[None]:
        """`Stream.reset`, after all that was submitted so far. Neither counted nor dropped."""
        return self._worker._thread.do_later(Task(self._lane, lambda _: self._stream.reset()))

    def close(self) -> None:
        """Gives the face's place back once all that was submitted is done; does not wait for it."""
        if not self._closed:
            self._closed = True
            with contextlib.suppress(UsageError, DeviceLostError):  # the worker has ended, and closed it
                thread = self._worker._thread
                thread.do_later(Task(self._lane, lambda _: thread.forget(self._stream)))

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
        self._thread = WorkerThread(runtime, queue, drop)
        self._calls, self._clips = Lane(), Lane()
        # Nobody waits for the thread of a worker that nobody holds any more.
        weakref.finalize(self, self._thread.end, True, wait=False).atexit = False

    def __repr__(self) -> str:
        counts = f"{self.submitted} submitted, {self.answered} answered, {self.dropped} dropped"
        return f"<Worker of {self._thread.runtime.bundle.path.name}: {len(self._thread.streams)} streams, {counts}>"

    @property
    def submitted(self) -> int:
        """Submissions whose future was handed out."""
        return self._thread.submitted

    @property
    def answered(self) -> int:
        """Submissions that are done, with or without a `Result`."""
        return self._thread.answered

    @property
    def dropped(self) -> int:
        """Submissions taken out before they began, by the drop policy, the caller or `close`."""
        return self._thread.dropped

    @property
    def failed(self) -> int:
        """Submissions that ended with an exception."""
        return self._thread.failed

    @property
    def waiting(self) -> int:
        """Submissions that have not begun."""
        return self._thread.waiting

    @property
    def closed(self) -> bool:
        """Whether nothing can be submitted any more."""
        return self._thread.closed

    def stream(
        self, hop: int = 4, *, color: str | None = None, warmup: str = "wait", max_gap_s: float | None = None
    ) -> WorkerStream:
        """Opens the stream of one face and waits until it is open.

        The arguments are those of `Runtime.stream`.

        Raises:
            UsageError: as `Runtime.stream`, or the worker is closed.
        """
        thread = self._thread

        def work(_: int) -> WorkerStream:
            stream = Stream(thread.runtime, hop=hop, color=color, warmup=warmup, max_gap_s=max_gap_s)
            thread.streams.append(stream)
            return WorkerStream(self, stream)

        if thread.is_current:  # a callback would wait for itself
            return work(0)
        made: WorkerStream = thread.do_later(Task(self._calls, work)).result()
        return made

    def submit(self, stream: WorkerStream, frame: Frame, time_s: float) -> Future[Result | None]:
        """Hands over the next frame of a face and returns at once.

        Args:
            stream: made by this worker.
            frame: as for `Stream.push`; copied, so the caller may write into it again. An array on the card is not: it
                must stay as it is until the future is done.
            time_s: as for `Stream.push`.

        Returns:
            What `Stream.push` returns or raises, later; cancelled when the submission was dropped.

        Raises:
            BadInputError: a frame of another dtype or shape.
            UsageError: the stream or the worker is closed, or a callback would wait for itself.
            DeviceLostError: the worker has ended because the device is gone.
        """
        received = perf_counter_ns()
        if stream._worker is not self:
            raise UsageError("This stream belongs to another worker.", next="worker.stream(...) opens one")
        if stream._closed:
            raise UsageError("This stream is closed.", next="worker.stream(...) opens a new one")
        own, color = frame, None
        if not is_on_device(frame):
            size = self._thread.runtime.bundle.image_size
            own, color = np.empty((size, size, 3), np.uint8), "rgb"
            to_input(check_frame(frame), size, stream._stream.color, own)
        job = Job(stream._stream, own, time_s, received, color)
        return self._thread.submit(Task(stream._lane, job, submission=True))

    def submit_clip(self, clip: Clip, *, color: str | None = None) -> Future[Result]:
        """Hands over one clip and returns at once; see `Runtime.__call__` and `submit`.

        Raises:
            BadInputError, UsageError, DeviceLostError: as `submit`.
        """
        received = perf_counter_ns()
        own = np.array(check_clip(clip, self._thread.runtime.bundle.frames))
        order = check_color(color)

        runtime = self._thread.runtime

        def work(now: int) -> Result:
            with runtime.owner.lock(), runtime.owner:
                return runtime.take_clip(own, order, received, {"queue": now})

        return self._thread.submit(Task(self._clips, work, True))

    def close(self, *, cancel: bool = False) -> None:
        """Ends the thread and waits for it. A second call does nothing.

        Args:
            cancel: drop what waits instead of answering it first.
        """
        self._thread.end(cancel)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.close(cancel=kind is not None)
