"""The order in which groups are excluded, and where it ends: on answers that are written here, no graph."""

from __future__ import annotations

import numpy as np
import pytest
from logoformer.calibration.gate import BUDGETS
from logoformer.calibration.sensitivity import RMS_LIMIT, sensitivity

HARM = {"a": 0.01, "b": 0.4, "c": 0.02, "d": 0.8}  # deviations between clips, root mean square
MACS = dict.fromkeys(HARM, 1)
RANDOM = np.random.default_rng(0)
LOGITS = 4 * RANDOM.standard_normal((128, 7))
LABELS = LOGITS.argmax(1)


def centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean(1, keepdims=True)


DEVIATION = np.sqrt(centred(LOGITS).var(0).mean())
NOISE = {name: centred(RANDOM.standard_normal(LOGITS.shape)) for name in HARM}


def answers(excluded: tuple[str, ...] = tuple(HARM)) -> np.ndarray:
    moved = LOGITS.copy()
    for name, harm in HARM.items():
        if name not in excluded:
            noise = NOISE[name]
            moved += harm * DEVIATION * noise / np.sqrt(np.square(noise).mean())
    e = np.exp(moved)
    return (e / e.sum(1, keepdims=True)).astype(np.float32)


def test_the_most_harmful_go_first_and_no_more_than_must():
    found = sensitivity(answers, answers(), LABELS, MACS, 8, BUDGETS["int8"])
    assert [row.group for row in found.groups] == ["d", "b", "c", "a"]
    assert [row.harm for row in found.groups] == pytest.approx([0.8, 0.4, 0.02, 0.01], rel=0.02)
    assert [step.excluded for step in found.steps] == [(), ("d",), ("d", "b")] and found.excluded == ("d", "b")
    assert [step.holds for step in found.steps] == [False, False, True]
    assert found.steps[1].harm > RMS_LIMIT >= found.steps[2].harm
    assert [step.int8_share for step in found.steps] == [0.5, 0.375, 0.25]
