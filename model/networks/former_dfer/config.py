"""Configuration of a Former-DFER: every size, the presets and the counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ....clips import Sampling
from ....errors import UsageError
from ..contract import Complexity, NetworkConfig, map_side, trunk_costs


@dataclass(frozen=True, kw_only=True)
class FormerDferConfig(NetworkConfig):
    """Sizes of the frame's network and of the transformer over frames.

    Attributes:
        stem_kernel: side of the first convolution (stride 2, followed by a 3x3 max pool of stride 2).
        stage_widths: channels of each ResNet stage; the last one is d, the channels of a frame's vector. The spatial
            transformer comes before the last stage.
        stage_blocks: basic blocks in each stage.
        spatial_heads, spatial_ffn, spatial_depth: heads, hidden channels and blocks of the transformer in a frame.
        temporal_heads, temporal_ffn, temporal_depth: the same of the transformer over frames.
    """

    family: ClassVar[str] = "former-dfer"

    stem_kernel: int
    stage_widths: tuple[int, ...]
    stage_blocks: tuple[int, ...]
    spatial_heads: int
    spatial_ffn: int
    spatial_depth: int
    temporal_heads: int
    temporal_ffn: int
    temporal_depth: int

    def __post_init__(self) -> None:
        if len(self.stage_widths) != len(self.stage_blocks) or len(self.stage_widths) < 2:
            raise UsageError(
                f"{len(self.stage_widths)} stage widths and {len(self.stage_blocks)} stage depths.",
                next="give each of at least two ResNet stages one width and one number of blocks",
            )
        spatial = (self.spatial_heads, self.spatial_ffn, self.spatial_depth)
        temporal = (self.temporal_heads, self.temporal_ffn, self.temporal_depth)
        if min(*spatial, *temporal, *self.stage_widths, *self.stage_blocks) < 1 or self.stem_kernel % 2 == 0:
            raise UsageError("Every size of the model must be at least 1 and stem_kernel odd.", cause=str(self))
        for dim, heads in ((self.spatial_dim, self.spatial_heads), (self.embed_dim, self.temporal_heads)):
            if dim % heads:
                raise UsageError(f"{dim} channels are not a multiple of {heads} heads.")
        super().__post_init__()

    @property
    def embed_dim(self) -> int:
        """d, channels of a frame's vector."""
        return self.stage_widths[-1]

    @property
    def spatial_dim(self) -> int:
        """Channels of the map that the spatial transformer takes."""
        return self.stage_widths[-2]

    @property
    def places(self) -> int:
        """Places of that map."""
        return map_side(self.image_size, len(self.stage_widths) - 1) ** 2

    @property
    def grid(self) -> int:
        """One row a frame."""
        return 1

    @property
    def token_window(self) -> tuple[int, int, int]:
        """One row."""
        return (1, 1, 1)

    @property
    def token_dim(self) -> int:
        """D."""
        return self.embed_dim

    @property
    def least_tensors(self) -> int:
        """A tensor for each block at the very least."""
        return self.spatial_depth + self.temporal_depth + sum(self.stage_blocks)


def former_dfer_complexity(config: FormerDferConfig) -> Complexity:
    """Counts a configuration."""
    trunk, parameters, _ = trunk_costs(config.image_size, config.stem_kernel, config.stage_widths, config.stage_blocks)
    d, inner, sequence = config.embed_dim, config.spatial_dim, 1 + config.frames

    def block(tokens: int, dim: int, hidden: int, fed: int | None = None) -> int:
        fed = tokens if fed is None else fed
        return 4 * tokens * dim**2 + 2 * tokens**2 * dim + 2 * fed * dim * hidden

    def weights(dim: int, hidden: int) -> int:
        return 4 * dim**2 + dim + 2 * dim * hidden + hidden + dim + 4 * dim  # without biases of Q, K and V; two norms

    frame = trunk + config.spatial_depth * block(config.places, inner, config.spatial_ffn)
    whole = block(sequence, d, config.temporal_ffn)
    head = d * config.classes
    return Complexity(
        frame_macs=frame,
        clip_frames_macs=config.frames * frame,
        temporal_macs=config.temporal_depth * whole + head,
        temporal_macs_exported=(config.temporal_depth - 1) * whole + block(sequence, d, config.temporal_ffn, 1) + head,
        parameters=parameters
        + config.places * inner
        + config.spatial_depth * weights(inner, config.spatial_ffn)
        + d
        + sequence * d
        + config.temporal_depth * weights(d, config.temporal_ffn)
        + head
        + config.classes,
        tokens=config.frames,
        token_channels=d,
    )


_PUBLISHED = FormerDferConfig(
    preset="former-dfer",
    image_size=112,
    stem_kernel=7,
    stage_widths=(64, 128, 256, 512),
    stage_blocks=(2, 2, 2, 2),
    spatial_heads=8,
    spatial_ffn=512,
    spatial_depth=1,
    temporal_heads=8,
    temporal_ffn=1024,
    temporal_depth=3,
)
_TINY = replace(
    _PUBLISHED,
    preset="former-dfer-tiny",
    image_size=64,
    stem_kernel=5,
    stage_widths=(16, 32, 64),
    stage_blocks=(1, 1, 1),
    spatial_heads=2,
    spatial_ffn=64,
    temporal_heads=4,
    temporal_ffn=128,
    temporal_depth=2,
    sampling=Sampling(segments=8, frames_per_segment=1),
)
FORMER_DFER_PRESETS = {config.preset: config for config in (_PUBLISHED, _TINY)}
