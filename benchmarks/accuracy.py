"""Accuracy checks of the artifact that is timed, before and after timing.

A benchmark that only takes the time can be won by a wrong answer. Three comparisons, all on the artifact that is timed:

* before: its golden answers against the PyTorch model's (`engine.golden`), and the answers of every baseline with the
  bundle's weights against those;
* after: every answer that was given to a clip *while it was timed* against that verified answer (MLPerf's TEST01 in
  small);
* after: some answers of the timed stream against `runtime(clip)` on the frames that the stream must have picked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..bundle import Golden
from ..engine import Runtime
from ..engine.golden import allowed_share, centred_logits, distance, golden_answers
from ..errors import VerificationError, command
from .baselines.contract import APART, Baseline, Inputs, Skipped, StepAnswer
from .report.records import CPU

REPEAT_TOLERANCE = 1e-5  # of a probability; the same graph in the same runtime on the CPU: only sums may be reordered


@dataclass(frozen=True)
class Accuracy:
    """Comparisons made on the artifact that was timed, with the largest difference found.

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
        stream_answers: answers of the timed stream compared with `runtime(clip)`.
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
    """Verified answers of a runtime, from before the first step is timed.

    Attributes:
        runtime: that answered.
        answers: float32 `[G, C]`, its own answers to the golden clips.
        deviation: between the golden clips, of a centred logit.
        accuracy: what is known before timing; nothing timed was compared yet.
    """

    runtime: Runtime
    answers: npt.NDArray[np.float32]
    deviation: float
    accuracy: Accuracy


def verify_before(runtime: Runtime, golden: Golden) -> Verified:
    """Answers the golden clips.

    Raises:
        VerificationError: an answer is too far from the PyTorch model's.
    """
    answers, by_pair = golden_answers(runtime, golden)
    clip_share, clip_agreement = distance(answers, golden.probabilities)
    pair_share, pair_agreement = distance(by_pair, golden.probabilities)
    allowed = allowed_share(runtime.precision, golden.probabilities)
    for what, share in (("The clip graph", clip_share), ("The pair frame + temporal", pair_share)):
        if not share <= allowed:
            raise VerificationError(
                f"{what} of {runtime.bundle.path} in {runtime.precision} differs from the golden answers by "
                f"{share:.2%} of the deviation between clips; {allowed:.1%} is allowed. "
                "A wrong answer is not worth timing.",
                next=command("logoformer", "verify", runtime.bundle.path),
            )
    deviation = float(np.sqrt(centred_logits(golden.probabilities).var(0).mean()))
    accuracy = Accuracy(
        precision=runtime.precision,
        graphs=graph_digests(runtime),
        verdict=str(runtime.bundle.precisions.get(runtime.precision, {}).get("verdict", "none")),
        golden_clips=len(answers),
        clip_share=clip_share,
        pair_share=pair_share,
        agreement=min(clip_agreement, pair_agreement),
        timed_answers=0,
        timed_difference=0.0,
        stream_answers=0,
        stream_share=0.0,
    )
    return Verified(runtime, answers, deviation, accuracy)


def judge_baselines(
    verified: Verified, inputs: Inputs, baselines: Sequence[Baseline]
) -> tuple[list[Baseline], list[Skipped]]:
    """Asks every baseline with the bundle's own weights for the clips, before it is timed.

    Returns:
        Those that answer as they must, and those that do not, each with both numbers: another program's wrong answer
        must not end our run, and may not be in its table.
    """
    good: list[Baseline] = []
    wrong: list[Skipped] = []
    for baseline in baselines:
        bad = None
        if baseline.same_weights and baseline.hop is None and baseline.precision == verified.runtime.precision:
            answers = (TimedAnswer(i, baseline.answer(i).probabilities, baseline) for i in range(len(inputs.clips)))
            bad = next((shown for shown, holds, _ in (differs(verified, one) for one in answers) if not holds), None)
        if bad is None:
            good.append(baseline)
        else:
            wrong.append(Skipped(baseline.name, f"its answers are not the verified ones: {bad}"))
    return good, wrong


def differs(verified: Verified, answer: TimedAnswer) -> tuple[str, bool, float]:
    """An answer beside the verified one, judged by devices and precisions of both sides.

    On the CPU a runtime repeats itself to `REPEAT_TOLERANCE`. A card, or another runtime, adds in another order and
    rounds elsewhere: both sides may be as far from the truth as `golden.allowed_share` says.

    Returns:
        (both numbers for people, whether it holds, the largest difference of a probability).
    """
    baseline, wanted = answer.baseline, verified.answers[answer.index % len(verified.answers)]
    apart = float(np.abs(answer.probabilities - wanted).max())
    if baseline.device == CPU and baseline.backend == verified.runtime.backend:
        return f"{apart:.2g}, {REPEAT_TOLERANCE:g} is allowed", apart <= REPEAT_TOLERANCE, apart
    logits = centred_logits(np.stack([answer.probabilities, wanted]))
    share = float(np.abs(logits[0] - logits[1]).max()) / verified.deviation
    either = (baseline.precision, verified.runtime.precision)
    allowed = sum(allowed_share(precision, verified.answers) for precision in either)
    return f"{share:.2%} of the deviation between clips, {allowed:.1%} is allowed", share <= allowed, apart


def graph_digests(runtime: Runtime) -> dict[str, str]:
    """SHA-256 of each graph that a runtime runs."""
    graphs = ("clip", "frame", "temporal")
    return {name: runtime.bundle.graph(name, runtime.precision).sha256 for name in graphs}


@dataclass(frozen=True)
class TimedAnswer:
    """An answer that was given while it was timed.

    Attributes:
        index: of the golden clip in the rotation, or of the frame in its stream.
        probabilities: float32 `[C]`.
        baseline: who answered; a stream where it has a hop.
        offset: where in the rotation the stream began.
    """

    index: int
    probabilities: npt.NDArray[np.float32]
    baseline: Baseline
    offset: int = 0


def stream_answers(frame: int, answer: StepAnswer, baseline: Baseline) -> list[TimedAnswer]:
    """The answers of one step for every face; face i began at frame `i * APART`."""
    faces = (answer, *answer.others)
    return [TimedAnswer(frame, one.probabilities, baseline, face * APART) for face, one in enumerate(faces)]


def sampled(steps: Sequence[int]) -> list[int]:
    """Five of the steps, the first and the last among them; all where there are fewer."""
    return [steps[place] for place in sorted({int(place) for place in np.linspace(0, len(steps) - 1, 5)})]


def recording(answer: Callable[[int], StepAnswer], into: dict[int, StepAnswer]) -> Callable[[int], None]:
    """The step that is timed: it answers, and keeps the answer under its index."""

    def step(index: int) -> None:
        into[index] = answer(index)

    return step


def check_after(verified: Verified, inputs: Inputs, answers: Sequence[TimedAnswer]) -> Accuracy:
    """Compares what was answered while it was timed with what was verified before.

    Args:
        verified: from `verify_before`.
        inputs: what was fed.
        answers: of every mode and of every baseline with the bundle's own weights: all to clips, a sample of the
            streams'; those in the runtime's precision are compared.

    Raises:
        VerificationError: an answer differs.
    """
    runtime = verified.runtime
    own = [answer for answer in answers if answer.baseline.precision == runtime.precision]
    clips = [answer for answer in own if answer.baseline.hop is None]
    streams = [answer for answer in own if answer.baseline.hop is not None]
    difference = 0.0
    for answer in clips:
        shown, holds, found = differs(verified, answer)
        _require(runtime, "to a clip", holds, f"{answer.baseline.name}: {shown}")
        difference = max(difference, found)
    share = 0.0
    if streams:
        seen = [runtime(inputs.seen_by_stream(a.index, runtime.bundle, a.offset), color="rgb") for a in streams]
        streamed = np.stack([answer.probabilities for answer in streams])
        distances = np.abs(centred_logits(streamed) - centred_logits(np.stack([one.probabilities for one in seen])))
        share = float(distances.max()) / verified.deviation
        allowed = 2 * allowed_share(runtime.precision, verified.answers)  # either side may be that far from the truth
        _require(runtime, "of the stream", share <= allowed, f"{share:.2%} of the deviation, {allowed:.1%} is allowed")
    return replace(
        verified.accuracy,
        timed_answers=len(clips),
        timed_difference=difference,
        stream_answers=len(streams),
        stream_share=share,
    )


def _require(runtime: Runtime, what: str, good: bool, numbers: str) -> None:
    if not good:  # a NaN compares false and ends here too
        raise VerificationError(
            f"An answer {what} that was given while it was timed differs from the verified one: {numbers}.",
            cause="a race, a cache, or a runtime that answers otherwise under load",
            next=command("logoformer", "verify", runtime.bundle.path),
        )
