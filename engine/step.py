"""One frame of each of several faces, in batches where there are graphs for them.

The greatest batch that the waiting frames fill comes first, then the next; what is left goes one by one. So it is with
the faces to which an answer is due. Nothing is padded: a face costs what it costs, and every answer equals the one that
`push` gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns

from ..clips import Frame, to_input
from ..errors import DeviceLostError
from .core import Result, RuntimeCore
from .cuda.device_arrays import is_on_device
from .feeding import put_frame
from .stream import Stream


@dataclass(eq=False)
class Job:
    """A frame to be computed, and what became of it.

    Attributes:
        stream: of the face; each at most once in a step.
        frame: uint8 `[H, W, 3]`.
        time_s: when it was taken.
        received_ns: when it was handed over.
        color: 'rgb' or 'bgr' of the frame; None: the stream's.
        marks: when each stage ended so far.
        outcome: what `push` would have returned or raised.
    """

    stream: Stream
    frame: Frame
    time_s: float
    received_ns: int
    color: str | None = None
    marks: dict[str, int] = field(default_factory=dict)
    outcome: Result | Exception | None = None

    @property
    def order(self) -> str:
        """Channel order of the frame."""
        return self.color or self.stream.color


def advance(runtime: RuntimeCore, jobs: Sequence[Job]) -> None:
    """Computes and answers; an error of one face leaves the others alone.

    The caller has entered the runtime's owner.

    Args:
        runtime: of all streams.
        jobs: their `outcome` is filled in.

    Raises:
        DeviceLostError: nothing can be answered any more.
    """
    for group in due_together(runtime, compute_frames(runtime, jobs)):
        answer_together(runtime, group)


def compute_frames(runtime: RuntimeCore, jobs: Sequence[Job]) -> list[Job]:
    """Computes the frames of `advance`; returns the jobs to which an answer is due.

    Raises:
        DeviceLostError: as `advance`.
    """
    waiting = [job for job in jobs if _wanted(job)]
    on_device = [job for job in waiting if is_on_device(job.frame)]  # copied on the card, one by one
    chunks: list[Sequence[Job]] = [[job] for job in on_device]
    if on_device:
        waiting = [job for job in waiting if not is_on_device(job.frame)]
    chunks += _in_batches(waiting, runtime.frame_batches)
    filed: list[Job] = []
    for chunk in chunks:
        filed += _compute(runtime, chunk, last=chunk is chunks[-1])
    return [job for job in filed if job.stream.due]


def due_together(runtime: RuntimeCore, due: Sequence[Job]) -> list[Sequence[Job]]:
    """The faces to which an answer is due, in the groups that are answered by one run each."""
    return _in_batches([job for job in due if _aimed(job)], runtime.temporal_batches)


def answer_together(runtime: RuntimeCore, group: Sequence[Job]) -> None:
    """Answers one group of `due_together`.

    Raises:
        DeviceLostError: as `advance`.
    """
    if begin_answers(runtime, group):
        for job in group:
            finish_answer(job)


def begin_answers(runtime: RuntimeCore, group: Sequence[Job]) -> bool:
    """Begins the answers of one group; False when it failed.

    Raises:
        DeviceLostError: as `advance`.
    """
    try:
        opened: dict[str, int] = {}
        session = runtime.session("temporal", len(group), opened)
        places = session.input("order")  # [B, N], or [N] for one face
        for job, place in zip(group, places if len(group) > 1 else [places], strict=True):
            if "open" not in job.marks:
                job.marks.update(opened)
            job.stream.write_order(place)
        session.start()
        for number, job in enumerate(group):
            job.stream.begun(session, number)
    except DeviceLostError:
        raise
    except Exception as error:
        for job in group:
            job.outcome = error
        return False
    return True


def finish_answer(job: Job) -> None:
    """The answer that was begun becomes the job's outcome.

    Raises:
        DeviceLostError: as `advance`.
    """
    try:
        job.outcome = job.stream.finish(job.received_ns, job.marks)
    except DeviceLostError:
        raise
    except Exception as error:  # any error belongs to this face alone
        job.outcome = error


def _in_batches(waiting: Sequence[Job], batches: Sequence[int]) -> list[Sequence[Job]]:
    chunks = []
    for batch in sorted({1, *batches}, reverse=True):
        while len(waiting) >= batch:
            chunks.append(waiting[:batch])
            waiting = waiting[batch:]
    return chunks


def _aimed(job: Job) -> bool:
    try:
        job.stream.aim()
    except Exception as error:  # any error belongs to this face alone
        job.outcome = error
        return False
    return True


def _wanted(job: Job) -> bool:
    try:
        job.stream.check(job.frame, job.time_s)
    except Exception as error:
        job.outcome = error
        return False
    return job.stream.admit(job.time_s)


def _compute(runtime: RuntimeCore, chunk: Sequence[Job], *, last: bool) -> Sequence[Job]:
    """Runs the frame graph on a full batch and files its tokens; returns the jobs filed."""
    try:
        opened: dict[str, int] = {}
        session = runtime.session("frame", len(chunk), opened)
        for job in chunk:
            job.marks.update(opened)
        if len(chunk) == 1:
            put_frame(session, chunk[0].frame, runtime.bundle.image_size, chunk[0].order)
            chunk[0].marks["preprocess"] = perf_counter_ns()
        else:
            places = session.input("frame")  # [B, S, S, 3]
            for job, place in zip(chunk, places, strict=True):
                to_input(job.frame, place.shape[0], job.order, place)
                job.marks["preprocess"] = perf_counter_ns()
        claimed = [job.stream.claim(job.time_s) for job in chunk]
        followed = not last or any(answered for _, answered in claimed)
        rows = [row for row, _ in claimed]
        session.run_into(runtime.session("temporal"), "tokens", "ring", rows, followed=followed)
        for job in chunk:
            job.stream.file(job.time_s, job.received_ns)
            job.marks["frame"] = perf_counter_ns()
    except DeviceLostError:
        raise
    except Exception as error:
        for job in chunk:
            job.outcome = error
        return ()
    return chunk
