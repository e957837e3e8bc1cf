"""The result of a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import VerificationError, command


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


def make_result(
    labels: tuple[str, ...],
    probabilities: npt.NDArray[np.float32],
    marks_ns: Mapping[str, int],
    started_ns: int,
    received_ns: int,
    time_s: float | None,
    sequence: int,
) -> Result:
    """Builds a result from a session's output.

    Args:
        labels: C names.
        probabilities: float32 `[C]`, a session's buffer; copied.
        marks_ns: when each stage ended, in order.
        started_ns: when the call began.
        received_ns: when the newest frame was handed over.
        time_s: see `Result`.
        sequence: see `Result`.

    Raises:
        VerificationError: a probability is NaN or infinite.
    """
    own = probabilities.copy()
    if not np.isfinite(own).all():
        raise VerificationError(
            f"The answer is not finite: {own.tolist()}. No label was made of it.",
            cause="an overflow in a 16-bit graph, or a damaged model",
            next=command("logoformer", "verify", "BUNDLE"),
        )
    index = int(own.argmax())
    stages, before = {}, started_ns
    for name, mark in marks_ns.items():
        stages[name] = (mark - before) / 1e6
        before = mark
    return Result(labels[index], index, own, stages, (before - received_ns) / 1e6, time_s, sequence)
