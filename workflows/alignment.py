"""Learn where training crops show eyes and mouth, for a camera's crops to show them there."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..bundle.alignment import STANDARD, USED, Alignment, learned
from ..errors import BadInputError, LogoformerError, printable

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..camera.faces.contract import Detector
    from ..clips import Clip
    from ..model.data.clips import ClipSource, Progress

_log = logging.getLogger(__name__)

CROPS = 256
FEWEST = 20  # crops with a face below which a median says nothing
SIZE = 224  # side in which a crop is looked at
MOST_APART = 0.06  # sides: clips whose faces lie farther from where they should are of another alignment


def alignment_for(
    data: str | os.PathLike[str] | None,
    align_from: str | os.PathLike[str] | None,
    fold: int,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Alignment:
    """The alignment that an export writes.

    Args:
        data: a data set that is read anyhow; where it shows too few faces, the default is taken.
        align_from: a data set that was named for this, so that too few faces are an error.
        fold: 1 to 5; its training split is looked at.
        seed: of the choice of crops.
        progress: called with (stage, done, total).

    Raises:
        BadInputError: too few faces in `align_from`, or no data set.
        MachineError: ONNX Runtime is not installed, and `align_from` was given.
    """
    root = align_from or data
    if root is None:
        return STANDARD
    from ..model.data.datasets import open_clips
    from ..model.data.listing import Reading

    source = open_clips(root, "train", fold, Reading(SIZE))
    try:
        return learn_alignment(source, Path(root).name, seed=seed, progress=progress)
    except LogoformerError as error:
        if align_from is not None:
            raise
        _log.warning("the alignment stays uncalibrated: %s", printable(error.what))
        return STANDARD


def learn_alignment(
    source: ClipSource,
    name: str,
    *,
    crops: int = CROPS,
    seed: int = 0,
    detector: Detector | None = None,
    progress: Progress | None = None,
) -> Alignment:
    """The median places of eyes and mouth in training crops.

    They are found by the detector that also looks at the camera. Where that is off by a constant, it is off in both
    places, so that this does not matter.

    Args:
        source: clips of a training split; the middle frame of some is looked at.
        name: of the data set, for the record.
        crops: how many, at most.
        seed: of their choice.
        detector: None takes the one of this package.
        progress: called with (stage, done, total).

    Raises:
        BadInputError: fewer than `FEWEST` of them, or fewer than half, show a face.
        MachineError: ONNX Runtime is not installed.
    """
    chosen = np.sort(np.random.default_rng([seed, 0xA119]).permutation(len(source))[:crops])
    finder = detector or crop_detector()
    places = []
    for done, index in enumerate(chosen):
        if progress is not None:
            progress("align", done, len(chosen))
        frames = source.frames(int(index), [source.count(int(index)) // 2])
        places += _places(frames, finder)
    if progress is not None:
        progress("align", len(chosen), len(chosen))
    if len(places) < max(FEWEST, len(chosen) / 2):
        raise BadInputError(
            f"Eyes and mouth were found in {len(places)} of {len(chosen)} crops of {name}; at least "
            f"{max(FEWEST, -(-len(chosen) // 2))} are needed.",
            cause="pictures that are no crops of faces, or too few of them",
            next="give --align-from the crops that the model was trained on, or leave it out",
        )
    return learned(np.stack(places), name)


def crop_detector() -> Detector:
    """The detector for pictures that are known to be crops of faces."""
    from ..camera.faces.blaze import KNOWN_THRESHOLD, RefinedDetector

    return RefinedDetector(threshold=KNOWN_THRESHOLD)


def compare_alignment(bundle: Bundle, clips: Clip, name: str) -> float | None:
    """How far the faces of clips lie from where the bundle's model expects them.

    Training, calibration and camera have to show faces alike; a distance above `MOST_APART` is logged.

    Args:
        bundle: opened for reading.
        clips: uint8 `[N, T, S, S, 3]`, RGB; the middle frame of some is looked at.
        name: of what they are, for the record.

    Returns:
        The largest distance of a median place from its target, in sides; None where the bundle's alignment is no
        learned one, or too few faces were found.
    """
    from PIL import Image

    if bundle.alignment is None or not bundle.alignment.calibrated:
        return None
    finder, places = crop_detector(), []
    for clip in clips[:: max(1, len(clips) // 64)]:
        large = Image.fromarray(clip[len(clip) // 2]).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        places += _places(np.asarray(large)[None], finder)
    if len(places) < FEWEST:
        return None
    targets = np.array([getattr(bundle.alignment, point) for point in USED])
    distance = float(np.linalg.norm(np.median(places, axis=0) - targets, axis=1).max())
    if distance > MOST_APART:
        _log.warning(
            "faces of %s lie %.0f %% of the side from where those of the training crops of %s did",
            printable(name), 100 * distance, printable(bundle.path),
        )  # fmt: skip
    return distance


def _places(frames: Clip, detector: Detector) -> list[npt.NDArray[np.float64]]:
    """Eyes and mouth of the largest face of each crop, in sides: `[3, 2]` each."""
    found = []
    for frame in frames:
        faces = detector.detect(frame)
        if faces:
            face = max(faces, key=lambda one: one.width)
            side = np.array(frame.shape[1::-1], np.float64)
            found.append(np.array([face.points[point] for point in USED]) / side)
    return found
