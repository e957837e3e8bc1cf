"""Former-DFER, written for the compiler.

What differs from the readable model, each exact: the batch axis is gone but for frames, attention and trunk are as in
`attention.py`, and after the last block only [CLS] is read, so its feed-forward network computes nothing else.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from ...model.networks.former_dfer.model import EncoderBlock, FormerDfer
from .attention import WindowAttention, fold_batchnorm, fold_normalisation


class Encoder(nn.Module):
    """A block: `[B, S, d]` -> the same; last: `[B, 1, d]`, its first token.

    Args:
        block: of the readable model.
        last: whether only the first token is read afterwards.
    """

    def __init__(self, block: EncoderBlock, *, last: bool = False) -> None:
        super().__init__()
        self.last = last
        self.norm_attention, self.norm_ffn = copy.deepcopy(block.norm_attention), copy.deepcopy(block.norm_ffn)
        self.attention = WindowAttention(block.attention)
        self.ffn = copy.deepcopy(block.ffn)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_attention(x)
        x = x + self.attention(y, y)
        if self.last:  # not before the attention: a query of its own is three kernels more (TensorRT-RTX 1.7.1, sm86)
            x = x[:, :1]
        fed: Tensor = x + self.ffn(self.norm_ffn(x))
        return fed


class FormerDferFrame(nn.Module):
    """Pixels to a vector.

    Shape:
        float `[B, S, S, 3]` RGB in 0..255 -> `[B, 1, d]`.
    """

    def __init__(self, model: FormerDfer) -> None:
        super().__init__()
        self.trunk = fold_batchnorm(model.trunk)
        self.offset = fold_normalisation(model, self.trunk)
        self.positions = nn.Parameter(model.pos_spatial.detach().clone())
        self.spatial_blocks = nn.ModuleList(Encoder(cast("EncoderBlock", block)) for block in model.spatial_blocks)

    def forward(self, frames: Tensor) -> Tensor:
        if self.offset is not None:
            frames = frames - self.offset
        last = self.trunk.stages - 1
        x = self.trunk.stage_range(self.trunk.stem(frames.permute(0, 3, 1, 2)), 0, last)  # [B, c, h, w]
        batch, channels, rows, columns = x.shape
        tokens = x.flatten(2).transpose(1, 2) + self.positions  # [B, h*w, c]
        for block in self.spatial_blocks:
            tokens = block(tokens)
        x = self.trunk.stage_range(
            tokens.view(batch, rows, columns, channels).permute(0, 3, 1, 2), last, last + 1
        )  # [B, d, h, w]
        return x.flatten(2).mean(2)[:, None]


class FormerDferTemporal(nn.Module):
    """The vectors of T frames to probabilities: `[T, d]` or `[T, 1, d]` -> `[1, C]`."""

    def __init__(self, model: FormerDfer) -> None:
        super().__init__()
        with torch.no_grad():
            self.cls = nn.Parameter(model.cls + model.pos_temporal[:1])  # [1, d]
            self.positions = nn.Parameter(model.pos_temporal[1:].clone())  # [T, d]
        last = len(model.temporal_blocks) - 1
        self.blocks = nn.ModuleList(
            Encoder(cast("EncoderBlock", block), last=index == last)
            for index, block in enumerate(model.temporal_blocks)
        )
        self.head = copy.deepcopy(model.head)

    def forward(self, tokens: Tensor) -> Tensor:
        x = torch.cat([self.cls, tokens.reshape(self.positions.shape) + self.positions])[None]  # [1, 1 + T, d]
        for block in self.blocks:
            x = block(x)
        return torch.softmax(self.head(x[:, 0]), dim=-1)
