"""Bookkeeping of the ring: the frame in each slot and its time. Holds no tokens.

The arena of the `temporal` graph is cut into one stretch of R slots a face. Nothing is ever shifted: a new frame
replaces the oldest, and `order` tells the graph where each place of the clip is found.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..clips import pick


class Ring:
    """The slots of one face.

    Args:
        slots: R.
        offset: the first slot of this face in the arena.
        min_step_s: frames that follow closer than this are not kept, so that R slots reach over the span.

    Attributes:
        kept: frames that can be picked.
    """

    def __init__(self, slots: int, offset: int, min_step_s: float) -> None:
        self.slots, self.offset, self.min_step_s = slots, offset, min_step_s
        # Every time is kept twice, R apart, so that the kept ones are one ascending stretch wherever they begin.
        self._times = np.zeros(2 * slots)
        self.clear()

    def clear(self) -> None:
        """Forgets all frames."""
        self._next = 0
        self.kept = 0

    @property
    def newest_s(self) -> float:
        """When the newest frame was taken; minus infinity when there is none."""
        return float(self._times[self._next - 1 + self.slots]) if self.kept else -math.inf

    @property
    def reach_s(self) -> float:
        """Seconds from the oldest kept frame to the newest."""
        return self.newest_s - float(self._times[self._oldest]) if self.kept else 0.0

    @property
    def _oldest(self) -> int:
        return (self._next - self.kept) % self.slots

    def wants(self, time_s: float) -> bool:
        """Whether a frame of this time is kept."""
        return time_s - self.newest_s >= self.min_step_s

    def claim(self) -> int:
        """The arena slot that the next frame goes into.

        The frame in it can no longer be picked from this moment on, also when the new one never arrives:
        a slot that may be half written is not read.
        """
        self.kept = min(self.kept, self.slots - 1)
        return self.offset + self._next

    def file(self, time_s: float) -> None:
        """Files the frame whose tokens are now in the claimed slot."""
        self._times[self._next] = self._times[self._next + self.slots] = time_s
        self._next = (self._next + 1) % self.slots
        self.kept += 1

    def pick(self, ages: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Arena slots of the training pattern, int64 `[T]`."""
        first = self._oldest
        return self.offset + (first + pick(self._times[first : first + self.kept], ages)) % self.slots
