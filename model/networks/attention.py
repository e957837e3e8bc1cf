"""Multi-head attention and the feed-forward network that follows it, written by hand.

Notation: d channels, H heads, D = d / H.

The scale multiplies Q before the product, because TensorRT's fused kernels ask for it there (and have been wrong with
it behind the product). Q, K and V are separate projections: packed ones cost kernels and lose INT8.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn


class FeedForward(nn.Module):
    """Linear, GELU, linear: `[..., d]` -> `[..., d]`.

    Args:
        dim: d.
        hidden: channels between the two.
        approximate: of GELU: 'none' (by erf) or 'tanh'.
    """

    def __init__(self, dim: int, hidden: int, approximate: str = "none") -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU(approximate)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """`[..., S, d]` -> `[..., H, S, D]`, a view."""
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The two products of attention and the softmax between them; the scale is in Q already.

    Shape:
        q `[..., H, S, D]`, k and v `[..., H, K, D]` -> `[..., H, S, D]`.
    """
    weights = torch.softmax(q @ k.transpose(-2, -1), dim=-1)  # [..., H, S, K]
    return weights @ v


class Attention(nn.Module):
    """Multi-head attention of queries over keys.

    Args:
        dim: d.
        heads: H.
        biased: which of 'q', 'k' and 'v' have a bias.

    Shape:
        queries `[..., S, d]`, keys `[..., K, d]` -> `[..., S, d]`; leading axes are batch.
    """

    def __init__(self, dim: int, heads: int, biased: Collection[str] = ()) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.q = nn.Linear(dim, dim, bias="q" in biased)
        self.k = nn.Linear(dim, dim, bias="k" in biased)
        self.v = nn.Linear(dim, dim, bias="v" in biased)
        self.out = nn.Linear(dim, dim)

    def offered(self, x: Tensor) -> Tensor:
        """Projected keys or values by head; a variant of attention may change them."""
        return split_heads(x, self.heads)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        q = split_heads(self.q(queries), self.heads) * self.scale  # [..., H, S, D]
        k, v = self.offered(self.k(keys)), self.offered(self.v(keys))  # [..., H, K, D]
        return self.out(attend(q, k, v).transpose(-3, -2).flatten(-2))  # [..., S, d]
