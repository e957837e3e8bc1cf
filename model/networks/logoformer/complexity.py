"""Multiply-accumulates of a LOGO-Former, counted by formula.

Products of attention are included (QK^T and weights V); additions, norms and activations are not. Surveys of this field
print MACs under the name FLOPs, so these are the figures to set beside theirs.

The independent oracle of the counter in `bundle/onnx_graph.py`, which counts the exported graphs: tests compare the
two, and these with `torch.utils.flop_counter`. Needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..contract import Complexity, trunk_costs
from .config import LogoFormerConfig


def logoformer_complexity(config: LogoFormerConfig) -> Complexity:
    """Counts a configuration."""
    d, channels = config.embed_dim, config.stage_widths[-1]
    trunk, trunk_parameters, side = trunk_costs(
        config.image_size, config.stem_kernel, config.stage_widths, config.stage_blocks
    )
    head = d * config.classes
    temporal = {
        cls_only: sum(
            linear_macs(config, last=last) + attention_macs(config, last=last)
            for last in (cls_only and index == config.depth - 1 for index in range(config.depth))
        )
        for cls_only in (False, True)
    }
    positions = config.tokens_per_frame * d + (0 if config.attention == "space" else config.frames * d) + d
    representatives = config.windows * d if config.attention == "lgi" else 0
    frame = trunk + side**2 * channels * d
    return Complexity(
        frame_macs=frame,
        clip_frames_macs=config.frames * frame,
        temporal_macs=temporal[False] + head,
        temporal_macs_exported=temporal[True] + head,
        parameters=trunk_parameters
        + channels * d
        + d
        + positions
        + representatives
        + config.depth * _block_parameters(config)
        + 2 * d
        + head
        + config.classes,
        tokens=config.tokens,
        token_channels=d,
    )


@dataclass(frozen=True)
class Product:
    """One attention: `groups` times, each of `queries` over `keys`.

    QK^T and weights V are products of these sizes.
    """

    groups: int
    queries: int
    keys: int

    @property
    def pairs(self) -> int:
        """Pairs of a query and a key."""
        return self.groups * self.queries * self.keys


def products(config: LogoFormerConfig, *, last: bool = False) -> tuple[Product, ...]:
    """The attentions of one block, in their order.

    What the orders of growth say, with [CLS] counted too. T frames of S tokens, N = T S; W windows of L tokens.

    Args:
        config: of the model.
        last: whether only [CLS] is read afterwards, as in the exported graphs' last block.
    """
    t, s, n = config.frames, config.tokens_per_frame, config.tokens
    w, length = config.windows, config.window_tokens
    in_frames = Product(t, 1 if last else 1 + s, 1 + s)
    regions = (Product(w, 1 if last else 1 + length, 1 + length), Product(1, 1 if last else 1 + w, 1 + w))
    found: dict[str, tuple[Product, ...]] = {
        "joint": (Product(1, 1 if last else 1 + n, 1 + n),),  # O(T^2 S^2)
        "space": (in_frames,),  # O(T S^2)
        "mixing": (in_frames,),  # O(T S^2)
        "divided": (Product(s, t, t), in_frames),  # O(T^2 S + T S^2)
        "logo": (Product(w, length, length), Product(1, 1 if last else 1 + n, 1 + w)),  # O(N L + N W)
        "lgi": regions if last else (*regions, Product(1, n, 1 + w)),  # O(N L + W^2 + N W)
    }
    return found[config.attention]


def attention_macs(config: LogoFormerConfig, *, last: bool = False) -> int:
    """MACs of QK^T and weights V of one block's `products`: 2 d for each pair."""
    return 2 * config.embed_dim * sum(product.pairs for product in products(config, last=last))


def linear_macs(config: LogoFormerConfig, *, last: bool = False) -> int:
    """MACs of one block's projections, pooling and feed-forward network; `last`: see `products`."""
    d, n = config.embed_dim, config.tokens
    # Q and out for queries, K and V for keys
    projected = 2 * sum(p.groups * (p.queries + p.keys) for p in products(config, last=last))
    pooled = n if config.attention == "logo" else 0  # depth-wise: each token is weighed once
    representatives = config.windows if config.attention == "lgi" else 0
    fed = config.cls_tokens + (0 if last else representatives + n)
    return projected * d * d + pooled * d + fed * 2 * d * config.ffn_dim


def _block_parameters(config: LogoFormerConfig) -> int:
    """Learnable numbers of one block."""
    d = config.embed_dim
    attention, norm = 4 * d * d + (1 + len(config.biased)) * d, 2 * d
    pool = d * (config.window_tokens + 1)
    attentions, norms = {"logo": (2, 4), "divided": (2, 3), "lgi": (3, 5)}.get(config.attention, (1, 2))
    ffn = 2 * d * config.ffn_dim + config.ffn_dim + d
    return attentions * attention + norms * norm + (pool if config.attention == "logo" else 0) + ffn
