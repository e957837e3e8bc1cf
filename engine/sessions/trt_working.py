"""The frame of a session's calls: the device's context, and faults as errors for people."""

from __future__ import annotations

import contextlib
from typing import Any

from ..cuda.layer import CudaError, explain


class Working:
    """Holds the device's context for a call; what was begun ends before an error is raised.

    Args:
        session: a `TrtSession`.
        doing: such as 'running'.
    """

    __slots__ = ("_doing", "_session")

    def __init__(self, session: Any, doing: str) -> None:
        self._session, self._doing = session, doing

    def __enter__(self) -> None:
        session = self._session
        if session._closed or session.cuda.lost:
            session._check(self._doing)
        try:
            session.cuda.__enter__()
        except CudaError as fault:
            raise explain(fault, session.cuda, f"{self._doing} {session.shown}") from fault

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        session = self._session
        if error is None:
            session.cuda.__exit__()
            return
        if session._stream:  # what was begun ends before the host may touch its buffers again
            with contextlib.suppress(CudaError):
                session._queue.synchronize()
        session.cuda.__exit__()
        if isinstance(error, CudaError):
            raise explain(error, session.cuda, f"{self._doing} {session.shown}") from error
