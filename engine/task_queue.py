"""A queue of tasks with a bound and a drop policy for each stream's submissions."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from ..errors import DeviceLostError, UsageError, one_of, whole_number
from .step import Job
from .thread_owner import refuse_forked

DROPS = ("oldest", "newest", "block")


@dataclass(eq=False)
class Lane:
    """Waiting tasks of one stream, oldest first."""

    tasks: deque[Task] = field(default_factory=deque)
    submissions: int = 0  # among them


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
        self.future.cancel()
        self.future.set_running_or_notify_cancel()  # tells those who wait for it


class TaskQueue:
    """Tasks from any thread for one serving thread; counts what `worker.Worker` tells.

    Args:
        limit: submissions of one lane that may wait, at least 1.
        drop: one of `DROPS`.

    Raises:
        UsageError: a wrong argument.
    """

    def __init__(self, limit: int, drop: str) -> None:
        limit = whole_number(limit, "queue")
        if drop not in DROPS:
            raise UsageError(f"Unknown drop policy {drop!r}.", next=f"choose from {one_of(DROPS)}")
        self._limit, self._drop = limit, drop
        self._pid = os.getpid()
        self.submitted = self.answered = self.dropped = self.failed = 0
        self._changed = threading.Condition()
        self._ready: deque[Lane] = deque()  # one entry for each waiting task
        self._closing = False
        self._failure: DeviceLostError | None = None
        self._serving: int | None = None  # identifier of the serving thread

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
        with self._changed:
            return sum(task.submission for lane in set(self._ready) for task in lane.tasks)

    # ------------------------------------------------------------------------------------------------ any thread
    def _submit(self, task: Task) -> Future[Any]:
        """Enqueues a submission by the drop policy."""
        refuse_forked(self._pid)
        lane, victim = task.lane, None
        with self._changed:
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

    def _do_later(self, task: Task) -> Future[Any]:
        """Enqueues what is neither bounded nor counted."""
        refuse_forked(self._pid)
        with self._changed:
            self._refuse_closed()
            self._enqueue(task)
        return task.future

    def _end(self, cancel: bool) -> None:
        """Refuses all further tasks, and drops those that wait if `cancel` is set."""
        if os.getpid() != self._pid:  # a forked child has no serving thread, and the lock may be held for ever
            return
        with self._changed:
            self._closing = True
            left = self._take_all() if cancel else []
            self.dropped += sum(task.submission for task in left)
            self._changed.notify_all()
        for task in left:
            task.cancel()

    def _wait_for_space(self, lane: Lane) -> None:
        if threading.get_ident() == self._serving:
            raise UsageError(
                "A callback submitted to a full queue with drop='block'; it would wait for itself.",
                next="submit from another thread, or runtime.worker(drop='oldest')",
            )
        while lane.submissions >= self._limit:
            self._changed.wait()
            self._refuse_closed()

    def _enqueue(self, task: Task) -> None:
        task.lane.tasks.append(task)
        task.lane.submissions += task.submission
        self._ready.append(task.lane)
        self._changed.notify_all()

    def _refuse_closed(self) -> None:
        if self._failure is not None:
            lost = self._failure
            raise DeviceLostError(lost.what, cause=lost.cause, next=lost.next, log=lost.log)
        if self._closing:
            raise UsageError("This worker is closed.", next="runtime.worker(...) starts a new one")

    # ---------------------------------------------------------------------------------------- the serving thread
    def _next(self, most: int) -> list[Task]:
        """The next task, or up to `most` frames of different faces; empty at the end."""
        with self._changed:
            while not self._ready:
                if self.closed:
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

    def _fail(self, lost: DeviceLostError) -> list[Task]:
        """Refuses all further tasks with that error; returns those that waited."""
        with self._changed:
            self._failure = lost
            left = self._take_all()
            self._changed.notify_all()
        return left

    def _begins(self, task: Task) -> bool:
        """Whether nobody cancelled it while it waited; from here on nobody can."""
        if task.future.set_running_or_notify_cancel():
            return True
        with self._changed:
            self.dropped += task.submission
        return False

    def _settle(self, task: Task, outcome: Any) -> None:
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

    def _take_all(self) -> list[Task]:
        left = []
        while self._ready:
            left.append(self._take_first())
        return left

    def _take_first(self) -> Task:
        lane = self._ready.popleft()
        task = lane.tasks.popleft()
        lane.submissions -= task.submission
        return task
