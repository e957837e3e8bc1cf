"""Five other schemes of attention over space and time, for comparison with LOGO-Former.

* joint: every token asks every token. O(T^2 S^2)
* space: every frame for itself, a [CLS] in each, averaged at the end; no temporal positions, so the order of the frames
  cannot matter. O(T S^2)
* divided: over time at each place, then over space in each frame (Bertasius et al., "Is Space-Time Attention All You
  Need for Video Understanding?", ICML 2021, arXiv 2102.05095). O(T S^2 + T^2 S)
* mixing: over space in each frame, with keys and values whose channels come from the neighbouring frames too (Bulat et
  al., "Space-time Mixing Attention for Video Transformer", NeurIPS 2021, arXiv 2106.05968). O(T S^2)
* lgi: a representative token for each region, which attends in its region, then among the representatives; then every
  token asks the representatives (Sun et al., "MAE-DFER", ACM MM 2023, arXiv 2307.02227). Local and global as LOGO.

What is this project's own: the dimensions; [CLS] as one more representative of lgi; a quarter of each head's channels
from the frame before and a quarter from the frame after in mixing, borders repeated; plain means where papers differ.

Notation: B clips, T frames of S tokens, N = T*S, W regions of L tokens, P tokens of the prefix: [CLS] (one, or one a
frame), and lgi's representatives. A block takes prefix `[B, P, d]` and tokens `[B, N, d]` and gives the same two.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..attention import Attention, FeedForward
from .attention import merge_windows, split_windows
from .config import LogoFormerConfig


class _Block(nn.Module):
    """Base of the blocks: all end with the feed-forward network on every token."""

    def __init__(self, config: LogoFormerConfig) -> None:
        super().__init__()
        self.config = config
        self.norm_ffn = nn.LayerNorm(config.embed_dim)
        self.ffn = FeedForward(config.embed_dim, config.ffn_dim)
        self.drop = nn.Dropout(config.dropout)

    def feed(self, prefix: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([prefix, tokens], 1)  # [B, P + N, d]
        x = x + self.drop(self.ffn(self.norm_ffn(x)))
        return x[:, : prefix.shape[1]], x[:, prefix.shape[1] :]


class MixingAttention(Attention):
    """Attention inside each frame, with key and value channels of the neighbouring frames.

    Shape:
        queries and keys `[B, T, K, d]` -> `[B, T, K, d]`.
    """

    def offered(self, x: Tensor) -> Tensor:
        """Keys or values by head `[B, T, H, K, D]`, mixed over frames."""
        return mix_neighbours(super().offered(x))


def mix_neighbours(x: Tensor) -> Tensor:
    """Channels of three frames for each frame; `[B, T, H, K, D]`, the same shape.

    The first quarter comes from the frame before, the last from the one after.
    """
    quarter = x.shape[-1] // 4
    before = torch.cat([x[:, :1], x[:, :-1]], 1)
    after = torch.cat([x[:, 1:], x[:, -1:]], 1)
    return torch.cat([before[..., :quarter], x[..., quarter:-quarter], after[..., -quarter:]], -1)


class FrameBlock(_Block):
    """Each frame with its own [CLS]: space-only attention, or space-time mixing.

    Joint attention is that of one frame, which is the whole clip. The prefix has one token a frame.
    """

    def __init__(self, config: LogoFormerConfig) -> None:
        super().__init__(config)
        kind = MixingAttention if config.attention == "mixing" else Attention
        self.norm = nn.LayerNorm(config.embed_dim)
        self.attention = kind(config.embed_dim, config.heads, config.biased)

    def forward(self, prefix: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        frames = tokens.unflatten(1, (self.config.cls_tokens, -1))  # [B, T, S, d]
        x = torch.cat([prefix[:, :, None], frames], 2)  # [B, T, 1 + S, d]
        y = self.norm(x)
        x = x + self.drop(self.attention(y, y))
        return self.feed(x[:, :, 0], x[:, :, 1:].flatten(1, 2))


class DividedBlock(_Block):
    """Over time at each place, then over space in each frame.

    [CLS] joins every frame and takes the mean.
    """

    def __init__(self, config: LogoFormerConfig) -> None:
        super().__init__(config)
        self.norm_time = nn.LayerNorm(config.embed_dim)
        self.time_attention = Attention(config.embed_dim, config.heads, config.biased)
        self.norm_space = nn.LayerNorm(config.embed_dim)
        self.space_attention = Attention(config.embed_dim, config.heads, config.biased)

    def forward(self, prefix: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        frames = tokens.unflatten(1, (self.config.frames, -1))  # [B, T, S, d]
        y = self.norm_time(frames).transpose(1, 2)  # [B, S, T, d]
        frames = frames + self.drop(self.time_attention(y, y).transpose(1, 2))
        cls = prefix[:, None].expand(-1, self.config.frames, -1, -1)  # [B, T, 1, d]
        y = self.norm_space(torch.cat([cls, frames], 2))  # [B, T, 1 + S, d]
        z = self.drop(self.space_attention(y, y))
        return self.feed(prefix + z[:, :, 0].mean(1, keepdim=True), (frames + z[:, :, 1:]).flatten(1, 2))


class LgiBlock(_Block):
    """Local intra-region attention, global inter-region attention, local-global interaction.

    The prefix is [CLS] and one representative of each region.
    """

    def __init__(self, config: LogoFormerConfig) -> None:
        super().__init__(config)
        d, heads, biased = config.embed_dim, config.heads, config.biased
        self.norm_local = nn.LayerNorm(d)
        self.local_attention = Attention(d, heads, biased)
        self.norm_global = nn.LayerNorm(d)
        self.global_attention = Attention(d, heads, biased)
        self.norm_tokens = nn.LayerNorm(d)
        self.norm_keys = nn.LayerNorm(d)
        self.interaction = Attention(d, heads, biased)

    def forward(self, prefix: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        cls, representatives = prefix[:, :1], prefix[:, 1:, None]  # [B, 1, d], [B, W, 1, d]
        x = torch.cat([representatives, split_windows(tokens, self.config)], 2)  # [B, W, 1 + L, d]
        y = self.norm_local(x)
        x = x + self.drop(self.local_attention(y, y))
        prefix, tokens = torch.cat([cls, x[:, :, 0]], 1), merge_windows(x[:, :, 1:], self.config)
        y = self.norm_global(prefix)  # [B, 1 + W, d]
        prefix = prefix + self.drop(self.global_attention(y, y))
        tokens = tokens + self.drop(self.interaction(self.norm_tokens(tokens), self.norm_keys(prefix)))
        return self.feed(prefix, tokens)
