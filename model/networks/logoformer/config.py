"""Configuration of a LOGO-Former: every size, and the presets.

The paper's exact dimensions are not public. `base` and `wide` are the two configurations of this project whose
multiply-accumulates come closest to the published 10.27 G (surveys of this field count MACs and call them FLOPs);
`tiny` trains on two CPU cores in minutes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ....clips import Sampling
from ....errors import UsageError, one_of
from ..contract import NetworkConfig, map_side

# LOGO-Former's own local and pooled global attention, and the five ways that it is compared with (`schemes.py`).
ATTENTIONS = ("logo", "joint", "space", "divided", "mixing", "lgi")


@dataclass(frozen=True, kw_only=True)
class LogoFormerConfig(NetworkConfig):
    """Everything that decides the architecture and what its input means.

    Attributes:
        stem_kernel: side of the first convolution (stride 2, followed by a 3x3 max pool of stride 2).
        stage_widths: channels of each ResNet stage; every stage but the first halves the map.
        stage_blocks: basic blocks in each stage.
        embed_dim: d, channels of a token.
        heads: attention heads; d / heads is the head size.
        ffn_dim: hidden channels of the feed-forward network.
        depth: N, blocks.
        window: (f, h, w), the local window and the pooling region of the global attention.
        attention: one of `ATTENTIONS`.
        qkv_bias: whether the projections Q, K and V have biases, as in other people's code.
    """

    family: ClassVar[str] = "logoformer"

    stem_kernel: int
    stage_widths: tuple[int, ...]
    stage_blocks: tuple[int, ...]
    embed_dim: int
    heads: int
    ffn_dim: int
    depth: int
    window: tuple[int, int, int]
    attention: str = "logo"
    qkv_bias: bool = False

    def __post_init__(self) -> None:
        if len(self.stage_widths) != len(self.stage_blocks) or not self.stage_widths:
            raise UsageError(
                f"{len(self.stage_widths)} stage widths do not fit {len(self.stage_blocks)} stage depths.",
                next="give each ResNet stage one width and one number of blocks",
            )
        numbers = (self.image_size, self.embed_dim, self.heads, self.ffn_dim, self.depth, *self.window)
        if min(*numbers, *self.stage_widths, *self.stage_blocks) < 1 or self.stem_kernel % 2 == 0:
            raise UsageError("Every size of the model must be at least 1 and stem_kernel odd.", cause=str(self))
        if self.attention not in ATTENTIONS:
            raise UsageError(f"Unknown attention {self.attention!r}.", next=f"choose from {one_of(ATTENTIONS)}")
        if self.attention == "mixing" and self.head_dim % 4:
            raise UsageError(f"Mixing borrows quarters of a head's channels; {self.head_dim} cannot be quartered.")
        if self.embed_dim % self.heads:
            raise UsageError(f"embed_dim {self.embed_dim} is not a multiple of heads {self.heads}.")
        super().__post_init__()
        for name, size, given in zip("fhw", (self.frames, self.grid, self.grid), self.window, strict=True):
            if size % given:
                valid = [n for n in range(1, size + 1) if size % n == 0]
                raise UsageError(
                    f"Window size {name}={given} does not divide the token grid's {size}.",
                    cause=f"the token grid is {self.frames} x {self.grid} x {self.grid} (frames x height x width)",
                    next=f"choose {name} from {valid}",
                )

    # ------------------------------------------------------------------------------------------------- derived sizes
    @property
    def grid(self) -> int:
        """Side of the token grid of one frame."""
        return map_side(self.image_size, len(self.stage_widths))

    @property
    def tokens(self) -> int:
        """T * h * w, without [CLS]."""
        return self.frames * self.tokens_per_frame

    @property
    def window_tokens(self) -> int:
        """Tokens of one local window, f * h * w."""
        f, h, w = self.window
        return f * h * w

    @property
    def windows(self) -> int:
        """Number of local windows, which is the number of pooled regions."""
        return self.tokens // self.window_tokens

    @property
    def head_dim(self) -> int:
        """Channels of one head, d / heads."""
        return self.embed_dim // self.heads

    @property
    def cls_tokens(self) -> int:
        """[CLS] tokens: one, or one a frame where frames attend for themselves.

        The classifier reads their mean.
        """
        return self.frames if self.attention in ("space", "mixing") else 1

    @property
    def token_window(self) -> tuple[int, int, int]:
        """The window in whose order the exported graphs hold tokens.

        A whole frame gives the natural order.
        """
        return self.window if self.attention in ("logo", "lgi") else (1, self.grid, self.grid)

    @property
    def token_dim(self) -> int:
        """Numbers in a row of the ring: d."""
        return self.embed_dim

    @property
    def least_tensors(self) -> int:
        """A tensor for each block and each basic block at the very least."""
        return self.depth + sum(self.stage_blocks)

    @property
    def biased(self) -> tuple[str, ...]:
        """The projections with a bias."""
        return ("q", "k", "v") if self.qkv_bias else ()


_BASE = LogoFormerConfig(
    preset="base",
    image_size=112,
    stem_kernel=7,
    stage_widths=(64, 128, 256, 512),
    stage_blocks=(2, 2, 2, 2),
    embed_dim=512,
    heads=8,
    ffn_dim=1024,
    depth=4,
    window=(4, 2, 2),
    dropout=0.2,
)
_WIDE = replace(
    _BASE,
    preset="wide",
    stage_widths=(64, 128, 256),
    stage_blocks=(2, 2, 2),
    embed_dim=256,
    ffn_dim=2048,
    window=(2, 7, 7),
)
_TINY = replace(
    _BASE,
    preset="tiny",
    image_size=64,
    stem_kernel=5,
    stage_widths=(16, 32, 64),
    stage_blocks=(1, 1, 1),
    embed_dim=64,
    heads=4,
    ffn_dim=128,
    depth=2,
    dropout=0.0,
    sampling=Sampling(segments=8, frames_per_segment=1),
)
LOGOFORMER_PRESETS = {config.preset: config for config in (_BASE, _WIDE, _TINY)}


def logoformer_preset(name: str, attention: str | None = None) -> LogoFormerConfig:
    """A preset of this family by name, with another attention scheme where one is named.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in LOGOFORMER_PRESETS:
        raise UsageError(f"There is no LOGO-Former preset {name!r}.", next=f"choose from {one_of(LOGOFORMER_PRESETS)}")
    found = LOGOFORMER_PRESETS[name]
    return found if attention is None else replace(found, attention=attention)
