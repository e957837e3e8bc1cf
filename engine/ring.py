"""The ring of one face: which of its last frames lies in which slot, and what is picked."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import numpy.typing as npt

from ..clips import pick


class Ring:
    """Bookkeeping of one face's slots: which frame is in which, and its time. Holds no tokens.

    The arena of the `temporal` graph is cut into one stretch of R slots a face. Nothing is ever shifted: a new frame
    replaces the oldest, and `order` tells the graph where each place of the clip is found.

    Args:
        slots: R.
        offset: the first slot of this face in the arena.
        min_step_s: frames that follow closer than this are not kept, so that R slots reach over the span.
    """

    def __init__(self, slots: int, offset: int, min_step_s: float) -> None:
        self.slots, self.offset, self.min_step_s = slots, offset, min_step_s
        self._times: deque[float] = deque(maxlen=slots)  # of the frames that can be picked, oldest first
        self._stamps = np.zeros(2 * slots)  # the same by slot, twice: any stretch of slots lies in one piece
        self._wheel = offset + np.arange(2 * slots) % slots  # arena slots, by places in `_stamps`
        self._next = 0

    def clear(self) -> None:
        """Forgets all frames."""
        self._times.clear()

    @property
    def kept(self) -> int:
        """How many frames can be picked."""
        return len(self._times)

    @property
    def newest_s(self) -> float:
        """When the newest frame was taken; minus infinity when there is none."""
        return self._times[-1] if self._times else -math.inf

    @property
    def oldest_s(self) -> float:
        """When the oldest frame that can be picked was taken; there is one."""
        return self._times[0]

    @property
    def reach_s(self) -> float:
        """Seconds from the oldest kept frame to the newest."""
        return self._times[-1] - self._times[0] if self._times else 0.0

    def wants(self, time_s: float) -> bool:
        """Whether a frame of this time is kept."""
        return time_s - self.newest_s >= self.min_step_s

    def claim(self) -> int:
        """The arena slot that the next frame goes into.

        The frame in it can no longer be picked from this moment on, also when the new one never arrives:
        a slot that may be half written is not read.
        """
        if len(self._times) == self.slots:
            self._times.popleft()
        return self.offset + self._next

    def file(self, time_s: float) -> None:
        """Files the frame whose tokens are now in the claimed slot."""
        self._times.append(float(time_s))
        self._stamps[self._next] = self._stamps[self._next + self.slots] = time_s
        self._next = (self._next + 1) % self.slots

    def pick(self, ages: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Arena slots of the training pattern, int64 `[T]`."""
        kept = len(self._times)
        oldest = (self._next - kept) % self.slots
        return self._wheel[oldest:].take(pick(self._stamps[oldest : oldest + kept], ages))
