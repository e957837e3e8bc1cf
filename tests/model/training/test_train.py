"""Training: that it learns, that it repeats itself, what it leaves, and how it fails.

The bars of `tiny` on the synthetic faces are in `tests/test_demo.py`.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from logoformer.errors import BadInputError, MachineError
from logoformer.model.checkpoint import load_checkpoint
from logoformer.model.data.clips import CachedClips
from logoformer.model.networks.configs import preset
from logoformer.model.networks.logoformer.model import LogoFormer
from logoformer.model.synthetic.recordings import SyntheticClips
from logoformer.model.training import step as stepping
from logoformer.model.training.evaluate import evaluate
from logoformer.model.training.recipe import TrainConfig
from logoformer.model.training.train import train


@pytest.fixture(scope="module")
def trained_small(small, tmp_path_factory):
    seen: list[tuple[str, int, int]] = []
    result = train(
        TrainConfig(steps=40, batch=8, learning_rate=5e-3, seed=3),
        small.SMALL,
        small.TwoColors(),
        small.TwoColors(),
        tmp_path_factory.mktemp("train") / "checkpoint",
        lambda *event: seen.append(event),
    )
    return result, seen


def test_it_learns(trained_small):
    result, _ = trained_small
    first = next(line for line in map(json.loads, result.log.read_text().splitlines()) if "loss" in line)
    assert first["loss"] > 3 * result.final_loss
    assert result.metrics.uar == 1.0


def test_checkpoint_holds_the_model_that_was_scored(small, trained_small):
    result, _ = trained_small
    model, provenance = load_checkpoint(result.checkpoint)
    assert evaluate(model, small.TwoColors()).metrics() == result.metrics
    assert provenance["extra"]["recipe"]["seed"] == 3
    assert provenance["extra"]["metrics"]["uar"] == 1.0


def test_log_is_json_lines_with_the_rate_rising_and_falling(trained_small):
    result, seen = trained_small
    lines = [line for line in map(json.loads, result.log.read_text().splitlines()) if "loss" in line]
    assert [line["step"] for line in lines] == [10, 20, 30, 40]
    rates = [line["learning_rate"] for line in lines]
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 5e-5
    assert result.log == result.checkpoint.parent / "checkpoint.log.jsonl"
    assert [event for event in seen if event[0] == "train"] == [("train", step, 40) for step in range(1, 41)]
    assert json.dumps(result.to_json())


def test_same_seed_same_weights_and_another_seed_others(small, tmp_path):
    def weights(name, seed):
        config = TrainConfig(steps=3, batch=4, seed=seed)
        result = train(config, small.SMALL, small.TwoColors(), small.TwoColors(), tmp_path / name)
        return (result.checkpoint / "model.safetensors").read_bytes()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert weights("a", 1) == weights("b", 1) != weights("c", 2)
    finally:
        torch.set_num_threads(threads)


def test_each_step_has_its_own_gradient(small, tmp_path, monkeypatch):
    """With weights that do not move, gradients that piled up would grow from step to step."""
    norms = []
    measure = torch.nn.utils.get_total_norm
    monkeypatch.setattr(
        stepping.nn.utils,
        "clip_grad_norm_",
        lambda parameters, limit: norms.append(float(measure([p.grad for p in parameters]))),
    )
    config = TrainConfig(steps=6, batch=16, learning_rate=1e-12)
    train(config, replace(small.SMALL, dropout=0.0), small.TwoColors(), small.TwoColors(), tmp_path / "checkpoint")
    assert max(norms) < 1.5 * min(norms)


def test_the_seed_decides_the_first_weights(small, tmp_path):
    def first_layer(seed):
        config = TrainConfig(steps=1, batch=4, learning_rate=1e-12, seed=seed)
        result = train(config, small.SMALL, small.TwoColors(), small.TwoColors(), tmp_path / str(seed))
        return load_checkpoint(result.checkpoint)[0].trunk.conv1.weight

    assert not torch.allclose(first_layer(1), first_layer(2), atol=1e-3)


def test_synthetic_faces_train_a_step_of_tiny(tmp_path):
    source = CachedClips(SyntheticClips(0, range(2), 7))
    result = train(TrainConfig(steps=2, batch=4), preset("tiny"), source, source, tmp_path / "checkpoint")
    assert np.isfinite(result.final_loss)
    assert 1.0 < result.final_loss < 3.0  # ln 7 is 1.95
    assert result.metrics.clips == 14


# ------------------------------------------------------------------------------------------------------------ failing
def test_clips_that_do_not_fit_are_refused_before_any_step(small, tmp_path):
    with pytest.raises(BadInputError, match="64 x 64 pixels, the model reads 32 x 32"):
        train(
            TrainConfig(steps=1),
            small.SMALL,
            small.TwoColors(),
            SyntheticClips(0, range(1), 7, 64),
            tmp_path / "checkpoint",
        )
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_ends_the_training(small, tmp_path, monkeypatch):
    whole = LogoFormer.forward
    monkeypatch.setattr(LogoFormer, "forward", lambda self, clips: torch.nan * whole(self, clips))
    with pytest.raises(BadInputError, match="loss became nan at step 1"):
        train(TrainConfig(steps=3, batch=4), small.SMALL, small.TwoColors(), small.TwoColors(), tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint").exists()


def test_a_place_that_cannot_be_written(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="could not be written"):
        train(TrainConfig(steps=1), small.SMALL, small.TwoColors(), small.TwoColors(), tmp_path / "file" / "checkpoint")
