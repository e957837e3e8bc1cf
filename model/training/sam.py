"""Sharpness-aware minimisation: a step taken from the worst point nearby.

Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR 2021 (arXiv 2010.01412):
climb to w + rho * g / |g|, take the gradient there, and apply it at w. The adaptive form scales by |w| first (Kwon et
al., "ASAM", ICML 2021, arXiv 2102.11600).

Two rules that are easily broken are kept here and in `step.py`: the second pass must not update BatchNorm's running
statistics (`frozen_statistics`), and weights return to w exactly (they are restored from a copy, not subtracted back).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn


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
