"""LOGO-Former: a clip of face frames in, one expression out.

Ma, Sun, Li: "Logo-Former: Local-Global Spatio-Temporal Transformer for Dynamic Facial Expression Recognition",
ICASSP 2023 (arXiv 2305.03343). A ResNet runs on each frame; a 1x1 convolution projects its map to tokens; learnable
spatial and temporal positions are added; N blocks of local window attention, pooled global attention and a
feed-forward network follow; one linear layer reads [CLS].

What the paper leaves open is decided here and said: [CLS] is outside the local windows and is one query and one key of
the global attention; every branch is pre-norm with a residual; a LayerNorm precedes the classifier.

This file is the readable model in natural token order. `export/networks/logoformer.py` holds the same function in
window order.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..attention import FeedForward
from ..backbone import Trunk
from ..network import Network
from .attention import GlobalAttention, LocalAttention
from .config import LogoFormerConfig
from .schemes import DividedBlock, FrameBlock, LgiBlock


class Block(nn.Module):
    """Local attention, global attention, feed-forward network; pre-norm, each with a residual.

    Shape:
        cls `[B, 1, d]`, tokens `[B, N, d]` -> the same two.
    """

    def __init__(self, config: LogoFormerConfig) -> None:
        super().__init__()
        d = config.embed_dim
        self.norm_local = nn.LayerNorm(d)
        self.local_attention = LocalAttention(config)
        self.norm_global = nn.LayerNorm(d)
        self.global_attention = GlobalAttention(config)
        self.norm_ffn = nn.LayerNorm(d)
        self.ffn = FeedForward(d, config.ffn_dim)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, cls: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        tokens = tokens + self.drop(self.local_attention(self.norm_local(tokens)))  # [B, N, d]
        x = torch.cat([cls, tokens], 1)  # [B, 1 + N, d]
        y = self.norm_global(x)
        x = x + self.drop(self.global_attention(y[:, :1], y[:, 1:]))
        x = x + self.drop(self.ffn(self.norm_ffn(x)))
        return x[:, :1], x[:, 1:]


BLOCKS: dict[str, type[nn.Module]] = {
    "logo": Block, "joint": FrameBlock, "space": FrameBlock, "divided": DividedBlock, "mixing": FrameBlock,
    "lgi": LgiBlock,
}  # fmt: skip


class LogoFormer(Network):
    """The whole network.

    `config.attention` chooses LOGO-Former's blocks or those that it is compared with.

    Shape:
        clips float `[B, T, 3, S, S]`, RGB in 0..1 -> logits `[B, C]`.
    """

    config: LogoFormerConfig
    trunk: Trunk

    def __init__(self, config: LogoFormerConfig) -> None:
        super().__init__()
        self.config = config
        d = config.embed_dim
        self.trunk = Trunk(config.stem_kernel, config.stage_widths, config.stage_blocks)
        self.project = nn.Conv2d(config.stage_widths[-1], d, 1)
        self.pos_spatial = nn.Parameter(torch.zeros(config.tokens_per_frame, d))
        self.pos_temporal = nn.Parameter(torch.zeros(config.frames, d)) if config.attention != "space" else None
        self.cls = nn.Parameter(torch.zeros(d))
        self.representatives = nn.Parameter(torch.zeros(config.windows, d)) if config.attention == "lgi" else None
        self.blocks = nn.ModuleList(BLOCKS[config.attention](config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, config.classes)
        self._keep_normalisation()
        self._initialise()

    def _initialise(self) -> None:
        for parameter in (self.pos_spatial, self.pos_temporal, self.cls, self.representatives):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)
        nn.init.kaiming_normal_(self.project.weight, mode="fan_out")
        nn.init.zeros_(self.project.bias)  # type: ignore[arg-type]
        for module in [*self.blocks.modules(), self.head]:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def embed_frames(self, frames: Tensor) -> Tensor:
        """One frame each: `[B, 3, S, S]` in 0..1 -> tokens `[B, h*w, d]`, without positions."""
        maps = self.project(self.trunk((frames - self.mean) / self.std))  # [B, d, h, w]
        return maps.flatten(2).transpose(1, 2)

    def encode(self, tokens: Tensor) -> Tensor:
        """Everything between the frames and the classifier.

        Tokens `[B, T, h*w, d]`, without positions -> `[B, d]`.
        """
        tokens = tokens + self.pos_spatial
        if self.pos_temporal is not None:
            tokens = tokens + self.pos_temporal[:, None]
        x = tokens.flatten(1, 2)  # [B, N, d]
        prefix = self.prefix().expand(x.shape[0], -1, -1)  # [B, P, d]
        for block in self.blocks:
            prefix, x = block(prefix, x)
        features: Tensor = self.norm(prefix[:, : self.config.cls_tokens]).mean(1)
        return features

    def positions(self) -> Tensor:
        """The positions added to the tokens, `[N, d]`, natural order."""
        temporal = torch.zeros_like(self.cls) if self.pos_temporal is None else self.pos_temporal[:, None]
        return (self.pos_spatial + temporal).expand(self.config.frames, -1, -1).flatten(0, 1)

    def prefix(self) -> Tensor:
        """The tokens that belong to no place: [CLS], and lgi's representatives; `[P, d]`."""
        cls = self.cls.expand(self.config.cls_tokens, -1)
        return cls if self.representatives is None else torch.cat([cls, self.representatives])
