"""Smoothing of one face's answers, and the label that is held.

A classifier read several times a second flickers between two labels that are nearly as likely. Probabilities are
averaged over time first, then the held label gives way only to one that is clearly likelier, and where no class is
likely enough the label is 'uncertain'. None of it knows what is right: it only says what the model kept saying.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...errors import UsageError
from .contract import UNCERTAIN

Shares = npt.NDArray[np.float32]  # [C]


@dataclass(frozen=True)
class AnswerConfig:
    """How answers are read.

    Attributes:
        smooth_s: time constant of the average, seconds; 0 takes every answer as it is.
        margin: how much likelier than the held label another one must be to replace it; and how far below `gate` the
            held label may fall before it is given up. A share of 1.
        gate: the least share of 1 that a label needs to be taken; 0 takes every label.
    """

    smooth_s: float = 0.5
    margin: float = 0.1
    gate: float = 0.4

    def __post_init__(self) -> None:
        if not (0 <= self.smooth_s <= 60):
            raise UsageError(f"smooth_s is {self.smooth_s}; a time constant of 0 to 60 seconds is expected.")
        for name, value in (("margin", self.margin), ("gate", self.gate)):
            if not 0 <= value < 1:
                raise UsageError(f"{name} is {value}; a share of 0 up to, but not 1 is expected.")


class Smoother:
    """Exponential average of probabilities at irregular times.

    After a pause of dt the new answer weighs 1 - exp(-dt / tau), so the average forgets at the same pace at any rate of
    answers. Probabilities that sum to 1 stay so.

    Args:
        smooth_s: tau; 0 gives back what comes in.
    """

    def __init__(self, smooth_s: float) -> None:
        self._smooth_s = smooth_s
        self._mean: npt.NDArray[np.float64] | None = None
        self._time_s = -math.inf

    def reset(self) -> None:
        """Forgets everything, as after a lost face."""
        self._mean, self._time_s = None, -math.inf

    def add(self, probabilities: Shares, time_s: float) -> Shares:
        """Takes the next answer, float32 `[C]`, and gives the average, float32 `[C]`."""
        fresh = probabilities.astype(np.float64)
        if self._mean is None or self._smooth_s == 0:
            self._mean = fresh
        else:
            weight = -math.expm1(-max(time_s - self._time_s, 0.0) / self._smooth_s)
            self._mean = self._mean + weight * (fresh - self._mean)
        self._time_s = time_s
        return self._mean.astype(np.float32)


class HeldLabel:
    """The label that is shown, held with hysteresis behind a gate.

    Args:
        labels: the C class names.
        gate, margin: see `AnswerConfig`.
    """

    def __init__(self, labels: tuple[str, ...], gate: float, margin: float) -> None:
        self._labels, self._gate, self._margin = labels, gate, margin
        self._held: int | None = None

    def reset(self) -> None:
        """Forgets the label."""
        self._held = None

    def update(self, probabilities: Shares) -> str:
        """The label after these probabilities, float32 `[C]`, or 'uncertain'."""
        # As Python's floats: numpy 1 and 2 disagree about a float32 beside one, which would show at the thresholds.
        shares, held = [float(share) for share in probabilities], self._held
        best = int(probabilities.argmax())
        if held is not None and shares[held] < self._gate - self._margin:
            held = None
        if held is None or shares[best] >= shares[held] + self._margin:
            # Out of uncertainty, and from one label to another, the gate itself must be reached.
            held = best if shares[best] >= self._gate else held
        self._held = held
        return UNCERTAIN if held is None else self._labels[held]
