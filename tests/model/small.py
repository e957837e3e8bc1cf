"""A model and clips so small that a step takes milliseconds; also run as a program, for torchrun and for kills."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from logoformer.clips import Sampling
from logoformer.model.data.clips import cut
from logoformer.model.networks.configs import preset
from logoformer.model.training.recipe import TrainConfig
from logoformer.model.training.train import Start, train

SMALL = replace(
    preset("tiny"),
    image_size=32,
    stage_widths=(8, 16),
    stage_blocks=(1, 1),
    embed_dim=16,
    heads=2,
    ffn_dim=32,
    depth=1,
    window=(2, 2, 2),
    sampling=Sampling(segments=4, frames_per_segment=1),
)


class TwoColors:
    """Happy clips are red, sad ones blue: what a few steps can learn."""

    labels = SMALL.labels
    size = 32

    def __init__(self, clips: int = 16) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return self.clips

    def label(self, index):
        return index % 2

    def clip_id(self, index):
        return str(index)

    def count(self, index):
        return 10

    def frames(self, index, indices, box=None):
        frames = np.random.default_rng(index).integers(0, 90, (len(indices), 32, 32, 3)).astype(np.uint8)
        frames[..., 2 * (index % 2)] += 140
        return frames if box is None else cut(frames, box)


def main() -> None:
    """`small.py OUT RECIPE-JSON CLIPS DROPOUT RESUME`: trains, and writes what came out beside the checkpoint."""
    out, recipe, clips, dropout, resume = sys.argv[1:]
    torch.set_num_threads(1)

    def progress(stage: str, done: int, total: int) -> None:
        print(stage, done, flush=True)

    done = train(
        TrainConfig(**json.loads(recipe)), replace(SMALL, dropout=float(dropout)), TwoColors(16), TwoColors(int(clips)),
        out, progress, start=Start(resume=resume == "resume"),
    )  # fmt: skip
    if os.environ.get("RANK", "0") == "0":
        Path(out + ".result.json").write_text(json.dumps(done.to_json()))


if __name__ == "__main__":
    main()
