"""One frame of each of several faces, computed in batches where there are graphs for them.

The greatest batch that the waiting frames fill comes first, then the next; what is left goes one by one. Nothing is
padded: a face costs what it costs, and every answer equals the one that `push` gives.
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


@dataclass
class Job:
    """A frame to be computed, and what became of it.

    Attributes:
        stream: of the face; each at most once in a step.
        frame: uint8 `[H, W, 3]`.
        time_s: when it was taken.
        received_ns: when it was handed over.
        marks: when each stage ended so far.
        outcome: what `push` would have returned or raised.
    """

    stream: Stream
    frame: Frame
    time_s: float
    received_ns: int
    marks: dict[str, int] = field(default_factory=dict)
    outcome: Result | Exception | None = None


def advance(runtime: RuntimeCore, jobs: Sequence[Job]) -> None:
    """Computes and answers; an error of one face leaves the others alone.

    The caller has entered the runtime's owner.

    Args:
        runtime: of all streams.
        jobs: their `outcome` is filled in.

    Raises:
        DeviceLostError: nothing can be answered any more.
    """
    waiting = [job for job in jobs if _wanted(job)]
    filed: list[Job] = []
    for job in [job for job in waiting if is_on_device(job.frame)]:  # copied on the card, one by one
        waiting.remove(job)
        filed += _compute(runtime, [job])
    for batch in sorted({1, *runtime.frame_batches}, reverse=True):
        while len(waiting) >= batch:
            chunk, waiting = waiting[:batch], waiting[batch:]
            filed += _compute(runtime, chunk)
    for job in filed:
        if job.stream.due:
            try:
                job.outcome = job.stream.answer(job.received_ns, job.marks)
            except DeviceLostError:
                raise
            except Exception as error:  # any error belongs to this face alone
                job.outcome = error


def _wanted(job: Job) -> bool:
    try:
        job.stream.check(job.frame, job.time_s)
    except Exception as error:
        job.outcome = error
        return False
    return job.stream.admit(job.time_s)


def _compute(runtime: RuntimeCore, chunk: Sequence[Job]) -> Sequence[Job]:
    """Runs the frame graph on a full batch and files its tokens; returns the jobs filed."""
    try:
        opened: dict[str, int] = {}
        session = runtime.session("frame", len(chunk), opened)
        for job in chunk:
            job.marks.update(opened)
        if len(chunk) == 1:
            put_frame(session, chunk[0].frame, runtime.bundle.image_size, chunk[0].stream.color)
            chunk[0].marks["preprocess"] = perf_counter_ns()
        else:
            places = session.input("frame")  # [B, S, S, 3]
            for job, place in zip(chunk, places, strict=True):
                to_input(job.frame, place.shape[0], job.stream.color, place)
                job.marks["preprocess"] = perf_counter_ns()
        session.run()
        for index, job in enumerate(chunk):
            job.stream.file(session, index, job.time_s, job.received_ns)
            job.marks["frame"] = perf_counter_ns()
    except DeviceLostError:
        raise
    except Exception as error:
        for job in chunk:
            job.outcome = error
        return ()
    return chunk
