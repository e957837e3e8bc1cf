"""The golden clips answered through an engine's own sessions, and how far the answers are from PyTorch's.

`verify.py`, `verify_engines.py` and `selftest.py` say what this file finds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..bundle import MIXED, Golden, StreamSpec
from ..clips import window_order
from .sessions.contract import Session

if TYPE_CHECKING:
    from .runtime import Runtime

SHARES = {"fp32": 0.001, "fp16": 0.05, "int8": 0.25, MIXED: 0.25}  # of the deviation between clips
CLIP, PAIR = "clip", "frame + temporal"


@dataclass(frozen=True)
class Check:
    """One way through the graphs, held against the golden answers.

    Attributes:
        what: `CLIP` or `PAIR`.
        share: largest logit difference over the deviation between golden clips; None when an answer is not finite.
        agreement: share of golden clips with PyTorch's class.
        allowed: the largest share that passes, by precision.
        passed: whether it does.
    """

    what: str
    share: float | None
    agreement: float
    allowed: float
    passed: bool


def check_engine(engine: Runtime, golden: Golden) -> tuple[Check, Check]:
    """Answers the golden clips by the clip graph and by the streaming pair."""
    return (
        check_answers(CLIP, clip_answers(engine, golden), golden, engine.precision),
        check_answers(PAIR, pair_answers(engine, golden), golden, engine.precision),
    )


def check_answers(what: str, answers: npt.NDArray[np.float32], golden: Golden, precision: str) -> Check:
    """Judges answers, float32 `[G, C]`, by the bound of their precision."""
    share, agreement = distance(answers, golden.probabilities)
    allowed = SHARES[precision]
    return Check(what, share if np.isfinite(share) else None, agreement, allowed, share <= allowed)


def clip_answers(engine: Runtime, golden: Golden) -> npt.NDArray[np.float32]:
    """Probabilities of the golden clips by the clip graph, float32 `[G, C]`."""
    return answers_of_clip(engine.session("clip"), golden)


def answers_of_clip(session: Session, golden: Golden) -> npt.NDArray[np.float32]:
    """Probabilities of the golden clips by one session of the clip graph, float32 `[G, C]`."""
    answers = []
    for clip in golden.clips:
        np.copyto(session.input("clip")[0], clip)
        session.run()
        answers.append(session.output("probabilities")[0].copy())
    return np.stack(answers)


def pair_answers(engine: Runtime, golden: Golden) -> npt.NDArray[np.float32]:
    """The same by `frame` and `temporal`, the frames filed in the ring's first slots, float32 `[G, C]`."""
    spec = engine.bundle.stream
    frame, temporal = engine.session("frame"), engine.session("temporal")
    order = window_order(spec.frames, spec.grid, spec.window)
    answers = []
    for clip in golden.clips:
        for slot, image in enumerate(clip):
            np.copyto(frame.input("frame")[0], image)
            frame.run()
            temporal.take(frame, "tokens", "ring", slot * spec.tokens_per_frame)
        np.copyto(temporal.input("order"), order, casting="same_kind")
        temporal.run()
        answers.append(temporal.output("probabilities")[0].copy())
    return np.stack(answers)


def answers_of_pair(
    frame: Session, temporal: Session, spec: StreamSpec, golden: Golden, batch: int = 1
) -> npt.NDArray[np.float32]:
    """The same by sessions of two backends: the tokens go through the host, float32 `[G, C]`.

    Args:
        frame: of any backend.
        temporal: of any backend; its ring was not filled by `take`.
        spec: of the bundle.
        golden: the clips.
        batch: of `frame`; a rest that does not fill it is padded with what stood there.
    """
    order = window_order(spec.frames, spec.grid, spec.window)
    answers = []
    for clip in golden.clips:
        for first in range(0, len(clip), batch):
            images = clip[first : first + batch]
            np.copyto(frame.input("frame")[: len(images)], images)
            frame.run()
            tokens = frame.output("tokens")[: len(images)]  # [b, n, d]
            rows = tokens.reshape(-1, tokens.shape[-1])
            place = first * spec.tokens_per_frame
            np.copyto(temporal.input("ring")[place : place + len(rows)], rows)
        np.copyto(temporal.input("order"), order, casting="same_kind")
        temporal.run()
        answers.append(temporal.output("probabilities")[0].copy())
    return np.stack(answers)


def distance(answers: npt.NDArray[np.float32], truth: npt.NDArray[np.float32]) -> tuple[float, float]:
    """How far answers are from the truth.

    Centred log-probabilities are the logits up to a constant. Their difference is taken as a share of the standard
    deviation *between clips*: an untrained network answers alike for every clip, and an absolute bound would prove
    nothing on it.

    Args:
        answers: float32 `[N, C]`.
        truth: float32 `[N, C]`, for the same clips.

    Returns:
        (largest difference over the deviation, share of clips with the same class); infinite when an answer is not
        finite, or when all clips have one answer.
    """
    wanted = centred_logits(truth)
    deviation = float(np.sqrt(wanted.var(0).mean()))
    if not np.isfinite(answers).all() or deviation == 0:
        return float("inf"), 0.0
    share = float(np.abs(centred_logits(answers) - wanted).max()) / deviation
    return share, float((answers.argmax(1) == truth.argmax(1)).mean())


def centred_logits(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Logits of mean zero: `[N, C]` -> `[N, C]`."""
    logs = np.log(np.maximum(probabilities.astype(np.float64), 1e-45))
    centred: npt.NDArray[np.float64] = logs - logs.mean(1, keepdims=True)
    return centred
