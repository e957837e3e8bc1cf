"""Rates and ages over the last seconds."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

RATE_WINDOW_S = 3.0
SHORTEST_S = 0.2  # that a rate is taken over: answers for several faces come at once
AGES = 256
AGE_BOUNDS_S = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0)


class RateMeter:
    """Events a second over the last seconds. One thread counts, any may read."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._times: deque[float] = deque(maxlen=1024)
        self.total = 0

    def count(self) -> None:
        """Counts one event now."""
        with self._lock:
            self._times.append(self._clock())
            self.total += 1

    @property
    def hz(self) -> float:
        """Events a second; 0 when the last is long ago."""
        now = self._clock()
        with self._lock:
            while self._times and self._times[0] < now - RATE_WINDOW_S:
                self._times.popleft()
            if len(self._times) < 2:
                return 0.0
            return (len(self._times) - 1) / max(self._times[-1] - self._times[0], SHORTEST_S)


class AgeMeter:
    """Ages of the last answers, and how many fell under each bound since the start."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=AGES)
        self.under = [0] * (len(AGE_BOUNDS_S) + 1)  # not cumulated; the last counts what is over all bounds
        self.sum_s = 0.0

    def add(self, age_ms: float) -> None:
        """Takes the age of an answer."""
        self._last.append(age_ms)
        self.sum_s += age_ms / 1e3
        self.under[int(np.searchsorted(AGE_BOUNDS_S, age_ms / 1e3))] += 1

    def percentiles_ms(self, points: Sequence[float] = (50, 99)) -> tuple[float, ...] | None:
        """Percentiles of the last answers, None before the first."""
        ages = list(self._last)
        return tuple(float(value) for value in np.percentile(ages, points)) if ages else None
