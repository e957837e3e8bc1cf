"""The core of a runtime: results, sessions by graph, faces of the ring, owner of the thread.

`Stream`, `step` and `Worker` use it; `runtime.Runtime` adds what callers see.
"""

from __future__ import annotations

import ctypes
import logging
import math
import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter_ns
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from ..bundle import Bundle
from ..clips import Clip, check_color
from ..errors import UsageError, VerificationError, command, printable
from .feeding import put_clip
from .sessions.contract import Backend, Session
from .thread_owner import ThreadOwner

_log = logging.getLogger(__name__)
_runtimes: weakref.WeakSet[RuntimeCore] = weakref.WeakSet()


def _keep_sessions_of_parent() -> None:
    """Keeps a forked child from freeing sessions, which would wait for threads that it lacks."""
    for runtime in _runtimes:
        for session in runtime._sessions.values():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


os.register_at_fork(after_in_child=_keep_sessions_of_parent)


@dataclass(frozen=True, eq=False, init=False)
class Result:
    """One answer. Two results are equal only if they are the same object.

    Attributes:
        label: the most probable class.
        index: its place in `labels`.
        probabilities: float32 `[C]`, the caller's own copy.
        stages_ms: wall-clock milliseconds of each stage of this call, in order. 'queue' comes first where a worker kept
            it waiting, 'decode' where a file was read, 'open' where a session had to be opened for it. Faces of one
            `runtime.step` share the stages that they went through together.
        age_ms: from the newest frame's handing over (to `push`, `step` or `submit`) to this answer.
        time_s: capture time of the newest frame, as the caller gave it; None for a clip.
        sequence: counts the answers of one stream (or of the runtime's clip calls) from 0.
    """

    label: str
    index: int
    probabilities: npt.NDArray[np.float32]
    stages_ms: Mapping[str, float]
    age_ms: float
    time_s: float | None
    sequence: int

    def __init__(
        self,
        label: str,
        index: int,
        probabilities: npt.NDArray[np.float32],
        stages_ms: Mapping[str, float],
        age_ms: float,
        time_s: float | None,
        sequence: int,
    ) -> None:
        own = self.__dict__  # a frozen class's own `__init__` takes three times as long, for every answer
        own["label"], own["index"], own["probabilities"] = label, index, probabilities
        own["stages_ms"], own["age_ms"], own["time_s"], own["sequence"] = stages_ms, age_ms, time_s, sequence

    def __repr__(self) -> str:
        when = "" if self.time_s is None else f", time_s={self.time_s:.3f}"
        return f"Result({self.label!r}, confidence={self.confidence:.3f}{when}, sequence={self.sequence})"

    @property
    def confidence(self) -> float:
        """Probability of `label`."""
        return float(self.probabilities[self.index])


class RuntimeCore:
    """Sessions by graph, free faces, and the owner of the thread.

    Args:
        bundle: opened for reading.
        chosen: opens its sessions.

    Attributes:
        backend, precision, frame_batches, temporal_batches, passed_over: of the backend that was chosen, see `Backend`.
        not_finite: answers that were NaN or infinite; each raised an error, and no label was made of it.
        owner: entered by every call that touches a session.
    """

    def __init__(self, bundle: Bundle, chosen: Backend) -> None:
        self.bundle, self.backend, self.precision = bundle, chosen.name, chosen.precision
        self.frame_batches, self.temporal_batches = chosen.frame_batches, chosen.temporal_batches
        self.passed_over = chosen.passed_over
        self._open_session = chosen.open_session
        self._sessions: dict[tuple[str, int], Session] = {}
        self._free_faces = list(range(bundle.stream.faces))
        self._sequence = 0
        self.not_finite = 0
        self.owner = ThreadOwner(self.close_sessions)
        _runtimes.add(self)

    def __reduce__(self) -> NoReturn:
        """Refuses to be pickled: sessions and their threads belong to this process.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "A runtime cannot be sent to another process.",
            cause="multiprocessing pickles what it hands to a process that it spawns",
            next="send the bundle's path and call logoformer.load(...) there",
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """C class names, in the order of `Result.probabilities`."""
        return self.bundle.labels

    def session(self, graph: str, batch: int = 1, marks: dict[str, int] | None = None) -> Session:
        """The session of one graph, opened at the first call.

        Args:
            graph: its name.
            batch: its batch size.
            marks: when each stage of the call that needs it ended; 'open' is added where the session had to be opened.

        Raises:
            UsageError: the runtime is closed, or the call came from another thread than the runtime's.
            RefusedError: the file is not what the index promises.
        """
        self.owner.check()
        if (graph, batch) not in self._sessions:
            entry, began = self.bundle.graph(graph, self.precision, batch), perf_counter_ns()
            # All faces live in one arena: what answers several reads the ring of what answers one.
            arena = (self.session(graph),) if graph == "temporal" and batch > 1 else ()
            self._sessions[graph, batch] = self._open_session(entry, *arena)
            _log.info("session of %s opened in %.1f ms", printable(entry.file), (perf_counter_ns() - began) / 1e6)
            if marks is not None:
                marks["open"] = perf_counter_ns()
        return self._sessions[graph, batch]

    def close_sessions(self) -> None:
        """Frees every session; they open again when they are needed."""
        sessions, self._sessions = self._sessions, {}
        for session in reversed(sessions.values()):  # who reads another one's ring goes first
            session.close()

    def take_face(self) -> int:
        """A free face of the ring arena, until `release_face` gives it back.

        Raises:
            UsageError: all of them are in use.
        """
        if not self._free_faces:
            raise UsageError(
                f"All {self.bundle.stream.faces} faces of this bundle's ring arena are in use.",
                cause="streams that were not closed; or more faces than the bundle was exported for",
                next="stream.close() when a face is gone; or: "
                + command("logoformer", "export", "CHECKPOINT", "-o", self.bundle.path, "--faces", "8"),
            )
        return self._free_faces.pop(0)

    def release_face(self, face: int) -> None:
        """Makes a face free again; called by `Stream.close`."""
        self._free_faces.append(face)

    def take_clip(self, clip: Clip, color: str | None, started_ns: int, marks: dict[str, int]) -> Result:
        """Answers one clip, as `Runtime.__call__` does; the caller has entered `owner`.

        Args:
            clip: as there.
            color: as there.
            started_ns: when the clip was handed over.
            marks: when each stage since then ended; more are added.
        """
        session = self.session("clip", marks=marks)
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
        """Builds a result from a session's output.

        Args:
            probabilities: float32 `[C]`, a session's buffer; copied.
            marks: when each stage ended, in order.
            started_ns: when the call began.
            received_ns: when the newest frame was handed over.
            time_s: see `Result`.
            sequence: see `Result`.

        Raises:
            VerificationError: a probability is NaN or infinite; it is counted.
        """
        own = probabilities.copy()
        values = own.tolist()  # a handful: numpy's calls would take longer than these
        if not math.isfinite(sum(values)):  # of float32 in float64: finite if and only if all of them are
            self.not_finite += 1
            raise VerificationError(
                f"The answer is not finite: {values}. No label was made of it.",
                cause="an overflow in a 16-bit graph, or a damaged model",
                next=command("logoformer", "verify", self.bundle.path),
            )
        index = values.index(max(values))
        stages, before = {}, started_ns
        for name, mark in marks.items():
            stages[name] = (mark - before) / 1e6
            before = mark
        label = self.bundle.labels[index]
        return Result(label, index, own, stages, (before - received_ns) / 1e6, time_s, sequence)
