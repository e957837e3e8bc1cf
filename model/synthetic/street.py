"""A synthetic street: one to three drawn faces before one camera, with a known answer.

The people show expressions in their places; in between they walk. Two exchange places, the nearer one passing before
the other, or one walks out of the picture and comes back. What is where is known: boxes, eyes, mouths, what hides whom,
and which expression is shown when. So detection, tracking, alignment and answers can be scored together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ...clips import DFEW_LABELS, Frame
from ...errors import UsageError
from .expressions import MOVEMENTS, Floats, draw_script
from .face import Identity
from .painting import draw_background, draw_face, fixed_point, light_gain, project
from .recordings import FIRST_VIDEO_IDENTITY, FPS, Span, draw_person, span_actions
from .scene import CHANNELS, Look, Motion, draw_look, draw_motion

WIDTH, HEIGHT = 640, 480
MOST_PEOPLE = 3

# Frames of one round: everybody walks, settles, shows an expression, rests.
_WALK, _SETTLE, _SHOW, _REST = 66, 24, 80, 8
_BEGIN = 40  # frames before the first round: everybody stands
_OUT, _AWAY = 18, 10  # of a walk: frames on the way out (and back), and frames in between
_SIDES = {1: (190.0, 230.0), 2: (165.0, 205.0), 3: (150.0, 180.0)}  # of a person's square, by the number of people
_STREET = 3  # separates the stream of random numbers
_NOISE_BORDER = 16
_BLOCK = 32  # frames whose outlines are computed at once
_EVENTS = {1: ("leave", "stay"), 2: ("cross", "leave"), 3: ("cross", "leave", "cross")}


@dataclass(frozen=True)
class Passer:
    """One person of a street.

    Attributes:
        who: the person.
        motion: of the head.
        side: of the square in which the head is drawn as in a training clip, pixels.
        spans: the expressions.
        route: (frame, x, y) of the square's middle; smooth in between.
    """

    who: Identity
    motion: Motion
    side: float
    spans: tuple[Span, ...]
    route: tuple[tuple[int, float, float], ...]

    def place(self, index: int) -> tuple[float, float]:
        """Middle of the person's square in a frame."""
        after = next((n for n, (frame, *_) in enumerate(self.route) if frame > index), len(self.route))
        if after in (0, len(self.route)):
            return self.route[min(after, len(self.route) - 1)][1:]
        (begin, x0, y0), (end, x1, y1) = self.route[after - 1 : after + 1]
        share = (index - begin) / (end - begin)
        share = share * share * (3.0 - 2.0 * share)
        return x0 + share * (x1 - x0), y0 + share * (y1 - y0)


@dataclass(frozen=True)
class FaceTruth:
    """One face of one frame, in pixels.

    Attributes:
        face: number of the person.
        box: left, top, right, bottom of the head.
        crop: the square in which the head lies as in a training clip.
        left_eye, right_eye, mouth: middles; left is the left of the picture.
        visible: share of the box that is in the picture and not behind a nearer head.
    """

    face: int
    box: tuple[float, float, float, float]
    crop: tuple[float, float, float, float]
    left_eye: tuple[float, float]
    right_eye: tuple[float, float]
    mouth: tuple[float, float]
    visible: float

    def to_json(self) -> dict[str, Any]:
        """For the file beside a video: a tenth of a pixel is enough."""
        names = ("box", "crop", "left_eye", "right_eye", "mouth")
        places = {name: [round(value, 1) for value in getattr(self, name)] for name in names}
        return {"face": self.face, **places, "visible": round(self.visible, 2)}


@dataclass(frozen=True)
class Street:
    """The description that a video is drawn from.

    Attributes:
        people: by number.
        look: background, light, lens, sensor.
        count: frames.
    """

    people: tuple[Passer, ...]
    look: Look
    count: int

    def frames(self, indices: Sequence[int] | range | None = None) -> Iterator[tuple[Frame, list[FaceTruth]]]:
        """Draws frames.

        Args:
            indices: of the frames; None draws all.

        Yields:
            uint8 `[480, 640, 3]`, RGB, and its faces.
        """
        wanted = list(range(self.count) if indices is None else indices)
        for start in range(0, len(wanted), _BLOCK):
            yield from self._draw(np.array(wanted[start : start + _BLOCK], np.int64))

    def spans(self) -> list[dict[str, Any]]:
        """What is shown: `{"face", "start_s", "end_s", "label"}`, by the time of its end."""
        rows = [
            {"face": n, "start_s": s.start / FPS, "end_s": s.end / FPS, "label": DFEW_LABELS[s.script.label]}
            for n, person in enumerate(self.people)
            for s in person.spans
        ]
        return sorted(rows, key=lambda row: (row["end_s"], row["face"]))

    @cached_property
    def _still(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Background, light and noise."""
        rng = np.random.default_rng(self.look.seed)
        background = draw_background(HEIGHT, WIDTH, rng)
        noise = rng.standard_normal((HEIGHT + _NOISE_BORDER, WIDTH + _NOISE_BORDER, 1), np.float32)
        return background, light_gain(self.look, HEIGHT, WIDTH), self.look.noise * noise

    def _draw(self, indices: npt.NDArray[np.int64]) -> Iterator[tuple[Frame, list[FaceTruth]]]:
        tau = (2 * indices + 1 - self.count) / (2.0 * FPS)
        nearest_last = sorted(range(len(self.people)), key=lambda n: self.people[n].side)
        drawn = {n: _outlines(self.people[n], indices, tau) for n in nearest_last}
        background, gain, noise = self._still
        for place, index in enumerate(indices):
            canvas = background.copy()
            truths = []
            for n in nearest_last:
                person, (pixels, actions, corners) = self.people[n], drawn[n]
                shapes = {name: points[place] for name, points in pixels.items()}
                fixed = {name: fixed_point(points) for name, points in shapes.items()}
                draw_face(canvas, person.who, fixed, dict(zip(MOVEMENTS, actions[place], strict=True)), person.side)
                truths.append(_truth(n, shapes, corners[place], person.side))
            seen = [replace(truth, visible=_visible(truth, truths[n + 1 :])) for n, truth in enumerate(truths)]
            top, left = np.random.default_rng([self.look.seed, index]).integers(_NOISE_BORDER, size=2)
            frame = self._develop(canvas, gain, noise[top : top + HEIGHT, left : left + WIDTH])
            yield frame, sorted((truth for truth in seen if truth.visible > 0), key=lambda t: t.face)

    def _develop(
        self, canvas: npt.NDArray[np.uint8], gain: npt.NDArray[np.float32], noise: npt.NDArray[np.float32]
    ) -> Frame:
        """Lens, light and sensor."""
        import cv2

        sigma = self.look.blur * float(np.mean([person.side for person in self.people])) / 64.0
        if sigma > 0.2:
            cv2.GaussianBlur(canvas, (0, 0), sigma, dst=canvas)
        exposed = canvas * gain
        exposed += noise
        np.clip(exposed, 0.0, 255.0, out=exposed)
        return exposed.astype(np.uint8)


def _outlines(person: Passer, indices: npt.NDArray[np.int64], tau: Floats) -> tuple[dict[str, Floats], Floats, Floats]:
    """Outlines in pixels, `[k, m, 2]`; intensities `[k, movements]`; corners `[k, 2]`."""
    actions = span_actions(person.spans, person.motion, indices, tau)
    channel = dict(zip(CHANNELS, person.motion.at(tau).T, strict=True))
    corners = np.array([person.place(int(index)) for index in indices]) - person.side / 2
    shapes = project(person.who, actions, channel)
    return {name: points * person.side + corners[:, None] for name, points in shapes.items()}, actions, corners


def draw_street(seed: int, people: int = 2, rounds: int = 7) -> Street:
    """Draws a street.

    Args:
        seed: of everything; its people are in no data set.
        people: 1 to 3.
        rounds: expressions that each person shows; 7 shows each class once.

    Raises:
        UsageError: another number of people, or no round.
    """
    if not 1 <= people <= MOST_PEOPLE or rounds < 1 or seed < 0:
        raise UsageError(f"A scene needs 1 to {MOST_PEOPLE} people and a round; got {people} and {rounds}.")
    rng = np.random.default_rng([seed, _STREET, people])
    length = _WALK + _SETTLE + _SHOW + _REST
    count = _BEGIN + rounds * length + _REST
    sides = rng.uniform(*_SIDES[people], people)
    heights = 0.52 * HEIGHT + rng.uniform(-12.0, 12.0, people)
    lanes = [WIDTH * (n + 1) / (people + 1) for n in range(people)]
    standing = [int(lane) for lane in rng.permutation(people)]  # lane of each person
    routes: list[list[tuple[int, float, float]]] = [[] for _ in range(people)]
    spans: list[list[Span]] = [[] for _ in range(people)]
    orders = [
        np.concatenate([rng.permutation(len(DFEW_LABELS)) for _ in range(-(-rounds // 7))]) for _ in range(people)
    ]
    for n in range(people):
        routes[n].append((0, lanes[standing[n]], heights[n]))
    for number in range(rounds):
        begin = _BEGIN + number * length
        event = _EVENTS[people][number % len(_EVENTS[people])]
        if event == "cross":
            lane = int(rng.integers(people - 1))
            walking = [standing.index(lane), standing.index(lane + 1)]
            standing[walking[0]], standing[walking[1]] = lane + 1, lane
            for n in walking:
                routes[n].append((begin, *routes[n][-1][1:]))
                routes[n].append((begin + _WALK, lanes[standing[n]], heights[n]))
        elif event == "leave":
            n = int(rng.integers(people))
            place = routes[n][-1][1:]
            routes[n] += [
                (begin, *place),
                (begin + _OUT, *_outside(place, sides[n], people)),
                (begin + _OUT + _AWAY, *_outside(place, sides[n], people)),
                (begin + 2 * _OUT + _AWAY, *place),
            ]
        for n in range(people):
            start = begin + _WALK + _SETTLE + int(rng.integers(0, 5))
            shown = int(rng.integers(64, _SHOW - 3))
            spans[n].append(Span(start, start + shown, draw_script(int(orders[n][number]), rng)))
    motions = [draw_motion(count / FPS / 2.0, rng) for _ in range(people)]
    first = FIRST_VIDEO_IDENTITY + 1000 + MOST_PEOPLE * int(rng.integers(1000))
    passers = tuple(
        Passer(draw_person(seed, first + n), motions[n], float(sides[n]), tuple(spans[n]), tuple(routes[n]))
        for n in range(people)
    )
    look = draw_look(rng)
    # A lens in focus, and noise that a video of 5 MB a minute can hold.
    return Street(passers, replace(look, blur=min(look.blur, 0.3), noise=min(look.noise, 1.5)), count)


def _outside(place: tuple[float, float], side: float, people: int) -> tuple[float, float]:
    """Where a person is out of the picture: below for one between two others."""
    x, y = place
    if people == MOST_PEOPLE and abs(x - WIDTH / 2) < 1:
        return x, HEIGHT + 0.6 * side
    return (-0.5 * side, y) if x < WIDTH / 2 else (WIDTH + 0.5 * side, y)


def _truth(number: int, pixels: dict[str, Floats], corner: Floats, side: float) -> FaceTruth:
    def middle(name: str) -> tuple[float, float]:
        x, y = pixels[name].mean(axis=0)
        return float(x), float(y)

    low, high = pixels["head"].min(axis=0), pixels["head"].max(axis=0)
    left, top = (float(v) for v in corner)
    box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    crop = (left, top, left + side, top + side)
    return FaceTruth(number, box, crop, middle("eye_0"), middle("eye_1"), middle("lips"), 1.0)


def _visible(truth: FaceTruth, nearer: Sequence[FaceTruth]) -> float:
    """Share of the box that is in the picture and not behind the head that hides most of it."""
    left, top, right, bottom = truth.box

    def common(box: tuple[float, float, float, float]) -> float:
        wide, high = min(right, box[2]) - max(left, box[0]), min(bottom, box[3]) - max(top, box[1])
        return max(0.0, wide) * max(0.0, high)

    inside = common((0.0, 0.0, float(WIDTH), float(HEIGHT)))
    hidden = max((common(other.box) for other in nearer), default=0.0)
    return max(0.0, inside - hidden) / ((right - left) * (bottom - top))
