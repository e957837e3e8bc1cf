"""The result of a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Result:
    """One answer. Two results are equal only if they are the same object.

    Attributes:
        label: the most probable class.
        index: its place in `labels`.
        probabilities: float32 `[C]`, the caller's own copy.
        stages_ms: wall-clock milliseconds of each stage of this call, in order. 'queue' comes first where a worker kept
            it waiting, 'decode' where a file was read, 'open' where a session had to be opened for it. Faces of one
            `runtime.step` share the stages that they went through together.
        age_ms: from the newest frame's handing over (to `push`, `step` or `submit`) to this answer.
        time_s: capture time of the newest frame, as the caller gave it; None for a clip.
        sequence: counts the answers of one stream (or of the runtime's clip calls) from 0.
    """

    label: str
    index: int
    probabilities: npt.NDArray[np.float32]
    stages_ms: Mapping[str, float]
    age_ms: float
    time_s: float | None
    sequence: int

    def __repr__(self) -> str:
        when = "" if self.time_s is None else f", time_s={self.time_s:.3f}"
        return f"Result({self.label!r}, confidence={self.confidence:.3f}{when}, sequence={self.sequence})"

    @property
    def confidence(self) -> float:
        """Probability of `label`."""
        return float(self.probabilities[self.index])
