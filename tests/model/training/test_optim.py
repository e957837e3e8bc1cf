"""Which weights decay, and what the average is an average of."""

from __future__ import annotations

import torch
from logoformer.model.networks.configs import preset
from logoformer.model.networks.logoformer.model import LogoFormer
from logoformer.model.training.recipe import TrainConfig
from logoformer.model.training.step import Average, make_optimizer, parameter_groups
from torch import nn


def test_decay_spares_norms_biases_and_positions():
    model = LogoFormer(preset("tiny"))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, free = parameter_groups(model, 0.05)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.05, 0.0)
    assert len(decayed["params"]) + len(free["params"]) == len(names)
    assert {names[id(p)] for p in free["params"]} >= {"pos_spatial", "pos_temporal", "cls", "norm.weight", "head.bias"}
    assert all(names[id(p)].endswith("weight") and p.ndim >= 2 for p in decayed["params"])


def test_sgd_has_the_recipes_momentum():
    optimizer = make_optimizer(nn.Linear(2, 2), TrainConfig(optimizer="sgd", momentum=0.8, learning_rate=0.1))
    assert isinstance(optimizer, torch.optim.SGD) and optimizer.param_groups[0]["momentum"] == 0.8


def test_the_average_follows_its_formula_and_takes_the_statistics_as_they_are():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = Average(net, 0.5)
    wanted = net[0].weight.detach().clone()
    for step in range(5):
        with torch.no_grad():
            net[0].weight.add_(1.0)
            net[1].running_mean.add_(1.0)
        average.update(net)
        kept = min(0.5, (1 + step) / (10 + step))
        wanted = kept * wanted + (1 - kept) * net[0].weight.detach()
    torch.testing.assert_close(average.model[0].weight, wanted)
    assert torch.equal(average.model[1].running_mean, net[1].running_mean)
    assert not average.model.training and not average.model[0].weight.requires_grad
