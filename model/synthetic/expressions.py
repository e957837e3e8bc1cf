"""Scripts of facial expressions: muscle movements in time.

A movement is an action unit of the Facial Action Coding System (Ekman and Friesen), or a few of them under one name.
An expression is a script: pulses of movements with onset, apex and offset.

Three classes are told by what is shown (sad, neutral, angry). The other four come in two pairs (`ORDER_PAIRS`), and
the second of a pair *is* the first played backwards: every frame of the one is in the other too, so that no single
frame and no bag of frames can tell them apart, only their order. A test of video models needs such a task, and says
nothing about people: real surprise is not fear backwards.

Time inside a script is the centred phase v in (-1, 1): -1 is the first frame's edge, 1 the last one's. Playing
backwards is v -> -v, which floating point does exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ...clips import DFEW_LABELS

Floats = npt.NDArray[np.float64]

# In brackets the action units.
MOVEMENTS = (
    "brow_inner",  # inner brow raiser (1)
    "brow_outer",  # outer brow raiser (2)
    "brow_lower",  # brow lowerer (4)
    "lid_raise",  # upper lid raiser (5)
    "squint",  # cheek raiser, lid tightener (6, 7)
    "nose_wrinkle",  # nose wrinkler, upper lip raiser (9, 10)
    "smile",  # lip corner puller (12)
    "lip_down",  # lip corner depressor (15)
    "stretch",  # lip stretcher (20)
    "press",  # lip tightener and pressor (23, 24)
    "part",  # lips part (25)
    "jaw",  # jaw drop (26)
    "blink",  # (45)
)

ORDER_PAIRS = (("surprise", "fear"), ("happy", "disgust"))
ORDER_LABELS = tuple(DFEW_LABELS.index(name) for pair in ORDER_PAIRS for name in pair)  # class indices

# The first of each pair: one pulse, then another.
_FIRST_THEN: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "surprise": (
        {"brow_inner": 1.0, "brow_outer": 1.0, "lid_raise": 0.9},
        {"jaw": 1.0, "part": 1.0},
    ),
    "happy": (
        {"smile": 1.0, "part": 0.35},
        {"nose_wrinkle": 1.0, "squint": 0.9, "brow_lower": 0.35},
    ),
}
_HELD: dict[str, dict[str, float]] = {
    "sad": {"brow_inner": 1.0, "brow_lower": 0.2, "lip_down": 1.0, "blink": 0.4},
    "neutral": {},
    "angry": {"brow_lower": 1.0, "lid_raise": 0.6, "press": 1.0},
}
_INDEX = {name: index for index, name in enumerate(DFEW_LABELS)}
FORWARD_OF = {_INDEX[second]: _INDEX[first] for first, second in ORDER_PAIRS}  # second of a pair -> first
_PARTNER = {index: index for index in range(len(DFEW_LABELS))} | FORWARD_OF | {v: k for k, v in FORWARD_OF.items()}


@dataclass(frozen=True)
class Pulse:
    """One movement: up along a ramp, an apex, down along the same ramp.

    Attributes:
        weights: intensity of each of MOVEMENTS at the apex, 0..1.
        centre: of the apex, as a phase.
        apex: half the time at full intensity, in units of phase.
        ramp: time from rest to the apex (the same back), in units of phase.
    """

    weights: tuple[float, ...]
    centre: float
    apex: float
    ramp: float

    def at(self, phase: Floats) -> Floats:
        """Intensities at each phase: `[k]` -> `[k, movements]`."""
        x = np.clip((self.apex + self.ramp - np.abs(phase - self.centre)) / self.ramp, 0.0, 1.0)
        smooth = x * x * (3.0 - 2.0 * x)  # flat at both ends of a ramp
        intensities: Floats = smooth[:, None] * np.asarray(self.weights)
        return intensities


@dataclass(frozen=True)
class Script:
    """One expression of one class."""

    label: int
    pulses: tuple[Pulse, ...]

    def at(self, phase: Floats) -> Floats:
        """Intensities at each centred phase: `[k]` -> `[k, movements]` in 0..1."""
        total = np.zeros((len(phase), len(MOVEMENTS)))
        for pulse in self.pulses:
            total = np.maximum(total, pulse.at(phase))
        return total

    def mirrored(self) -> Script:
        """The same movements backwards: the other class of a pair, otherwise the same class."""
        return Script(_PARTNER[self.label], tuple(replace(pulse, centre=-pulse.centre) for pulse in self.pulses))


def draw_script(label: int, rng: np.random.Generator) -> Script:
    """Draws one performance of a class: timing, intensity and a small stray movement vary.

    Both classes of a pair draw the same numbers: from one state of `rng` they are each other's mirror image.

    Args:
        label: index into DFEW_LABELS.
        rng: the source of chance.

    Returns:
        The script; at both ends of its time the face is nearly at rest.
    """
    if label in FORWARD_OF:
        return draw_script(FORWARD_OF[label], rng).mirrored()
    name = DFEW_LABELS[label]
    strength = rng.uniform(0.8, 1.0)
    # A live reading ends a few frames early or late: training sees expressions that are off the middle.
    shift, pace = rng.uniform(-0.15, 0.15), rng.uniform(0.72, 0.95)
    if name in _FIRST_THEN:
        first, then = _FIRST_THEN[name]
        apex, ramp = pace * rng.uniform(0.10, 0.17), pace * rng.uniform(0.20, 0.28)
        pulses = [
            Pulse(_weights(first, strength), shift - 0.42 * pace, apex, ramp),
            Pulse(_weights(then, strength), shift + 0.42 * pace, apex, ramp),
        ]
    else:
        apex, ramp = pace * rng.uniform(0.45, 0.70), pace * rng.uniform(0.15, 0.25)
        pulses = [Pulse(_weights(_HELD[name], strength), shift, apex, ramp)]
    # One small movement that means nothing, anywhere in the clip.
    stray = {MOVEMENTS[rng.integers(len(MOVEMENTS))]: rng.uniform(0.0, 0.25)}
    pulses.append(Pulse(_weights(stray, 1.0), rng.uniform(-0.8, 0.8), rng.uniform(0.1, 0.4), 0.2))
    return Script(label, tuple(pulses))


def _weights(movements: Mapping[str, float], strength: float) -> tuple[float, ...]:
    return tuple(strength * movements.get(name, 0.0) for name in MOVEMENTS)
