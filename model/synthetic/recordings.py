"""Synthetic recordings of faces: a task with a known answer.

It is drawn, not filmed: what a model scores here says whether the toolchain works, and nothing about people.

Everything follows from a seed: the same seed gives the same bytes. A person is `(seed, identity)`, a recording
`(seed, identity, take)`; people with different numbers are different, so that training and test sets are disjoint when
their ranges are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ...clips import DFEW_LABELS, Clip, Sampling, centre_indices
from ...errors import UsageError
from ..data.clips import Box, cut
from .expressions import FORWARD_OF, MOVEMENTS, Floats, Script, draw_script
from .face import Identity, draw_identity
from .painting import Painter
from .scene import Look, Motion, draw_look, draw_motion

FPS = 25.0
FEWEST_FRAMES, MOST_FRAMES = 40, 100  # of a clip; DFEW's median is 70

# Ranges of identities that no data set uses, for golden clips and for videos.
FIRST_GOLDEN_IDENTITY = 1_000_000
FIRST_VIDEO_IDENTITY = 2_000_000

_PERSON, _TAKE = 1, 2  # separate the streams of random numbers
_BLINK = MOVEMENTS.index("blink")


@dataclass(frozen=True)
class Span:
    """Frames `start` to `end` (exclusive) in which one script is played."""

    start: int
    end: int
    script: Script


@dataclass(frozen=True)
class Recording:
    """One person before one camera.

    Attributes:
        who: the person.
        look: background, light, noise.
        motion: of the head.
        count: frames.
        spans: the expressions; between them the face rests.
    """

    who: Identity
    look: Look
    motion: Motion
    count: int
    spans: tuple[Span, ...]

    def frames(self, indices: Sequence[int] | npt.NDArray[np.int64], size: int) -> Clip:
        """Draws the frames asked for and no others.

        Args:
            indices: of the frames, 0..count-1, in any order.
            size: S, side in pixels.

        Returns:
            uint8 `[k, S, S, 3]`, RGB.
        """
        index = np.asarray(indices, np.int64)
        tau = (2 * index + 1 - self.count) / (2.0 * FPS)
        actions = span_actions(self.spans, self.motion, index, tau)
        return Painter(self.who, self.look, size).paint(actions, self.motion.at(tau))

    def mirrored(self) -> Recording:
        """The same recording played backwards, drawn to the same bytes in the opposite order."""
        spans = tuple(Span(self.count - s.end, self.count - s.start, s.script.mirrored()) for s in reversed(self.spans))
        return replace(self, motion=self.motion.mirrored(), spans=spans)


def span_actions(spans: Sequence[Span], motion: Motion, index: npt.NDArray[np.int64], tau: Floats) -> Floats:
    """Intensities of MOVEMENTS in some frames: the expressions shown in them, and blinks.

    Args:
        spans: the expressions.
        motion: has the blinks.
        index: of the frames, `[k]`.
        tau: their times, `[k]`.

    Returns:
        `[k, movements]`.
    """
    actions = np.zeros((len(index), len(MOVEMENTS)))
    for span in spans:
        inside = (index >= span.start) & (index < span.end)
        length = span.end - span.start
        # Whole numbers up to the division: the phase of a mirrored frame is the exact negative.
        phase = (2 * (index[inside] - span.start) + 1 - length) / length
        actions[inside] = span.script.at(phase)
    actions[:, _BLINK] = np.maximum(actions[:, _BLINK], motion.blink(tau))
    return actions


def draw_person(seed: int, identity: int) -> Identity:
    """The person with this number."""
    return draw_identity(np.random.default_rng([seed, _PERSON, identity]))


def draw_clip(seed: int, identity: int, take: int, label: int) -> Recording:
    """A clip of one expression over its whole length.

    The second class of a pair in ORDER_PAIRS is the first one's clip played backwards.
    """
    if label in FORWARD_OF:
        return draw_clip(seed, identity, take, FORWARD_OF[label]).mirrored()
    rng = np.random.default_rng([seed, _TAKE, identity, take])
    count = int(rng.integers(FEWEST_FRAMES, MOST_FRAMES + 1))
    motion = draw_motion(count / FPS / 2.0, rng)
    look = draw_look(rng)
    return Recording(draw_person(seed, identity), look, motion, count, (Span(0, count, draw_script(label, rng)),))


def draw_untrimmed(seed: int, identity: int, labels: Sequence[int]) -> Recording:
    """A long recording of expressions, with a resting face before, between and after.

    The expressions are those of `labels` in turn.

    A span lasts about as long as a training clip, a rest at least 1.4 s.
    """
    rng = np.random.default_rng([seed, _TAKE, identity, 0])
    spans: list[Span] = []
    end = 0
    for label in labels:
        start = end + int(rng.integers(35, 66))
        end = start + int(rng.integers(64, 77))
        spans.append(Span(start, end, draw_script(label, rng)))
    count = end + int(rng.integers(35, 66))
    motion = draw_motion(count / FPS / 2.0, rng)
    return Recording(draw_person(seed, identity), draw_look(rng), motion, count, tuple(spans))


class SyntheticClips:
    """A clip source (see `ClipSource`) that draws its frames on demand.

    Clip `i` shows person `identities[i // per_identity]`; the classes take turns.

    Args:
        seed: of everything.
        identities: numbers of the people.
        per_identity: clips of each person; a multiple of 7 balances the classes.
        size: S, side in pixels.
    """

    labels: tuple[str, ...] = DFEW_LABELS

    def __init__(self, seed: int, identities: Sequence[int], per_identity: int = 14, size: int = 64) -> None:
        if seed < 0 or per_identity < 1 or size < 16:
            raise UsageError(
                f"Synthetic clips need seed >= 0, clips >= 1 and size >= 16; got {seed}, {per_identity}, {size}."
            )
        self.seed = seed
        self.identities = identities
        self.per_identity = per_identity
        self.size = size

    def __len__(self) -> int:
        return len(self.identities) * self.per_identity

    def label(self, index: int) -> int:
        return index % self.per_identity % len(self.labels)

    def clip_id(self, index: int) -> str:
        identity, take = self._place(index)
        return f"synthetic-{self.seed}-{identity}-{take}"

    def count(self, index: int) -> int:
        return self.recording(index).count

    def frames(self, index: int, indices: Sequence[int] | npt.NDArray[np.int64], box: Box | None = None) -> Clip:
        """Frames of a clip, uint8 `[k, S, S, 3]`, RGB; `box` takes a part of the picture."""
        whole = self.recording(index).frames(indices, self.size)
        return whole if box is None else cut(whole, box)

    def recording(self, index: int) -> Recording:
        """The description that a clip is drawn from."""
        identity, take = self._place(index)
        return draw_clip(self.seed, identity, take, self.label(index))

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.identities[index // self.per_identity], index % self.per_identity


def synthetic_clips(
    count: int, sampling: Sampling, size: int, seed: int = 0
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], tuple[str, ...]]:
    """Ready clips for golden answers, parity and calibration, of people that are in no data set.

    Args:
        count: N; the classes take turns.
        sampling: which frames of each recording.
        size: S, side in pixels.
        seed: of everything.

    Returns:
        clips uint8 `[N, T, S, S, 3]`, labels int64 `[N]`, names `[N]`.
    """
    per_identity = len(DFEW_LABELS)
    people = range(FIRST_GOLDEN_IDENTITY, FIRST_GOLDEN_IDENTITY + -(-count // per_identity))
    source = SyntheticClips(seed, people, per_identity, size)
    clips = np.empty((count, sampling.frames, size, size, 3), np.uint8)
    for index in range(count):
        recording = source.recording(index)
        clips[index] = recording.frames(centre_indices(recording.count, sampling), size)
    labels = np.array([source.label(index) for index in range(count)], np.int64)
    return clips, labels, tuple(source.clip_id(index) for index in range(count))
