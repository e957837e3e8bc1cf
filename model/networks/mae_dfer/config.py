"""Configuration of a MAE-DFER (LGI-Former): every size, the presets and the counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ....clips import Sampling
from ....errors import UsageError, one_of
from ..contract import Complexity, NetworkConfig

READ = ("region", "local", "all")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class MaeDferConfig(NetworkConfig):
    """Sizes of the tubelets, regions and blocks.

    Attributes:
        patch: side of a tubelet in pixels.
        tubelet: frames of a tubelet.
        embed_dim: d, channels of a token.
        heads: attention heads; d / heads is the head size.
        ffn_dim: hidden channels of the feed-forward network.
        depth: blocks.
        region: (t, h, w), tokens of a region along time, rows and columns.
        read: tokens whose mean the classifier reads: 'region', 'local' or 'all'.
        drop_path: share of residual branches left out in training, in the last block; the first one has 0.
    """

    family: ClassVar[str] = "mae-dfer"

    patch: int
    tubelet: int
    embed_dim: int
    heads: int
    ffn_dim: int
    depth: int
    region: tuple[int, int, int]
    read: str = "region"
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        numbers = (self.patch, self.tubelet, self.embed_dim, self.heads, self.ffn_dim, self.depth, *self.region)
        if min(numbers) < 1 or not 0 <= self.drop_path < 1:
            raise UsageError("Every size of the model must be at least 1, drop_path in [0, 1).", cause=str(self))
        if self.read not in READ:
            raise UsageError(f"The classifier cannot read {self.read!r}.", next=f"choose from {one_of(READ)}")
        for what, size, given in (
            ("heads", self.embed_dim, self.heads),
            ("patch", self.image_size, self.patch),
            ("tubelet", self.frames, self.tubelet),
        ):
            if size % given:
                raise UsageError(f"{what} {given} does not divide {size}.")
        super().__post_init__()
        for axis, size, given in zip("thw", self.map, self.region, strict=True):
            if size % given:
                valid = [n for n in range(1, size + 1) if size % n == 0]
                raise UsageError(
                    f"Region size {axis}={given} does not divide the {size} tokens there.",
                    next=f"choose {axis} from {valid}",
                )

    @property
    def map(self) -> tuple[int, int, int]:
        """Tokens along time, rows and columns."""
        return self.frames // self.tubelet, self.grid, self.grid

    @property
    def tokens(self) -> int:
        """N, local tokens."""
        return self.frames // self.tubelet * self.grid**2

    @property
    def region_tokens(self) -> int:
        """L, local tokens of a region."""
        t, h, w = self.region
        return t * h * w

    @property
    def regions(self) -> int:
        """W, regions, each with one token of its own."""
        return self.tokens // self.region_tokens

    @property
    def grid(self) -> int:
        """Side of the map of patches."""
        return self.image_size // self.patch

    @property
    def token_window(self) -> tuple[int, int, int]:
        """The region in frames: rows are read region by region, and in each frame by frame."""
        t, h, w = self.region
        return t * self.tubelet, h, w

    @property
    def token_dim(self) -> int:
        """A frame's share of a tubelet at each of its places: exact for any pattern of frames."""
        return self.tubelet * self.embed_dim

    @property
    def least_tensors(self) -> int:
        """A tensor for each block at the very least."""
        return self.depth


def mae_dfer_complexity(config: MaeDferConfig) -> Complexity:
    """Counts a configuration; attention as written, before anything is absorbed into its keys."""
    d, n, w, length = config.embed_dim, config.tokens, config.regions, config.region_tokens
    hidden = config.ffn_dim

    def attention(groups: int, queries: int, keys: int) -> int:
        return groups * (2 * (queries + keys) * d**2 + 2 * queries * keys * d)

    def block(*, last: bool) -> int:
        asked = 1 if last else 1 + length
        fed = w if last else w + n
        counted = attention(w, asked, 1 + length) + attention(1, w, w) + fed * 2 * d * hidden
        return counted if last else counted + attention(1, n, w)

    head = d * config.classes
    saves = config.read == "region"
    patch = 3 * config.patch**2
    share = config.tokens_per_frame * patch * d
    return Complexity(
        frame_macs=config.tubelet * share,  # at each of the tubelet's places
        clip_frames_macs=config.frames * share,
        temporal_macs=config.depth * block(last=False) + head,
        temporal_macs_exported=(config.depth - 1) * block(last=False) + block(last=saves) + head,
        parameters=config.tubelet * patch * d
        + d
        + w * d
        + config.depth * (3 * (4 * d**2 + 3 * d) + 5 * 2 * d + 2 * d * hidden + hidden + d)
        + 2 * d
        + head
        + config.classes,
        tokens=n,
        token_channels=d,
    )


_PUBLISHED = MaeDferConfig(
    preset="mae-dfer",
    image_size=160,
    patch=16,
    tubelet=2,
    embed_dim=512,
    heads=8,
    ffn_dim=2048,
    depth=16,
    region=(2, 5, 10),
    sampling=Sampling.strided(16, 4),
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
_TINY = replace(
    _PUBLISHED,
    preset="mae-dfer-tiny",
    image_size=64,
    embed_dim=64,
    heads=4,
    ffn_dim=256,
    depth=2,
    region=(2, 2, 4),
    drop_path=0.0,
    sampling=Sampling.strided(8, 4),
)
MAE_DFER_PRESETS = {config.preset: config for config in (_PUBLISHED, _TINY)}
