"""What finds and cuts the faces of a source, by the name of a mode."""

from __future__ import annotations

from ...bundle import Bundle
from ...bundle.alignment import Alignment
from ...errors import BadInputError
from ..answers.contract import FaceCrop
from ..faces.crop import face_crop
from ..faces.finder import FaceFinder
from ..sources.contract import TimedFrame
from .faces import CutFaces, FaceCutter, GivenFace, check_face_mode


def open_cutter(mode: str, bundle: Bundle, finder: FaceFinder | None = None) -> FaceCutter:
    """Opens what cuts faces for one source.

    Args:
        mode: 'detect', 'whole' or 'center'.
        bundle: whose alignment and size crops have.
        finder: finds and follows faces; None: one with the detector of this package.

    Raises:
        UsageError: an unknown mode.
        MachineError: ONNX Runtime, which runs the detector, is not installed.
    """
    if check_face_mode(mode) != "detect":
        return GivenFace(mode)
    return DetectedFaces(finder or FaceFinder(), bundle.alignment, bundle.image_size)


class DetectedFaces:
    """Every face that is found and followed, aligned as the model was trained.

    Args:
        finder: of one source.
        alignment: where eyes and mouth lie in a crop; None for a bundle that says nothing of it: squares are cut.
        size: S, side of a crop.
    """

    def __init__(self, finder: FaceFinder, alignment: Alignment | None, size: int) -> None:
        self._finder, self._alignment, self._size = finder, alignment, size

    def cut(self, timed: TimedFrame) -> CutFaces:
        found = self._finder.find(timed.frame, timed.color, timed.time_s, timed.epoch)
        crops, skipped = [], dict(found.skipped)
        for face in found.faces:
            try:
                pixels = face_crop(timed.frame, face, self._alignment, self._size)
            except BadInputError:  # points that are those of no face
                skipped["misread"] = skipped.get("misread", 0) + 1
                continue
            crops.append(FaceCrop(face.id, face.box, face.score, pixels, face.reset))
        return CutFaces(tuple(crops), found.gone, skipped)
