"""Local window attention and pooled global attention.

Notation: B clips, N = T*h*w tokens, d channels, W windows, L = f*h*w tokens of a window.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..attention import Attention
from .config import LogoFormerConfig


def split_windows(tokens: Tensor, config: LogoFormerConfig) -> Tensor:
    """Natural order (time, row, column) to windows: `[B, N, C]` -> `[B, W, L, C]`."""
    f, h, w = config.window
    batch, _, channels = tokens.shape
    x = tokens.view(batch, config.frames // f, f, config.grid // h, h, config.grid // w, w, channels)
    x = x.permute(0, 1, 3, 5, 2, 4, 6, 7)  # [B, T/f, G/h, G/w, f, h, w, C]
    return x.reshape(batch, config.windows, config.window_tokens, channels)


def merge_windows(windows: Tensor, config: LogoFormerConfig) -> Tensor:
    """Windows back to natural order: `[B, W, L, C]` -> `[B, N, C]`."""
    f, h, w = config.window
    batch, _, _, channels = windows.shape
    x = windows.view(batch, config.frames // f, config.grid // h, config.grid // w, f, h, w, channels)
    x = x.permute(0, 1, 4, 2, 5, 3, 6, 7)  # [B, T/f, f, G/h, h, G/w, w, C]
    return x.reshape(batch, config.tokens, channels)


class LocalAttention(nn.Module):
    """Attention inside each non-overlapping (f, h, w) window; [CLS] stays outside.

    Shape:
        tokens `[B, N, d]` -> `[B, N, d]`.
    """

    def __init__(self, config: LogoFormerConfig) -> None:
        super().__init__()
        self.config = config
        self.attention = Attention(config.embed_dim, config.heads, config.biased)

    def forward(self, tokens: Tensor) -> Tensor:
        windows = split_windows(tokens, self.config)  # [B, W, L, d]
        return merge_windows(self.attention(windows, windows), self.config)


class GlobalAttention(nn.Module):
    """Every token and [CLS] ask [CLS] and one pooled token of each region.

    The pooling is a depth-wise 3-D convolution whose kernel and stride are the window, then LayerNorm.

    Shape:
        cls `[B, 1, d]`, tokens `[B, N, d]` -> `[B, 1 + N, d]`, [CLS] first.
    """

    def __init__(self, config: LogoFormerConfig) -> None:
        super().__init__()
        self.config = config
        d = config.embed_dim
        self.pool = nn.Conv3d(d, d, config.window, config.window, groups=d)
        self.norm = nn.LayerNorm(d)
        self.attention = Attention(d, config.heads, config.biased)

    def forward(self, cls: Tensor, tokens: Tensor) -> Tensor:
        c = self.config
        volume = tokens.transpose(1, 2).unflatten(2, (c.frames, c.grid, c.grid))  # [B, d, T, G, G]
        pooled = self.norm(self.pool(volume).flatten(2).transpose(1, 2))  # [B, W, d]
        return self.attention(torch.cat([cls, tokens], 1), torch.cat([cls, pooled], 1))  # [B, 1 + N, d]
