"""One optimiser step: loss, micro-batches, several processes, SAM; the weights' average.

The gradient of a step is the mean over its micro-batches and over all processes. With SAM each micro-batch is passed
twice: uphill first, then for the gradient that counts. Without `sam_sync` each micro-batch climbs along its own
gradient and nothing is communicated before the last backward pass; with it, the whole batch's gradient is taken first.

SAM is sharpness-aware minimisation, a step taken from the worst point nearby. Foret et al., "Sharpness-Aware
Minimization for Efficiently Improving Generalization", ICLR 2021 (arXiv 2010.01412): climb to w + rho * g / |g|, take
the gradient there, and apply it at w. The adaptive form scales by |w| first (Kwon et al., "ASAM", ICML 2021, arXiv
2102.11600). Two rules of it are easily broken: the second pass must not update BatchNorm's running statistics
(`frozen_statistics`), and weights return to w exactly (they are restored from a copy, not subtracted back).

The compact loss of LOGO-Former asks that a wrong answer be wrong without preference. With q the softmax over the C - 1
classes other than the target, and u = 1 / (C - 1), it is the symmetric Kullback-Leibler divergence

    D(u || q) + D(q || u) = sum over c != y of (q_c - u) * log q_c        (the log u terms cancel)

Twice the regulariser of Kobayashi, "Large Margin in Softmax Cross-Entropy Loss", BMVC 2019, whose public default weight
is 0.3 for its half; the weight of LOGO-Former is not public, so `weight` is this project's choice.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .distributed import World
from .recipe import TrainConfig

MicroBatch = tuple[Tensor, Tensor]  # clips float [b, T, 3, S, S], labels int64 [b]
_T = TypeVar("_T")
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
        if config.sam_rho:
            groups = [micro_batches] if config.sam_sync else [[batch] for batch in micro_batches]
            losses = self._accumulate(groups, lambda group: self._climb(group, parameters, count))
        else:
            losses = self._accumulate(micro_batches, lambda batch: self._backward(batch, count))
        if config.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return float(torch.stack(losses).mean())

    def _accumulate(self, parts: Sequence[_T], backward: Callable[[_T], Tensor]) -> list[Tensor]:
        """Runs all parts of a batch; processes exchange gradients in the last one only."""
        with self._alone():
            losses = [backward(part) for part in parts[:-1]]
        return [*losses, backward(parts[-1])]

    def _climb(self, group: Sequence[MicroBatch], parameters: Sequence[nn.Parameter], count: int) -> Tensor:
        """SAM on micro-batches that climb together; adds their gradient to those gathered."""
        gathered = [p.grad for p in parameters]
        for p in parameters:
            p.grad = None
        with self._alone():
            losses = [self._backward(batch, count) for batch in group]
        if self.config.sam_sync:
            self.world.mean_([p.grad for p in parameters if p.grad is not None])
        before = ascend(parameters, self.config.sam_rho, adaptive=self.config.sam_adaptive)
        for p, grad in zip(parameters, gathered, strict=True):
            p.grad = grad
        with frozen_statistics(self.model):
            self._accumulate(group, lambda batch: self._backward(batch, count, counted=False))
        restore(before)
        return torch.stack(losses).mean()

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
    """Puts weights, or buffers, back to where they were, bit for bit."""
    for weight, value in before:
        weight.copy_(value)


@contextlib.contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Keeps BatchNorm's running statistics; it goes on normalising by the batch.

    SAM's second pass sees the same batch at other weights; counting it would weigh every batch twice, once at weights
    that are nobody's.
    """
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        restore(before)


# --------------------------------------------------------------------------------------------------------------- loss
def compact_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The symmetric divergence of the non-target softmax from uniform.

    Computed in float64: near uniform, `q - u` cancels, and under autocast the logits are 16 bits wide. `[B, C]` is
    small, so this costs nothing beside the network.

    Args:
        logits: float `[B, C]`, C >= 2.
        labels: int64 `[B]`, 0 ... C - 1.

    Returns:
        float32 `[B]`, each >= 0; 0 for C = 2, where one other class has all of q.
    """
    classes = logits.shape[1]
    others = torch.arange(classes - 1, device=logits.device)[None]  # [1, C - 1]
    others = others + (others >= labels[:, None])  # [B, C - 1]: every class but the target
    log_q = torch.log_softmax(logits.double().gather(1, others), dim=1)
    return ((log_q.exp() - 1.0 / (classes - 1)) * log_q).sum(1).float()


def training_loss(logits: Tensor, labels: Tensor, *, compact: float = 0.0, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy plus the weighted compact loss, averaged over the batch.

    Args:
        logits: float `[B, C]`; taken to float32, because cross-entropy overflows in FP16.
        labels: int64 `[B]`.
        compact: weight of the compact loss.
        label_smoothing: of the cross-entropy, 0 ... 1.

    Returns:
        float32 scalar.
    """
    loss = nn.functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
    return loss + compact * compact_loss(logits, labels).mean() if compact else loss


# ---------------------------------------------------------------------------------------------------------- optimiser
def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW; norms, biases, positions and [CLS] do not decay."""
    groups = parameter_groups(model, config.weight_decay)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Splits the parameters: matrices and kernels decay, everything else does not."""
    decayed: list[Tensor] = []
    free: list[Tensor] = []
    for name, parameter in model.named_parameters():
        (free if parameter.ndim < 2 or name.startswith(("pos_", "cls")) else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


class Average:
    """Exponential moving average of a model's weights.

    BatchNorm's statistics are the model's own.

    Args:
        model: averaged from where it stands now.
        decay: share of the old average that is kept at each step. Early on less is kept, `(1 + n) / (10 + n)`, so that
            the first random weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Updates the average by one step's weights."""
        kept = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for mean, now in zip(self.model.parameters(), model.parameters(), strict=True):
            mean.lerp_(now, 1 - kept)
        self.take_buffers(model)

    @torch.no_grad()
    def take_buffers(self, model: nn.Module) -> None:
        """BatchNorm's statistics as the model has them now."""
        for kept_buffer, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            kept_buffer.copy_(buffer)
