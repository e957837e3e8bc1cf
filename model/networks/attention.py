"""Local window attention and pooled global attention, written by hand.

Notation: B clips, N = T*h*w tokens, d channels, H heads, D = d / H, W windows, L = f*h*w tokens of a window.

The scale multiplies Q before the product, because TensorRT's fused kernels ask for it there (and have been wrong with
it behind the product). Q, K and V are separate projections without bias: packed ones cost kernels and lose INT8.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import ModelConfig


class FeedForward(nn.Module):
    """Linear, GELU, linear: `[..., d]` -> `[..., d]`."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


def split_windows(tokens: Tensor, config: ModelConfig) -> Tensor:
    """Natural order (time, row, column) to windows: `[B, N, C]` -> `[B, W, L, C]`."""
    f, h, w = config.window
    batch, _, channels = tokens.shape
    x = tokens.view(batch, config.frames // f, f, config.grid // h, h, config.grid // w, w, channels)
    x = x.permute(0, 1, 3, 5, 2, 4, 6, 7)  # [B, T/f, G/h, G/w, f, h, w, C]
    return x.reshape(batch, config.windows, config.window_tokens, channels)


def merge_windows(windows: Tensor, config: ModelConfig) -> Tensor:
    """Windows back to natural order: `[B, W, L, C]` -> `[B, N, C]`."""
    f, h, w = config.window
    batch, _, _, channels = windows.shape
    x = windows.view(batch, config.frames // f, config.grid // h, config.grid // w, f, h, w, channels)
    x = x.permute(0, 1, 4, 2, 5, 3, 6, 7)  # [B, T/f, f, G/h, h, G/w, w, C]
    return x.reshape(batch, config.tokens, channels)


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

    Shape:
        queries `[..., S, d]`, keys `[..., K, d]` -> `[..., S, d]`; leading axes are batch.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.q = nn.Linear(dim, dim, bias=False)
        self.k = nn.Linear(dim, dim, bias=False)
        self.v = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim)

    def offered(self, x: Tensor) -> Tensor:
        """Projected keys or values by head; a variant of attention may change them."""
        return split_heads(x, self.heads)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        q = split_heads(self.q(queries), self.heads) * self.scale  # [..., H, S, D]
        k, v = self.offered(self.k(keys)), self.offered(self.v(keys))  # [..., H, K, D]
        return self.out(attend(q, k, v).transpose(-3, -2).flatten(-2))  # [..., S, d]


class LocalAttention(nn.Module):
    """Attention inside each non-overlapping (f, h, w) window; [CLS] stays outside.

    Shape:
        tokens `[B, N, d]` -> `[B, N, d]`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.attention = Attention(config.embed_dim, config.heads)

    def forward(self, tokens: Tensor) -> Tensor:
        windows = split_windows(tokens, self.config)  # [B, W, L, d]
        return merge_windows(self.attention(windows, windows), self.config)


class GlobalAttention(nn.Module):
    """Every token and [CLS] ask [CLS] and one pooled token of each region.

    The pooling is a depth-wise 3-D convolution whose kernel and stride are the window, then LayerNorm.

    Shape:
        cls `[B, 1, d]`, tokens `[B, N, d]` -> `[B, 1 + N, d]`, [CLS] first.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        d = config.embed_dim
        self.pool = nn.Conv3d(d, d, config.window, config.window, groups=d)
        self.norm = nn.LayerNorm(d)
        self.attention = Attention(d, config.heads)

    def forward(self, cls: Tensor, tokens: Tensor) -> Tensor:
        c = self.config
        volume = tokens.transpose(1, 2).unflatten(2, (c.frames, c.grid, c.grid))  # [B, d, T, G, G]
        pooled = self.norm(self.pool(volume).flatten(2).transpose(1, 2))  # [B, W, d]
        return self.attention(torch.cat([cls, tokens], 1), torch.cat([cls, pooled], 1))  # [B, 1 + N, d]
