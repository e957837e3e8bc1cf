"""Two bundles timed in turns: `bench-compare` with bundles instead of reports.

Two reports come from two processes at two times, and what the machine did in between is part of their difference. Here
both sides take turns answer by answer, in an order drawn anew, so that whatever slows the machine for longer than one
answer slows both. And both are opened anew for each round: where its memory lies and how its threads were placed is
drawn as often as there are rounds, and becomes part of the interval instead of a bias that no interval of one process
can see (Kalibera and Jones, Rigorous Benchmarking in Reasonable Time, 2013).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..bundle import Bundle
from ..engine import Runtime, load
from ..errors import UsageError, command
from .accuracy import TimedAnswer, Verified, check_after, sampled, verify_before
from .baselines.contract import CLIP, STREAM, Baseline, Inputs, StepAnswer, clip_baseline, stream_baseline
from .compare import MARGIN, Changes, change_of
from .load.closed import Candidate, Clock, LoadConfig, Progress, closed_loop
from .sensors.machine import read_machine, usable_cpus
from .statistics import FloatArray, minimum_samples, ratio

ROUNDS, FEWEST_ROUNDS = 80, 20
SETTLE = 3  # answers of a new session: the first opens it, the next allocate
SIDES = ("before", "after")

Opener = Callable[[contextlib.ExitStack], Baseline]
"""Opens a program; what it holds is closed with the stack. Its answers count from 0."""


@dataclass(frozen=True)
class SideBySideConfig:
    """Settings of one comparison.

    Attributes:
        before, after: folders of the bundles.
        iterations: timed results of each, at least FEWEST_ROUNDS; ROUNDS rounds where there are as many, all alike.
        threads: CPU threads of each; None: every CPU that this process may use.
        precision: 'verdict', or one by name.
        backend: of `logoformer.load`.
        seed: of the order within the rounds.
        margin: share from which on a slowdown counts.
    """

    before: Path
    after: Path
    iterations: int = 640
    threads: int | None = None
    precision: str = "verdict"
    backend: str = "onnxruntime"
    seed: int = 0
    margin: float = MARGIN

    def __post_init__(self) -> None:
        if self.iterations < FEWEST_ROUNDS or not self.margin >= 0:
            raise UsageError(
                f"At least {FEWEST_ROUNDS} iterations, one for each round, and a margin of 0 or more are needed; got "
                f"{self.iterations} and {self.margin}.",
                next=command("logoformer", "bench-compare", self.before, self.after, "--iterations", "640"),
            )

    @property
    def load(self) -> LoadConfig:
        """Rounds of as many steps each, without a rest: idle threads of ours do not spin."""
        rounds = min(ROUNDS, self.iterations)
        return LoadConfig(rounds, -(-self.iterations // rounds), SETTLE, warmup=0, seed=self.seed)


class Reopened:
    """A program that is opened anew for each round.

    Args:
        opener: opens it.
        block: steps of a round, settling steps included.
    """

    def __init__(self, opener: Opener, block: int) -> None:
        self.answers: dict[int, tuple[Baseline, StepAnswer]] = {}
        self._opener, self._block = opener, block
        self._stack = contextlib.ExitStack()
        self._baseline: Baseline | None = None

    def step(self, index: int) -> None:
        """Answers one step."""
        local = index % self._block
        if local == 0:
            self.close()
            self._baseline = self._opener(self._stack)
        if self._baseline is not None:
            self.answers[index] = (self._baseline, self._baseline.answer(local))

    def close(self) -> None:
        """Closes what the last round opened."""
        self._stack.close()
        self._baseline = None


def compare_bundles(config: SideBySideConfig, progress: Progress | None = None) -> Changes:
    """Times `runtime(clip)` and `stream.push` of two bundles, and checks their answers.

    Raises:
        BadInputError: there is no bundle.
        RefusedError: something in one is not what its index promises.
        VerificationError: answers are not the golden ones, or were others while they were timed.
        MachineError: the backend cannot run here.
    """
    machine, threads = read_machine(), config.threads or usable_cpus()
    bundles = [Bundle(config.before), Bundle(config.after)]
    openers: dict[str, dict[str, Opener]] = {name: {} for name in (CLIP, STREAM)}
    with contextlib.ExitStack() as stack:
        proofs = []
        for side, bundle in zip(SIDES, bundles, strict=True):
            runtime = stack.enter_context(
                load(bundle, backend=config.backend, precision=config.precision, threads=threads)
            )
            proofs.append(verify_before(runtime, bundle.golden()))
            for name, found in openers_of(runtime, threads, config.backend).items():
                openers[name][side] = found
        taken = interleave(openers, config.load, progress, proofs=dict(zip(SIDES, proofs, strict=True)))
    rows = tuple(
        change_of(
            name, "closed", before, after, ratio(after, before),
            ratio(after, before, 90.0) if before.size >= minimum_samples(90) else None, config.margin,
        )
        for name, (before, after) in taken.items()
    )  # fmt: skip
    rounds = config.load.rounds
    how = f"one run, in turns, both opened anew in each of {rounds} rounds, {threads} threads; {machine.line()}"
    return Changes(config.margin, rows, (), tuple(_differences(proofs)), how)


def openers_of(runtime: Runtime, threads: int, backend: str) -> dict[str, Opener]:
    """What opens a bundle anew for its two ways of answering; inputs are read once."""
    inputs = Inputs.of(runtime.bundle)

    def opener(baseline: Callable[[Runtime, Inputs, str], Baseline], name: str) -> Opener:
        def open_(stack: contextlib.ExitStack) -> Baseline:
            again = load(runtime.bundle, backend=backend, precision=runtime.precision, threads=threads)
            return baseline(stack.enter_context(again), inputs, name)

        return open_

    return {CLIP: opener(clip_baseline, CLIP), STREAM: opener(stream_baseline, STREAM)}


def interleave(
    openers: Mapping[str, Mapping[str, Opener]],
    config: LoadConfig,
    progress: Progress | None = None,
    *,
    proofs: Mapping[str, Verified] | None = None,
    clock: Clock = time.perf_counter_ns,
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Times both sides of each row in one closed loop, answer by answer.

    Args:
        openers: by row, then by side.
        config: the settling steps begin each round; warm-up and rest are not used.
        progress: called after each answer.
        proofs: by side; what was answered while it was timed is compared with them.
        clock: a monotonic clock in nanoseconds.

    Returns:
        (before, after) of each row, float64 `[R, K]`.

    Raises:
        VerificationError: an answer differs.
    """
    block = config.settle + config.block
    programs = {(row, side): Reopened(found, block) for row, sides in openers.items() for side, found in sides.items()}
    candidates = [Candidate(f"{row}, {side}", program.step) for (row, side), program in programs.items()]
    turns = LoadConfig(config.rounds * block, block=1, settle=0, warmup=0, seed=config.seed)
    try:
        result = closed_loop(candidates, turns, clock=clock, progress=progress)
    finally:
        for program in programs.values():
            program.close()
    for side, proof in (proofs or {}).items():
        answers = [
            TimedAnswer(step % block, answer.probabilities, baseline)
            for (_, own), program in programs.items()
            if own == side
            for step in sampled([step for step in range(turns.rounds) if step % block >= config.settle])
            for baseline, answer in (program.answers[step],)
        ]
        check_after(proof, Inputs.of(proof.runtime.bundle), answers)
    before, after = SIDES
    ms = {name: taken.reshape(config.rounds, block)[:, config.settle :] for name, taken in result.latency_ms.items()}
    return {row: (ms[f"{row}, {before}"], ms[f"{row}, {after}"]) for row in openers}


def _differences(proofs: list[Verified]) -> list[str]:
    left, right = (
        {
            "preset": proof.runtime.bundle.manifest["model"].get("preset", ""),
            "precision": proof.accuracy.precision,
            "backend": proof.runtime.backend,
            "graphs": ", ".join(f"{name} {digest[:8]}" for name, digest in sorted(proof.accuracy.graphs.items())),
        }
        for proof in proofs
    )
    return [f"{what}: {left[what]} -> {right[what]}" for what in left if left[what] != right[what]]
