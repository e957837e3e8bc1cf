"""Sharpness-aware steps against the paper's formulas."""

from __future__ import annotations

import pytest
import torch
from logoformer.model.training.step import ascend, frozen_statistics, restore
from torch import nn


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_climb_has_the_papers_length_and_is_undone_bit_for_bit(adaptive: bool):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    net(torch.randn(8, 5)).square().mean().backward()
    before = [p.detach().clone() for p in net.parameters()]
    grads = [p.grad.clone() for p in net.parameters()]
    kept = ascend(net.parameters(), 0.05, adaptive=adaptive)
    moved = [p.detach() - w for p, w in zip(net.parameters(), before, strict=True)]
    if adaptive:  # e = rho w^2 g / | |w| g |
        norm = torch.cat([(w.abs() * g).flatten() for w, g in zip(before, grads, strict=True)]).norm()
        wanted = [0.05 * w.square() * g / norm for w, g in zip(before, grads, strict=True)]
    else:
        norm = torch.cat([g.flatten() for g in grads]).norm()
        wanted = [0.05 * g / norm for g in grads]
        assert torch.cat([m.flatten() for m in moved]).norm().item() == pytest.approx(0.05, rel=1e-3)
    for found, formula in zip(moved, wanted, strict=True):
        torch.testing.assert_close(found, formula, rtol=1e-3, atol=1e-7)
    restore(kept)
    assert all(torch.equal(p, w) for p, w in zip(net.parameters(), before, strict=True))


def test_a_scaled_gradient_climbs_as_far():
    net = nn.Linear(3, 2)
    (net(torch.randn(4, 3)).square().sum() * 1024).backward()
    before = net.weight.detach().clone()
    kept = ascend(net.parameters(), 0.1)
    assert torch.cat([(p - w).flatten() for p, (_, w) in zip(net.parameters(), kept, strict=True)]).norm() < 0.11
    assert not torch.equal(net.weight, before)


def test_a_gradient_that_overflowed_moves_nothing():
    net = nn.Linear(3, 2)
    before = net.weight.detach().clone()
    net.weight.grad = torch.full((2, 3), torch.inf)
    assert ascend(net.parameters(), 0.1) == [] and torch.equal(net.weight, before)


def test_running_statistics_stay_in_the_second_pass_and_normalising_does_not():
    norm = nn.BatchNorm2d(2)
    x = torch.randn(4, 2, 3, 3) * 5 + 2
    norm(x)
    mean, variance, count = norm.running_mean.clone(), norm.running_var.clone(), norm.num_batches_tracked.clone()
    kept = norm.running_mean
    with frozen_statistics(nn.Sequential(norm)):
        out = norm(x)
    assert norm.running_mean is kept
    assert torch.equal(norm.running_mean, mean) and torch.equal(norm.running_var, variance)
    assert torch.equal(norm.num_batches_tracked, count)
    assert out.mean().abs() < 1e-5  # by the batch's own statistics
