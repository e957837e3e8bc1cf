"""What a recipe chooses: which clips are drawn, learned and looked at, which weights are kept, how far a step goes."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from logoformer.model.data.clips import balanced
from logoformer.model.networks.logoformer.model import LogoFormer
from logoformer.model.training import fit as fitting
from logoformer.model.training import train as training
from logoformer.model.training.distributed import World
from logoformer.model.training.fit import Fit
from logoformer.model.training.recipe import TrainConfig
from logoformer.model.training.step import training_loss

ALONE = World(0, 1, torch.device("cpu"))


def fit_of(small, folder, source=None, **recipe) -> Fit:
    torch.manual_seed(0)
    model = LogoFormer(replace(small.SMALL, dropout=0.0))
    return Fit(model, TrainConfig(**recipe), source or small.TwoColors(), ALONE, folder / "x", resume=False)


# ---------------------------------------------------------------------------------------------------- balanced classes
@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.integers(1, 20), st.integers(0, 99))
def test_balanced_draws_every_class_equally_often_and_every_clip_of_a_class(sizes, batch, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    groups = balanced(labels.tolist(), batch, np.random.default_rng(seed))
    size = min(batch, len(labels))
    assert len(groups) == len(labels) // size and {len(group) for group in groups} == {size}
    drawn = np.concatenate(groups)
    by_class = [int((labels[drawn] == c).sum()) for c in range(len(sizes))]
    assert max(by_class) - min(by_class) <= 1
    for c, clips in enumerate(sizes):
        times = Counter(drawn[labels[drawn] == c].tolist())
        often = [times.get(int(clip), 0) for clip in np.flatnonzero(labels == c)]
        assert max(often) - min(often) <= 1, f"{clips} clips of a class take turns"


@pytest.mark.parametrize("wanted", [True, False])
def test_a_training_draws_balanced_batches_when_told_to(small, tmp_path, wanted):
    class Uneven(small.TwoColors):
        def label(self, index):
            return int(index < 2)  # 2 of 24

    fit = fit_of(small, tmp_path, Uneven(24), steps=6, batch=8, balanced=wanted)
    seen = []
    for _, micro, _ in fit._batches():
        seen += micro[0][1].tolist()
        fit.losses.append(0.0)
    assert Counter(seen)[1] == (24 if wanted else 4)


# ------------------------------------------------------------------------------------------------------- which weights
def test_weights_are_chosen_by_war_and_not_by_uar(small, tmp_path, monkeypatch):
    scores, seen = iter([(0.9, 0.2), (0.1, 0.6), (0.5, 0.4)]), []
    whole = fitting.evaluate_together

    def scored(model, source, world):
        uar, war = next(scores)
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return replace(whole(model, source, world), uar=uar, war=war)

    monkeypatch.setattr(fitting, "evaluate_together", scored)
    fit = fit_of(small, tmp_path, steps=0, epochs=3, batch=8, select="validation")
    fit.run(small.TwoColors(), None)
    assert fit.best[0] == 0.6
    assert all(torch.equal(value, seen[1][name]) for name, value in fit.best[1].items())


class Reached(Exception):
    """Ends a training at the place that a test looks at."""


@pytest.mark.parametrize("select", ["last", "validation", "test-fold"])
def test_a_clip_that_chooses_is_not_learned_and_the_held_out_ones_choose_only_when_told_to(
    small, tmp_path, monkeypatch, select
):
    told = {}

    class Watched:
        def __init__(self, model, config, source, *_, **__):
            told["learned"] = {source.clip_id(i) for i in range(len(source))}
            self.log = SimpleNamespace(close=lambda: None)

        def run(self, chosen_on, progress):
            told["chosen by"] = chosen_on and {chosen_on.clip_id(i) for i in range(len(chosen_on))}
            raise Reached

    class HeldOut(small.TwoColors):
        def clip_id(self, index):
            return f"held out {index}"

    monkeypatch.setattr(training, "Fit", Watched)
    config = TrainConfig(steps=1, batch=4, select=select, validation_share=0.25)
    with pytest.raises(Reached):
        training.train(config, small.SMALL, small.TwoColors(), HeldOut(), tmp_path / "x")
    everything = {str(i) for i in range(16)}
    if select == "validation":
        assert len(told["chosen by"]) == 4 and told["learned"] == everything - told["chosen by"]
    else:
        held_out = {f"held out {i}" for i in range(16)}
        assert told == {"learned": everything, "chosen by": held_out if select == "test-fold" else None}


# ---------------------------------------------------------------------------------------------------------- the steps
@pytest.mark.parametrize("steps", [1, 4, 37])
def test_the_warm_up_is_a_line_from_one_share_to_the_whole(steps):
    config = TrainConfig(steps=steps, warmup=0.9, schedule="constant")
    rise = round(0.9 * steps)
    rates = [config.rate(step, steps) for step in range(steps)]
    assert rates == pytest.approx([min(1.0, (step + 1) / rise) for step in range(steps)])


def test_the_cosine_begins_whole_is_half_in_the_middle_and_ends_near_nothing():
    config = TrainConfig(steps=100, warmup=0.2)
    assert [config.rate(step, 100) for step in (19, 20, 60)] == pytest.approx([1.0, 1.0, 0.5])
    assert config.rate(99, 100) == pytest.approx(0.5 * (1 + math.cos(math.pi * 79 / 80)))


def test_the_optimiser_takes_the_rate_of_its_step(small, tmp_path):
    fit = fit_of(small, tmp_path, steps=8, batch=4, optimizer="sgd", learning_rate=0.01, warmup=0.5)
    taken = []
    fit._optimizer.register_step_pre_hook(lambda optimizer, *_: taken.append(optimizer.param_groups[0]["lr"]))
    fit.run(None, None)
    assert taken == pytest.approx([0.01 * fit.config.rate(number, 8) for number in range(8)])


@pytest.mark.parametrize("norm", [1e-4, 1e-3])
def test_a_gradient_is_cut_to_its_norm(small, tmp_path, norm):
    """One step of plain SGD at rate 1 moves all weights by the norm of the gradient."""
    fit = fit_of(
        small, tmp_path, steps=1, batch=8, optimizer="sgd", momentum=0.0, learning_rate=1.0, weight_decay=0.0,
        warmup=0.0, clip_norm=norm,
    )  # fmt: skip
    before = [p.detach().double() for p in fit.model.parameters()]
    fit.run(None, None)
    moved = [(p.detach().double() - b).square().sum() for p, b in zip(fit.model.parameters(), before, strict=True)]
    assert float(sum(moved).sqrt()) == pytest.approx(norm, rel=0.02)


@pytest.mark.parametrize("adaptive", [True, False])
def test_a_step_of_sam_begins_where_the_weights_are_and_not_uphill(small, tmp_path, adaptive):
    """At next to no rate the weights stay, however far the climb was."""
    fit = fit_of(
        small, tmp_path, steps=2, batch=8, accumulate=2, optimizer="sgd", learning_rate=1e-12, weight_decay=0.0,
        sam_rho=0.5, sam_adaptive=adaptive,
    )  # fmt: skip
    before = [p.detach().clone() for p in fit.model.parameters()]
    fit.run(None, None)
    assert all(torch.allclose(p, b, rtol=0, atol=1e-7) for p, b in zip(fit.model.parameters(), before, strict=True))


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_batchnorm_keeps_the_statistics_that_it_came_with(small, tmp_path, frozen):
    fit = fit_of(small, tmp_path, steps=3, batch=8, freeze_bn=frozen)
    before = [value.clone() for value in fitting.statistics(fit.model)]
    fit.run(None, None)
    same = [torch.equal(a, b) for a, b in zip(before, fitting.statistics(fit.model), strict=True)]
    assert all(same) if frozen else not any(same)


def test_smoothed_labels_give_every_class_its_part():
    logits, labels = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 4, 0])
    logs = logits.double() - torch.logsumexp(logits.double(), 1, keepdim=True)
    wanted = -(0.8 * logs[torch.arange(6), labels] + 0.2 * logs.mean(1)).mean()
    assert float(training_loss(logits, labels, label_smoothing=0.2)) == pytest.approx(float(wanted), rel=1e-5)
