"""Multiply-accumulates of a LOGO-Former, counted by formula.

Products of attention are included (QK^T and weights V); additions, norms and activations are not. Surveys of this field
print MACs under the name FLOPs, so these are the figures to set beside theirs.

The independent oracle of the counter in `bundle/onnx_graph.py`, which counts the exported graphs: tests compare the
two, and these with `torch.utils.flop_counter`. Needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from .config import ModelConfig


@dataclass(frozen=True)
class Complexity:
    """Counts for one clip.

    Attributes:
        frame_macs: trunk and projection, one frame.
        temporal_macs: all blocks and the classifier, as the readable model computes them.
        temporal_macs_cls_only: the same when the last block's global attention and FFN compute only [CLS], as the
            exported graphs do.
        parameters: learnable numbers.
        tokens: T*h*w, without [CLS].
        frames: T.
    """

    frame_macs: int
    temporal_macs: int
    temporal_macs_cls_only: int
    parameters: int
    tokens: int
    frames: int

    @property
    def clip_macs(self) -> int:
        """One clip, as the readable model computes it."""
        return self.frames * self.frame_macs + self.temporal_macs

    @property
    def clip_macs_cls_only(self) -> int:
        """One clip, as the exported graph computes it."""
        return self.frames * self.frame_macs + self.temporal_macs_cls_only

    @property
    def stream_macs(self) -> int:
        """One streamed answer at hop 1: one frame and the temporal graph."""
        return self.frame_macs + self.temporal_macs_cls_only

    def to_json(self) -> dict[str, int]:
        return {
            "clip_macs": self.clip_macs,
            "clip_macs_cls_only": self.clip_macs_cls_only,
            "frame_macs": self.frame_macs,
            "temporal_macs": self.temporal_macs,
            "temporal_macs_cls_only": self.temporal_macs_cls_only,
            "stream_macs": self.stream_macs,
            "parameters": self.parameters,
            "tokens": self.tokens,
        }


def complexity(config: ModelConfig) -> Complexity:
    """Counts a configuration."""
    frame, trunk_parameters = _frame(config)
    d = config.embed_dim
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
    return Complexity(
        frame_macs=frame,
        temporal_macs=temporal[False] + head,
        temporal_macs_cls_only=temporal[True] + head,
        parameters=trunk_parameters
        + positions
        + representatives
        + config.depth * _block_parameters(config)
        + 2 * d
        + head
        + config.classes,
        tokens=config.tokens,
        frames=config.frames,
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


def products(config: ModelConfig, *, last: bool = False) -> tuple[Product, ...]:
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


def attention_macs(config: ModelConfig, *, last: bool = False) -> int:
    """MACs of QK^T and weights V of one block's `products`: 2 d for each pair."""
    return 2 * config.embed_dim * sum(product.pairs for product in products(config, last=last))


def linear_macs(config: ModelConfig, *, last: bool = False) -> int:
    """MACs of one block's projections, pooling and feed-forward network; `last`: see `products`."""
    d, n = config.embed_dim, config.tokens
    # Q and out for queries, K and V for keys
    projected = 2 * sum(p.groups * (p.queries + p.keys) for p in products(config, last=last))
    pooled = n if config.attention == "logo" else 0  # depth-wise: each token is weighed once
    representatives = config.windows if config.attention == "lgi" else 0
    fed = config.cls_tokens + (0 if last else representatives + n)
    return projected * d * d + pooled * d + fed * 2 * d * config.ffn_dim


def _block_parameters(config: ModelConfig) -> int:
    """Learnable numbers of one block."""
    d = config.embed_dim
    attention, norm = 4 * d * d + d, 2 * d
    pool = d * (config.window_tokens + 1)
    attentions, norms = {"logo": (2, 4), "divided": (2, 3), "lgi": (3, 5)}.get(config.attention, (1, 2))
    ffn = 2 * d * config.ffn_dim + config.ffn_dim + d
    return attentions * attention + norms * norm + (pool if config.attention == "logo" else 0) + ffn


def _frame(config: ModelConfig) -> tuple[int, int]:
    """(MACs of one frame, parameters) of the trunk and the projection."""
    macs = parameters = 0

    def conv(side: int, channels_in: int, channels: int, kernel: int, *, norm: bool = True) -> None:
        nonlocal macs, parameters
        weights = channels_in * channels * kernel**2
        macs += side**2 * weights
        parameters += weights + (2 * channels if norm else channels)

    side = (config.image_size + 1) // 2
    widths = config.stage_widths
    conv(side, 3, widths[0], config.stem_kernel)
    side, channels = (side + 1) // 2, widths[0]
    for stage, (width, blocks) in enumerate(zip(widths, config.stage_blocks, strict=True)):
        side = side if stage == 0 else (side + 1) // 2
        for block in range(blocks):
            conv(side, channels, width, 3)
            conv(side, width, width, 3)
            if channels != width or (block == 0 and stage > 0):
                conv(side, channels, width, 1)
            channels = width
    conv(side, channels, config.embed_dim, 1, norm=False)
    return macs, parameters
