"""Pictures as JPEG and the state as JSON, made once for all who look."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from ..answers.drawing import draw_frame, to_image
from ..answers.streams import FaceView
from ..pipeline.board import Board, CameraState

QUALITY = 80
PICTURE_SIDE, CROP_SIDE = 960, 128  # pixels, at most


class Views:
    """Pictures and state of a board.

    Args:
        board: of the watch.
    """

    def __init__(self, board: Board) -> None:
        self.board = board
        self._began_s = time.monotonic()
        self._locks = [threading.Lock() for _ in board.names]
        self._pictures: list[tuple[int, bytes]] = [(0, b"") for _ in board.names]
        self._state_lock = threading.Lock()
        self._state: tuple[int, bytes] = (-1, b"")

    def picture(self, camera: int, after: int, timeout_s: float) -> tuple[int, bytes]:
        """A picture newer than number `after` as JPEG, with its number.

        The same again where none came in time; b"" before the first.
        """
        shown = self.board.picture(camera, after, timeout_s)
        if shown.seen is None:
            return 0, b""
        with self._locks[camera]:
            number, picture = self._pictures[camera]
            if number < shown.number:
                number, picture = shown.number, jpeg(draw_frame(shown.seen, shown.held, PICTURE_SIDE))
                self._pictures[camera] = number, picture
        return number, picture

    def state(self, after: int, timeout_s: float) -> tuple[int, bytes]:
        """A state newer than version `after` as JSON, or the same again; with its version."""
        version, cameras = self.board.state(after, timeout_s)
        with self._state_lock:
            if self._state[0] < version:
                self._state = version, json.dumps(self._to_json(cameras), allow_nan=False).encode()
            return self._state

    def _to_json(self, cameras: tuple[CameraState, ...]) -> dict[str, Any]:
        shown = [
            asdict(replace(one, faces=())) | {"faces": [_face_json(face) for face in one.faces]} for one in cameras
        ]
        return {
            "watch": self.board.facts,
            "at": time.time(),
            "up_s": time.monotonic() - self._began_s,
            "cameras": shown,
        }


def _face_json(face: FaceView) -> dict[str, Any]:
    answer = face.answer
    shown: dict[str, Any] = {"id": face.id, "warm": round(face.warm, 3), "crop": None, "answer": None}
    if face.crop is not None:
        image = to_image(np.asarray(face.crop), face.color)
        image.thumbnail((CROP_SIDE, CROP_SIDE))
        shown["crop"] = "data:image/jpeg;base64," + base64.b64encode(jpeg(image)).decode()
    if answer is not None:
        shown["answer"] = {
            "label": answer.label,
            "uncertain": answer.uncertain,
            "confidence": round(answer.confidence, 4),
            "probabilities": [round(float(share), 4) for share in answer.probabilities],
            "raw_label": answer.result.label,
            "at": answer.captured_at,
            "age_ms": round(answer.age_ms, 1),
            "sequence": answer.result.sequence,
            "epoch": answer.epoch,
        }
    return shown


def jpeg(image: Any) -> bytes:
    """A Pillow image as JPEG."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
