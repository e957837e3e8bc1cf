"""Proof that what was timed was right.

A benchmark that only takes the time can be won by a wrong answer. Three comparisons, all on the artifact that is timed:

* before: its golden answers against the PyTorch model's (`engine.golden`);
* after: every answer that was given to a clip *while it was timed* against that verified answer (MLPerf's TEST01 in
  small);
* after: some answers of the timed stream against `engine(clip)` on the frames that the stream must have picked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..bundle import Golden
from ..engine import Runtime
from ..engine.golden import SHARES, centred_logits, distance, golden_answers
from ..errors import VerificationError, command
from .baselines.contract import REPEAT_TOLERANCE, Answer, Inputs, Peer

STREAM_CHECKS = 5


@dataclass(frozen=True)
class Accuracy:
    """What was compared on the artifact that was timed, and the largest difference found.

    Shares are logit differences over the deviation between the golden clips, as in `engine.golden.distance`.

    Attributes:
        precision: of the graphs.
        graphs: SHA-256 of each of them.
        verdict: that the bundle holds for this precision.
        golden_clips: clips whose answers were compared with the PyTorch model's before timing.
        clip_share, pair_share: of the clip graph, and of frame + temporal.
        agreement: share of golden clips with PyTorch's class, the lower of the two.
        timed_answers: answers to clips compared with verified ones after timing.
        timed_difference: largest difference of a probability among them.
        stream_answers: answers of the timed stream compared with `engine(clip)`.
        stream_share: largest among them.
    """

    precision: str
    graphs: Mapping[str, str]
    verdict: str
    golden_clips: int
    clip_share: float
    pair_share: float
    agreement: float
    timed_answers: int
    timed_difference: float
    stream_answers: int
    stream_share: float


@dataclass(frozen=True)
class Verified:
    """What is known before the first step is timed.

    Attributes:
        answers: float32 `[G, C]`, the engine's own answers to the golden clips.
        deviation: between the golden clips, of a centred logit.
        clip_share, pair_share, agreement: see `Accuracy`.
    """

    answers: npt.NDArray[np.float32]
    deviation: float
    clip_share: float
    pair_share: float
    agreement: float


def verify_before(engine: Runtime, golden: Golden) -> Verified:
    """Answers the golden clips.

    Raises:
        VerificationError: an answer is too far from the PyTorch model's.
    """
    answers, by_pair = golden_answers(engine, golden)
    clip_share, clip_agreement = distance(answers, golden.probabilities)
    pair_share, pair_agreement = distance(by_pair, golden.probabilities)
    for what, share in (("The clip graph", clip_share), ("The pair frame + temporal", pair_share)):
        if not share <= SHARES[engine.precision]:
            raise VerificationError(
                f"{what} of {engine.bundle.path} in {engine.precision} differs from the golden answers by {share:.2%} "
                f"of the deviation between clips; {SHARES[engine.precision]:.1%} is allowed. "
                "A wrong answer is not worth timing.",
                next=command("logoformer", "verify", engine.bundle.path),
            )
    deviation = float(np.sqrt(centred_logits(golden.probabilities).var(0).mean()))
    return Verified(answers, deviation, clip_share, pair_share, min(clip_agreement, pair_agreement))


def graph_digests(engine: Runtime) -> dict[str, str]:
    """SHA-256 of each graph that an engine runs."""
    graphs = ("clip", "frame", "temporal")
    return {name: engine.bundle.graph(name, engine.precision).sha256 for name in graphs}


@dataclass(frozen=True)
class ClipAnswer:
    """What `peer` answered to golden clip `clip` while it was timed: float32 `[C]`, and how far off it may be."""

    clip: int
    probabilities: npt.NDArray[np.float32]
    peer: str = ""
    tolerance: float = REPEAT_TOLERANCE


@dataclass(frozen=True)
class StreamAnswer:
    """What a timed stream of `peer` answered for its frame `frame`, having begun at `offset` of the rotation."""

    frame: int
    offset: int
    probabilities: npt.NDArray[np.float32]
    peer: str = ""


def sampled(count: int, checks: int = STREAM_CHECKS) -> list[int]:
    """Places to check among `count` answers, the first and the last among them."""
    return sorted({int(place) for place in np.linspace(0, count - 1, checks)})


def recording(peer: Peer, into: dict[int, Answer]) -> Callable[[int], None]:
    """The step that is timed: it answers, and keeps the answer under its index."""

    def step(index: int) -> None:
        into[index] = peer.answer(index)

    return step


def check_after(
    engine: Runtime, inputs: Inputs, verified: Verified, clips: Sequence[ClipAnswer], streams: Sequence[StreamAnswer]
) -> Accuracy:
    """Compares what was answered while it was timed with what was verified before.

    Args:
        engine: any engine of the bundle that was timed.
        inputs: what was fed.
        verified: from `verify_before`.
        clips: answers to clips, of every mode and of every peer with the bundle's own weights.
        streams: a sample of the answers of streams.

    Raises:
        VerificationError: an answer differs.
    """
    difference = 0.0
    for answer in clips:
        wanted = verified.answers[answer.clip % len(verified.answers)]
        found = float(np.abs(answer.probabilities - wanted).max())
        shown = f"{answer.peer}: {found:.2g}, {answer.tolerance:g} is allowed"
        _require(engine, "to a clip", found <= answer.tolerance, shown)
        difference = max(difference, found)
    share = 0.0
    if streams:
        seen = [engine(inputs.seen_by_stream(a.frame, engine.bundle, a.offset), color="rgb") for a in streams]
        streamed = np.stack([answer.probabilities for answer in streams])
        distances = np.abs(centred_logits(streamed) - centred_logits(np.stack([one.probabilities for one in seen])))
        share = float(distances.max()) / verified.deviation
        allowed = 2 * SHARES[engine.precision]  # either side may be that far from the truth
        _require(engine, "of the stream", share <= allowed, f"{share:.2%} of the deviation, {allowed:.1%} is allowed")
    return Accuracy(
        precision=engine.precision,
        graphs=graph_digests(engine),
        verdict=str(engine.bundle.precisions.get(engine.precision, {}).get("verdict", "none")),
        golden_clips=len(verified.answers),
        clip_share=verified.clip_share,
        pair_share=verified.pair_share,
        agreement=verified.agreement,
        timed_answers=len(clips),
        timed_difference=difference,
        stream_answers=len(streams),
        stream_share=share,
    )


def _require(engine: Runtime, what: str, good: bool, numbers: str) -> None:
    if not good:  # a NaN compares false and ends here too
        raise VerificationError(
            f"An answer {what} that was given while it was timed differs from the verified one: {numbers}.",
            cause="a race, a cache, or a runtime that answers otherwise under load",
            next=command("logoformer", "verify", engine.bundle.path),
        )
