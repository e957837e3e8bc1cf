"""MAE-DFER's LGI-Former: tubelets of pixels, regions, one token for each region.

Sun, Lian, Liu, Tao: "MAE-DFER: Efficient Masked Autoencoder for Self-supervised Dynamic Facial Expression Recognition",
ACM MM 2023 (arXiv 2307.02227). A block, pre-norm with residuals throughout: every region, its own token included,
attends within itself; the region tokens attend to each other; every local token asks the region tokens; all pass the
feed-forward network. The classifier reads the mean of the region tokens, normalised.

Written from the paper and from the names and shapes of its public weights. What those weights need: biases of Q and V
and none of K, LayerNorm with epsilon 1e-6, GELU by erf, fixed sinusoidal positions over the flat index (time, row,
column), which are in no file.

The convolution over a tubelet is the sum of one convolution a frame, so a frame's shares can be computed without its
neighbours (`embed_frames`): that is what a stream keeps. A clip whose frames are all there takes the convolution whole.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import Attention, FeedForward
from ..network import Network
from .config import MaeDferConfig

EPSILON = 1e-6


class StochasticDepth(nn.Module):
    """Leaves a residual branch out, clip by clip, in training (Huang et al., arXiv 1603.09382).

    Shape:
        `[B, ...]` -> the same.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) >= self.rate
        return x * kept / (1 - self.rate)


class RegionBlock(nn.Module):
    """Attention within regions, between their tokens, and from local tokens to region tokens.

    Shape:
        `[B, W, 1 + L, d]`, a region's own token first -> the same.
    """

    def __init__(self, config: MaeDferConfig, drop_path: float) -> None:
        super().__init__()
        d = config.embed_dim

        def norm() -> nn.LayerNorm:
            return nn.LayerNorm(d, eps=EPSILON)

        def attention() -> Attention:
            return Attention(d, config.heads, ("q", "v"))

        self.norm_local, self.local_attention = norm(), attention()
        self.norm_global, self.global_attention = norm(), attention()
        self.norm_tokens, self.norm_keys, self.interaction = norm(), norm(), attention()
        self.norm_ffn, self.ffn = norm(), FeedForward(d, config.ffn_dim)
        self.drop = nn.Dropout(config.dropout)
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_local(x)
        x = x + self.branch(self.local_attention(y, y))
        regions, tokens = x[:, :, 0], x[:, :, 1:]  # [B, W, d], [B, W, L, d]
        y = self.norm_global(regions)
        regions = regions + self.branch(self.global_attention(y, y))
        asked = self.norm_tokens(tokens).flatten(1, 2)  # [B, N, d]
        told = self.branch(self.interaction(asked, self.norm_keys(regions)))
        x = torch.cat([regions[:, :, None], tokens + told.view_as(tokens)], 2)
        fed: Tensor = x + self.branch(self.ffn(self.norm_ffn(x)))
        return fed

    def branch(self, x: Tensor) -> Tensor:
        """A residual branch, with what training leaves out of it."""
        left: Tensor = self.drop_path(self.drop(x))
        return left


class MaeDfer(Network):
    """The whole network.

    Shape:
        clips float `[B, T, 3, S, S]`, RGB in 0..1 -> logits `[B, C]`.
    """

    config: MaeDferConfig
    trunk: None = None
    positions: Tensor

    def __init__(self, config: MaeDferConfig) -> None:
        super().__init__()
        self.config = config
        d, kernel = config.embed_dim, (config.tubelet, config.patch, config.patch)
        self.embed = nn.Conv3d(3, d, kernel, kernel)
        self.region_tokens = nn.Parameter(torch.empty(config.regions, d))
        last = max(config.depth - 1, 1)
        self.blocks = nn.ModuleList(
            RegionBlock(config, config.drop_path * index / last) for index in range(config.depth)
        )
        self.norm = nn.LayerNorm(d, eps=EPSILON)
        self.head = nn.Linear(d, config.classes)
        self._keep_normalisation()
        self.register_buffer("positions", sinusoids(config.tokens, d), persistent=False)
        nn.init.trunc_normal_(self.region_tokens, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def embed_frames(self, frames: Tensor) -> Tensor:
        """A frame's share of a tubelet at each of the tubelet's places, the bias in the first.

        Pixels `[B, 3, S, S]` in 0..1 -> `[B, g*g, tubelet*d]`.
        """
        c, weight = self.config, self.embed.weight  # [d, 3, t, p, p]
        x = (frames - self.mean) / self.std
        shares = [
            F.conv2d(x, weight[:, :, place], self.embed.bias if place == 0 else None, c.patch)
            for place in range(c.tubelet)
        ]  # each [B, d, g, g]
        return torch.cat(shares, 1).flatten(2).transpose(1, 2)

    def features(self, clips: Tensor) -> Tensor:
        """What the classifier reads: `[B, T, 3, S, S]` -> `[B, d]`."""
        x = ((clips - self.mean) / self.std).transpose(1, 2)  # [B, 3, T, S, S]
        return self.encode_tubelets(self.embed(x).flatten(2).transpose(1, 2))

    def tubelets(self, tokens: Tensor) -> Tensor:
        """Frames' shares to tokens in natural order: `[B, T, g*g, tubelet*d]` -> `[B, N, d]`."""
        c = self.config
        x = tokens.unflatten(1, (-1, c.tubelet)).unflatten(4, (c.tubelet, -1))  # [B, T/t, t, g*g, t, d]
        return sum(x[:, :, place, :, place] for place in range(c.tubelet)).flatten(1, 2)  # type: ignore[union-attr]

    def encode(self, tokens: Tensor) -> Tensor:
        """Everything between the shares and the classifier: `[B, T, g*g, tubelet*d]` -> `[B, d]`."""
        return self.encode_tubelets(self.tubelets(tokens))

    def encode_tubelets(self, tokens: Tensor) -> Tensor:
        """Everything between the tokens and the classifier: `[B, N, d]`, natural order -> `[B, d]`."""
        c, x = self.config, tokens + self.positions
        (t, h, w), (frames, rows, columns) = c.region, c.map
        x = x.view(-1, frames // t, t, rows // h, h, columns // w, w, c.embed_dim)
        x = x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6).flatten(1, 3)  # [B, W, L, d]
        x = torch.cat([self.region_tokens[:, None].expand(x.shape[0], -1, -1, -1), x], 2)  # [B, W, 1 + L, d]
        for block in self.blocks:
            x = block(x)
        read = {"region": x[:, :, 0], "local": x[:, :, 1:].flatten(1, 2), "all": x.flatten(1, 2)}[c.read]
        return self.norm(read.mean(1))


def sinusoids(count: int, dim: int) -> Tensor:
    """Fixed positions: sine in even channels, cosine in odd ones.

    Vaswani et al., arXiv 1706.03762.

    Returns:
        float32 `[count, dim]`, computed in float64; the rate of channel c is 10000^(-2 floor(c / 2) / dim).
    """
    channel = torch.arange(dim, dtype=torch.float64)
    angles = torch.arange(count, dtype=torch.float64)[:, None] / 10000 ** (2 * (channel // 2) / dim)
    table = torch.where(channel % 2 == 0, angles.sin(), angles.cos())
    return table.float()
