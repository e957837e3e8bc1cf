"""One optimiser step: micro-batches, several processes, SAM, autocast.

The gradient of a step is the mean over its micro-batches and over all processes. With SAM each micro-batch is passed
twice: uphill first, then for the gradient that counts. Without `sam_sync` each micro-batch climbs along its own
gradient and nothing is communicated before the last backward pass; with it, the whole batch's gradient is taken first.

SAM is sharpness-aware minimisation, a step taken from the worst point nearby. Foret et al., "Sharpness-Aware
Minimization for Efficiently Improving Generalization", ICLR 2021 (arXiv 2010.01412): climb to w + rho * g / |g|, take
the gradient there, and apply it at w. The adaptive form scales by |w| first (Kwon et al., "ASAM", ICML 2021, arXiv
2102.11600). Two rules of it are easily broken: the second pass must not update BatchNorm's running statistics
(`frozen_statistics`), and weights return to w exactly (they are restored from a copy, not subtracted back).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .distributed import World
from .losses import training_loss
from .recipe import TrainConfig

MicroBatch = tuple[Tensor, Tensor]  # clips float [b, T, 3, S, S], labels int64 [b]
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Stepper:
    """Takes steps on one model.

    Attributes:
        model: in training mode, or wrapped for several processes.
        optimizer: of its weights.
        config: the recipe.
        world: this process among the others.
        scaler: keeps FP16 gradients from underflowing; does nothing in the other precisions.
        confusion: int64 `[C, C]` on the world's device; this process's answers are counted there, true class by row.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    config: TrainConfig
    world: World
    scaler: torch.amp.GradScaler
    confusion: Tensor

    def step(self, micro_batches: Sequence[MicroBatch]) -> float:
        """One step.

        Args:
            micro_batches: this process's, all of one size.

        Returns:
            Mean loss of this process's micro-batches, at the weights before the step.
        """
        config, count = self.config, len(micro_batches)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        if config.sam_rho and config.sam_sync:
            with self._alone():
                losses = [self._backward(batch, count) for batch in micro_batches]
            self.world.mean_([p.grad for p in parameters if p.grad is not None])
            before = ascend(parameters, config.sam_rho, adaptive=config.sam_adaptive)
            self.optimizer.zero_grad(set_to_none=True)
            with frozen_statistics(self.model):
                self._accumulate(micro_batches, lambda batch: self._backward(batch, count, counted=False))
            restore(before)
        elif config.sam_rho:
            losses = self._accumulate(micro_batches, lambda batch: self._climb(batch, parameters, count))
        else:
            losses = self._accumulate(micro_batches, lambda batch: self._backward(batch, count))
        if config.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return float(torch.stack(losses).mean())

    def _accumulate(
        self, micro_batches: Sequence[MicroBatch], backward: Callable[[MicroBatch], Tensor]
    ) -> list[Tensor]:
        """Runs all micro-batches; processes exchange gradients in the last one only."""
        with self._alone():
            losses = [backward(batch) for batch in micro_batches[:-1]]
        return [*losses, backward(micro_batches[-1])]

    def _climb(self, batch: MicroBatch, parameters: Sequence[nn.Parameter], count: int) -> Tensor:
        """SAM on one micro-batch; adds its gradient to those gathered."""
        gathered = [p.grad for p in parameters]
        for p in parameters:
            p.grad = None
        with self._alone():
            loss = self._backward(batch, count)
        before = ascend(parameters, self.config.sam_rho, adaptive=self.config.sam_adaptive)
        for p, grad in zip(parameters, gathered, strict=True):
            p.grad = grad
        with frozen_statistics(self.model):
            self._backward(batch, count, counted=False)
        restore(before)
        return loss

    def _backward(self, batch: MicroBatch, count: int, *, counted: bool = True) -> Tensor:
        """The gradient of one micro-batch; with `counted` its answers enter the confusion matrix."""
        clips, labels = batch
        kind = _AUTOCAST.get(self.config.precision)
        with torch.autocast(clips.device.type, kind, enabled=kind is not None):
            logits = self.model(clips)
        loss = training_loss(logits, labels, compact=self.config.compact, label_smoothing=self.config.label_smoothing)
        if counted:
            cells = labels * logits.shape[1] + logits.detach().argmax(1)
            self.confusion.view(-1).index_add_(0, cells, torch.ones_like(cells))  # nothing waits for the device
        self.scaler.scale(loss / count).backward()
        return loss.detach()

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        """No exchange of gradients inside the block."""
        return self.model.no_sync() if isinstance(self.model, DistributedDataParallel) else contextlib.nullcontext()


# ---------------------------------------------------------------------------------------------------------------- SAM
@torch.no_grad()
def ascend(parameters: Iterable[nn.Parameter], rho: float, *, adaptive: bool = False) -> list[tuple[Tensor, Tensor]]:
    """Moves weights uphill along their gradients, all together by a norm of `rho`.

    The direction alone counts, so a gradient that a GradScaler has scaled needs no unscaling first.

    Args:
        parameters: with gradients; those without are left alone.
        rho: radius of the neighbourhood.
        adaptive: measure the step relative to each weight's size.

    Returns:
        (weight, copy of its value before), for `restore`.
    """
    moved = [(p, p.grad) for p in parameters if p.grad is not None]
    if not moved:
        return []
    # ASAM: e = rho * w^2 g / | |w| g |; plain SAM: e = rho * g / |g|.
    scaled = [grad * p.abs() if adaptive else grad for p, grad in moved]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in scaled]))
    if not torch.isfinite(norm):  # an FP16 gradient that overflowed: the second pass does too, and the step is skipped
        return []
    before: list[tuple[Tensor, Tensor]] = []
    for (p, _), g in zip(moved, scaled, strict=True):
        before.append((p, p.detach().clone()))
        p.add_((g * p.abs() if adaptive else g) * (rho / (norm + 1e-12)))
    return before


@torch.no_grad()
def restore(before: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Puts weights back to where they were before `ascend`, bit for bit."""
    for weight, value in before:
        weight.copy_(value)


@contextlib.contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Keeps BatchNorm's running statistics; it goes on normalising by the batch.

    SAM's second pass sees the same batch at other weights; counting it would weigh every batch twice, once at weights
    that are nobody's.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    kept = [(n, n.running_mean, n.running_var, n.num_batches_tracked) for n in norms]
    for norm in norms:
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            value = getattr(norm, name)
            setattr(norm, name, None if value is None else value.clone())
    try:
        yield
    finally:
        for norm, mean, variance, count in kept:
            norm.running_mean, norm.running_var, norm.num_batches_tracked = mean, variance, count
