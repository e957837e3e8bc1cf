"""Quantization-aware fine-tuning.

The FP32 clip graph is trained with every operand that the placement policy quantizes rounded to INT8 in the forward
pass; in the backward pass rounding is passed over (the straight-through estimator, Bengio et al. 2013, arXiv
1308.3432). The teacher is the FP32 graph itself: what INT8 shall do is answer as FP32 does, so no labels are needed.
Activation ranges begin at those of the calibration and are learned with the weights (LSQ, Esser et al., ICLR 2020,
arXiv 1902.08153), but for the trunk's powers of two (`powers.py`), which stay; weight scales follow the weights, as the
quantizer will take them.

What comes out are weights by initializer name and ranges by tensor name: the quantizer makes the three graphs of them
by the same policy as before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import BadInputError, UsageError
from .amax import LEVELS
from .placement import sites
from .quantize import SCALE_FLOOR, QuantizeConfig, Ranges, four_bits, is_power_of_two

if TYPE_CHECKING:
    import onnx
    from torch import Tensor

    from ..model.data.clips import Progress

Before = Callable[[str, "list[Tensor]"], "list[Tensor]"]


class Program(Protocol):
    """An FP32 clip graph that PyTorch can run and differentiate (see `export/reference.py`)."""

    @property
    def weights(self) -> dict[str, Tensor]:
        """Float constants by name."""

    def differentiable(
        self, feeds: Mapping[str, Tensor], weights: Mapping[str, Tensor], before: Before
    ) -> dict[str, Tensor]:
        """Runs it on N inputs with other weights, `before` changing each node's inputs."""


@dataclass(frozen=True)
class QatConfig:
    """How to fine-tune.

    Attributes:
        steps: optimiser steps.
        batch: clips in each.
        learning_rate: of the weights, at its highest.
        range_rate: of the logarithm of the ranges.
        seed: of the order of the clips and of their augmentation.
    """

    steps: int = 150
    batch: int = 32
    learning_rate: float = 1e-4
    range_rate: float = 5e-2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.seed < 0 or not (self.learning_rate > 0 and self.range_rate >= 0):
            raise UsageError(f"Fine-tuning needs steps, batch and learning rate above 0; got {self}.")


@dataclass(frozen=True)
class Tuned:
    """Result of the fine-tuning.

    Attributes:
        weights: by initializer name.
        ranges: as the quantizer takes them.
        losses: of each step: the mean divergence from FP32's answers (Kullback-Leibler, nats).
        before, after: the same on the clips that were held back, at the beginning and at the step that was kept.
        kept_step: 0 when no step was better than the beginning.
    """

    weights: dict[str, npt.NDArray[np.float32]]
    ranges: Ranges
    losses: tuple[float, ...]
    before: float
    after: float
    kept_step: int


def fine_tune(
    model: onnx.ModelProto,
    program: Program,
    ranges: Ranges,
    placement: QuantizeConfig,
    batches: Iterable[npt.NDArray[np.uint8]],
    held_back: npt.NDArray[np.uint8],
    config: QatConfig,
    progress: Progress | None = None,
) -> Tuned:
    """Train, and keep the step that answers held-back clips most like FP32.

    The beginning counts as a step too.

    Args:
        model: the FP32 clip graph.
        program: the same graph, runnable.
        ranges: where the activation ranges begin.
        placement: what is quantized.
        batches: uint8 `[B, T, S, S, 3]`, at least `config.steps` of them.
        held_back: uint8 `[V, T, S, S, 3]`; looked at about ten times, never learned from.
        config: how.
        progress: called with (stage, done, total).

    Raises:
        BadInputError: the loss is no longer finite.
    """
    import torch

    teacher = program.weights
    weights = {name: value.clone().requires_grad_() for name, value in teacher.items()}
    fake = _FakeQuantization(model, ranges, placement)
    optimizer = torch.optim.Adam(
        [
            {"params": list(weights.values()), "lr": config.learning_rate},
            {"params": list(fake.logs.values()), "lr": config.range_rate},
        ]
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, config.steps))

    def divergence(clips: npt.NDArray[np.uint8]) -> Tensor:
        feed = {"clip": torch.from_numpy(np.ascontiguousarray(clips[:, None]))}
        with torch.no_grad():
            wanted = program.differentiable(feed, teacher, lambda _, inputs: inputs)["probabilities"]
        given = program.differentiable(feed, weights, fake)["probabilities"]
        return torch.nn.functional.kl_div(_log(given), _log(wanted), log_target=True, reduction="sum") / len(clips)

    def kept(step: int) -> tuple[float, int, dict[str, npt.NDArray[np.float32]], dict[str, float]]:
        with torch.no_grad():
            found = float(divergence(held_back))
        copied = {name: value.detach().numpy().copy() for name, value in weights.items()}
        return (found if np.isfinite(found) else math.inf), step, copied, fake.amax()

    best = kept(0)
    before = best[0]
    losses: list[float] = []
    every = max(1, config.steps // 10)
    for step, clips in zip(range(1, config.steps + 1), batches, strict=False):
        loss = divergence(clips)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if not np.isfinite(losses[-1]):
            raise BadInputError(
                f"The loss became {losses[-1]} at step {step}.",
                cause="the learning rate is too high",
                next=f"run again with a learning rate below {config.learning_rate:g}",
            )
        if step % every == 0 or step == config.steps:
            best = min(best, kept(step), key=lambda found: found[0])
        if progress is not None:
            progress("fine-tune in INT8", step, config.steps)
    after, step, tuned, amax = best
    return Tuned(tuned, amax, tuple(losses), before, after, step)


def _rate(step: int, steps: int) -> float:
    """Learning rate as a share of the highest.

    A line up over a tenth of the steps, then half a cosine down to 0.

    Adam's first steps have full length whatever the gradient: from a network that is nearly right they lead away.
    """
    rise = max(1, steps // 10)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1.0 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp(min=1e-12).log()


class _FakeQuantization:
    """Rounds what the placement quantizes; called before each node."""

    def __init__(self, model: onnx.ModelProto, ranges: Ranges, placement: QuantizeConfig) -> None:
        import torch

        chosen = sites(model, attention=placement.attention, exclude=placement.exclude)
        self._sites = {site.node: site for site in chosen}
        read = {name for site in chosen for name in site.tensors if not is_power_of_two(ranges[name] / LEVELS)}
        floor = SCALE_FLOOR * LEVELS
        self._begin = ranges
        self.logs = {
            name: torch.tensor(float(np.log(max(ranges[name], floor)))).requires_grad_() for name in sorted(read)
        }

    def amax(self) -> dict[str, float]:
        """The ranges, those that are learned as they are now."""
        return {**self._begin, **{name: float(value.detach().exp()) for name, value in self.logs.items()}}

    def __call__(self, node: str, inputs: list[Tensor]) -> list[Tensor]:
        import torch

        site = self._sites.get(node)
        if site is None:
            return inputs
        changed = list(inputs)
        for slot, name in zip(site.slots, site.tensors, strict=True):
            learned = self.logs[name].exp() if name in self.logs else torch.tensor(self._begin[name])
            changed[slot] = round_through(inputs[slot], learned / LEVELS)
        if site.weight is not None:
            weight = inputs[site.weight]
            others = [axis for axis in range(weight.ndim) if axis != site.axis]
            scale = four_bits((weight.detach().abs().amax(others, keepdim=True) / LEVELS).numpy())
            changed[site.weight] = round_through(weight, torch.from_numpy(scale))
        return changed


def round_through(x: Tensor, scale: Tensor) -> Tensor:
    """INT8 and back. The gradient is that of clipping alone; it reaches the scale as well.

    Args:
        x: any shape.
        scale: positive, broadcast over x.
    """
    steps = (x / scale).clamp(-LEVELS - 1, LEVELS)
    return (steps + (steps.round() - steps).detach()) * scale


def divergence(given: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32]) -> float:
    """Mean Kullback-Leibler divergence of answers `[N, C]` from others, in nats."""
    before, after = (np.log(np.maximum(answers.astype(np.float64), 1e-12)) for answers in (wanted, given))
    return float((np.exp(before) * (before - after)).sum(1).mean())


def augmented(
    read: Callable[[int, np.random.Generator], npt.NDArray[np.uint8]], count: int, config: QatConfig
) -> Iterable[npt.NDArray[np.uint8]]:
    """Batches for `fine_tune`: shuffled epochs, mirrored and moved as in training.

    Args:
        read: one clip uint8 `[T, S, S, 3]`, its frames drawn by the generator.
        count: clips there are.
        config: batch, steps and seed.
    """
    from ..model.data.augment import draw_shifts

    rng = np.random.default_rng(config.seed)
    waiting: list[int] = []
    for _ in range(config.steps):
        while len(waiting) < config.batch:
            waiting += [int(index) for index in rng.permutation(count)]
        some, waiting = waiting[: config.batch], waiting[config.batch :]
        clips = []
        for index in some:
            clip = read(index, rng)
            clips.append(draw_shifts(1, clip.shape[1], rng)[0].change(clip))
        yield np.stack(clips)


def fine_tuning_record(config: QatConfig, tuned: Tuned, source: str) -> dict[str, Any]:
    """What the manifest keeps, as JSON values."""
    return {
        **asdict(config),
        "source": source,
        "steps": len(tuned.losses),
        "divergence_before": tuned.before,
        "divergence_after": tuned.after,
        "kept_step": tuned.kept_step,
    }
