"""Former-DFER: a transformer inside each frame's ResNet, and one over the frames' vectors.

Zhao, Liu: "Former-DFER: Dynamic Facial Expression Recognition Transformer", ACM MM 2021. The map before the last
ResNet stage gets positions and passes the spatial transformer; the last stage and a mean over places make one vector a
frame. The temporal transformer takes [CLS] and the T vectors with positions; the classifier reads [CLS] as it is.

Written from the paper and from the names and shapes of its public weights. What those weights need: GELU by tanh,
LayerNorm with epsilon 1e-5, Q, K and V without bias, pixels in 0..1 as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..attention import Attention, FeedForward
from ..backbone import Trunk
from ..network import Network
from .config import FormerDferConfig


class EncoderBlock(nn.Module):
    """Self-attention and feed-forward network; pre-norm, each with a residual.

    Shape:
        `[B, S, d]` -> `[B, S, d]`.
    """

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.norm_ffn = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, hidden, "tanh")
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_attention(x)
        x = x + self.drop(self.attention(y, y))
        fed: Tensor = x + self.drop(self.ffn(self.norm_ffn(x)))
        return fed


class FormerDfer(Network):
    """The whole network.

    Shape:
        clips float `[B, T, 3, S, S]`, RGB in 0..1 -> logits `[B, C]`.
    """

    config: FormerDferConfig
    trunk: Trunk

    def __init__(self, config: FormerDferConfig) -> None:
        super().__init__()
        self.config = config
        inner, d = config.spatial_dim, config.embed_dim
        self.trunk = Trunk(config.stem_kernel, config.stage_widths, config.stage_blocks)
        self.pos_spatial = nn.Parameter(torch.empty(config.places, inner))
        self.spatial_blocks = nn.ModuleList(
            EncoderBlock(inner, config.spatial_heads, config.spatial_ffn, config.dropout)
            for _ in range(config.spatial_depth)
        )
        self.cls = nn.Parameter(torch.empty(1, d))
        self.pos_temporal = nn.Parameter(torch.empty(1 + config.frames, d))
        self.temporal_blocks = nn.ModuleList(
            EncoderBlock(d, config.temporal_heads, config.temporal_ffn, config.dropout)
            for _ in range(config.temporal_depth)
        )
        self.head = nn.Linear(d, config.classes)
        self._keep_normalisation()
        for parameter in (self.pos_spatial, self.cls, self.pos_temporal):
            nn.init.normal_(parameter)

    def embed_frames(self, frames: Tensor) -> Tensor:
        """One frame each: `[B, 3, S, S]` in 0..1 -> `[B, 1, d]`."""
        last = self.trunk.stages - 1
        x = self.trunk.stage_range(self.trunk.stem((frames - self.mean) / self.std), 0, last)  # [B, c, h, w]
        tokens = x.flatten(2).transpose(1, 2) + self.pos_spatial  # [B, h*w, c]
        for block in self.spatial_blocks:
            tokens = block(tokens)
        x = self.trunk.stage_range(tokens.transpose(1, 2).unflatten(2, x.shape[2:]), last, last + 1)  # [B, d, h, w]
        return x.mean((2, 3))[:, None]

    def encode(self, tokens: Tensor) -> Tensor:
        """The transformer over frames: `[B, T, 1, d]` -> `[B, d]`."""
        x = tokens.flatten(1, 2)  # [B, T, d]
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.pos_temporal  # [B, 1 + T, d]
        for block in self.temporal_blocks:
            x = block(x)
        return x[:, 0]
