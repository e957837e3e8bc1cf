"""What is timed is what is counted: the products, everything behind the frames, and the frames."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from logoformer.clips import Sampling
from logoformer.model.networks.configs import complexity, preset
from logoformer.model.networks.families import untrained
from logoformer.model.networks.logoformer.complexity import attention_macs, products
from logoformer.model.networks.logoformer.config import ATTENTIONS
from logoformer.model.networks.logoformer.scheme_steps import (
    frames_step,
    one_thread,
    products_step,
    resized,
    temporal_step,
)
from torch.utils.flop_counter import FlopCounterMode


def counted(step) -> int:
    with FlopCounterMode(display=False) as counter:  # in grad mode: torch 2.13 counts nothing without
        step(0)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_steps_do_the_work_that_the_formulas_count(attention: str):
    centre = replace(preset("tiny"), attention=attention)
    other = replace(centre, image_size=96, sampling=Sampling(16, 1))
    model = untrained(centre)
    for config in (centre, other):
        assert counted(products_step(config)) == config.depth * attention_macs(config)
        assert counted(temporal_step(resized(model, config))) == complexity(config).temporal_macs
        assert counted(frames_step(model, config)) == config.frames * complexity(config).frame_macs


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_products_pair_every_query_with_its_keys(attention: str):
    config = replace(preset("tiny"), attention=attention)
    for last in (False, True):
        found = products(config, last=last)
        assert 2 * config.embed_dim * sum(p.pairs for p in found) == attention_macs(config, last=last)
        assert all(min(p.groups, p.queries, p.keys) >= 1 for p in found)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_resized_model_shares_its_weights_and_answers_as_the_model(attention: str):
    model = untrained(replace(preset("tiny"), attention=attention))
    same, larger = resized(model, model.config), resized(model, replace(model.config, sampling=Sampling(16, 1)))
    clips = torch.rand(2, 8, 3, 64, 64)
    with torch.inference_mode():
        tokens = model.embed_frames(clips.flatten(0, 1)).unflatten(0, (2, -1))
        assert torch.equal(same.head(same.encode(tokens)), model(clips))
        assert torch.isfinite(larger.head(larger.encode(torch.cat([tokens, tokens], 1)))).all()
    assert larger.head.weight.data_ptr() == model.head.weight.data_ptr()


def test_one_thread_for_a_while():
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1 and torch.is_inference_mode_enabled()
    assert torch.get_num_threads() == before and not torch.is_inference_mode_enabled()
