"""What gives way when frames come faster than they can be worked off.

An answer costs some frames' worth of work (about five, in multiply-accumulates of `base`), so answers are given up
before frames are: the hop widens, up to `WIDEST` times. If even that does not help, only the newest frame of each
camera waits and the older ones are dropped; answers then come at that widest distance in time, from as many frames as
can be worked off in between. Either way an answer's frame has waited no longer than a few frames' work, so its age
stays bounded; without a policy it grows for as long as the watch runs.

The demand is computed, not tried out: crops a second, what a crop costs and what an answer costs, each over the last
seconds. A turn that takes much longer than its like waited for something, such as a server that is started again, and
says nothing of what work costs: it is left out. With cost c of a crop, t of an answer and r crops a second, a hop of h
keeps the thread busy for r * (c + t / h) of each second.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

_Turn = TypeVar("_Turn")

WIDEST = 4  # times the hop that was asked for
FULL = 0.9  # of the time that the thread may be busy; the rest is for what is not measured
NARROW = 0.75  # below this a narrower hop is taken back: no flapping at the edge
WINDOW_S = 2.0  # of arrivals
TURNS = 32  # that costs are averaged over, each kind
WAITED = 10.0  # times the median of a kind: such a turn waited


@dataclass(frozen=True)
class Plan:
    """What holds at present.

    Attributes:
        hop: kept frames from one answer to the next; of few that are kept, it may be fewer than were asked for.
        depth: frames of one camera that may wait.
    """

    hop: int
    depth: int


class Overload:
    """The policy over all live cameras of one watch.

    Args:
        hop: that was asked for.
    """

    def __init__(self, hop: int) -> None:
        self._hop = hop
        self._arrived: deque[tuple[float, int]] = deque()
        self._crops_only: deque[tuple[int, float]] = deque(maxlen=TURNS)  # crops, busy seconds
        self._with_answers: deque[tuple[int, int, float]] = deque(maxlen=TURNS)  # crops, answers, busy seconds
        self.plan = Plan(hop, hop)

    def arrived(self, crops: int, now_s: float) -> None:
        """Counts the crops of a frame that came, worked off or not."""
        self._arrived.append((now_s, crops))

    def worked(self, crops: int, answers: int, busy_s: float) -> None:
        """Counts a turn: crops pushed, answers that came of them, and the seconds it took."""
        if answers:
            self._with_answers.append((crops, answers, busy_s))
        elif crops:
            self._crops_only.append((crops, busy_s))

    def decide(self, now_s: float) -> Plan:
        """The plan from what was counted so far."""
        while self._arrived and self._arrived[0][0] < now_s - WINDOW_S:
            self._arrived.popleft()
        if len(self._arrived) < 2 or not self._with_answers:
            return self.plan
        rate_hz = self._rate_hz()
        hop = max(self._hop, self.plan.hop)
        if self._busy(rate_hz, hop) > FULL:
            hop = min(self._hop * WIDEST, max(hop, self._least_hop(rate_hz, FULL)))
        else:
            hop = max(self._hop, min(hop, self._least_hop(rate_hz, NARROW)))
        # As many may wait as come during one answer, or else the newest alone.
        self.plan = Plan(hop, hop) if self._busy(rate_hz, hop) <= 1.0 else Plan(self._kept(rate_hz), 1)
        return self.plan

    def _rate_hz(self) -> float:
        """Crops a second; the first arrival begins the time and is not counted."""
        arrivals = list(self._arrived)
        seconds = arrivals[-1][0] - arrivals[0][0]
        return sum(crops for _, crops in arrivals[1:]) / seconds if seconds > 0 else 0.0

    def _costs(self) -> tuple[float, float]:
        """Seconds of a crop, and what an answer adds."""
        crops_only = _without_waits(self._crops_only, [busy / crops for crops, busy in self._crops_only])
        with_answers = _without_waits(self._with_answers, [busy / crops for crops, _, busy in self._with_answers])
        crops = sum(count for count, _ in crops_only)
        crop_s = sum(busy for _, busy in crops_only) / crops if crops else 0.0
        answers = sum(count for _, count, _ in with_answers)
        busy_s = sum(busy - crop_s * count for count, _, busy in with_answers)
        return crop_s, max(0.0, busy_s / answers) if answers else 0.0

    def _busy(self, rate_hz: float, hop: int) -> float:
        crop_s, answer_s = self._costs()
        return rate_hz * (crop_s + answer_s / hop)

    def _kept(self, rate_hz: float) -> int:
        """Frames of a face that fit beside one answer into the widest distance of two."""
        crop_s, answer_s = self._costs()
        work_s = FULL * self._hop * WIDEST / rate_hz  # for each face
        return max(1, min(self._hop * WIDEST, math.floor((work_s - answer_s) / max(crop_s, 1e-9))))

    def _least_hop(self, rate_hz: float, share: float) -> int:
        """The least hop that keeps the thread busy for that share of its time."""
        crop_s, answer_s = self._costs()
        left_s = share / rate_hz - crop_s if rate_hz else math.inf
        if left_s <= 0:
            return self._hop * WIDEST
        return max(self._hop, min(self._hop * WIDEST, math.ceil(answer_s / left_s)))


def _without_waits(turns: Sequence[_Turn], each_s: Sequence[float]) -> list[_Turn]:
    """The turns that did not wait, by the seconds that one of each took."""
    most_s = WAITED * sorted(each_s)[len(each_s) // 2] if each_s else 0.0
    return [turn for turn, seconds in zip(turns, each_s, strict=True) if seconds <= most_s]
