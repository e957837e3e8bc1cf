"""The six attention schemes: what each may see, and what each costs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from logoformer.clips import Sampling
from logoformer.errors import UsageError
from logoformer.model.networks.configs import complexity, preset
from logoformer.model.networks.logoformer.complexity import attention_macs, products
from logoformer.model.networks.logoformer.config import ATTENTIONS, LogoFormerConfig
from logoformer.model.networks.logoformer.model import LogoFormer
from logoformer.model.networks.logoformer.schemes import mix_neighbours
from torch.utils.flop_counter import FlopCounterMode


def config(attention: str, **changed) -> LogoFormerConfig:
    return replace(preset("tiny"), attention=attention, window=(2, 2, 2), **changed)


def model(attention: str) -> LogoFormer:
    torch.manual_seed(0)
    found = LogoFormer(config(attention)).eval()
    with torch.no_grad():
        for parameter in found.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return found


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_counted_by_formula_and_by_torch(attention: str):
    c = config(attention)
    net = LogoFormer(c)
    assert complexity(c).parameters == sum(p.numel() for p in net.parameters())
    clips = torch.rand(1, c.frames, 3, c.image_size, c.image_size)
    with FlopCounterMode(display=False) as counter:  # in grad mode: torch 2.13 counts nothing without
        net(clips)
    assert complexity(c).clip_macs == counter.get_total_flops() // 2


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_only_space_is_blind_to_the_order_of_frames(attention: str):
    net = model(attention)
    clips = torch.rand(2, net.config.frames, 3, 64, 64)
    with torch.inference_mode():
        forward, backward = net(clips), net(clips.flip(1))
    assert torch.allclose(forward, backward, atol=1e-5) == (attention == "space")


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_every_parameter_gets_a_gradient(attention: str):
    net = LogoFormer(config(attention))
    net(torch.rand(2, net.config.frames, 3, 64, 64)).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


def test_mixing_takes_a_quarter_from_each_neighbour():
    x = torch.arange(3.0).view(1, 3, 1, 1, 1).expand(1, 3, 1, 1, 8)  # frame t holds t
    assert mix_neighbours(x)[0, :, 0, 0].tolist() == [
        [0, 0, 0, 0, 0, 0, 1, 1],
        [0, 0, 1, 1, 1, 1, 2, 2],
        [1, 1, 2, 2, 2, 2, 2, 2],
    ]


def test_growth_is_what_the_orders_say():
    """Doubling T or S, far from [CLS]'s share: the factor of the attention products."""

    def factor(attention: str, axis: str) -> float:
        def macs(frames: int, size: int) -> int:
            sampling = Sampling(segments=frames, frames_per_segment=1, span_s=20.0)
            return attention_macs(
                replace(config(attention, image_size=size, sampling=sampling), window=(2, 2, 2)), last=False
            )

        return macs(64, 256) / macs(32, 256) if axis == "T" else macs(32, 512) / macs(32, 256)

    for attention, in_t, in_s in [("joint", 4, 16), ("space", 2, 16), ("mixing", 2, 16), ("divided", 2.1, 15)]:
        assert factor(attention, "T") == pytest.approx(in_t, rel=0.08), attention
        assert factor(attention, "S") == pytest.approx(in_s, rel=0.08), attention


def test_logo_grows_linearly_on_the_local_side_and_is_least_at_the_root():
    """FHW (fhw + FHW / fhw) d: linear in T at fixed windows on the local side; the sum is least at fhw = sqrt(FHW)."""
    c = replace(preset("base"), image_size=256, sampling=Sampling(16, 1, span_s=5.0))  # 16 x 8 x 8 = 1024 tokens
    sums = {}
    for window in [(1, 1, 1), (2, 2, 2), (4, 2, 2), (2, 4, 4), (4, 4, 4), (8, 4, 4), (16, 8, 8)]:
        sized = replace(c, window=window)
        sums[sized.window_tokens] = attention_macs(sized)
    assert min(sums, key=lambda tokens: sums[tokens]) == 32  # sqrt(1024)


@pytest.mark.parametrize("frames", [8, 16, 32])
def test_each_side_of_logo_grows_as_derived(frames: int):
    """At fixed windows the local side is linear in T; the global side quadratic, and L times smaller than joint."""

    def sides(count: int, attention: str = "logo") -> list[int]:
        sampling = Sampling(count, 1, span_s=5.0)
        return [p.pairs for p in products(replace(preset("base"), attention=attention, sampling=sampling))]

    (local, over), (local_twice, over_twice) = sides(frames), sides(2 * frames)
    assert local_twice == 2 * local == 2 * frames * 16 * 16
    assert over_twice == pytest.approx(4 * over, rel=0.1) and over_twice < 4 * over  # [CLS] is one query and one key
    assert sides(frames, "joint") == [pytest.approx(16 * over, rel=0.15)]


def test_unknown_schemes_and_heads_that_cannot_be_quartered_are_refused():
    with pytest.raises(UsageError, match="Unknown attention 'global'"):
        config("global")
    with pytest.raises(UsageError, match="cannot be quartered"):
        config("mixing", heads=32)


def test_checkpoints_from_before_the_schemes_are_logo():
    data = preset("tiny").to_json()
    del data["attention"]
    assert LogoFormerConfig.from_json(data) == preset("tiny")
