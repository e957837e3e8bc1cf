"""Golden clips on a runtime's own sessions, compared with PyTorch's answers; self-test.

`verify` judges a bundle on a machine and records the verdict. The self-test judges a machine that is about to work: one
precision, one backend, nothing written. It finds a GPU that computes wrongly (a driver, a clock, damaged memory, an
engine of another model) before the first frame.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..bundle import MIXED, Golden, StreamSpec
from ..clips import window_order
from ..errors import VerificationError, command
from .core import RuntimeCore
from .sessions.contract import Session

SHARES = {"fp32": 0.001, "fp16": 0.05, "int8": 0.25, MIXED: 0.25}  # of the deviation between clips
ROUNDING = 4e-6  # of the size of the logits: some thirty steps of float32, by which two right programs may differ


@dataclass(frozen=True)
class GoldenCheck:
    """Answers of one path through the graphs, compared with the golden answers.

    Attributes:
        what: 'clip' or 'frame + temporal', or the one graph that was checked.
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


@dataclass(frozen=True)
class SelftestReport:
    """Result of the self-test.

    Attributes:
        bundle: its path.
        backend: who answered, such as 'onnxruntime 1.24.4 CPU'.
        precision: of the graphs.
        golden_clips: how many were answered, each by the clip graph and by the streaming pair.
        checks: one for each of the two.
    """

    bundle: str
    backend: str
    precision: str
    golden_clips: int
    checks: tuple[GoldenCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}

    def require(self) -> None:
        """Raises when a check did not pass.

        Raises:
            VerificationError: names the checks.
        """
        if not self.passed:
            raise VerificationError(
                f"The self-test failed on {self.backend} in {self.precision}.",
                cause="a device or driver that computes wrongly, or an engine of another model",
                next=command("logoformer", "verify", self.bundle),
                log=[
                    f"{check.what}: an answer is not finite"
                    if check.share is None
                    else f"{check.what}: off by {check.share:.4%} of the deviation between clips; "
                    f"{check.allowed:.2%} is allowed"
                    for check in self.checks
                    if not check.passed
                ],
            )


def selftest(runtime: RuntimeCore) -> SelftestReport:
    """Answers the golden clips on the device, through the runtime's own sessions.

    The streaming pair's first ring slots are written, so call it before frames are pushed, or reset the streams after.

    Args:
        runtime: on the thread that owns it.

    Raises:
        RefusedError: the golden clips are not what the index promises.
        UsageError: another thread owns the runtime.
        DeviceLostError: the device is gone.
    """
    golden = runtime.bundle.golden()
    checks = check_runtime(runtime, golden)
    return SelftestReport(str(runtime.bundle.path), runtime.backend, runtime.precision, len(golden.clips), checks)


def check_runtime(runtime: RuntimeCore, golden: Golden) -> tuple[GoldenCheck, GoldenCheck]:
    """Checks the clip graph and the streaming pair."""
    clip, pair = golden_answers(runtime, golden)
    return (
        check_answers("clip", clip, golden, runtime.precision),
        check_answers("frame + temporal", pair, golden, runtime.precision),
    )


def check_answers(what: str, answers: npt.NDArray[np.float32], golden: Golden, precision: str) -> GoldenCheck:
    """Judges answers, float32 `[G, C]`, by the bound of their precision."""
    share, agreement = distance(answers, golden.probabilities)
    allowed = allowed_share(precision, golden.probabilities)
    return GoldenCheck(what, share if np.isfinite(share) else None, agreement, allowed, share <= allowed)


def golden_answers(runtime: RuntimeCore, golden: Golden) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Probabilities by the clip graph and by the streaming pair, each float32 `[G, C]`."""
    clip = answers_of_clip(runtime.session("clip"), golden)
    frame, temporal = runtime.session("frame"), runtime.session("temporal")
    return clip, answers_of_pair(frame, temporal, runtime.bundle.stream, golden)


def answers_of_clip(session: Session, golden: Golden) -> npt.NDArray[np.float32]:
    """Probabilities of the golden clips by one session of the clip graph, float32 `[G, C]`."""
    answers = []
    for clip in golden.clips:
        np.copyto(session.input("clip")[0], clip)
        session.run()
        answers.append(session.output("probabilities")[0].copy())
    return np.stack(answers)


def answers_of_pair(
    frame: Session, temporal: Session, spec: StreamSpec, golden: Golden, batch: int = 1, together: int = 1
) -> npt.NDArray[np.float32]:
    """Probabilities of the golden clips by `frame` and `temporal`, float32 `[G, C]`.

    The frames are filed in the ring's first slots.

    Args:
        frame: of any backend.
        temporal: of the same backend, which takes the tokens on the device; or of another, where they go through the
            host, and whose ring was not filled by `take`.
        spec: of the bundle.
        golden: the clips.
        batch: of `frame`; a last batch that is not full computes old frames in its other places.
        together: batch of `temporal`. The ring may have room for fewer clips; then some are answered at several places,
            and the answer that is farthest off counts.
    """
    order = window_order(spec.frames, spec.grid, spec.window)
    several = max(1, min(together, spec.rows // len(order), len(golden.clips)))
    answers: list[npt.NDArray[np.float32]] = []
    for start in range(0, len(golden.clips), several):
        clips = golden.clips[start : start + several]
        for number, clip in enumerate(clips):
            _file_clip(frame, temporal, clip, number * len(order), spec.tokens_per_frame, batch)
        firsts = np.arange(together) % len(clips) * len(order)  # [B], the rows where each place's clip begins
        orders = order if together == 1 else firsts[:, None] + order
        np.copyto(temporal.input("order"), orders, casting="same_kind")
        temporal.run()
        given = temporal.output("probabilities")  # [B, C]
        for number, truth in enumerate(golden.probabilities[start : start + several]):
            own = given[number :: len(clips)]
            off = np.where(np.isfinite(own), np.abs(own - truth), np.inf).max(1)
            answers.append(own[off.argmax()].copy())
    return np.stack(answers)


def _file_clip(
    frame: Session, temporal: Session, clip: npt.NDArray[np.uint8], base: int, per_frame: int, batch: int
) -> None:
    """Computes a clip's frames and files their tokens in the ring, from the row `base` on."""
    for first in range(0, len(clip), batch):
        images = clip[first : first + batch]
        np.copyto(frame.input("frame")[: len(images)], images)
        frame.run()
        for index in range(len(images)):
            row = base + (first + index) * per_frame
            if type(frame) is type(temporal):
                temporal.take(frame, "tokens", "ring", row, index)
            else:
                tokens = frame.output("tokens")[index]  # [n, d]
                np.copyto(temporal.input("ring")[row : row + len(tokens)], tokens)


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


def allowed_share(precision: str, truth: npt.NDArray[np.float32]) -> float:
    """The `distance` that is allowed: the precision's share, or float32's own rounding.

    A network that hardly tells the clips apart, as one of random weights may, has a deviation between clips that is not
    far above the rounding of its logits. PyTorch in float32 is then itself farther than 0.1 % of it from float64.

    Args:
        precision: of the answers that are judged.
        truth: float32 `[N, C]`.
    """
    wanted = centred_logits(truth)
    deviation = float(np.sqrt(wanted.var(0).mean()))
    size = float(np.sqrt(np.square(wanted).mean()))
    return max(SHARES[precision], ROUNDING * size / deviation if deviation else 0.0)


def centred_logits(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Logits of mean zero: `[N, C]` -> `[N, C]`."""
    logs = np.log(np.maximum(probabilities.astype(np.float64), 1e-45))
    centred: npt.NDArray[np.float64] = logs - logs.mean(1, keepdims=True)
    return centred
