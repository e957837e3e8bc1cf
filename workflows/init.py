"""Untrained checkpoints, for latency work.

Fresh BatchNorm statistics (mean 0, variance 1) make every clip look alike to the network, and parity on such answers
proves nothing. A pass over synthetic frames sets them, so that answers differ between clips.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from ..model.checkpoint import save_checkpoint
from ..model.data.clips import Progress
from ..model.networks.config import ModelConfig, preset
from ..model.networks.logoformer import LogoFormer, to_tensor, untrained
from ..model.synthetic.recordings import synthetic_clips

BATCHES = 7  # of one clip each, one of every class


def initialise(config: ModelConfig, seed: int = 0, progress: Progress | None = None) -> LogoFormer:
    """A model with random weights and real BatchNorm statistics, in evaluation mode.

    Args:
        config: which.
        seed: of the weights and the frames.
        progress: called with (stage, done, total).
    """
    model = untrained(config, seed)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # a plain average over the batches
    model.trunk.train()
    clips, _, _ = synthetic_clips(BATCHES, config.sampling, config.image_size, seed)
    with torch.no_grad():
        for done in range(BATCHES):
            if progress is not None:
                progress("set BatchNorm statistics", done, BATCHES)
            model.embed_frames(to_tensor(clips[done : done + 1]).flatten(0, 1))
    if progress is not None:
        progress("set BatchNorm statistics", BATCHES, BATCHES)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
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
    model = initialise(preset(name, attention), seed, progress)
    return save_checkpoint(
        out, model, {"recipe": "init: random weights, BatchNorm set on synthetic frames", "seed": seed}
    )
