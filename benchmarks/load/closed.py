"""The load generator: closed loop, several candidates interleaved in one run.

It knows nothing of the model. A candidate is a name and a step; the generator calls the step with a running index,
takes the time around it, and keeps every latency. What separates an honest comparison from a lucky one is the order:

* time is cut into rounds; in each round every candidate runs one block, in an order drawn anew, so that a clock that
  drifts, a neighbour that wakes up or a warm cache hits all candidates alike;
* before each block the run rests, and then takes a few untimed steps: the candidate before left thread pools that
  still spin (ONNX Runtime's some 25 ms, OpenMP's some 5 ms), and caches full of its weights;
* a candidate may be listed twice under two names. The two are one program, so what lies between them is the noise of
  the run (A/A);
* every candidate sees the same indices, and the index decides the input, so no input follows itself and nobody can
  answer from a cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Progress = Callable[[str, int, int], None]
Clock = Callable[[], int]


@dataclass(frozen=True)
class Candidate:
    """Something to be timed.

    Attributes:
        name: unique in its run.
        step: does the work for one result and returns when the answer is in host memory; its argument is the index
            of the step, 0, 1, 2, ... (the same sequence for all candidates).
    """

    name: str
    step: Callable[[int], object]


@dataclass(frozen=True)
class LoadConfig:
    """Number and pattern of timed steps.

    Attributes:
        rounds: R; each candidate runs one block in each.
        block: K, timed steps of one block; a candidate has R * K samples in the end.
        settle: untimed steps before each block.
        rest_s: seconds of sleep before those.
        warmup: untimed steps of each candidate before the first round.
        seed: of the order within the rounds.
    """

    rounds: int = 20
    block: int = 7
    settle: int = 1
    rest_s: float = 0.0
    warmup: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.block < 1 or min(self.settle, self.rest_s, self.warmup) < 0:
            raise ValueError(f"a run needs at least one round of one step and no negative count; got {self}")

    @property
    def samples(self) -> int:
        """Timed steps of each candidate."""
        return self.rounds * self.block


@dataclass(frozen=True)
class LoadResult:
    """Every latency of a run.

    Attributes:
        latency_ms: by candidate, float64 `[R, K]` in the order they were taken.
        start_ns: by candidate, int64 `[R, K]`: what the clock said when each latency began.
        steps: int64 `[R, K]`, the index each timed step was called with; the same for all candidates.
        order: the candidates' names as they ran, one tuple a round.
        seconds: the whole run, warm-up and untimed steps included.
    """

    latency_ms: Mapping[str, npt.NDArray[np.float64]]
    start_ns: Mapping[str, npt.NDArray[np.int64]]
    steps: npt.NDArray[np.int64]
    order: tuple[tuple[str, ...], ...]
    seconds: float


def closed_loop(
    candidates: Sequence[Candidate],
    config: LoadConfig,
    *,
    clock: Clock = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
    progress: Progress | None = None,
) -> LoadResult:
    """Runs the candidates one step at a time, each step after the last one's answer.

    Args:
        candidates: at least one, names all different.
        config: how much.
        clock: a monotonic clock in nanoseconds.
        sleep: passes seconds.
        progress: called after each block.

    Raises:
        ValueError: no candidate, or two of one name.
    """
    names = [candidate.name for candidate in candidates]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"the candidates need different names, at least one; got {names}")
    rng = np.random.default_rng(config.seed)
    taken = {name: np.empty((config.rounds, config.block), np.int64) for name in names}
    starts = {name: np.empty((config.rounds, config.block), np.int64) for name in names}
    # After the warm-up and each round's settling steps.
    firsts = config.warmup + np.arange(config.rounds) * (config.settle + config.block) + config.settle
    steps = firsts[:, None] + np.arange(config.block)
    blocks, done = len(names) * (config.rounds + 1), 0
    order = []
    began = clock()
    for candidate in candidates:
        for index in range(config.warmup):
            candidate.step(index)
        done = _report(progress, "warm-up", done, blocks)
    for round_ in range(config.rounds):
        turn = [candidates[i] for i in rng.permutation(len(names))]
        order.append(tuple(candidate.name for candidate in turn))
        first = int(steps[round_, 0])
        for candidate in turn:
            sleep(config.rest_s)
            for index in range(first - config.settle, first):
                candidate.step(index)
            _timed_block(candidate.step, first, taken[candidate.name][round_], starts[candidate.name][round_], clock)
            done = _report(progress, "timing", done, blocks)
    return LoadResult(
        latency_ms={name: ns / 1e6 for name, ns in taken.items()},
        start_ns=starts,
        steps=steps,
        order=tuple(order),
        seconds=(clock() - began) / 1e9,
    )


def overhead_us(step: Callable[[int], object], *, clock: Clock = time.perf_counter_ns) -> float:
    """Microseconds that the generator adds to a latency: median over a step without work."""
    taken = np.empty(2000, np.int64)
    _timed_block(step, 0, taken, np.empty_like(taken), clock)
    return float(np.median(taken)) / 1e3


def _timed_block(
    step: Callable[[int], object], first: int, out: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], clock: Clock
) -> None:
    """Times a block: `out[k]` becomes the nanoseconds of `step(first + k)`."""
    for k in range(len(out)):
        index = first + k
        start = clock()
        step(index)
        out[k] = clock() - start
        starts[k] = start


def _report(progress: Progress | None, stage: str, done: int, total: int) -> int:
    if progress is not None:
        progress(stage, done + 1, total)
    return done + 1
