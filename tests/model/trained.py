"""Trains `tiny` on the synthetic faces for the tests that need a model which has learned something."""

from __future__ import annotations

from pathlib import Path

from logoformer.model.config import preset
from logoformer.model.data import CachedClips
from logoformer.model.synthetic import SyntheticClips
from logoformer.model.train import TrainConfig, TrainResult, train

TRAIN_PEOPLE = range(80)
TEST_PEOPLE = range(10_000, 10_030)


def held_out_clips() -> SyntheticClips:
    """420 clips of people that the model has not seen."""
    return SyntheticClips(0, TEST_PEOPLE, 14)


def train_tiny(folder: Path) -> TrainResult:
    """Trains into `folder/checkpoint`: two to three minutes on two idle cores, everything in memory."""
    source = CachedClips(SyntheticClips(0, TRAIN_PEOPLE, 14))
    return train(TrainConfig(), preset("tiny"), source, held_out_clips(), folder / "checkpoint")
