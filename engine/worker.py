"""The thread that owns an engine, so that any other thread may hand it frames.

A camera's callback (GStreamer's appsink, a ROS subscription, a web handler) runs on a thread of its own and must not
wait for a GPU. It calls `submit`, which copies the frame, puts it into a bounded queue and returns a future at once.

What is defined, and tested:

* *order*: the submissions of one stream are computed in the order in which `submit` was called.
* *bound*: each stream has room for `queue` waiting submissions, and so have the clips. One face that is too fast never
  pushes another face's frames out.
* *drop*: what happens to one too many. 'oldest' drops the stream's oldest waiting one: what is answered is fresh.
  'newest' drops the one that was just handed over. 'block' makes `submit` wait for room.
* *a dropped submission's future is cancelled*: `future.cancelled()` is true and `future.result()` raises
  `concurrent.futures.CancelledError`. A future that the caller cancels before its turn counts as dropped too.
* *counted*: `submitted == answered + dropped + failed + waiting`, less those that are being computed at this moment.
* *errors* of one submission are raised by its future; the worker goes on. A lost device (`DeviceLostError`) ends it for
  good: all that wait, and every later `submit`, get that error.
* *close* drains: everything that waits is answered first. `close(cancel=True)` drops what waits; so does leaving the
  `with` block by an exception. The call that runs is always waited for. A `submit` that comes later is refused.
* *sessions* open on this thread and close on it; those that the engine had open before are closed and opened anew,
  because a CUDA context belongs to a thread. Afterwards the engine is free for the next thread that asks.

Futures' callbacks run on the worker's thread (or, for a dropped submission, on the one that dropped it): keep them
short. A callback may submit; with drop='block' it must not, since it would wait for itself.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import perf_counter_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..clips import Clip, Frame, check_color, check_frame
from ..errors import DeviceLostError, UsageError, one_of
from .result import Result
from .step import Job, advance
from .stream import Stream

if TYPE_CHECKING:
    from .runtime import Runtime

DROPS = ("oldest", "newest", "block")


@dataclass(eq=False)
class _Lane:
    """What waits for one stream, oldest first."""

    tasks: deque[_Task] = field(default_factory=deque)
    waiting: int = 0  # submissions among them


@dataclass(eq=False)
class _Task:
    """Something that the thread will do.

    Attributes:
        lane: where it waits.
        work: does it; given the time at which its turn came.
        submission: it is bounded, counted and may be dropped. What the worker does for itself is not.
        job: a frame, which may be computed together with other faces' frames.
        future: takes the outcome.
    """

    lane: _Lane
    work: Callable[[int], Any]
    submission: bool = False
    job: Job | None = None
    future: Future[Any] = field(default_factory=Future)


class WorkerStream:
    """One face, made by `Worker.stream`. Every method may be called from any thread."""

    def __init__(self, worker: Worker, stream: Stream) -> None:
        self._worker, self._stream = worker, stream
        self._lane = _Lane()
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
        return self._worker._do_later(_Task(self._lane, lambda _: self._stream.flush()))

    def reset(self) -> Future[None]:
        """`Stream.reset`, after all that was submitted so far. Neither counted nor dropped."""
        return self._worker._do_later(_Task(self._lane, lambda _: self._stream.reset()))

    def close(self) -> None:
        """Gives the face's place back once all that was submitted is done; does not wait for it."""
        if not self._closed:
            self._closed = True
            with contextlib.suppress(UsageError, DeviceLostError):  # the worker has ended, and closed it
                self._worker._do_later(_Task(self._lane, lambda _: self._worker._forget(self._stream)))

    def __enter__(self) -> WorkerStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Worker:
    """Made by `Runtime.worker`. Every method may be called from any thread.

    Args:
        engine: owned by the calling thread, without open streams.
        queue: submissions of one stream that may wait, at least 1.
        drop: one of `DROPS`.

    Attributes:
        submitted: calls of `submit` and `submit_clip` that returned a future.
        answered: of those, how many are done, with or without a `Result`.
        dropped: taken out before their turn: by the drop policy, by the caller, by `close(cancel=True)`.
        failed: ended with an exception.

    Raises:
        UsageError: a wrong argument.
    """

    def __init__(self, engine: Runtime, queue: int, drop: str) -> None:
        if not isinstance(queue, int) or queue < 1:
            raise UsageError(f"queue is {queue}; it counts waiting submissions of one stream, so at least 1.")
        if drop not in DROPS:
            raise UsageError(f"Unknown drop policy {drop!r}.", next=f"choose from {one_of(DROPS)}")
        self._engine, self._queue, self._drop = engine, queue, drop
        self.submitted = self.answered = self.dropped = self.failed = 0
        self._changed = threading.Condition()
        self._ready: deque[_Lane] = deque()  # one entry for each waiting task
        self._calls, self._clips = _Lane(), _Lane()
        self._streams: list[Stream] = []
        self._closing = False
        self._failure: DeviceLostError | None = None
        self._handed_over = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="logoformer-worker", daemon=True)
        engine.close_sessions()
        self._thread.start()
        engine.owner.give(self._thread.ident, self._thread.name, worker=True)
        self._handed_over.set()

    # ------------------------------------------------------------------------------------------------ any thread
    @property
    def closed(self) -> bool:
        """Whether nothing can be submitted any more."""
        return self._closing or self._failure is not None

    @property
    def waiting(self) -> int:
        """Submissions whose turn has not come."""
        with self._changed:
            return sum(task.submission for lane in set(self._ready) for task in lane.tasks)

    def stream(
        self, hop: int = 4, *, color: str | None = None, warmup: str = "wait", max_gap_s: float | None = None
    ) -> WorkerStream:
        """Opens the stream of one face and waits until it is there; the arguments are those of `Runtime.stream`.

        Raises:
            UsageError: as `Runtime.stream`, or the worker is closed.
        """

        def work(_: int) -> WorkerStream:
            stream = self._engine.stream(hop, color=color, warmup=warmup, max_gap_s=max_gap_s)
            self._streams.append(stream)
            return WorkerStream(self, stream)

        if threading.get_ident() == self._thread.ident:  # a callback would wait for itself
            return work(0)
        made: WorkerStream = self._do_later(_Task(self._calls, work)).result()
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
        inner = stream._stream
        if stream._worker is not self:
            raise UsageError("This stream belongs to another worker.", next="worker.stream(...) opens one")
        if stream._closed:
            raise UsageError("This stream is closed.", next="worker.stream(...) opens a new one")

        def work(now: int) -> Result | None:
            with self._engine.owner:
                return inner.take_frame(own, time_s, received, {"queue": now})

        return self._submit(_Task(stream._lane, work, True, Job(inner, own, time_s, received)))

    def submit_clip(self, clip: Clip, *, color: str | None = None) -> Future[Result]:
        """Hands over one clip and returns at once; see `Runtime.__call__` and `submit`.

        Raises:
            BadInputError, UsageError, DeviceLostError: as `submit`.
        """
        from .feeding import check_clip

        received = perf_counter_ns()
        own = np.array(check_clip(clip, self._engine.bundle.frames))
        order = check_color(color)

        def work(now: int) -> Result:
            with self._engine.owner:
                return self._engine.take_clip(own, order, received, {"queue": now})

        return self._submit(_Task(self._clips, work, True))

    def close(self, *, cancel: bool = False) -> None:
        """Ends the thread and waits for it. A second call does nothing.

        Args:
            cancel: drop what waits instead of answering it first.
        """
        with self._changed:
            self._closing = True
            left = self._take_all() if cancel else []
            self.dropped += sum(task.submission for task in left)
            self._changed.notify_all()
        for task in left:
            _cancel(task)
        if threading.get_ident() != self._thread.ident:
            self._thread.join()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(cancel=kind is not None)

    def _submit(self, task: _Task) -> Future[Any]:
        lane, victim = task.lane, None
        with self._changed:
            self._refuse_closed()
            if lane.waiting >= self._queue and self._drop == "block":
                self._wait_for_room(lane)
            self.submitted += 1
            if lane.waiting < self._queue:
                self._enqueue(task)
            else:
                self.dropped += 1
                victim = task
                if self._drop == "oldest":
                    victim = next(old for old in lane.tasks if old.submission)
                    lane.tasks.remove(victim)
                    lane.tasks.append(task)  # its turn comes when the dropped one's would have come
        if victim is not None:
            _cancel(victim)
        return task.future

    def _wait_for_room(self, lane: _Lane) -> None:
        if threading.get_ident() == self._thread.ident:
            raise UsageError(
                "A callback submitted to a full queue with drop='block'; it would wait for itself.",
                next="submit from another thread, or engine.worker(drop='oldest')",
            )
        while lane.waiting >= self._queue:
            self._changed.wait()
            self._refuse_closed()

    def _do_later(self, task: _Task) -> Future[Any]:
        with self._changed:
            self._refuse_closed()
            self._enqueue(task)
        return task.future

    def _enqueue(self, task: _Task) -> None:
        task.lane.tasks.append(task)
        task.lane.waiting += task.submission
        self._ready.append(task.lane)
        self._changed.notify_all()

    def _refuse_closed(self) -> None:
        if self._failure is not None:
            lost = self._failure
            raise DeviceLostError(lost.what, cause=lost.cause, next=lost.next, log=lost.log)
        if self._closing:
            raise UsageError("This worker is closed.", next="engine.worker(...) starts a new one")

    def _take_all(self) -> list[_Task]:
        left = []
        while self._ready:
            left.append(self._take_first())
        return left

    def _take_first(self) -> _Task:
        lane = self._ready.popleft()
        task = lane.tasks.popleft()
        lane.waiting -= task.submission
        return task

    # ---------------------------------------------------------------------------------------------- its own thread
    def _serve(self) -> None:
        self._handed_over.wait()
        try:
            while tasks := self._next():
                self._do(tasks)
        finally:
            for stream in self._streams:
                stream.close()
            try:
                self._engine.close_sessions()
            finally:
                self._engine.owner.give(None)

    def _next(self) -> list[_Task]:
        """The task whose turn it is, with other faces' frames that may be computed together; none at the end."""
        most = max(self._engine.frame_batches, default=1)
        with self._changed:
            while not self._ready:
                if self.closed:
                    return []
                self._changed.wait()
            tasks = [self._take_first()]
            lanes = {tasks[0].lane}
            while tasks[-1].job and len(tasks) < most and self._ready:
                lane = self._ready[0]
                if lane in lanes or lane.tasks[0].job is None:
                    break
                lanes.add(lane)
                tasks.append(self._take_first())
            if self._drop == "block":
                self._changed.notify_all()
        return tasks

    def _do(self, tasks: Sequence[_Task]) -> None:
        chosen = [task for task in tasks if self._begins(task)]
        now = perf_counter_ns()
        outcomes: list[Any] = []
        try:
            if len(chosen) > 1:
                jobs = [task.job for task in chosen if task.job is not None]
                for job in jobs:
                    job.marks["queue"] = now
                with self._engine.owner:
                    advance(self._engine, jobs)
                outcomes = [job.outcome for job in jobs]
            elif chosen:
                outcomes = [chosen[0].work(now)]
        except BaseException as error:  # it belongs to who submitted, whatever it is
            outcomes = [error] * len(chosen)
        lost = next((outcome for outcome in outcomes if isinstance(outcome, DeviceLostError)), None)
        left: list[_Task] = []
        if lost is not None:
            with self._changed:
                self._failure = lost
                left = self._take_all()
                self._changed.notify_all()
        for task, outcome in [
            *zip(chosen, outcomes, strict=True),
            *((task, lost) for task in left if self._begins(task)),
        ]:
            self._settle(task, outcome)

    def _forget(self, stream: Stream) -> None:
        self._streams.remove(stream)
        stream.close()

    def _begins(self, task: _Task) -> bool:
        """Whether nobody cancelled it while it waited; from here on nobody can."""
        if task.future.set_running_or_notify_cancel():
            return True
        with self._changed:
            self.dropped += task.submission
        return False

    def _settle(self, task: _Task, outcome: Any) -> None:
        wrong = isinstance(outcome, BaseException)
        with self._changed:  # counted first: who sees the future done sees the count
            if wrong:
                self.failed += task.submission
            else:
                self.answered += task.submission
        if wrong:
            task.future.set_exception(outcome)
        else:
            task.future.set_result(outcome)


def _cancel(task: _Task) -> None:
    """Ends the future of a task that was taken out; outside all locks, because callbacks run here."""
    task.future.cancel()
    task.future.set_running_or_notify_cancel()  # tells those who wait for it
