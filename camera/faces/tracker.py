"""Tracking of faces: which face of this frame is which of the last ones.

Times are seconds, lengths widths of the face, so that neither the frame rate nor the size of the picture matters. A
track moves at constant velocity; middle and width of its box are filtered, each by a Kalman filter of position and
velocity (their noises are independent, so three small filters are the whole one).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import BadInputError
from .boxes import Floats, overlap
from .contract import Corners, Detection

# Standard deviations of a detection (widths, widths, logarithm of the width), of an unknown velocity, and of the change
# of a velocity within a second.
_DETECTION = np.array([0.04, 0.04, 0.05])
_FIRST_VELOCITY = np.array([2.0, 2.0, 0.3])
_ACCELERATION = np.array([2.0, 2.0, 1.5])
# A lost face slows down by e in this time: nobody walks for ever, and who shrinks at the edge of the picture does not
# go on shrinking beyond it.
_COASTING_S = np.array([0.7, 0.7, 0.2])
_HIDDEN = 0.8  # widths: who is seen goes on being seen, rather than the one behind coming into this place
_LOST_S = 0.3  # from here on the face may also be where it was seen last
_REMEMBERED_S = 1.5  # how long a movement foretells where somebody is
_STROLL = 1.0  # widths a second by which a lost face may be farther away
_ASPECT_SHARE = 0.2  # of a new detection in the smoothed proportion of the box
_OTHER_SIZE = 0.7  # logarithm: twice as wide is another face
_DOUBT = 0.5  # widths: an assignment that is no better than another one by this may be the wrong one
_TOUCHING = 0.1  # overlap of two faces' boxes: one hides part of the other
DOUBT_S = 0.75  # seconds without a detection after which what comes back may be another face
_JUMP = 0.35  # widths beyond what is expected: that may be somebody else who just appeared


class Track:
    """One face in time.

    Attributes:
        id: counts the faces of a tracker from 1.
        seen_s: when it was detected last.
        doubtful: whether this may have been another face in the last frame.
        tangled: tracks that this one may be taken for, until both are seen apart.
    """

    def __init__(self, number: int, found: Detection, time_s: float) -> None:
        self.id, self.seen_s, self.doubtful = number, time_s, False
        self._before: tuple[Floats, Floats, float] | None = None  # state, velocity, time when it got tangled
        self.tangled: set[int] = set()
        self._state = _measured(found.box)  # x, y, log of the width
        self._velocity = np.zeros(3)
        unit = self._unit()
        self._pp, self._pv, self._vv = (_DETECTION * unit) ** 2, np.zeros(3), (_FIRST_VELOCITY * unit) ** 2
        self._aspect = _aspect(found.box)

    def predict(self, time_s: float) -> Corners:
        """The box at a time; nothing changes."""
        return self._box(self._state + self._velocity * self._coast(time_s))

    def tangle(self, other: int) -> None:
        """Notes a track that this one may be taken for from now on."""
        if not self.tangled:
            self._before = (self._state, self._velocity, self.seen_s)
        self.tangled.add(other)
        self.doubtful = True

    def predict_from_before(self, time_s: float) -> Corners | None:
        """The box by the movement before it got tangled; None if that was too long ago to say."""
        if self._before is None or time_s - self._before[2] > _REMEMBERED_S:
            return None
        state, velocity, began_s = self._before
        return self._box(state + velocity * (time_s - began_s))

    @property
    def box(self) -> Corners:
        """The filtered box when it was seen last."""
        return self._box(self._state)

    def update(self, found: Detection, time_s: float) -> None:
        """Takes a detection of this face."""
        step, unit = time_s - self.seen_s, self._unit()
        state = self._state + self._velocity * self._coast(time_s)
        noise = (_ACCELERATION * unit) ** 2
        pp = self._pp + 2 * step * self._pv + step**2 * self._vv + noise * step**3 / 3
        pv = self._pv + step * self._vv + noise * step**2 / 2
        vv = self._vv + noise * step
        surprise = _measured(found.box) - state
        total = pp + (_DETECTION * unit) ** 2
        gain_p, gain_v = pp / total, pv / total
        self._state, self._velocity = state + gain_p * surprise, self._velocity + gain_v * surprise
        self._pp, self._pv, self._vv = (1 - gain_p) * pp, (1 - gain_p) * pv, vv - gain_v * pv
        self._aspect += _ASPECT_SHARE * (_aspect(found.box) - self._aspect)
        self.seen_s = time_s

    def uncertainty(self, time_s: float) -> float:
        """Standard deviation of where the face is at a time, in widths."""
        step, unit = time_s - self.seen_s, self._unit()
        noise = (_ACCELERATION[0] * unit[0]) ** 2
        variance = self._pp[0] + 2 * step * self._pv[0] + step**2 * self._vv[0] + noise * step**3 / 3
        return float(np.sqrt(variance) / unit[0])

    def jump(self, found: Detection, time_s: float) -> float:
        """Widths by which a detection is farther from the expected place than it may be."""
        x, y, log_width = self._state + self._velocity * self._coast(time_s)
        distance = float(np.hypot(found.centre[0] - x, found.centre[1] - y) / np.exp(log_width))
        return distance - 2 * min(self.uncertainty(time_s), 0.3)

    def _coast(self, time_s: float) -> Floats:
        """Seconds of full velocity that a time since the last detection is worth: `[3]`."""
        seconds: Floats = -np.expm1(-(time_s - self.seen_s) / _COASTING_S) * _COASTING_S
        return seconds

    def _unit(self) -> Floats:
        width = float(np.exp(self._state[2]))
        return np.array([width, width, 1.0])

    def _box(self, state: Floats) -> Corners:
        half = float(np.exp(state[2])) / 2
        x, y = float(state[0]), float(state[1])
        return x - half, y - half * self._aspect, x + half, y + half * self._aspect


@dataclass(frozen=True)
class Seen:
    """A detection and its track.

    Attributes:
        id: of the track.
        found: the detection.
        reset: the id may have stood for another face until now: a clip begins anew.
        doubtful: which of two faces this is will be known once they are seen apart; the id may be the other's.
    """

    id: int
    found: Detection
    reset: bool
    doubtful: bool = False


class Tracker:
    """Gives faces their ids.

    A face is the nearest detection to where its track is expected, best pairs first. An id outlives `lost_s` without a
    detection. Where one of two faces hides the other, `Seen.doubtful` says so; when both are seen again, their movement
    before tells which is which. `Seen.reset` follows that, and a face that was away for longer than `doubt_s` or is not
    where it was expected: the id may stand for somebody else from here on.

    Args:
        lost_s: seconds without a detection after which a track is given up.
        doubt_s: seconds without a detection after which what comes back may be another face.
        least_overlap: overlap of expected and detected box that makes them a pair.
        reach: distance of their middles, in widths, that does so too; more for a face that was lost for long.
    """

    def __init__(
        self, lost_s: float = 1.5, doubt_s: float = DOUBT_S, least_overlap: float = 0.2, reach: float = 1.2
    ) -> None:
        self.lost_s, self.doubt_s, self.least_overlap, self.reach = lost_s, doubt_s, least_overlap, reach
        self.tracks: list[Track] = []
        self.gone: tuple[int, ...] = ()  # ids that the last call gave up
        self._count = 0
        self._time_s = -np.inf

    def update(self, found: Sequence[Detection], time_s: float) -> list[Seen]:
        """Assigns the detections of one frame.

        Args:
            found: each face once.
            time_s: of the frame, later than the last one's.

        Returns:
            For each detection its id, in the order of `found`.

        Raises:
            BadInputError: the time is not later.
        """
        if not time_s > self._time_s:
            raise BadInputError(
                f"A frame of {time_s} s came after one of {self._time_s} s.",
                cause="frames of two cameras, or a clock that was set back",
                next="one tracker for each camera; times of time.monotonic()",
            )
        self._time_s = time_s
        self._give_up([track.id for track in self.tracks if time_s - track.seen_s > self.lost_s])
        costs = self._costs(found, time_s)  # [tracks, detections]
        pairs = _assign(costs)
        self._notice_tangles(costs, pairs, found, time_s)
        seen: list[Seen | None] = [None] * len(found)
        for place, column in pairs.items():
            track = self.tracks[place]
            other = bool(time_s - track.seen_s > self.doubt_s) or track.jump(found[column], time_s) > _JUMP
            track.update(found[column], time_s)
            seen[column] = Seen(track.id, found[column], track.doubtful or other, bool(track.tangled))
            track.doubtful = bool(track.tangled)
        for column, detection in enumerate(found):
            if seen[column] is None:
                self._count += 1
                self.tracks.append(Track(self._count, detection, time_s))
                seen[column] = Seen(self._count, detection, False)
        return [one for one in seen if one is not None]

    def drop(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Gives tracks up that somebody else knows to be no faces; the ids that there were."""
        self._give_up(ids)
        return self.gone

    def clear(self) -> None:
        """Gives up every track; ids go on counting, times begin anew."""
        self._give_up([track.id for track in self.tracks])
        self._time_s = -np.inf

    def _give_up(self, ids: Sequence[int]) -> None:
        self.gone = tuple(track.id for track in self.tracks if track.id in ids)
        self.tracks = [track for track in self.tracks if track.id not in ids]
        for track in self.tracks:
            track.tangled -= set(ids)

    def _costs(self, found: Sequence[Detection], time_s: float) -> Floats:
        """Distance plus difference in size, `[n, m]`; inf where the two are not one face."""
        if not self.tracks or not found:
            return np.full((len(self.tracks), len(found)), np.inf)
        boxes = np.array([one.box for one in found])  # [m, 4]
        expected = np.array([track.predict(time_s) for track in self.tracks])  # [n, 4]
        distance, size = _apart(expected, boxes)
        # Who went out of the picture comes back where he left it, not where he was heading.
        lost = [place for place, track in enumerate(self.tracks) if time_s - track.seen_s > _LOST_S]
        if lost:
            last = np.array([self.tracks[place].box for place in lost])
            distance_then, size_then = _apart(last, boxes)
            distance[lost] = np.minimum(distance[lost], distance_then)
            size[lost] = np.minimum(size[lost], size_then)
        reach = [self.reach + _STROLL * (time_s - t.seen_s if time_s - t.seen_s > _LOST_S else 0) for t in self.tracks]
        near = (overlap(expected, boxes) >= self.least_overlap) | (distance < np.array(reach)[:, None])
        hidden = np.array([_HIDDEN * self._is_hidden(track) for track in self.tracks])
        return np.where(near & (size < _OTHER_SIZE), distance + size + hidden[:, None], np.inf)

    def _is_hidden(self, track: Track) -> bool:
        """Whether another track that it may be taken for was seen since."""
        return any(other.id in track.tangled and other.seen_s > track.seen_s for other in self.tracks)

    def _notice_tangles(self, costs: Floats, pairs: dict[int, int], found: Sequence[Detection], time_s: float) -> None:
        """Marks tracks that may be taken for each other, frees those that are apart again."""
        margin = [_DOUBT + track.uncertainty(time_s) for track in self.tracks]
        boxes = np.array([one.box for one in found]).reshape(-1, 4)
        touching = overlap(boxes, boxes) > _TOUCHING
        for i, first in enumerate(self.tracks):
            for j in range(i + 1, len(self.tracks)):
                second = self.tracks[j]
                both = i in pairs and j in pairs
                # Of a face that is partly hidden, points and box are drawn towards the one before it.
                touch = both and touching[pairs[i], pairs[j]]
                if touch or _advantage(costs, pairs, i, j) < max(margin[i], margin[j]):
                    first.tangle(second.id)
                    second.tangle(first.id)
                elif both and second.id in first.tangled:  # seen apart
                    _settle(first, second, found[pairs[i]], found[pairs[j]], time_s)
                    first.tangled -= {first.id, second.id}
                    second.tangled -= {first.id, second.id}


def _settle(first: Track, second: Track, one: Detection, other: Detection, time_s: float) -> None:
    """Exchanges two ids if that fits better how both moved before they met.

    While one hides the other, what is seen of the two goes to either track; a frame later that would be for ever.
    """
    before = [track.predict_from_before(time_s) for track in (first, second)]
    if before[0] is None or before[1] is None:
        return
    distance, size = _apart(np.array(before), np.array([one.box, other.box]))
    cost = distance + size
    if cost[0, 1] + cost[1, 0] < cost[0, 0] + cost[1, 1]:
        first.id, second.id = second.id, first.id
        first.tangled, second.tangled = second.tangled, first.tangled


def _advantage(costs: Floats, pairs: dict[int, int], i: int, j: int) -> float:
    """How much costlier the assignment of two tracks were with both exchanged."""
    as_is, exchanged = 0.0, 0.0
    for track, other in ((i, j), (j, i)):
        if track in pairs:
            as_is += costs[track, pairs[track]]
            exchanged += costs[other, pairs[track]]
    return exchanged - as_is if i in pairs or j in pairs else np.inf


def _assign(costs: Floats) -> dict[int, int]:
    """Pairs of row and column: the cheapest first, then exchanged where two get cheaper."""
    left, pairs = costs.copy(), {}
    while left.size and np.isfinite(left).any():
        i, j = np.unravel_index(np.argmin(left), left.shape)
        pairs[int(i)] = int(j)
        left[i], left[:, j] = np.inf, np.inf
    rows = list(pairs)
    for place, a in enumerate(rows):
        for b in rows[place + 1 :]:
            if costs[a, pairs[b]] + costs[b, pairs[a]] < costs[a, pairs[a]] + costs[b, pairs[b]]:
                pairs[a], pairs[b] = pairs[b], pairs[a]
    return pairs


def _apart(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Distance of the middles in widths, and logarithm of the ratio of widths, `[n, m]`."""
    middles = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (a, b)]
    wide_a, wide_b = (np.maximum(boxes[:, 2] - boxes[:, 0], 1e-6) for boxes in (a, b))
    distance = np.linalg.norm(middles[0][:, None] - middles[1][None], axis=2)
    return distance / np.minimum(wide_a[:, None], wide_b[None]), np.abs(np.log(wide_a[:, None] / wide_b[None]))


def _measured(box: Corners) -> Floats:
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, np.log(max(box[2] - box[0], 1e-3))])


def _aspect(box: Corners) -> float:
    return (box[3] - box[1]) / max(box[2] - box[0], 1e-3)
