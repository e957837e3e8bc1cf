"""Attention inside windows, in the form of TensorRT's fused kernels."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..model.networks.attention import Attention


class WindowAttention(nn.Module):
    """`model.attention.Attention` with its scale inside Wq.

    Shape:
        queries `[W, S, d]`, keys `[W, K, d]` -> `[W, S, d]`.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        self.q, self.k, self.v, self.out = (copy.deepcopy(getattr(attention, name)) for name in ("q", "k", "v", "out"))
        with torch.no_grad():
            self.q.weight *= attention.scale

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        w, s, d = queries.shape
        k = keys.shape[1]
        query = self.q(queries).view(w, s, self.heads, -1).transpose(1, 2)  # [W, H, S, D]
        key = self.mixed(self.k(keys).view(w, k, self.heads, -1)).permute(0, 2, 3, 1)  # [W, H, D, K]
        value = self.mixed(self.v(keys).view(w, k, self.heads, -1)).transpose(1, 2)  # [W, H, K, D]
        weights = torch.softmax(query @ key, dim=-1)  # [W, H, S, K]
        return self.out((weights @ value).transpose(1, 2).reshape(w, s, d))

    def mixed(self, x: Tensor) -> Tensor:
        """What a scheme does to projected keys and values, `[W, K, H, D]`; nothing here."""
        return x
