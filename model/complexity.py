"""Multiply-accumulates of a LOGO-Former, counted by formula.

Products of attention are included (QK^T and weights V); additions, norms and activations are not. Surveys of this field
print MACs under the name FLOPs, so these are the figures to set beside theirs. A test compares them with
`torch.utils.flop_counter`. Needs no torch.
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
    d, n, w, length, c = config.embed_dim, config.tokens, config.windows, config.window_tokens, config.classes
    local = 4 * n * d * d + 2 * n * length * d  # Q, K, V, out; QK^T and weights V inside each window

    def global_(queries: int) -> int:
        keys = 1 + w
        return 2 * queries * d * d + 2 * keys * d * d + 2 * queries * keys * d

    pool = n * d  # depth-wise: each token is weighed once
    ffn = 2 * d * config.ffn_dim
    block = local + pool + global_(1 + n) + (1 + n) * ffn
    last = local + pool + global_(1) + ffn
    head = d * c
    block_parameters = 8 * d * d + 2 * d + 4 * 2 * d + d * (length + 1) + ffn + config.ffn_dim + d
    positions = config.tokens_per_frame * d + config.frames * d + d
    return Complexity(
        frame_macs=frame,
        temporal_macs=config.depth * block + head,
        temporal_macs_cls_only=(config.depth - 1) * block + last + head,
        parameters=trunk_parameters + positions + config.depth * block_parameters + 2 * d + head + c,
        tokens=n,
        frames=config.frames,
    )


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
