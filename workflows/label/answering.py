"""Answers to one recording, and what gives them for a list of recordings."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ... import __version__
from ...camera.clip_files import read_clip
from ...camera.faces.finder import FaceFinder
from ...camera.run import run_source
from ...camera.sources.open import open_source
from ...errors import BadInputError, RefusedError, UsageError, VerificationError, one_of
from .recordings import ArchiveItem

if TYPE_CHECKING:
    from ...engine import Runtime

FACES = ("detect", "whole", "center")
DAMAGED = (BadInputError, RefusedError, VerificationError)  # of one recording; anything else ends the run
_KEPT = ("time_s", "frame", "face", "box", "label", "probabilities", "partial")  # of a line of `run`
Found = dict[str, Any]  # {"answers": [...]}, or {"error": text} of a recording that cannot be read


@dataclass(frozen=True)
class LabelConfig:
    """How recordings are answered.

    Attributes:
        face: 'detect' finds and follows faces, with an answer each `hop` frames; 'center' does so in the middle of the
            picture; 'whole' gives one answer for a recording, which is a clip of a face, as in training.
        hop, warmup: see `Runtime.stream`; of 'detect' and 'center'.
    """

    face: str = "detect"
    hop: int = 4
    warmup: str = "wait"

    def __post_init__(self) -> None:
        if self.face not in FACES:
            raise UsageError(f"Unknown face {self.face!r}.", next=f"choose from {one_of(FACES)}")


class Labeller(Protocol):
    """What answers recordings.

    Attributes:
        bundle: folder of the model, as the call named it.
        start_s: seconds that it took until the first recording could be begun, once `answers` was called.
    """

    bundle: Path
    start_s: float

    def prepare(self) -> Mapping[str, Any]:
        """Makes everything ready; returns the provenance of its answers (`provenance_of`)."""

    def answers(self, items: Sequence[ArchiveItem]) -> Iterator[tuple[ArchiveItem, Found]]:
        """Each recording with its answers, once, in any order."""

    def to_json(self) -> dict[str, Any] | None:
        """What is to be told about it after a run."""


class PlainLabeller:
    """One recording after the other in this process.

    Args:
        runtime: what `logoformer.load` gave.
        config: how recordings are answered.
    """

    start_s = 0.0

    def __init__(self, runtime: Runtime, config: LabelConfig) -> None:
        self._runtime, self._config = runtime, config
        self.bundle = runtime.bundle.path

    def prepare(self) -> Mapping[str, Any]:
        return provenance_of(self._runtime, self._config)

    def answers(self, items: Sequence[ArchiveItem]) -> Iterator[tuple[ArchiveItem, Found]]:
        for item in items:
            yield item, answer_recording(self._runtime, item.path, item.shown, self._config)

    def to_json(self) -> dict[str, Any] | None:
        return None


def provenance_of(runtime: Runtime, config: LabelConfig) -> dict[str, Any]:
    """What decides about an answer: this package's version, bundle, precision, backend, options."""
    return {
        "logoformer": __version__, "bundle": runtime.bundle.path.name, "digest": runtime.bundle.manifest["digest"],
        "precision": runtime.precision, "backend": runtime.backend, "labels": list(runtime.labels), **asdict(config),
    }  # fmt: skip


def open_sessions(runtime: Runtime, config: LabelConfig) -> None:
    """Open what answers need, where it is not open yet.

    Outside of what is caught for a recording: a damaged graph says nothing about the recording that met it first.

    Args:
        runtime: on its own thread.
        config: how recordings are answered.

    Raises:
        RefusedError: a graph of the bundle, or the face detector, is not what it was packed as.
        MachineError: ONNX Runtime, which runs the detector, is not installed.
    """
    if config.face == "whole":
        runtime.session("clip")
        return
    together = config.face == "detect"  # only faces of one frame share a batch
    for batch in sorted({1, *(runtime.frame_batches if together else ())}):
        runtime.session("frame", batch)
    for batch in sorted({1, *(runtime.temporal_batches if together else ())}):
        runtime.session("temporal", batch)
    if together:
        _require_detector()


@functools.cache
def _require_detector() -> None:
    """Opens the face detector once in a process; each recording opens its own."""
    FaceFinder()


def answer_recording(runtime: Runtime, path: Path, shown: str, config: LabelConfig) -> Found:
    """Answers to one recording, or what is wrong with it.

    Args:
        runtime: on its own thread.
        path: the recording.
        shown: its name in the text of an error, instead of its place on this machine.
        config: how it is answered.

    Raises:
        MachineError: a decoder is missing.
        DeviceLostError: the device is gone.
        LogoformerError: as `open_sessions`; the recording was not looked at.
    """
    open_sessions(runtime, config)
    bundle, place = runtime.bundle, path.absolute()  # a file that is called 0 is a file here, not the first camera
    try:
        if config.face == "whole":
            result = runtime(read_clip(place, bundle.sampling, bundle.image_size), color="rgb")
            shares = dict(zip(runtime.labels, map(float, result.probabilities), strict=True))
            return {"answers": [{"label": result.label, "probabilities": shares}]}
        answers: list[dict[str, Any]] = []
        with open_source(place, bundle.sampling.fps) as source:
            done = run_source(runtime, source, config.face, config.hop, config.warmup, on_result=answers.append)
        if done.stopped:
            raise KeyboardInterrupt
        return {"answers": [{name: line[name] for name in _KEPT if name in line} for line in answers]}
    except DAMAGED as error:
        return {"error": f"{type(error).__name__}: {error.what.replace(os.fspath(place), shown)}"}
