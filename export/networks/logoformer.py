"""LOGO-Former and the five schemes that it is compared with, written for the compiler.

What differs from the readable model, each exact:

* the batch axis is gone;
* tokens are in the order that needs the fewest transposes from the first gather to the last block: windows for logo and
  lgi, natural for the others. logo's windows are then contiguous, and its pooling (kernel = stride = window) is a
  weighted sum over one axis: no transpose in any block;
* attention as in `attention.py`;
* after the last block only [CLS] is read, so it computes only what that needs.

Notation: T frames of S tokens, N = T*S, W windows or regions of L tokens, H heads, D channels of a head, d = H*D.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ...clips import window_order
from ...model.networks.logoformer.config import LogoFormerConfig
from ...model.networks.logoformer.model import Block, LogoFormer
from ...model.networks.logoformer.schemes import DividedBlock, FrameBlock, LgiBlock
from .attention import WindowAttention, fold_batchnorm, fold_normalisation


class MixingWindowAttention(WindowAttention):
    """Windows are frames; keys and values borrow channels of the frames before and after."""

    def mixed(self, x: Tensor) -> Tensor:  # [T, K, H, D]
        quarter = x.shape[-1] // 4
        before = torch.cat([x[:1], x[:-1]], 0)
        after = torch.cat([x[1:], x[-1:]], 0)
        return torch.cat([before[..., :quarter], x[..., quarter:-quarter], after[..., -quarter:]], -1)


class _Scheme(nn.Module):
    """Copies of a block's norms and feed-forward network.

    Args:
        block: of the readable model.
        config: of the model.
        last: whether only [CLS] is read afterwards.
    """

    def __init__(self, block: nn.Module, config: LogoFormerConfig, *, last: bool) -> None:
        super().__init__()
        self.config, self.last = config, last
        for name, module in block.named_children():
            if name.startswith("norm") or name == "ffn":
                self.add_module(name, copy.deepcopy(module))

    def feed(self, x: Tensor) -> Tensor:
        ffn, norm = self.get_submodule("ffn"), self.get_submodule("norm_ffn")
        fed: Tensor = x + ffn(norm(x))
        return fed


class Sequences(_Scheme):
    """Sequences `[B, 1 + S, d]` -> the same; last: `[B, 1, d]`.

    One sequence of all tokens (joint), or one for each frame (space, mixing).
    """

    def __init__(self, block: FrameBlock, config: LogoFormerConfig, *, last: bool) -> None:
        super().__init__(block, config, last=last)
        kind = MixingWindowAttention if config.attention == "mixing" else WindowAttention
        self.attention = kind(block.attention)

    def forward(self, x: Tensor) -> Tensor:
        y = self.get_submodule("norm")(x)
        if self.last:
            return self.feed(x[:, :1] + self.attention(y[:, :1], y))
        return self.feed(x + self.attention(y, y))


class Divided(_Scheme):
    """cls `[1, 1, d]`, frames `[T, S, d]` -> the same two; last: cls alone."""

    def __init__(self, block: DividedBlock, config: LogoFormerConfig, *, last: bool) -> None:
        super().__init__(block, config, last=last)
        self.time_attention = WindowAttention(block.time_attention)
        self.space_attention = WindowAttention(block.space_attention)
        self.ones = nn.Parameter(torch.ones(config.frames, 1, 1))  # [T, 1, 1]: copies [CLS] to every frame

    def forward(self, cls: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        # Transposed before the norm: ONNX Runtime 1.24 and 1.25 end with a segmentation fault when they open an FP16
        # graph in which a product reads a transpose (onnxruntime issue 28392).
        y = self.get_submodule("norm_time")(frames.transpose(0, 1))  # [S, T, d]
        frames = frames + self.time_attention(y, y).transpose(0, 1)
        y = self.get_submodule("norm_space")(torch.cat([cls * self.ones, frames], 1))  # [T, 1 + S, d]
        if self.last:
            z = self.space_attention(y[:, :1], y)  # [T, 1, d]
            return self.feed(cls + z.mean(0, keepdim=True)), frames
        z = self.space_attention(y, y)
        cls, frames = cls + z[:, :1].mean(0, keepdim=True), frames + z[:, 1:]
        shape = frames.shape
        x = self.feed(torch.cat([cls, frames.reshape(1, -1, shape[2])], 1))  # [1, 1 + N, d]
        return x[:, :1], x[:, 1:].reshape(shape)


class Lgi(_Scheme):
    """prefix `[1, 1 + W, d]`, tokens `[W, L, d]` -> the same two; last: `[1, 1, d]` first."""

    def __init__(self, block: LgiBlock, config: LogoFormerConfig, *, last: bool) -> None:
        super().__init__(block, config, last=last)
        self.local_attention = WindowAttention(block.local_attention)
        self.global_attention = WindowAttention(block.global_attention)
        self.interaction = WindowAttention(block.interaction)

    def forward(self, prefix: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        regions, length, d = tokens.shape
        x = torch.cat([prefix[:, 1:].reshape(regions, 1, d), tokens], 1)  # [W, 1 + L, d]
        y = self.get_submodule("norm_local")(x)
        asked = y[:, :1] if self.last else y
        x = (x[:, :1] if self.last else x) + self.local_attention(asked, y)
        prefix = torch.cat([prefix[:, :1], x[:, :1].reshape(1, regions, d)], 1)  # [1, 1 + W, d]
        y = self.get_submodule("norm_global")(prefix)
        if self.last:
            return self.feed(prefix[:, :1] + self.global_attention(y[:, :1], y)), tokens
        prefix = prefix + self.global_attention(y, y)
        tokens = x[:, 1:].reshape(1, -1, d)  # [1, N, d]
        keys = self.get_submodule("norm_keys")(prefix)
        tokens = tokens + self.interaction(self.get_submodule("norm_tokens")(tokens), keys)
        x = self.feed(torch.cat([prefix, tokens], 1))  # [1, 1 + W + N, d]
        return x[:, : 1 + regions], x[:, 1 + regions :].reshape(regions, length, d)


class WindowBlock(_Scheme):
    """A block of LOGO-Former in window order.

    Shape:
        `[1, 1 + N, d]`, [CLS] first -> the same; the last block returns `[1, 1, d]`, [CLS] alone.
    """

    def __init__(self, block: Block, config: LogoFormerConfig, *, last: bool) -> None:
        super().__init__(block, config, last=last)
        pool = block.global_attention.pool
        self.local_attention = WindowAttention(block.local_attention.attention)
        self.global_attention = WindowAttention(block.global_attention.attention)
        self.norm_pool = copy.deepcopy(block.global_attention.norm)
        # The depth-wise kernel [d, 1, f, h, w] weighs the tokens of a window: [L, d].
        self.pool_weight = nn.Parameter(pool.weight.detach().flatten(1).t().contiguous())
        self.pool_bias = nn.Parameter(pool.bias.detach().clone())  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        c = self.config
        windows = (c.windows, c.window_tokens, c.embed_dim)  # W, L, d
        cls, tokens = x[:, :1], x[:, 1:].reshape(windows)
        y = self.get_submodule("norm_local")(tokens)
        tokens = tokens + self.local_attention(y, y)
        x = torch.cat([cls, tokens.reshape(1, -1, c.embed_dim)], 1)  # [1, 1 + N, d]
        y = self.get_submodule("norm_global")(x)
        pooled = self.norm_pool((y[:, 1:].reshape(windows) * self.pool_weight).sum(1) + self.pool_bias)  # [W, d]
        keys = torch.cat([y[:, :1], pooled[None]], 1)  # [1, 1 + W, d]
        if self.last:
            x, y = cls, y[:, :1]  # [1, 1, d]: nothing else is read any more
        return self.feed(x + self.global_attention(y, keys))


class LogoFormerFrame(nn.Module):
    """Pixels to tokens.

    Shape:
        float `[B, S, S, 3]` RGB in 0..255 -> `[B, h*w, d]`, rows of the map first.
    """

    def __init__(self, model: LogoFormer) -> None:
        super().__init__()
        self.trunk = fold_batchnorm(model.trunk)
        self.offset = fold_normalisation(model, self.trunk)
        self.project = copy.deepcopy(model.project)

    def forward(self, frames: Tensor) -> Tensor:
        if self.offset is not None:
            frames = frames - self.offset
        x = self.project(self.trunk(frames.permute(0, 3, 1, 2)))  # [B, d, h, w]
        return x.flatten(2).transpose(1, 2)


class LogoFormerTemporal(nn.Module):
    """Tokens in the graphs' order, without positions, to probabilities: `[N, d]` -> `[1, C]`."""

    def __init__(self, model: LogoFormer) -> None:
        super().__init__()
        c = model.config
        self.config = c
        kinds: dict[str, type[_Scheme]] = {
            "logo": WindowBlock, "joint": Sequences, "space": Sequences, "mixing": Sequences, "divided": Divided,
            "lgi": Lgi,
        }  # fmt: skip
        kind = kinds[c.attention]
        order = torch.from_numpy(window_order(c.frames, c.grid, c.token_window))
        with torch.no_grad():
            self.positions = nn.Parameter(model.positions()[order].contiguous())
            prefix = model.prefix().unsqueeze(1 if c.cls_tokens > 1 else 0).clone()  # [T, 1, d] or [1, P, d]
            self._prefix = "cls" if c.attention == "logo" else "prefix"  # how graphs have called it from the first
            self.register_parameter(self._prefix, nn.Parameter(prefix))
        self.blocks = nn.ModuleList(
            kind(block, c, last=index == c.depth - 1) for index, block in enumerate(model.blocks)
        )
        self.norm = copy.deepcopy(model.norm)
        self.head = copy.deepcopy(model.head)

    def forward(self, tokens: Tensor) -> Tensor:
        c = self.config
        x = tokens + self.positions  # [N, d]
        cls: Tensor = self.get_parameter(self._prefix)
        if c.attention in ("divided", "lgi"):
            split = (c.frames, -1) if c.attention == "divided" else (c.windows, c.window_tokens)
            x = x.view(*split, c.embed_dim)
            for block in self.blocks:
                cls, x = block(cls, x)
        else:
            frames = x.view(c.frames, -1, c.embed_dim) if c.cls_tokens > 1 else x[None]  # [T, S, d] or [1, N, d]
            cls = torch.cat([cls, frames], 1)
            for block in self.blocks:
                cls = block(cls)
        features = self.norm(cls.flatten(0, 1))  # [T, d] or [1, d]
        if c.cls_tokens > 1:
            features = features.mean(0, keepdim=True)
        return torch.softmax(self.head(features), dim=-1)
