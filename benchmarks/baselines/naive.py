"""Baselines without a stream: the whole clip again for each new frame, or single frames."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from ...clips import Frame, pattern_ages, pick
from ...engine import Runtime
from ..report.records import CPU
from .contract import NAIVE, PER_FRAME, Baseline, Inputs, StepAnswer


def naive_baseline(runtime: Runtime, inputs: Inputs, device: str = CPU) -> Baseline:
    """Picks the training pattern out of the kept frames and runs the clip graph, every frame."""
    sampling = runtime.bundle.sampling
    ages = pattern_ages(sampling)
    kept = math.ceil(float(ages.max()) * inputs.fps) + 2
    frames: deque[Frame] = deque(maxlen=kept)
    times: deque[float] = deque(maxlen=kept)

    def answer(index: int) -> StepAnswer:
        frames.append(inputs.frame(index))
        times.append(index / inputs.fps)
        clip = np.stack([frames[int(place)] for place in pick(np.array(times), ages)])
        result = runtime(clip, color="rgb")
        return StepAnswer(result.probabilities, result.stages_ms)

    what = (
        "1 new uint8 frame: the training pattern is picked out of the frames kept, then the whole clip graph runs again"
    )
    return Baseline(NAIVE, what, runtime.precision, True, answer, runtime.backend, device, hop=1)


def per_frame_baseline(runtime: Runtime, inputs: Inputs, device: str = CPU) -> Baseline:
    """A classifier of single frames: the frame graph, the mean of its tokens, a linear layer."""
    session = runtime.session("frame")
    into, tokens = session.input("frame")[0], session.output("tokens")[0]  # [S, S, 3], [h*w, d]
    rng = np.random.default_rng(0)
    scale = 1.0 / math.sqrt(tokens.shape[1])
    weights = (rng.standard_normal((len(runtime.labels), tokens.shape[1])) * scale).astype(np.float32)  # [C, d]

    def answer(index: int) -> StepAnswer:
        into[:] = inputs.frame(index)
        session.run()
        logits = weights @ tokens.astype(np.float32).mean(0)  # [C]
        powers = np.exp(logits - logits.max())
        return StepAnswer(powers / powers.sum(), {})

    what = (
        "1 new uint8 frame: the frame graph, the mean of its tokens, one linear layer (random weights): a classifier "
        "of single frames with an equal trunk; it sees no movement"
    )
    return Baseline(PER_FRAME, what, runtime.precision, False, answer, runtime.backend, device, hop=1)
