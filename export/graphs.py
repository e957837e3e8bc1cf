"""The three graphs of a network, written for the compiler.

* `ClipGraph`: uint8 `[1, T, S, S, 3]` -> probabilities `[1, C]`;
* `FrameGraph`: uint8 `[1, S, S, 3]` -> rows `[1, n, c]`, n and c being `tokens_per_frame` and `token_dim`;
* `TemporalGraph`: ring `[R*n, c]` and order int32 `[T*n]` -> probabilities `[1, C]`.

What a family's parts are is in `networks/`; here they get their inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..model.networks.contract import NetworkConfig
from ..model.networks.network import Network
from .networks.former_dfer import FormerDferFrame, FormerDferTemporal
from .networks.logoformer import LogoFormerFrame, LogoFormerTemporal
from .networks.mae_dfer import MaeDferFrame, MaeDferTemporal, MaeDferTokens, MaeDferTubelets
from .networks.mae_dfer_absorbed import AbsorbedTemporal, AbsorbedTokens, PatchTokens

GRAPHS = ("clip", "frame", "temporal")


@dataclass(frozen=True)
class GraphParts:
    """A family's parts, each made from a network.

    Attributes:
        frame: float `[B, S, S, 3]` in 0..255 -> rows `[B, n, c]`.
        temporal: rows in the graphs' order `[T*n, c]` -> probabilities `[1, C]`.
        clip: the same two for a clip whose frames are all there, where that is cheaper than its frames one by one; what
            lies between the two is the family's own.
        by_frames: whether `temporal` takes the rows `[T, 1, c]` of frames of one token as they come.
    """

    frame: Callable[[Any], nn.Module]
    temporal: Callable[[Any], nn.Module]
    clip: tuple[Callable[[Any], nn.Module], Callable[[Any], nn.Module]] | None = None
    by_frames: bool = False


PARTS = {
    "logoformer": GraphParts(LogoFormerFrame, LogoFormerTemporal),
    "former-dfer": GraphParts(FormerDferFrame, FormerDferTemporal, by_frames=True),
    "mae-dfer": GraphParts(MaeDferFrame, MaeDferTemporal, (MaeDferTubelets, MaeDferTokens)),
}
# The same function with fewer multiply-accumulates, in more and smaller steps; see `networks/mae_dfer_absorbed.py`.
ABSORBED = {"mae-dfer": GraphParts(MaeDferFrame, AbsorbedTemporal, (PatchTokens, AbsorbedTokens))}


class FrameGraph(nn.Module):
    """uint8 `[1, S, S, 3]` -> rows `[1, n, c]`."""

    def __init__(self, model: Network, parts: GraphParts) -> None:
        super().__init__()
        self.frame = parts.frame(model)

    def forward(self, frame: Tensor) -> Tensor:
        tokens: Tensor = self.frame(frame.float())  # the Cast comes first: nothing else may consume uint8 in TensorRT
        return tokens


class TemporalGraph(nn.Module):
    """Ring `[R*n, c]` and order int32 `[T*n]` -> `[1, C]`.

    The order says which ring row is read for each place of the graphs' order.
    """

    def __init__(self, model: Network, parts: GraphParts) -> None:
        super().__init__()
        self.temporal = parts.temporal(model)

    def forward(self, ring: Tensor, order: Tensor) -> Tensor:
        probabilities: Tensor = self.temporal(torch.index_select(ring, 0, order))
        return probabilities


class ClipGraph(nn.Module):
    """uint8 `[1, T, S, S, 3]` -> probabilities `[1, C]`."""

    def __init__(self, model: Network, parts: GraphParts) -> None:
        super().__init__()
        c = model.config
        frame, temporal = parts.clip or (parts.frame, parts.temporal)
        self.frame, self.temporal = frame(model), temporal(model)
        self.ordered = parts.clip is not None or parts.by_frames
        f, h, w = c.token_window
        self.split = (c.frames // f, f, c.grid // h, h, c.grid // w, w, c.token_dim)

    def forward(self, clip: Tensor) -> Tensor:
        tokens = self.frame(clip.float().flatten(0, 1))  # [T, n, c]; the Cast comes first
        if not self.ordered:
            windows = tokens.view(self.split).permute(0, 2, 4, 1, 3, 5, 6)  # [T/f, g/h, g/w, f, h, w, c]
            tokens = windows.reshape(-1, self.split[-1])
        probabilities: Tensor = self.temporal(tokens)
        return probabilities


def build_graph(name: str, model: Network, *, absorbed: bool = False) -> nn.Module:
    """The module behind one of `GRAPHS`, in evaluation mode.

    Args:
        name: of the graph.
        model: in evaluation mode.
        absorbed: take the form of `ABSORBED`, where the family has one.
    """
    family = model.config.family
    parts = ABSORBED.get(family, PARTS[family]) if absorbed else PARTS[family]
    kinds: dict[str, Callable[[Network, GraphParts], nn.Module]] = {
        "clip": ClipGraph, "frame": FrameGraph, "temporal": TemporalGraph
    }  # fmt: skip
    return kinds[name](model, parts).eval()


def example_inputs(name: str, config: NetworkConfig, ring_slots: int) -> dict[str, Tensor]:
    """Zero inputs with the graph's names, shapes and dtypes."""
    s = config.image_size
    if name == "clip":
        return {"clip": torch.zeros(1, config.frames, s, s, 3, dtype=torch.uint8)}
    if name == "frame":
        return {"frame": torch.zeros(1, s, s, 3, dtype=torch.uint8)}
    rows = ring_slots * config.tokens_per_frame
    return {
        "ring": torch.zeros(rows, config.token_dim),
        "order": torch.zeros(config.frames * config.tokens_per_frame, dtype=torch.int32),
    }
