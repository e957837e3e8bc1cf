"""Head motion, and how the picture is taken: light, lens, sensor, occluders.

Nothing here may give the order of time away: every motion is a sum of cosines with random phases, every blink is
symmetric, so that a scene played backwards is as likely as the scene itself. Times are seconds from the middle of the
recording; backwards is tau -> -tau.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .expressions import Floats
from .face import Color

# Rest value and drift of each channel: (spread of the rest value, spread of the drift). Angles in radians, lengths in
# sides of the picture, light as a factor.
_CHANNELS: dict[str, tuple[float, float]] = {
    "roll": (0.12, 0.06),
    "yaw": (0.26, 0.12),
    "pitch": (0.12, 0.06),
    "scale": (0.06, 0.02),
    "shift_x": (0.03, 0.015),
    "shift_y": (0.03, 0.015),
    "gaze": (0.02, 0.03),
    "light": (0.0, 0.05),
    "occluder_x": (0.0, 0.06),
    "occluder_y": (0.0, 0.06),
}
CHANNELS = tuple(_CHANNELS)
OCCLUDERS = ("none", "hand", "bar", "cup")

_BLINK_HALF_S = 0.14
_BLINKS_PER_S = 0.2


@dataclass(frozen=True)
class Motion:
    """Slow random movement, defined for all time.

    Attributes:
        rest: the mean of each channel, `[c]`.
        drift: amplitude of each channel's two waves, `[c, 2]`.
        rate: radians per second, `[c, 2]`.
        phase: radians at tau = 0, `[c, 2]`.
        blinks: middle of each blink, seconds, `[n]`.
    """

    rest: Floats
    drift: Floats
    rate: Floats
    phase: Floats
    blinks: Floats

    def at(self, tau: Floats) -> Floats:
        """Every channel at every time: `[k]` -> `[k, c]`."""
        waves = self.drift * np.cos(self.rate * tau[:, None, None] + self.phase)  # [k, c, 2]
        values: Floats = self.rest + waves.sum(-1)
        return values

    def blink(self, tau: Floats) -> Floats:
        """How far the lids are closed, 0..1: `[k]` -> `[k]`."""
        nearest = np.abs(tau[:, None] - self.blinks).min(1, initial=np.inf)  # some recordings have no blink
        closed: Floats = np.clip(1.5 - 1.5 * nearest / _BLINK_HALF_S, 0.0, 1.0)
        return closed

    def mirrored(self) -> Motion:
        """The same backwards, exactly: cos(-x) is cos(x)."""
        return replace(self, phase=-self.phase, blinks=-self.blinks)


@dataclass(frozen=True)
class Look:
    """Background, light, lens, sensor and occluder of a recording.

    Attributes:
        seed: of the background's shapes and of the sensor noise.
        light: direction, radians.
        contrast: of the light across the picture.
        exposure: factor.
        tint: factor per RGB channel.
        noise: standard deviation, grey levels.
        blur: standard deviation of the lens, in units of a 64-pixel picture; 0 is sharp.
        occluder: one of OCCLUDERS.
        occluder_place: of its middle, in sides of the picture.
        occluder_size: its radius, in sides of the picture.
        occluder_color: RGB.
    """

    seed: int
    light: float
    contrast: float
    exposure: float
    tint: Color
    noise: float
    blur: float
    occluder: str
    occluder_place: tuple[float, float]
    occluder_size: float
    occluder_color: Color


def draw_motion(half_s: float, rng: np.random.Generator) -> Motion:
    """Draws the motion of a recording that lasts twice `half_s` seconds."""
    spread = np.array(list(_CHANNELS.values()))  # [c, 2]
    count = len(CHANNELS)
    rest = rng.uniform(-1.0, 1.0, count) * spread[:, 0]
    rest[CHANNELS.index("scale")] += 1.0
    rest[CHANNELS.index("light")] += 1.0
    drift = rng.uniform(0.1, 0.6, (count, 2)) * spread[:, 1:]
    rate = 2.0 * np.pi / rng.uniform(1.6, 7.0, (count, 2))
    phase = rng.uniform(-np.pi, np.pi, (count, 2))
    blinks = rng.uniform(-half_s, half_s, rng.poisson(_BLINKS_PER_S * 2.0 * half_s))
    return Motion(rest, drift, rate, phase, blinks)


def draw_look(rng: np.random.Generator) -> Look:
    """Draws background, light, noise and occluder."""
    side = 1.0 if rng.random() < 0.5 else -1.0
    warm = rng.uniform(-0.07, 0.07)
    occluder = OCCLUDERS[rng.choice(len(OCCLUDERS), p=(0.7, 0.12, 0.1, 0.08))]
    red, green, blue = (float(v) for v in rng.uniform(20, 230, 3))
    return Look(
        seed=int(rng.integers(1 << 62)),
        light=rng.uniform(-np.pi, np.pi),
        contrast=rng.uniform(0.0, 0.35),
        exposure=rng.uniform(0.72, 1.15),
        tint=(1.0 + warm, 1.0, 1.0 - warm),
        noise=rng.uniform(1.0, 6.0),
        blur=max(0.0, rng.uniform(-0.6, 0.7)),
        occluder=occluder,
        occluder_place=(0.5 + side * rng.uniform(0.30, 0.42), rng.uniform(0.35, 0.95)),
        occluder_size=rng.uniform(0.10, 0.18),
        occluder_color=(red, green, blue),
    )
