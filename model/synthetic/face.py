"""A parametric face: identity, and outlines under muscle movement.

Coordinates are the face's own: x to the right, y down, the origin between the eyes, the crown at y = -1 and the
chin at y = +1. Every point also has a depth, so that the head can turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .expressions import MOVEMENTS, Floats

Color = tuple[float, float, float]  # RGB, 0..255

_SWELL = {"shaved": 0.0, "short": 0.05, "fringe": 0.07, "long": 0.09, "curly": 0.2}  # of the hair over the skull
HAIR_STYLES = tuple(_SWELL)

_SKINS = ((244, 212, 188), (232, 190, 160), (214, 168, 132), (190, 138, 100), (150, 102, 72), (108, 72, 52))
_HAIRS = ((34, 28, 26), (70, 46, 30), (120, 82, 46), (190, 150, 92), (150, 62, 32), (150, 148, 146))
_IRISES = ((62, 42, 28), (96, 66, 38), (70, 96, 72), (80, 116, 150))


@dataclass(frozen=True)
class Identity:
    """The constant features of a person; lengths are in units of half a face."""

    half_width: float
    jaw_taper: float
    eye_distance: float
    eye_width: float
    eye_open: float
    brow_height: float
    brow_thickness: float
    brow_tilt: float
    nose_length: float
    nose_width: float
    mouth_width: float
    mouth_y: float
    lip: float
    mouth_rest: float  # resting corners: above 0 down, below 0 up
    hairline: float
    hair_style: str
    glasses: bool
    beard: float  # 0 none, 1 full
    moustache: bool
    skin: Color
    hair: Color
    iris: Color
    lips: Color
    clothes: Color


def draw_identity(rng: np.random.Generator) -> Identity:
    """Draws a person."""
    skin = _jitter(_SKINS[rng.integers(len(_SKINS))], 10.0, rng)
    redness = rng.uniform(0.15, 0.5)
    lips = blend(skin, (170.0, 60.0, 66.0), redness)
    return Identity(
        half_width=rng.uniform(0.70, 0.82),
        jaw_taper=rng.uniform(0.22, 0.42),
        eye_distance=rng.uniform(0.29, 0.36),
        eye_width=rng.uniform(0.145, 0.18),
        eye_open=rng.uniform(0.055, 0.08),
        brow_height=rng.uniform(0.19, 0.24),
        brow_thickness=rng.uniform(0.035, 0.065),
        brow_tilt=rng.uniform(-0.03, 0.03),
        nose_length=rng.uniform(0.34, 0.42),
        nose_width=rng.uniform(0.12, 0.17),
        mouth_width=rng.uniform(0.25, 0.32),
        mouth_y=rng.uniform(0.55, 0.61),
        lip=rng.uniform(0.045, 0.08),
        mouth_rest=rng.uniform(-0.02, 0.025),
        hairline=rng.uniform(-0.72, -0.58),
        hair_style=HAIR_STYLES[rng.integers(len(HAIR_STYLES))],
        glasses=bool(rng.random() < 0.2),
        beard=float(rng.random() < 0.2) * rng.uniform(0.3, 0.8),
        moustache=bool(rng.random() < 0.12),
        skin=skin,
        hair=_jitter(_HAIRS[rng.integers(len(_HAIRS))], 10.0, rng),
        iris=_IRISES[rng.integers(len(_IRISES))],
        lips=lips,
        clothes=_jitter((128.0, 128.0, 128.0), 90.0, rng),
    )


def outlines(who: Identity, actions: Floats) -> dict[str, Floats]:
    """The outlines of a face at rest or in movement.

    Args:
        who: the person.
        actions: intensities of MOVEMENTS, `[k, movements]`.

    Returns:
        Name to points `[k, m, 2]`.
    """
    a = dict(zip(MOVEMENTS, actions.T[:, :, None], strict=True))  # each [k, 1]
    shapes = {**_head(who, a), **_hair(who), **_skin_lines(a), **_eyes(who, a), **_brows(who, a)}
    shapes |= {**_glasses(who), **_nose(who, a), **_mouth(who, a)}
    return {name: np.broadcast_to(points, (len(actions), *points.shape[-2:])) for name, points in shapes.items()}


def depths(shapes: Mapping[str, Floats]) -> Floats:
    """Depth of each point in front of the picture plane, shapes joined in order: `[k, M]`.

    The front of a head is taken for an ellipsoid; its silhouette, the hair and what is behind lie in the plane.
    """
    sizes = [points.shape[1] for points in shapes.values()]
    standing = np.repeat([name not in _FLAT for name in shapes], sizes)  # [M]
    lift = np.repeat([_LIFT.get(name, 0.0) for name in shapes], sizes)  # [M]
    x, y = np.moveaxis(np.concatenate(list(shapes.values()), 1), -1, 0)  # each [k, M]
    surface = 0.55 * np.sqrt(np.clip(1.0 - (x / 0.9) ** 2 - (y / 1.25) ** 2, 0.0, 1.0))
    result: Floats = standing * (surface + lift)
    return result


# -------------------------------------------------------------------------------------------------------------- parts
_FLAT = frozenset({"back_hair", "neck", "shoulders", "ear_0", "ear_1", "head", "beard", "hair"})
_LIFT = {
    "nose": 0.08,
    "nose_base": 0.1,
    "bridge_0": 0.1,
    "bridge_1": 0.1,
    "glass_0": 0.1,
    "glass_1": 0.1,
    "glass_bridge": 0.12,
}
_SIDES = (-1.0, 1.0)
_CIRCLE = np.linspace(0.0, 2.0 * np.pi, 14, endpoint=False)

_Actions = dict[str, Floats]


def _head(who: Identity, a: _Actions) -> dict[str, Floats]:
    t = np.linspace(0.0, 2.0 * np.pi, 32, endpoint=False)
    x, y = np.sin(t), -np.cos(t)
    x = who.half_width * x * (1.0 - who.jaw_taper * np.clip(y, 0.0, 1.0) ** 1.5)
    head = _xy(x, y + 0.15 * a["jaw"] * np.clip((y - 0.1) / 0.9, 0.0, 1.0))  # the jaw takes the lower face along
    low = head[:, y > 0.12]
    beard = np.concatenate([low, low[:, ::-1] * (0.72, 0.42) + (0.0, 0.16)], 1)
    neck = _xy(np.array([-0.38, 0.38, 0.48, -0.48]), np.array([0.5, 0.5, 1.5, 1.5]))
    shoulders = _xy(np.array([-0.3, 0.3, 1.1, 1.5, -1.5, -1.1]), np.array([1.2, 1.2, 1.4, 2.2, 2.2, 1.4]))
    shapes = {"neck": neck, "shoulders": shoulders, "head": head, "beard": beard}
    for index, side in enumerate(_SIDES):
        ear_x = side * (who.half_width + 0.02) + 0.09 * np.cos(_CIRCLE)
        shapes[f"ear_{index}"] = _xy(ear_x, 0.06 + 0.19 * np.sin(_CIRCLE))
        cheek_y = 0.34 - 0.05 * a["smile"] + 0.16 * np.sin(_CIRCLE)
        shapes[f"cheek_{index}"] = _xy(side * 0.42 + 0.16 * np.cos(_CIRCLE), cheek_y)
    return shapes


def _hair(who: Identity) -> dict[str, Floats]:
    """A cap over the skull, and what hangs behind the head."""
    swell = _SWELL[who.hair_style]
    v = np.linspace(-1.25, 1.25, 15)
    line = np.linspace(1.0, -1.0, 9)
    fringe = 0.22 if who.hair_style == "fringe" else 0.0
    front_y = who.hairline + fringe * (1.0 - 0.6 * line**2) + 0.35 * line**4
    cap_x = np.concatenate([(who.half_width + swell) * np.sin(v), 0.9 * who.half_width * line])
    cap_y = np.concatenate([-(1.0 + swell) * np.cos(v), front_y])
    w = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
    hang = 1.25 if who.hair_style == "long" else 0.0
    back_y = np.where(np.cos(w) > 0, -(1.0 + swell) * np.cos(w), -hang * np.cos(w))
    return {"hair": _xy(cap_x, cap_y), "back_hair": _xy((who.half_width + swell + 0.03) * np.sin(w), back_y)}


def _skin_lines(a: _Actions) -> dict[str, Floats]:
    """Lines that raised or lowered brows press into the forehead."""
    x = np.linspace(-1.0, 1.0, 7)
    lift = 0.03 * (a["brow_inner"] + a["brow_outer"])
    shapes = {f"wrinkle_{i}": _xy(0.32 * x, y - lift - 0.03 * (1 - x**2)) for i, y in enumerate((-0.45, -0.54))}
    for index, side in enumerate(_SIDES):
        frown_x = side * np.array([0.055, 0.048, 0.055])
        shapes[f"glabella_{index}"] = _xy(frown_x, np.array([-0.24, -0.17, -0.1]))
    return shapes


def _eyes(who: Identity, a: _Actions) -> dict[str, Floats]:
    t = np.linspace(-1.0, 1.0, 9)
    arch = 1.0 - t**2
    openness = 1.0 + 0.85 * a["lid_raise"] - 0.55 * a["squint"] - a["blink"] - 0.25 * a["brow_lower"]  # [k, 1]
    up = 1.25 * who.eye_open * np.clip(openness, 0.06, 2.0)
    low = who.eye_open * np.clip(openness, 0.06, 1.1) * (1.0 - 0.45 * a["squint"])
    lids_y = np.concatenate([-up * arch, (low * arch)[:, -2:0:-1]], 1)  # [k, 16]
    shapes: dict[str, Floats] = {}
    for index, side in enumerate(_SIDES):
        x = side * who.eye_distance + who.eye_width * t
        shapes[f"eye_{index}"] = _xy(np.concatenate([x, x[-2:0:-1]]), lids_y)
        shapes[f"lid_{index}"] = _xy(x, -up * arch)
        shapes[f"crease_{index}"] = _xy(x, -up * arch - 0.035)
        for name, radius in (("iris", 0.082), ("pupil", 0.040)):
            ix = radius * np.cos(_CIRCLE)
            # What the lids cover is not drawn: the circle is flattened against them.
            opening = 1.0 - np.minimum(1.0, (ix / who.eye_width) ** 2)
            iy = np.clip(radius * np.sin(_CIRCLE) - 0.01, -up * opening, low * opening)
            shapes[f"{name}_{index}"] = _xy(side * who.eye_distance + ix, iy)
    return shapes


def _brows(who: Identity, a: _Actions) -> dict[str, Floats]:
    s = np.linspace(0.0, 1.0, 6)  # along the brow, from its inner end
    raised = a["brow_inner"] * (1.0 - s) ** 1.2 + a["brow_outer"] * s**0.7  # [k, 6]
    lowered = a["brow_lower"] * (1.0 - 0.75 * s)
    rest = -who.brow_height - 0.045 * np.sin(np.pi * np.clip(s * 1.1, 0, 1)) + who.brow_tilt * (1 - 2 * s)
    x = who.eye_distance + (s - 0.42) * 2.35 * who.eye_width - 0.05 * lowered
    y = rest - 0.17 * raised + 0.15 * lowered - 0.02 * a["lid_raise"]
    half = 0.5 * who.brow_thickness * (1.0 - 0.55 * s)
    return {f"brow_{i}": _band(side * x, y - half, y + half) for i, side in enumerate(_SIDES)}


def _glasses(who: Identity) -> dict[str, Floats]:
    rim_x, rim_y = 0.235 * np.cos(_CIRCLE), 0.02 + 0.235 * np.sin(_CIRCLE)
    shapes = {f"glass_{i}": _xy(side * who.eye_distance + rim_x, rim_y) for i, side in enumerate(_SIDES)}
    bridge_x = np.array([-1.0, 0.0, 1.0]) * (who.eye_distance - 0.23)
    return {**shapes, "glass_bridge": _xy(bridge_x, np.array([0.0, -0.02, 0.0]))}


def _nose(who: Identity, a: _Actions) -> dict[str, Floats]:
    tip = who.nose_length - 0.07 * a["nose_wrinkle"]  # [k, 1]
    wide = who.nose_width * (1.0 + 0.2 * a["nose_wrinkle"] + 0.08 * a["smile"])
    x, y = np.array([0.32, 0.36, 0.75, 1.0]), np.array([0.02, 0.45, 0.8, 1.0])
    base_x, base_y = np.array([-1.0, -0.6, 0.0, 0.6, 1.0]), np.array([-0.03, 0.035, 0.05, 0.035, -0.03])
    shapes = {
        "nose": _xy(np.concatenate([x, -x[::-1]]) * wide, np.concatenate([y, y[::-1]]) * tip),
        "nose_base": _xy(base_x * wide, tip + base_y),
    }
    for index, height in enumerate((0.03, 0.11)):
        shapes[f"bridge_{index}"] = _xy(np.array([-0.08, 0.0, 0.08]), height - np.array([0.0, 0.02, 0.0]))
    for index, side in enumerate(_SIDES):
        fold_x = side * (np.array([1.15, 1.6, 2.0]) * who.nose_width + 0.04 * a["smile"])
        shapes[f"fold_{index}"] = _xy(fold_x, tip + np.array([-0.03, 0.06, 0.17]) - 0.04 * a["smile"])
    return shapes


def _mouth(who: Identity, a: _Actions) -> dict[str, Floats]:
    t = np.linspace(-1.0, 1.0, 11)
    arch = 1.0 - t**2
    corner = who.mouth_rest - 0.12 * a["smile"] + 0.15 * a["lip_down"]  # [k, 1], down is positive
    half = who.mouth_width * (1.0 + 0.3 * a["smile"] + 0.25 * a["stretch"] - 0.16 * a["press"] - 0.22 * a["jaw"])
    gap_up = 0.012 + 0.025 * a["part"] + 0.03 * a["nose_wrinkle"] * a["part"]
    gap_low = 0.012 + 0.035 * a["part"] + 0.20 * a["jaw"]
    lip = who.lip * (1.0 - 0.65 * a["press"]) * (1.0 - 0.2 * a["smile"])
    x = half * t  # [k, 11]
    y = who.mouth_y + 0.02 * a["jaw"] - 0.045 * a["nose_wrinkle"] + 0.01 * a["press"]
    y = y + corner * np.abs(t) ** 3 - 0.35 * corner * arch  # the middle moves against the corners
    inner_up, inner_low = y - gap_up * arch, y + gap_low * arch
    bow = arch * (1.0 - 0.18 * np.exp(-((t / 0.22) ** 2)))  # Cupid's bow
    outer_up, outer_low = inner_up - lip * bow, inner_low + 1.15 * lip * arch**0.8
    chin_y = who.mouth_y + gap_low + 0.2 - 0.03 * np.array([0.0, 1.0, 0.0])
    return {
        "lips": _band(x, outer_up, outer_low),
        "mouth": _band(x, inner_up, inner_low),
        "teeth": _band(0.86 * x, inner_up, np.minimum(inner_low, inner_up + 0.05)),
        "moustache": _band(1.05 * x, outer_up - 0.075 * arch, outer_up + 0.01),
        "chin": _xy(np.array([-0.16, 0.0, 0.16]), chin_y),
    }


# ------------------------------------------------------------------------------------------------------------ helpers
def _xy(x: Floats, y: Floats) -> Floats:
    """Joins coordinates that broadcast: `[k or 1, m]` or `[m]` -> `[k or 1, m, 2]`."""
    return np.stack(np.broadcast_arrays(np.atleast_2d(x), y), -1)


def _band(x: Floats, upper: Floats, lower: Floats) -> Floats:
    """Closes two lines over the same x to a polygon: `[k, m]` -> `[k, 2m, 2]`."""
    return _xy(np.concatenate([x, x[:, ::-1]], 1), np.concatenate([upper, lower[:, ::-1]], 1))


def blend(a: Color, b: Color, share: float) -> Color:
    """From color `a` (share 0) to `b` (share 1)."""
    return (a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1]), a[2] + share * (b[2] - a[2]))


def _jitter(color: Color, amount: float, rng: np.random.Generator) -> Color:
    r, g, b = (float(np.clip(c + rng.uniform(-amount, amount), 0, 255)) for c in color)
    return (r, g, b)
