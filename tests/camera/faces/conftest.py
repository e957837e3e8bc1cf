"""Pictures of faces, and simulated people whose faces a detector finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from logoformer.camera.faces.contract import Detection
from PIL import Image

# Marked by hand in scikit-image's `astronaut`, to 1.5 pixels; pixel i spans i to i + 1.
EYES = ((203.6, 101.0), (245.8, 102.8))


@pytest.fixture(scope="session")
def detector():
    """The detector of the package, both networks."""
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (the extra 'cpu' or 'gpu')")
    from logoformer.camera.faces.blaze import RefinedDetector

    return RefinedDetector()


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """uint8 `[512, 512, 3]`, RGB."""
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed (the extra 'dev')")
    return data.astronaut()


@pytest.fixture(scope="session")
def placed(astronaut: np.ndarray) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """`placed(eye_distance, degrees, at=(x, y))`: the astronaut in 640 x 480, and where her eyes are: `[2, 2]`."""

    def place(
        eye_distance: float, degrees: float = 0.0, at: tuple[float, float] = (320.0, 200.0)
    ) -> tuple[np.ndarray, np.ndarray]:
        eyes = np.array(EYES)
        scale = eye_distance / np.hypot(*(eyes[1] - eyes[0]))
        # An area filter, where it shrinks; then only turned.
        side = round(512 * scale)
        image = Image.fromarray(astronaut).resize((side, side), Image.Resampling.BOX if scale < 1 else Image.BICUBIC)
        eyes = eyes * side / 512
        angle = np.deg2rad(degrees)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shift = np.array(at) - turn @ eyes.mean(axis=0)
        back = np.column_stack([turn.T, -turn.T @ shift])
        picture = image.transform((640, 480), Image.Transform.AFFINE, tuple(back.ravel()), Image.Resampling.BICUBIC)
        return np.asarray(picture), eyes @ turn.T + shift

    return place


def face_at(x: float, y: float, width: float = 80.0, score: float = 0.9) -> Detection:
    """A detection as a detector would give it for a face at a place."""
    half = width / 2
    points = {
        "left_eye": (x - 0.2 * width, y - 0.15 * width),
        "right_eye": (x + 0.2 * width, y - 0.15 * width),
        "nose": (x, y + 0.05 * width),
        "mouth": (x, y + 0.25 * width),
    }
    return Detection((x - half, y - half, x + half, y + half), score, points)


@pytest.fixture(scope="session")
def make_face() -> Callable[..., Detection]:
    """`make_face(x, y, width)`: a detection."""
    return face_at


@pytest.fixture(scope="session")
def photos() -> Path:
    """A folder of photographs of people, see its NOTICE."""
    return Path(__file__).parent / "data"
