"""The three graphs: `model/networks/logoformer.py`, written for the compiler.

* `ClipGraph`: uint8 `[1, T, S, S, 3]` -> probabilities `[1, C]`;
* `FrameGraph`: uint8 `[1, S, S, 3]` -> tokens `[1, h*w, d]`;
* `TemporalGraph`: ring `[R*h*w, d]` and order int32 `[T*h*w]` -> probabilities `[1, C]`.

What differs from the readable model, each exact: BatchNorm, the division by 255 and by std are folded into convolutions
(the mean is not: zero padding); for the blocks see `schemes.py`.

Notation: R slots of the ring, N tokens of a clip, d channels of a token.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..model.networks.backbone import BasicBlock, Trunk
from ..model.networks.config import ModelConfig
from ..model.networks.logoformer import LogoFormer
from .schemes import TemporalTokens

GRAPHS = ("clip", "frame", "temporal")


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


class TemporalGraph(nn.Module):
    """Ring `[R*h*w, d]` and order int32 `[N]` -> `[1, C]`.

    The order says which ring row is read for each place of the window order.
    """

    def __init__(self, model: LogoFormer) -> None:
        super().__init__()
        self.temporal = TemporalTokens(model)

    def forward(self, ring: Tensor, order: Tensor) -> Tensor:
        probabilities: Tensor = self.temporal(torch.index_select(ring, 0, order))
        return probabilities


class ClipGraph(nn.Module):
    """uint8 `[1, T, S, S, 3]` -> probabilities `[1, C]`."""

    def __init__(self, model: LogoFormer) -> None:
        super().__init__()
        c = model.config
        self.frame = FrameTokens(model)
        self.temporal = TemporalTokens(model)
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
