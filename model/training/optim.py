"""Optimiser with its weight-decay groups, and the moving average of the weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from .recipe import TrainConfig


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
