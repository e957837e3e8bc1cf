"""Recipes: what they may hold, what the command line may change, and how the rate runs."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.errors import UsageError
from logoformer.model.networks.configs import PRESETS
from logoformer.model.training.recipe import SCHEDULES, TrainConfig, override, recipe, recipe_names


@given(st.integers(1, 5000), st.floats(0.0, 0.99), st.sampled_from(SCHEDULES))
@settings(max_examples=100, deadline=None)
def test_the_rate_rises_then_falls_and_stays_a_share(steps, warmup, schedule):
    config = TrainConfig(steps=steps, warmup=warmup, schedule=schedule)
    rates = np.array([config.rate(step, steps) for step in range(steps)])
    assert rates.min() >= 0 and rates.max() <= 1
    rise = round(warmup * steps)
    assert (np.diff(rates[:rise]) > 0).all()
    assert (np.diff(rates[rise:]) <= 0).all()
    if rise < steps:
        assert rates[rise] == 1.0


def test_the_step_schedule_falls_after_each_share():
    config = TrainConfig(steps=100, warmup=0.0, schedule="step", step_share=0.4, step_factor=0.1)
    assert [config.rate(step, 100) for step in (0, 39, 40, 79, 80)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_every_recipe_opens_names_a_preset_and_says_what_is_published():
    assert set(recipe_names()) == {"paper-dfew", "paper-ferv39k", "synthetic-tiny"}
    for name in recipe_names():
        found = recipe(name)
        assert found.preset in PRESETS and len(found.note) > 40
        assert TrainConfig(**asdict(found.train)) == found.train
    paper = recipe("paper-dfew").train  # the published part
    assert (paper.epochs, paper.batch, paper.optimizer, paper.learning_rate) == (100, 32, "sgd", 0.001)
    assert paper.sam_rho == 0.05 and paper.compact > 0
    assert recipe("synthetic-tiny").train == TrainConfig()
    with pytest.raises(UsageError, match="no recipe 'paper'"):
        recipe("paper")


def test_override_reads_every_kind_of_field():
    changed = override(TrainConfig(), ["epochs=3", "sam_rho=0.1", "balanced=true", "optimizer=sgd"])
    assert (changed.steps, changed.epochs, changed.sam_rho, changed.balanced) == (0, 3, 0.1, True)
    assert override(changed, ["steps=5"]).epochs == 0


@pytest.mark.parametrize(("word", "wanted"), [("1", True), ("0", False), ("true", True), ("False", False)])
def test_words_of_a_switch(word, wanted):
    config = replace(TrainConfig(), balanced=not wanted)
    assert override(config, [f"balanced={word}"]).balanced is wanted


@pytest.mark.parametrize("wrong", ["steps", "lr=1", "steps=many", "balanced=perhaps", "optimizer=lion", "steps=0"])
def test_override_refuses(wrong):
    with pytest.raises(UsageError):
        override(TrainConfig(), [wrong])


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0}, {"batch": 0}, {"seed": -1}, {"learning_rate": 0.0}, {"weight_decay": -1.0}, {"warmup": 1.0},
        {"epochs": 3}, {"batch": 10, "accumulate": 3}, {"ema": 1.0}, {"sam_rho": -0.1}, {"label_smoothing": 1.0},
        {"validation_share": 0.0}, {"step_factor": 0.0}, {"select": "best"}, {"precision": "int8"},
    ],
)  # fmt: skip
def test_nonsense_is_refused(wrong):
    with pytest.raises(UsageError):
        TrainConfig(**wrong)


def test_epochs_count_full_batches():
    config = TrainConfig(steps=0, epochs=2, batch=32)
    assert (config.total_steps(100), config.total_steps(20), config.total_steps(64)) == (6, 2, 4)
