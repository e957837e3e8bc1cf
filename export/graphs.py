"""The three graphs: `model/networks/logoformer.py`, written for the compiler.

* `ClipGraph`: uint8 `[1, T, S, S, 3]` -> probabilities `[1, C]`;
* `FrameGraph`: uint8 `[1, S, S, 3]` -> tokens `[1, h*w, d]`;
* `TemporalGraph`: ring `[R*h*w, d]` and order int32 `[T*h*w]` -> probabilities `[1, C]`.

What differs from the readable model, each exact:

* tokens are in window order from the first gather to the last block, so windows are contiguous, and the pooling
  (kernel = stride = window) is a weighted sum over one axis: no transpose in any block;
* BatchNorm, the division by 255 and by std are folded into convolutions (the mean is not: zero padding);
* the attention scale is folded into Wq;
* after the last block only [CLS] is read, so its global attention has one query and its FFN one token.

Notation: W windows, L tokens of a window, N = W*L, H heads, D channels of a head, d = H*D.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..clips import window_order
from ..model.networks.backbone import BasicBlock, Trunk
from ..model.networks.config import ModelConfig
from ..model.networks.logoformer import Block, LogoFormer
from .schemes import SchemeTokens, WindowAttention

GRAPHS = ("clip", "frame", "temporal")


# --------------------------------------------------------------------------------------------------------------- frame
def _fold_batchnorm(trunk: Trunk) -> Trunk:
    folded = copy.deepcopy(trunk).eval()

    def fold(owner: nn.Module, conv: str, norm: str) -> None:
        fused = fuse_conv_bn_eval(owner.get_submodule(conv), owner.get_submodule(norm))  # type: ignore[type-var, arg-type]
        owner.set_submodule(conv, fused)
        owner.set_submodule(norm, nn.Identity())

    fold(folded, "conv1", "bn1")
    for module in folded.modules():
        if isinstance(module, BasicBlock):
            fold(module, "conv1", "bn1")
            fold(module, "conv2", "bn2")
            if module.downsample is not None:
                fold(module.downsample, "0", "1")
    return folded


class FrameTokens(nn.Module):
    """Pixels to tokens.

    Shape:
        float `[B, S, S, 3]` RGB in 0..255 -> `[B, h*w, d]`, rows of the map first.
    """

    def __init__(self, model: LogoFormer) -> None:
        super().__init__()
        mean, std = model.mean.view(3), model.std.view(3)
        self.trunk = _fold_batchnorm(model.trunk)
        with torch.no_grad():  # (x/255 - mean) / std = (x - 255*mean) / (255*std): the divisor goes into the weights
            self.trunk.conv1.weight /= (255.0 * std).view(1, 3, 1, 1)
        self.offset: Tensor | None = (255.0 * mean) if bool(mean.any()) else None
        self.project = copy.deepcopy(model.project)

    def forward(self, frames: Tensor) -> Tensor:
        if self.offset is not None:
            frames = frames - self.offset
        x = self.project(self.trunk(frames.permute(0, 3, 1, 2)))  # [B, d, h, w]
        return x.flatten(2).transpose(1, 2)


class FrameGraph(nn.Module):
    """uint8 `[1, S, S, 3]` -> tokens `[1, h*w, d]`."""

    def __init__(self, model: LogoFormer) -> None:
        super().__init__()
        self.frame = FrameTokens(model)

    def forward(self, frame: Tensor) -> Tensor:
        tokens: Tensor = self.frame(frame.float())  # the Cast comes first: nothing else may consume uint8 in TensorRT
        return tokens


# --------------------------------------------------------------------------------------------------------------- blocks
class WindowBlock(nn.Module):
    """One block in window order.

    Shape:
        `[1, 1 + N, d]`, [CLS] first -> the same; the last block returns `[1, 1, d]`, [CLS] alone.
    """

    def __init__(self, block: Block, config: ModelConfig, *, last: bool) -> None:
        super().__init__()
        self.windows, self.window_tokens, self.last = config.windows, config.window_tokens, last
        pool = block.global_attention.pool
        self.norm_local = copy.deepcopy(block.norm_local)
        self.norm_global = copy.deepcopy(block.norm_global)
        self.norm_ffn = copy.deepcopy(block.norm_ffn)
        self.local_attention = WindowAttention(block.local_attention.attention)
        self.global_attention = WindowAttention(block.global_attention.attention)
        self.norm_pool = copy.deepcopy(block.global_attention.norm)
        self.ffn = copy.deepcopy(block.ffn)
        # The depth-wise kernel [d, 1, f, h, w] weighs the tokens of a window: [L, d].
        self.pool_weight = nn.Parameter(pool.weight.detach().flatten(1).t().contiguous())
        self.pool_bias = nn.Parameter(pool.bias.detach().clone())  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        d = x.shape[2]
        cls, tokens = x[:, :1], x[:, 1:].reshape(self.windows, self.window_tokens, d)  # [1, 1, d], [W, L, d]
        y = self.norm_local(tokens)
        tokens = tokens + self.local_attention(y, y)
        x = torch.cat([cls, tokens.reshape(1, -1, d)], 1)  # [1, 1 + N, d]
        y = self.norm_global(x)
        windows = y[:, 1:].reshape(self.windows, self.window_tokens, d)
        pooled = self.norm_pool((windows * self.pool_weight).sum(1) + self.pool_bias)  # [W, d]
        keys = torch.cat([y[:, :1], pooled[None]], 1)  # [1, 1 + W, d]
        if self.last:
            x, y = cls, y[:, :1]  # [1, 1, d]: nothing else is read any more
        x = x + self.global_attention(y, keys)
        return x + self.ffn(self.norm_ffn(x))


class TemporalTokens(nn.Module):
    """Tokens in window order, without positions, to probabilities.

    Shape:
        `[N, d]` -> `[1, C]`.
    """

    def __init__(self, model: LogoFormer) -> None:
        super().__init__()
        c = model.config
        order = torch.from_numpy(window_order(c.frames, c.grid, c.window))
        with torch.no_grad():
            self.positions = nn.Parameter(model.positions()[order].contiguous())  # [N, d]
        self.cls = nn.Parameter(model.cls.detach().view(1, 1, -1).clone())
        self.blocks = nn.ModuleList(
            WindowBlock(block, c, last=index == c.depth - 1)  # type: ignore[arg-type]
            for index, block in enumerate(model.blocks)
        )
        self.norm = copy.deepcopy(model.norm)
        self.head = copy.deepcopy(model.head)

    def forward(self, tokens: Tensor) -> Tensor:
        x = torch.cat([self.cls, (tokens + self.positions)[None]], 1)  # [1, 1 + N, d]
        for block in self.blocks:
            x = block(x)
        return torch.softmax(self.head(self.norm(x.flatten(0, 1))), dim=-1)  # [1, 1, d] -> [1, C]


def temporal_tokens(model: LogoFormer) -> nn.Module:
    """Module from tokens in the graphs' order to probabilities, `[N, d]` -> `[1, C]`."""
    return TemporalTokens(model) if model.config.attention == "logo" else SchemeTokens(model)


class TemporalGraph(nn.Module):
    """Ring `[R*h*w, d]` and order int32 `[N]` -> `[1, C]`.

    The order says which ring row is read for each place of the window order.
    """

    def __init__(self, model: LogoFormer) -> None:
        super().__init__()
        self.temporal = temporal_tokens(model)

    def forward(self, ring: Tensor, order: Tensor) -> Tensor:
        probabilities: Tensor = self.temporal(torch.index_select(ring, 0, order))
        return probabilities


class ClipGraph(nn.Module):
    """uint8 `[1, T, S, S, 3]` -> probabilities `[1, C]`."""

    def __init__(self, model: LogoFormer) -> None:
        super().__init__()
        c = model.config
        self.frame = FrameTokens(model)
        self.temporal = temporal_tokens(model)
        f, h, w = c.token_window
        self.split = (c.frames // f, f, c.grid // h, h, c.grid // w, w, c.embed_dim)

    def forward(self, clip: Tensor) -> Tensor:
        tokens = self.frame(clip.float().flatten(0, 1))  # [T, h*w, d]; the Cast comes first
        windows = tokens.view(self.split).permute(0, 2, 4, 1, 3, 5, 6)  # [T/f, G/h, G/w, f, h, w, d]
        probabilities: Tensor = self.temporal(windows.reshape(-1, self.split[-1]))
        return probabilities


def build_graph(name: str, model: LogoFormer) -> nn.Module:
    """The module behind one of `GRAPHS`, in evaluation mode."""
    kinds: dict[str, type[ClipGraph | FrameGraph | TemporalGraph]] = {
        "clip": ClipGraph,
        "frame": FrameGraph,
        "temporal": TemporalGraph,
    }
    return kinds[name](model).eval()


def example_inputs(name: str, config: ModelConfig, ring_slots: int) -> dict[str, Tensor]:
    """Zero inputs with the graph's names, shapes and dtypes."""
    s = config.image_size
    if name == "clip":
        return {"clip": torch.zeros(1, config.frames, s, s, 3, dtype=torch.uint8)}
    if name == "frame":
        return {"frame": torch.zeros(1, s, s, 3, dtype=torch.uint8)}
    rows = ring_slots * config.tokens_per_frame
    return {
        "ring": torch.zeros(rows, config.embed_dim),
        "order": torch.zeros(config.tokens, dtype=torch.int32),
    }
