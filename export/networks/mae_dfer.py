"""MAE-DFER (LGI-Former), written for the compiler.

What differs from the readable model, each exact:

* the batch axis is gone; tokens stand region by region from the first gather to the last block, a region's own token
  first;
* without padding, mean and std fold into the weights and the bias of the convolution over tubelets;
* attention as in `attention.py`;
* where the classifier reads region tokens alone, the last block computes only those.

Notation: W regions of L tokens, N = W*L, H heads, D channels of a head, d = H*D.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from ...clips import window_order
from ...model.networks.mae_dfer.config import MaeDferConfig
from ...model.networks.mae_dfer.model import MaeDfer, RegionBlock
from .attention import WindowAttention


class Region(nn.Module):
    """A block.

    `[W, 1 + L, d]` -> the same; last: `[W, 1, d]`, the regions' own tokens.

    Args:
        block: of the readable model.
        last: whether only the regions' own tokens are read afterwards.
    """

    def __init__(self, block: RegionBlock, *, last: bool) -> None:
        super().__init__()
        self.last = last
        for name, module in block.named_children():
            if name.startswith("norm") or name == "ffn":
                self.add_module(name, copy.deepcopy(module))
        self.local_attention = WindowAttention(block.local_attention)
        self.global_attention = WindowAttention(block.global_attention)
        if last:
            del self.norm_tokens, self.norm_keys
        else:
            self.interaction = WindowAttention(block.interaction)

    def forward(self, x: Tensor) -> Tensor:
        regions, d = x.shape[0], x.shape[2]
        y = self.get_submodule("norm_local")(x)
        if self.last:
            x, asked = x[:, :1], y[:, :1]
        else:
            asked = y
        x = x + self.local_attention(asked, y)
        own = x[:, :1].reshape(1, regions, d)  # [1, W, d]
        y = self.get_submodule("norm_global")(own)
        own = own + self.global_attention(y, y)
        if self.last:
            return self.feed(own).view(regions, 1, d)
        tokens = x[:, 1:].reshape(1, -1, d)  # [1, N, d]
        keys = self.get_submodule("norm_keys")(own)
        tokens = tokens + self.interaction(self.get_submodule("norm_tokens")(tokens), keys)
        return self.feed(torch.cat([own.view(regions, 1, d), tokens.view(regions, -1, d)], 1))

    def feed(self, x: Tensor) -> Tensor:
        fed: Tensor = x + self.get_submodule("ffn")(self.get_submodule("norm_ffn")(x))
        return fed


def folded_embedding(model: MaeDfer) -> tuple[Tensor, Tensor]:
    """The convolution over tubelets for pixels in 0..255.

    Returns:
        Weights `[d, 3, t, p, p]` and bias `[d]`.
    """
    weight, bias = model.embed.weight.detach(), model.embed.bias
    mean, std = model.mean.view(1, 3, 1, 1, 1), model.std.view(1, 3, 1, 1, 1)
    if bias is None:
        raise TypeError("a convolution over tubelets without a bias")
    return weight / (255.0 * std), bias.detach() - (weight * mean / std).sum((1, 2, 3, 4))


class MaeDferFrame(nn.Module):
    """Pixels to a frame's share of a tubelet at each of its places, the bias in the first.

    Shape:
        float `[B, S, S, 3]` RGB in 0..255 -> `[B, g*g, t*d]`.
    """

    def __init__(self, model: MaeDfer) -> None:
        super().__init__()
        c = model.config
        weight, bias = folded_embedding(model)
        self.embed = nn.Conv2d(3, c.token_dim, c.patch, c.patch)
        with torch.no_grad():
            self.embed.weight.copy_(weight.permute(2, 0, 1, 3, 4).flatten(0, 1))  # [t*d, 3, p, p]
            self.embed.bias.copy_(torch.cat([bias, bias.new_zeros(c.token_dim - c.embed_dim)]))  # type: ignore[union-attr]

    def forward(self, frames: Tensor) -> Tensor:
        x = self.embed(frames.permute(0, 3, 1, 2))  # [B, t*d, g, g]
        return x.flatten(2).transpose(1, 2)


class MaeDferTokens(nn.Module):
    """Tokens region by region, without positions, to probabilities: `[W, L, d]` -> `[1, C]`."""

    def __init__(self, model: MaeDfer) -> None:
        super().__init__()
        c = self.config = model.config
        with torch.no_grad():
            self.positions = nn.Parameter(region_order(model).view(c.regions, c.region_tokens, -1).contiguous())
            self.own = nn.Parameter(model.region_tokens[:, None].clone())  # [W, 1, d]
        self.blocks = nn.ModuleList(Region(block, last=last) for block, last in blocks_of(model))
        self.norm, self.head = copy.deepcopy(model.norm), copy.deepcopy(model.head)

    def forward(self, tokens: Tensor) -> Tensor:
        x = torch.cat([self.own, tokens + self.positions], 1)  # [W, 1 + L, d]
        for block in self.blocks:
            x = block(x)
        if self.config.read == "local":
            x = x[:, 1:]
        features = self.norm(x.flatten(0, 1).mean(0, keepdim=True))  # [1, d]
        return torch.softmax(self.head(features), dim=-1)


class MaeDferTemporal(MaeDferTokens):
    """Frames' shares in the graphs' order to probabilities: `[T*g*g, t*d]` -> `[1, C]`."""

    def forward(self, shares: Tensor) -> Tensor:
        return super().forward(tubelets_of(shares, self.config))


def tubelets_of(shares: Tensor, config: MaeDferConfig) -> Tensor:
    """Adds the frames' shares of each tubelet.

    Rows in the graphs' order `[T*g*g, t*d]` -> `[W, L, d]`.
    """
    t, rows, columns = config.region
    x = shares.view(config.regions, t, config.tubelet, rows * columns, config.tubelet, config.embed_dim)
    tokens = x[:, :, 0, :, 0]
    for place in range(1, config.tubelet):
        tokens = tokens + x[:, :, place, :, place]
    return tokens.reshape(config.regions, config.region_tokens, -1)


def blocks_of(model: MaeDfer) -> Iterator[tuple[RegionBlock, bool]]:
    """Each block, and whether only the regions' own tokens are read after it."""
    c = model.config
    for index, block in enumerate(model.blocks):
        yield cast("RegionBlock", block), c.read == "region" and index == c.depth - 1


def region_order(model: MaeDfer) -> Tensor:
    """The positions region by region, `[N, d]`."""
    c = model.config
    return model.positions[torch.from_numpy(window_order(c.map[0], c.grid, c.region))]


class MaeDferTubelets(nn.Module):
    """All frames of a clip to tokens region by region: whole tubelets in one convolution.

    Shape:
        float `[T, S, S, 3]` RGB in 0..255 -> `[W, L, d]`.
    """

    def __init__(self, model: MaeDfer) -> None:
        super().__init__()
        c = self.config = model.config
        weight, bias = folded_embedding(model)
        self.embed = nn.Conv2d(3 * c.tubelet, c.embed_dim, c.patch, c.patch)
        with torch.no_grad():
            self.embed.weight.copy_(weight.transpose(1, 2).flatten(1, 2))  # [d, t*3, p, p]
            self.embed.bias.copy_(bias)  # type: ignore[union-attr]

    def forward(self, frames: Tensor) -> Tensor:
        c = self.config
        size = c.image_size
        x = frames.permute(0, 3, 1, 2).reshape(-1, 3 * c.tubelet, size, size)  # [T/t, t*3, S, S]
        x = self.embed(x)  # [T/t, d, g, g]
        (t, h, w), (times, rows, columns) = c.region, c.map
        x = x.view(times // t, t, -1, rows // h, h, columns // w, w)
        x = x.permute(0, 3, 5, 1, 4, 6, 2)  # regions along time, rows and columns, then what is in one
        return x.reshape(c.regions, c.region_tokens, -1)
