"""The base of every family's network: pixels to rows, rows to features, features to logits."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from .backbone import Trunk
from .contract import NetworkConfig


class Network(nn.Module, ABC):
    """A network that takes each frame for itself and then all frames together.

    A subclass writes `embed_frames` and `encode`; streams keep what lies between the two.

    Attributes:
        config: the family's configuration.
        trunk: the ResNet that pre-trained weights may be loaded into; None where there is none.
        head: the classifier.

    Shape:
        clips float `[B, T, 3, S, S]`, RGB in 0..1 -> logits `[B, C]`.
    """

    config: NetworkConfig
    trunk: Trunk | None
    head: nn.Linear
    mean: Tensor
    std: Tensor

    def _keep_normalisation(self) -> None:
        """Registers mean and std, whose one home is the configuration: no state dict has them."""
        self.register_buffer("mean", torch.tensor(self.config.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self.config.std).view(3, 1, 1), persistent=False)

    @abstractmethod
    def embed_frames(self, frames: Tensor) -> Tensor:
        """One frame each: `[B, 3, S, S]` in 0..1 -> rows `[B, tokens_per_frame, token_dim]`."""

    @abstractmethod
    def encode(self, tokens: Tensor) -> Tensor:
        """Everything between the frames and the classifier.

        Rows `[B, T, tokens_per_frame, token_dim]` -> `[B, d]`.
        """

    def features(self, clips: Tensor) -> Tensor:
        """What the classifier reads: `[B, T, 3, S, S]` -> `[B, d]`."""
        return self.encode(self.embed_frames(clips.flatten(0, 1)).unflatten(0, (clips.shape[0], -1)))

    def forward(self, clips: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(clips))
        return logits


def to_tensor(clips: object) -> Tensor:
    """uint8 `[B, T, S, S, 3]` as numpy or torch -> float32 `[B, T, 3, S, S]` in 0..1."""
    return torch.as_tensor(clips).permute(0, 1, 4, 2, 3).float() / 255.0
