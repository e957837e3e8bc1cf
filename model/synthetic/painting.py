"""Painting of a face with OpenCV: anti-aliased polygons, then light, lens and sensor.

All points of all frames are turned and projected in one step; the loop over frames only fills polygons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .expressions import MOVEMENTS, Floats
from .face import Color, Identity, blend, depths, outlines
from .scene import CHANNELS, Look

_SHIFT = 4  # fractional bits of OpenCV's coordinates
_FACE = 0.40  # half a face, in sides of the picture
_MIDDLE = (0.5, 0.53)
_NOISE_BORDER = 16  # pixels that the noise tile is larger than the picture

# Of the occluders that are polygons, in units of their radius.
_CORNERS = {
    "bar": ((-0.45, -4.0), (0.45, -4.0), (0.45, 6.0), (-0.45, 6.0)),
    "cup": ((-1.0, -1.0), (1.0, -1.0), (0.75, 1.4), (-0.75, 1.4)),
}

_DARK: Color = (40.0, 26.0, 24.0)
_WHITE: Color = (236.0, 234.0, 230.0)


class Painter:
    """Paints one person in one place, in pictures of S x S pixels."""

    def __init__(self, who: Identity, look: Look, size: int) -> None:
        self.who = who
        self.look = look
        self.size = size
        rng = np.random.default_rng(look.seed)
        self.background = draw_background(size, size, rng)
        self.gain = light_gain(look, size, size)
        self.noise = look.noise * rng.standard_normal((size + _NOISE_BORDER, size + _NOISE_BORDER, 1), np.float32)

    def paint(self, actions: Floats, motion: Floats) -> npt.NDArray[np.uint8]:
        """Paints frames.

        Args:
            actions: intensities of MOVEMENTS, `[k, movements]`.
            motion: values of CHANNELS, `[k, channels]`.

        Returns:
            uint8 `[k, S, S, 3]`, RGB.
        """
        channel = dict(zip(CHANNELS, motion.T, strict=True))  # each [k]
        points = {name: fixed_point(p * self.size) for name, p in project(self.who, actions, channel).items()}
        frames = np.empty((len(actions), self.size, self.size, 3), np.uint8)
        for index in range(len(actions)):
            frames[index] = self.background
            shapes = {name: stack[index] for name, stack in points.items()}
            draw_face(frames[index], self.who, shapes, dict(zip(MOVEMENTS, actions[index], strict=True)), self.size)
            self._occlude(frames[index], channel["occluder_x"][index], channel["occluder_y"][index])
        return self._develop(frames, channel)

    def _occlude(self, canvas: npt.NDArray[np.uint8], dx: float, dy: float) -> None:
        look = self.look
        if look.occluder == "none":
            return
        x, y = (look.occluder_place[0] + dx) * self.size, (look.occluder_place[1] + dy) * self.size
        r = look.occluder_size * self.size
        u = np.linspace(0.0, 2.0 * np.pi, 16, endpoint=False)
        if look.occluder == "hand":  # a palm and four fingers
            parts = [np.stack([x + r * np.cos(u), y + r * np.sin(u)], -1)]
            for finger in (-0.66, -0.22, 0.22, 0.66):
                centre = x + finger * r
                parts.append(np.stack([centre + 0.2 * r * np.cos(u), y - r + 0.75 * r * np.sin(u)], -1))
            color = blend(self.who.skin, _DARK, 0.08)
        else:
            parts = [np.array([(x + a * r, y + b * r) for a, b in _CORNERS[look.occluder]])]
            color = look.occluder_color
        for part in parts:
            _fill(canvas, [np.rint(part * (1 << _SHIFT)).astype(np.int32)], color)

    # ------------------------------------------------------------------------------------------ light, lens, sensor
    def _develop(self, frames: npt.NDArray[np.uint8], channel: dict[str, Floats]) -> npt.NDArray[np.uint8]:
        import cv2

        sigma = self.look.blur * self.size / 64.0
        for index, frame in enumerate(frames):
            if sigma > 0.2:
                cv2.GaussianBlur(frame, (0, 0), sigma, dst=frame)
            exposed = frame * (self.gain * np.float32(channel["light"][index]))
            # Where the tile is cut follows the head's motion: another place for each frame, the same one backwards.
            top = int(1e6 * abs(channel["yaw"][index])) % _NOISE_BORDER
            left = int(1e6 * abs(channel["roll"][index])) % _NOISE_BORDER
            exposed += self.noise[top : top + self.size, left : left + self.size]
            np.clip(exposed, 0.0, 255.0, out=exposed)
            frames[index] = exposed
        return frames


# ----------------------------------------------------------------------------------------------------------- geometry
def project(who: Identity, actions: Floats, channel: Mapping[str, Floats]) -> dict[str, Floats]:
    """Outlines in sides of the person's square picture, name to `[k, m, 2]`."""
    shapes = outlines(who, actions)
    for index in (0, 1):
        for name in (f"iris_{index}", f"pupil_{index}"):
            shapes[name] = shapes[name] + np.stack([channel["gaze"], 0.0 * channel["gaze"]], -1)[:, None]
    x, y = np.moveaxis(np.concatenate(list(shapes.values()), 1), -1, 0)  # each [k, M]
    z = depths(shapes)
    roll, yaw, pitch = (channel[name][:, None] for name in ("roll", "yaw", "pitch"))
    x, z = x * np.cos(yaw) + z * np.sin(yaw), z * np.cos(yaw) - x * np.sin(yaw)
    y = y * np.cos(pitch) + z * np.sin(pitch)
    x, y = x * np.cos(roll) - y * np.sin(roll), x * np.sin(roll) + y * np.cos(roll)
    zoom = _FACE * channel["scale"][:, None]
    u = _MIDDLE[0] + zoom * x + channel["shift_x"][:, None]
    v = _MIDDLE[1] + zoom * y + channel["shift_y"][:, None]
    cuts = np.cumsum([points.shape[1] for points in shapes.values()])[:-1]
    return dict(zip(shapes, np.split(np.stack([u, v], -1), cuts, axis=1), strict=True))


def fixed_point(pixels: Floats) -> npt.NDArray[np.int32]:
    """Pixels in OpenCV's fixed-point numbers, whose whole numbers are the middles of pixels."""
    return np.rint((pixels - 0.5) * (1 << _SHIFT)).astype(np.int32)


# ------------------------------------------------------------------------------------------------------------ drawing
def draw_face(
    canvas: npt.NDArray[np.uint8], who: Identity, p: Mapping[str, Any], a: Mapping[str, float], size: float
) -> None:
    """Draws a person.

    Args:
        canvas: uint8 `[H, W, 3]`; written.
        who: the person.
        p: outlines by name, `fixed_point` numbers of the canvas, int32 `[m, 2]`.
        a: intensity of each of MOVEMENTS.
        size: side of the person's square picture in pixels; lines are as wide as it is large.
    """
    skin = who.skin
    dim = blend(skin, _DARK, 0.18)
    bald = who.hair_style == "shaved"
    if not bald:
        _fill(canvas, [p["back_hair"]], blend(who.hair, _DARK, 0.25))
    _fill(canvas, [p["neck"]], blend(skin, _DARK, 0.25))
    _fill(canvas, [p["shoulders"]], who.clothes)
    _fill(canvas, [p["ear_0"], p["ear_1"]], dim)
    _fill(canvas, [p["head"]], skin)
    _fill(canvas, [p["cheek_0"], p["cheek_1"]], blend(skin, (200.0, 110.0, 100.0), 0.12 + 0.1 * a["smile"]))
    if who.beard:
        _fill(canvas, [p["beard"]], blend(skin, who.hair, who.beard))
    _draw_folds(canvas, who, p, a, size)
    _fill(canvas, [p["hair"]], blend(skin, who.hair, 0.35) if bald else who.hair)
    _fill(canvas, [p["eye_0"], p["eye_1"]], _WHITE)
    _fill(canvas, [p["iris_0"], p["iris_1"]], who.iris)
    _fill(canvas, [p["pupil_0"], p["pupil_1"]], (16.0, 14.0, 14.0))
    _line(canvas, size, [p["crease_0"], p["crease_1"]], dim, 0.012)
    _line(canvas, size, [p["lid_0"], p["lid_1"]], _DARK, 0.022)
    _fill(canvas, [p["brow_0"], p["brow_1"]], blend(who.hair, _DARK, 0.5))
    _fill(canvas, [p["nose"]], blend(skin, _WHITE, 0.10))
    _line(canvas, size, [p["nose_base"]], blend(skin, _DARK, 0.5), 0.018)
    if who.moustache:
        _fill(canvas, [p["moustache"]], who.hair)
    _fill(canvas, [p["lips"]], who.lips)
    _fill(canvas, [p["mouth"]], (62.0, 24.0, 28.0))
    _fill(canvas, [p["teeth"]], blend((62.0, 24.0, 28.0), _WHITE, min(1.0, 0.9 * a["part"] + 0.7 * a["jaw"])))
    _line(canvas, size, [p["chin"]], blend(skin, _DARK, 0.15), 0.016)
    if who.glasses:
        frame = blend(who.hair, _DARK, 0.8)
        _line(canvas, size, [p["glass_0"], p["glass_1"]], frame, 0.016, closed=True)
        _line(canvas, size, [p["glass_bridge"]], frame, 0.016)


def _draw_folds(
    canvas: npt.NDArray[np.uint8], who: Identity, p: Mapping[str, Any], a: Mapping[str, float], size: float
) -> None:
    """The lines that a movement presses into the skin."""
    skin = who.skin
    lift = 0.5 * (a["brow_inner"] + a["brow_outer"])
    for names, depth in (
        (("wrinkle_0", "wrinkle_1"), 0.5 * lift),
        (("glabella_0", "glabella_1"), 0.55 * a["brow_lower"]),
        (("bridge_0", "bridge_1"), 0.55 * a["nose_wrinkle"]),
        (("fold_0", "fold_1"), 0.12 + 0.4 * max(a["smile"], a["nose_wrinkle"])),
    ):
        _line(canvas, size, [p[name] for name in names], blend(skin, _DARK, depth), 0.016)


def _line(
    canvas: npt.NDArray[np.uint8], size: float, lines: Sequence[Any], color: Color, width: float, closed: bool = False
) -> None:
    import cv2

    thickness = max(1, round(width * size))
    cv2.polylines(canvas, lines, closed, color, thickness, cv2.LINE_AA, _SHIFT)


def _fill(canvas: npt.NDArray[np.uint8], polygons: Sequence[Any], color: Color) -> None:
    import cv2

    cv2.fillPoly(canvas, polygons, color, cv2.LINE_AA, _SHIFT)


def draw_background(height: int, width: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A blurred background: two colours and a few shapes, uint8 `[H, W, 3]`."""
    import cv2

    first, second = rng.uniform(20, 220, (2, 3))
    angle = rng.uniform(-np.pi, np.pi)
    rows, columns = ((np.arange(n) + 0.5) / n - 0.5 for n in (height, width))
    ramp = np.clip(0.5 + rows[:, None] * np.sin(angle) + columns * np.cos(angle), 0.0, 1.0)[..., None]
    canvas = np.ascontiguousarray((first + ramp * (second - first)).astype(np.uint8))
    for _ in range(int(rng.integers(1, 6))):
        middle, spread = rng.uniform(0.0, 1.0, 2), rng.uniform(0.08, 0.35)
        corners = middle + spread * rng.uniform(-1.0, 1.0, (int(rng.integers(3, 7)), 2))
        red, green, blue = (float(v) for v in rng.uniform(10, 240, 3))
        _fill(canvas, [np.rint(corners * (width, height) * (1 << _SHIFT)).astype(np.int32)], (red, green, blue))
    sigma = rng.uniform(0.5, 4.0) * height / 64.0
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), sigma), np.uint8)


def light_gain(look: Look, height: int, width: int) -> npt.NDArray[np.float32]:
    """The light's factor at each pixel and channel: slope and fall-off, `[H, W, 3]`."""
    y, x = (2.0 * (np.arange(n) + 0.5) / n - 1.0 for n in (height, width))
    y = y[:, None]
    slope = 1.0 + look.contrast * (x * np.cos(look.light) + y * np.sin(look.light))
    fall = 1.08 - 0.16 * (x**2 + y**2)
    gain: npt.NDArray[np.float32] = (look.exposure * (slope * fall)[..., None] * np.asarray(look.tint)).astype(
        np.float32
    )
    return gain
