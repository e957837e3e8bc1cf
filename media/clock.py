"""Strictly ascending times for frames whose source carries doubtful ones or none."""

from __future__ import annotations

import math

MAX_SKEW_S = 1.0  # between a live stream's own times and the clock here, before the clock decides


class FrameClock:
    """Clock of a recording.

    The container's own times are used as long as they ascend. From the first that does not (some containers carry none
    and report 0 for ever) each frame is 1/fps later than the one before.
    """

    def __init__(self, fps: float) -> None:
        self._step_s = 1 / fps
        self._trusted = True
        self._last_s = -math.inf
        self._index = -1

    def stamp(self, reported_s: float | None) -> float:
        """Time of the next frame, in seconds, which the container places at `reported_s`."""
        self._index += 1
        known = math.nan if reported_s is None else reported_s
        self._trusted = self._trusted and math.isfinite(known) and known > self._last_s
        if self._trusted:
            self._last_s = known
        else:
            self._last_s = self._last_s + self._step_s if self._index else 0.0
        return self._last_s


class ArrivalClock:
    """Clock of a live source: its own spacing where trusted, else each frame's arrival.

    A stream's own times are free of the network's jitter, but start anew with each connection, and some only count.
    They are moved to the clock here at the first frame, and again whenever both drift apart by more than `MAX_SKEW_S`.
    """

    def __init__(self) -> None:
        self._last_s = -math.inf
        self._media_s = -math.inf
        self._offset_s = math.nan
        self._trusted = True

    def reconnect(self) -> None:
        """Forget where the stream's times stood; those given out still only ascend."""
        self._media_s, self._offset_s, self._trusted = -math.inf, math.nan, True

    def stamp(self, arrival_s: float, media_s: float | None) -> float:
        """Time of the next frame, strictly after the one before.

        Args:
            arrival_s: when it arrived, on this machine's clock.
            media_s: where the stream places it, or None.
        """
        time_s = arrival_s
        self._trusted = self._trusted and media_s is not None and math.isfinite(media_s) and media_s > self._media_s
        if self._trusted and media_s is not None:
            self._media_s = media_s
            if not abs(media_s + self._offset_s - arrival_s) <= MAX_SKEW_S:  # also where there is no offset yet
                self._offset_s = arrival_s - media_s
            time_s = media_s + self._offset_s
        self._last_s = max(time_s, math.nextafter(self._last_s, math.inf))
        return self._last_s
