"""Untrained checkpoints, for latency work.

Fresh BatchNorm statistics (mean 0, variance 1) make every clip look alike to the network, and parity on such answers
proves nothing. A pass over synthetic frames sets them, so that answers differ between clips.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from ..model.checkpoint import check_replaceable, save_checkpoint
from ..model.data.clips import Progress
from ..model.networks.configs import preset
from ..model.networks.contract import NetworkConfig
from ..model.networks.families import untrained
from ..model.networks.network import Network, to_tensor
from ..model.synthetic.recordings import synthetic_clips

BATCHES = 7  # of one clip each, one of every class


class _Frames(nn.Module):
    """The part of a network that has BatchNorm."""

    def __init__(self, model: Network) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> Tensor:
        return self.model.embed_frames(frames)


def initialise(config: NetworkConfig, seed: int = 0, progress: Progress | None = None) -> Network:
    """A model with random weights and real BatchNorm statistics, in evaluation mode."""
    note = progress or (lambda *_: None)
    model = untrained(config, seed)
    clips, _, _ = synthetic_clips(BATCHES, config.sampling, config.image_size, seed)

    def batches() -> Iterator[Tensor]:
        for done, clip in enumerate(clips):
            note("set BatchNorm statistics", done, BATCHES)
            yield to_tensor(clip[None]).flatten(0, 1)

    update_bn(batches(), _Frames(model))  # a plain average over the batches
    note("set BatchNorm statistics", BATCHES, BATCHES)
    return model.eval()


def init_checkpoint(
    name: str,
    out: str | os.PathLike[str],
    seed: int = 0,
    progress: Progress | None = None,
    *,
    attention: str | None = None,
) -> Path:
    """Writes an untrained checkpoint of a preset.

    Args:
        name: of the preset.
        out: the checkpoint's folder.
        seed: of the weights and the frames.
        progress: called with (stage, done, total).
        attention: another attention scheme than the preset's.

    Raises:
        UsageError: there is no such preset.
        BadInputError: something else exists at `out`.
    """
    check_replaceable(out)  # now, not after the pass over the frames
    model = initialise(preset(name, attention), seed, progress)
    return save_checkpoint(
        out, model, {"recipe": "init: random weights, BatchNorm set on synthetic frames", "seed": seed}
    )
