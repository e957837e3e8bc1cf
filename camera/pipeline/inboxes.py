"""Frames that wait for their turn, camera by camera, with a bound."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..answers.contract import FaceFrame

FILE_DEPTH = 4  # frames of a file that may wait; who reads it waits for space


@dataclass
class _Inbox:
    live: bool
    depth: int
    waiting: deque[FaceFrame] = field(default_factory=deque)
    dropped: int = 0
    ended: bool = False
    # What dropped frames said: lost with them, a ring would mix two people, or never be given back.
    gone: list[int] = field(default_factory=list)
    resets: set[int] = field(default_factory=set)


class Inboxes:
    """Waiting frames; put by the thread of each camera, taken by the one that answers.

    Args:
        live: of each camera: a live one drops its oldest waiting frame, a file's reader waits.
        depth: frames of a live camera that may wait.
    """

    def __init__(self, live: Sequence[bool], depth: int) -> None:
        self._lock = threading.RLock()  # entered itself: see ThreadOwner on Ctrl-C between a lock and its body
        self._changed = threading.Condition(self._lock)
        self._inboxes = [_Inbox(one, depth if one else FILE_DEPTH) for one in live]
        self._closed = False

    def put(self, camera: int, frame: FaceFrame) -> bool:
        """Adds a camera's next frame; False where nobody will take it any more."""
        inbox = self._inboxes[camera]
        with self._lock:
            while not inbox.live and len(inbox.waiting) >= inbox.depth and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            inbox.waiting.append(frame)
            self._trim(inbox)
            self._changed.notify_all()
        return True

    def end(self, camera: int) -> None:
        """Says that no frame of this camera will come any more."""
        with self._lock:
            self._inboxes[camera].ended = True
            self._changed.notify_all()

    def take(self, timeout_s: float) -> dict[int, FaceFrame]:
        """The oldest waiting frame of every camera that has one; waits for the first.

        One frame of each in every round: a camera that is fast, or has many faces, waits for the others.
        """
        with self._lock:
            self._changed.wait_for(self._worth_waking, timeout_s)
            taken = {}
            for number, inbox in enumerate(self._inboxes):
                if inbox.waiting:
                    taken[number] = _with_what_was_dropped(inbox.waiting.popleft(), inbox)
            self._changed.notify_all()
        return taken

    def set_depth(self, depth: int) -> None:
        """Sets how many frames of a live camera may wait; the oldest are dropped."""
        with self._lock:
            for inbox in self._inboxes:
                if inbox.live:
                    inbox.depth = depth
                    self._trim(inbox)

    def dropped(self, camera: int) -> int:
        """Frames of a camera that were dropped while they waited."""
        return self._inboxes[camera].dropped

    def waiting(self, camera: int) -> int:
        """Frames of a camera that wait."""
        return len(self._inboxes[camera].waiting)

    def finished(self, camera: int) -> bool:
        """Whether every frame that this camera will ever give was taken."""
        with self._lock:
            return self._inboxes[camera].ended and not self._inboxes[camera].waiting

    def close(self) -> None:
        """Lets go of everyone who waits."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()

    def _worth_waking(self) -> bool:
        return self._closed or all(inbox.ended for inbox in self._inboxes) or any(i.waiting for i in self._inboxes)

    def _trim(self, inbox: _Inbox) -> None:
        while inbox.live and len(inbox.waiting) > inbox.depth:
            lost = inbox.waiting.popleft()
            inbox.dropped += 1
            inbox.gone += lost.gone
            inbox.resets |= {face.id for face in lost.faces if face.reset}


def _with_what_was_dropped(frame: FaceFrame, inbox: _Inbox) -> FaceFrame:
    """The frame, told what the frames dropped before it were told."""
    if inbox.gone or inbox.resets:
        faces = tuple(replace(face, reset=face.reset or face.id in inbox.resets) for face in frame.faces)
        frame = replace(frame, gone=(*inbox.gone, *frame.gone), faces=faces)
        inbox.resets -= {face.id for face in faces} | set(frame.gone)
        inbox.gone.clear()
    return frame
