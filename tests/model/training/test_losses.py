"""The compact loss against an independent float64 computation, and where numbers are extreme."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from logoformer.model.training.step import compact_loss, training_loss


def by_hand(logits: np.ndarray, label: int) -> float:
    """D(u || q) + D(q || u), each divergence written out with math, one class after another."""
    others = [float(z) for c, z in enumerate(logits) if c != label]
    highest = max(others)
    total = math.fsum(math.exp(z - highest) for z in others)
    u = 1.0 / len(others)
    log_q = [z - highest - math.log(total) for z in others]
    forward = math.fsum(u * (math.log(u) - lq) for lq in log_q)
    backward = math.fsum(math.exp(lq) * (lq - math.log(u)) for lq in log_q)
    return forward + backward


@pytest.mark.parametrize("classes", range(2, 12))
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_it_equals_the_two_divergences(classes: int, scale: float):
    rng = np.random.default_rng(classes)
    logits = (rng.standard_normal((64, classes)) * scale).astype(np.float32)
    labels = rng.integers(classes, size=64)
    found = compact_loss(torch.from_numpy(logits), torch.from_numpy(labels)).numpy()
    wanted = np.array([by_hand(row, label) for row, label in zip(logits, labels, strict=True)])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-12)
    assert (found >= 0).all()


def test_the_targets_own_logit_does_not_matter():
    logits = torch.randn(8, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % 7
    moved = logits.clone()
    moved[torch.arange(8), labels] += 100.0
    assert torch.equal(compact_loss(logits, labels), compact_loss(moved, labels))


@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16])
def test_extreme_logits_stay_finite_in_value_and_gradient(autocast: torch.dtype | None):
    rows = [[1e4, -1e4, 0, 0, 0, 0, 1e4], [-1e4] * 7, [1e4] + [-1e4] * 6, [0.0] * 7]
    logits = torch.tensor(rows, requires_grad=True)
    weight = torch.eye(7)
    for label in range(7):
        logits.grad = None
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            passed = logits @ weight  # a product, so that autocast makes 16 bits of it
            loss = training_loss(passed, torch.full((4,), label), compact=0.3, label_smoothing=0.1)
        loss.backward()
        assert loss.dtype == torch.float32 and torch.isfinite(loss)
        assert torch.isfinite(logits.grad).all()


def test_the_gradient_is_the_derivative():
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 2, 4])

    def loss(z):
        others = torch.stack([torch.cat([row[:y], row[y + 1 :]]) for row, y in zip(z, labels.tolist(), strict=True)])
        q = torch.softmax(others, 1)
        return ((q - 0.25) * q.log()).sum()

    (wanted,) = torch.autograd.grad(loss(logits), logits)
    (found,) = torch.autograd.grad(compact_loss(logits, labels).sum(), logits)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


def test_weight_zero_is_plain_cross_entropy():
    logits, labels = torch.randn(4, 7), torch.tensor([0, 1, 2, 3])
    assert torch.equal(training_loss(logits, labels), torch.nn.functional.cross_entropy(logits, labels))
    more = training_loss(logits, labels, compact=0.5)
    torch.testing.assert_close(more, training_loss(logits, labels) + 0.5 * compact_loss(logits, labels).mean())
