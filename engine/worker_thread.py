"""The worker's thread and its queue, with a bound and a drop policy for each stream."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any

from ..errors import DeviceLostError, UsageError, one_of, whole_number
from .core import RuntimeCore
from .step import Job, answer_together, begin_answers, compute_frames, due_together, finish_answer
from .stream import Stream
from .thread_owner import refuse_forked

DROPS = ("oldest", "newest", "block")
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Lane:
    """Waiting tasks of one stream, oldest first."""

    tasks: deque[Task] = field(default_factory=deque)

    @property
    def submissions(self) -> int:
        """How many of them are bounded."""
        return sum(task.submission for task in self.tasks)


@dataclass(eq=False)
class Task:
    """Something that the serving thread will do.

    Attributes:
        lane: where it waits.
        work: a frame, which may be computed together with other faces' frames; or what does something else, given the
            time at which it was taken out.
        submission: it is bounded, counted and may be dropped. What the worker does for itself is not.
        future: takes the outcome.
    """

    lane: Lane
    work: Job | Callable[[int], Any]
    submission: bool = False
    future: Future[Any] = field(default_factory=Future)

    def cancel(self) -> None:
        """Cancels the future of a task that was taken out. Callbacks run here: hold no lock."""
        try:
            self.future.cancel()
        finally:  # a callback's SystemExit comes through
            self.future.set_running_or_notify_cancel()  # tells those who wait for it


class WorkerThread:
    """A thread that owns a runtime and does tasks from any thread; counts what `Worker` tells.

    It holds no reference to the `Worker`, so that a dropped one can end it. The arguments are those of `Worker`.
    """

    def __init__(self, runtime: RuntimeCore, queue: int, drop: str) -> None:
        limit = whole_number(queue, "queue")
        if drop not in DROPS:
            raise UsageError(f"Unknown drop policy {drop!r}.", next=f"choose from {one_of(DROPS)}")
        self._limit, self._drop = limit, drop
        self._pid = os.getpid()
        self.submitted = self.answered = self.dropped = self.failed = 0
        self._lock = threading.RLock()  # entered itself: see ThreadOwner on Ctrl-C between a lock and its body
        self._changed = threading.Condition(self._lock)
        self._ready: deque[Lane] = deque()  # one entry for each waiting task
        self._closing = False
        self._failure: DeviceLostError | None = None
        self.runtime = runtime
        self.streams: list[Stream] = []
        self._handed_over = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="logoformer-worker", daemon=True)
        self._thread.start()
        runtime.owner.give(self._thread.ident, self._thread.name, worker=True)
        self._handed_over.set()

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on this thread: a future's callback, which must not wait for it."""
        return threading.get_ident() == self._thread.ident

    @property
    def closed(self) -> bool:
        """Whether nothing can be submitted any more."""
        return self._closing or self._failure is not None

    @property
    def waiting(self) -> int:
        """Submissions that have not begun.

        Raises:
            UsageError: in a forked child.
        """
        refuse_forked(self._pid)
        with self._lock:
            return sum(lane.submissions for lane in set(self._ready))

    # ------------------------------------------------------------------------------------------------ any thread
    def submit(self, task: Task) -> Future[Any]:
        """Enqueues a submission by the drop policy."""
        refuse_forked(self._pid)
        lane, victim = task.lane, None
        with self._lock:
            self._refuse_closed()
            if lane.submissions >= self._limit and self._drop == "block":
                self._wait_for_space(lane)
            self.submitted += 1
            if lane.submissions < self._limit:
                self._enqueue(task)
            else:
                self.dropped += 1
                victim = task
                if self._drop == "oldest":
                    victim = next(old for old in lane.tasks if old.submission)
                    lane.tasks.remove(victim)
                    lane.tasks.append(task)  # it takes the dropped one's place in the order of lanes
        if victim is not None:
            victim.cancel()
        return task.future

    def do_later(self, task: Task) -> Future[Any]:
        """Enqueues what is neither bounded nor counted."""
        refuse_forked(self._pid)
        with self._lock:
            self._refuse_closed()
            self._enqueue(task)
        return task.future

    def end(self, cancel: bool, *, wait: bool = True) -> None:
        """Refuses further tasks, drops those that wait if `cancel` is set, and waits for the end."""
        if os.getpid() != self._pid:  # a forked child has no serving thread, and the lock may be held for ever
            return
        with self._lock:
            self._closing = True
            left = self._take_all() if cancel else []
            self.dropped += sum(task.submission for task in left)
            self._changed.notify_all()
        with ExitStack() as last_first:  # each of them is done, whatever a callback raises
            if wait and not self.is_current:
                last_first.callback(self._thread.join)
            for task in reversed(left):
                last_first.callback(task.cancel)

    def _wait_for_space(self, lane: Lane) -> None:
        if self.is_current:
            raise UsageError(
                "A callback submitted to a full queue with drop='block'; it would wait for itself.",
                next="submit from another thread, or runtime.worker(drop='oldest')",
            )
        while lane.submissions >= self._limit:
            self._changed.wait()
            self._refuse_closed()

    def _enqueue(self, task: Task) -> None:
        task.lane.tasks.append(task)
        self._ready.append(task.lane)
        self._changed.notify_all()

    def _refuse_closed(self) -> None:
        if self._failure is not None:
            lost = self._failure
            raise DeviceLostError(lost.what, cause=lost.cause, next=lost.next, log=lost.log)
        if self._closing:
            raise UsageError("This worker is closed.", next="runtime.worker(...) starts a new one")

    # ---------------------------------------------------------------------------------------- the serving thread
    def forget(self, stream: Stream) -> None:
        """Closes a stream; on this thread."""
        self.streams.remove(stream)
        stream.close()

    def _serve(self) -> None:
        self._handed_over.wait()
        tasks: Sequence[Task] = ()
        held: Sequence[Task] = ()  # their answers are being computed, and more was waiting
        most = max(*self.runtime.frame_batches, *self.runtime.temporal_batches, 1)
        try:
            while True:
                tasks = self._next(most, wait=not held)
                if tasks:
                    held = self._do(tasks, held)
                elif not held:
                    break
                else:
                    self._deliver(held)
                    held = ()
                tasks = ()  # their streams hold the worker: waiting for the next must not keep it
        except BaseException as error:  # a fault of this program: nobody may wait for it for ever
            self._abandon([*tasks, *held], error)
            raise
        finally:
            for stream in self.streams:
                stream.close()
            try:
                self.runtime.close_sessions()
            finally:
                self.runtime.owner.give(None)

    def _abandon(self, begun: Sequence[Task], error: BaseException) -> None:
        """Refuses further tasks, drops those that wait, and fails those that were begun."""
        with self._lock:
            self._closing = True
            left = self._take_all()
            self.dropped += sum(task.submission for task in left)
            self._changed.notify_all()
        with ExitStack() as last_first:
            for task in left:
                last_first.callback(task.cancel)
            for task in begun:
                if not task.future.done():
                    self._settle(task, error)

    def _do(self, tasks: Sequence[Task], held: Sequence[Task]) -> Sequence[Task]:
        """Does tasks; returns those whose answers are still being computed, if more is waiting."""
        chosen = [task for task in tasks if self._begins(task)]
        now = perf_counter_ns()
        jobs = [task.work for task in chosen if isinstance(task.work, Job)]
        outcomes: list[Any] = []
        due: list[Job] = []
        error: BaseException | None = None
        try:
            for job in jobs:
                job.marks["queue"] = now
            if jobs:
                with self.runtime.owner.lock(), self.runtime.owner:
                    due = compute_frames(self.runtime, jobs)
        except BaseException as caught:  # any error belongs to who submitted
            error = caught
        self._deliver(held)  # what was begun first; meanwhile the frames above were under way
        held = ()
        try:
            if error is not None:
                raise error
            if jobs:
                with self.runtime.owner.lock(), self.runtime.owner:
                    *groups, last = due_together(self.runtime, due) or [()]
                    for group in groups:
                        answer_together(self.runtime, group)
                    if last and begin_answers(self.runtime, last):
                        if self._ready and self.runtime.session("temporal").overlaps:
                            held = [task for task in chosen if task.work in last]
                        else:
                            for job in last:
                                finish_answer(job)
                outcomes = [job.outcome for job in jobs]
            else:
                outcomes = [task.work(now) for task in chosen if not isinstance(task.work, Job)]  # it comes alone
        except BaseException as caught:
            outcomes, held = [caught] * len(chosen), ()
        self._conclude([pair for pair in zip(chosen, outcomes, strict=True) if pair[0] not in held])
        return held

    def _deliver(self, held: Sequence[Task]) -> None:
        """Waits for answers that were begun together, and settles their tasks."""
        jobs = [task.work for task in held if isinstance(task.work, Job)]
        outcomes: list[Any] = []
        try:
            with self.runtime.owner.lock(), self.runtime.owner:
                for job in jobs:
                    finish_answer(job)
            outcomes = [job.outcome for job in jobs]
        except BaseException as caught:
            outcomes = [caught] * len(held)
        if held:
            self._conclude(list(zip(held, outcomes, strict=True)))

    def _conclude(self, done: Sequence[tuple[Task, Any]]) -> None:
        """Settles tasks; after a lost device all that wait, too."""
        lost = next((outcome for _, outcome in done if isinstance(outcome, DeviceLostError)), None)
        left: list[Task] = []
        if lost is not None:
            with self._lock:  # further tasks are refused with that error, and so are those that waited
                self._failure = lost
                left = self._take_all()
                self._changed.notify_all()
        for task, outcome in [*done, *((task, lost) for task in left if self._begins(task))]:
            self._settle(task, outcome)

    def _next(self, most: int, *, wait: bool) -> list[Task]:
        """The next task, or up to `most` frames of different faces; empty at the end.

        Without `wait` empty also when nothing is there.
        """
        with self._lock:
            while not self._ready:
                if self.closed or not wait:
                    return []
                self._changed.wait()
            tasks = [self._take_first()]
            lanes = {tasks[0].lane}
            while isinstance(tasks[-1].work, Job) and len(tasks) < most and self._ready:
                lane = self._ready[0]
                if lane in lanes or not isinstance(lane.tasks[0].work, Job):
                    break
                lanes.add(lane)
                tasks.append(self._take_first())
            if self._drop == "block":
                self._changed.notify_all()
        return tasks

    def _begins(self, task: Task) -> bool:
        """Whether nobody cancelled it while it waited; from here on nobody can."""
        if task.future.set_running_or_notify_cancel():
            return True
        with self._lock:
            self.dropped += task.submission
        return False

    def _settle(self, task: Task, outcome: Any) -> None:
        wrong = isinstance(outcome, BaseException)
        with self._lock:  # counted first: who sees the future done sees the count
            if wrong:
                self.failed += task.submission
            else:
                self.answered += task.submission
        try:
            if wrong:
                task.future.set_exception(outcome)
            else:
                task.future.set_result(outcome)
        except BaseException:  # a callback's SystemExit, which a future lets through, ends neither worker nor program
            _log.exception("a callback of a submission's future raised; the worker goes on")

    def _take_all(self) -> list[Task]:
        left = []
        while self._ready:
            left.append(self._take_first())
        return left

    def _take_first(self) -> Task:
        return self._ready.popleft().tasks.popleft()
