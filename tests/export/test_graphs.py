"""The exported graphs compute what the readable model computes."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from logoformer.bundle.onnx_graph import infer_onnx
from logoformer.clips import Sampling, window_order
from logoformer.errors import UsageError
from logoformer.export.graphs import GRAPHS, build_graph, example_inputs
from logoformer.export.reference import Reference
from logoformer.export.trace import to_bytes, trace
from logoformer.model.networks.configs import PRESETS, complexity
from logoformer.model.networks.families import build_network
from logoformer.model.networks.logoformer.attention import merge_windows, split_windows
from logoformer.model.networks.logoformer.config import LOGOFORMER_PRESETS, LogoFormerConfig
from logoformer.model.networks.logoformer.model import LogoFormer
from logoformer.model.networks.network import to_tensor
from logoformer.workflows.init import initialise
from torch.utils.flop_counter import FlopCounterMode

TINY = PRESETS["tiny"]


def noisy(config: LogoFormerConfig, seed: int = 0) -> LogoFormer:
    """A model in which no parameter has the value it is initialised with, so that none can be forgotten unseen."""
    model = initialise(config, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def random_clips(config: LogoFormerConfig, count: int) -> np.ndarray:
    shape = (count, config.frames, config.image_size, config.image_size, 3)
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        dataclasses.replace(TINY, window=(2, 4, 1), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        dataclasses.replace(TINY, window=(8, 1, 2), depth=1, sampling=Sampling(4, 2)),
    ],
    ids=["tiny", "mean-std-and-odd-window", "one-block"],
)
def test_clip_and_pair_equal_the_model(config: LogoFormerConfig):
    model = noisy(config)
    clips = random_clips(config, 3)
    with torch.no_grad():
        wanted = torch.softmax(model(to_tensor(clips)), -1)
        clip = torch.cat([build_graph("clip", model)(torch.from_numpy(c[None])) for c in clips])
        torch.testing.assert_close(clip, wanted, rtol=1e-4, atol=1e-6)

        frame, temporal = build_graph("frame", model), build_graph("temporal", model)
        tokens = torch.cat([frame(torch.from_numpy(image[None]))[0] for image in clips[0]])  # [T*h*w, d]
        # The ring holds the frames backwards and with a hole: `order` alone says where each stands.
        per_frame = config.tokens_per_frame
        slots = np.arange(config.frames)[::-1] + 1
        ring = torch.full(((config.frames + 2) * per_frame, config.embed_dim), 1e3)
        natural = window_order(config.frames, config.grid, config.window)
        for slot, image in zip(slots, tokens.split(per_frame), strict=True):
            ring[slot * per_frame : (slot + 1) * per_frame] = image
        order = slots[natural // per_frame] * per_frame + natural % per_frame
        pair = temporal(ring, torch.from_numpy(order.astype(np.int32)))
        torch.testing.assert_close(pair, wanted[:1], rtol=1e-4, atol=1e-6)


def test_window_order_is_the_models_own():
    for config in LOGOFORMER_PRESETS.values():
        natural = torch.arange(config.tokens).view(1, -1, 1)
        windows = split_windows(natural, config)
        np.testing.assert_array_equal(
            windows.reshape(-1).numpy(), window_order(config.frames, config.grid, config.window)
        )
        assert torch.equal(merge_windows(windows, config), natural)


def test_a_window_that_does_not_divide_names_the_valid_ones():
    with pytest.raises(UsageError) as caught:
        dataclasses.replace(TINY, window=(3, 2, 2))
    assert "[1, 2, 4, 8]" in caught.value.next


@pytest.mark.parametrize("name", GRAPHS)
def test_traced_graph_is_clean_and_equal(name: str):
    model = noisy(TINY)
    module = build_graph(name, model)
    inputs = example_inputs(name, TINY, 20)
    traced = trace(module, inputs, "out")
    onnx.checker.check_model(traced, full_check=True)
    rng = np.random.default_rng(0)
    feed = {}
    for key, value in inputs.items():
        if value.dtype == torch.uint8:
            feed[key] = rng.integers(0, 256, value.shape, dtype=np.uint8)
        elif value.dtype == torch.int32:
            feed[key] = rng.integers(0, 20 * TINY.tokens_per_frame, value.shape).astype(np.int32)
        else:
            feed[key] = rng.standard_normal(value.shape).astype(np.float32)
    with torch.no_grad():
        wanted = module(*(torch.from_numpy(value) for value in feed.values())).numpy()
    np.testing.assert_allclose(Reference(traced).run(feed)["out"], wanted, rtol=1e-4, atol=1e-5)
    assert to_bytes(trace(build_graph(name, model), inputs, "out")) == to_bytes(traced), "not deterministic"
    assert b".py" not in to_bytes(traced) and b"torch" not in to_bytes(traced)


def test_only_cls_is_computed_after_the_last_block():
    model = noisy(TINY)
    traced = trace(build_graph("temporal", model), example_inputs("temporal", TINY, 20), "out")
    counted = complexity(TINY)
    pooling = 2 * TINY.tokens * TINY.embed_dim  # a weighted sum in the graph, not a product
    assert sum(infer_onnx(traced).macs_by_precision.values()) == counted.temporal_macs_exported - pooling
    assert counted.temporal_macs_exported < counted.temporal_macs


@pytest.mark.parametrize("name", list(PRESETS))
def test_macs_and_parameters_by_formula_equal_the_flop_counter(name: str):
    config = PRESETS[name]
    with torch.device("meta"):  # nothing is computed: shapes are counted
        model = build_network(config).eval()
        clip = torch.zeros(1, config.frames, 3, config.image_size, config.image_size)
    with FlopCounterMode(display=False) as counter:
        model(clip)
    counted = complexity(config)
    assert counted.clip_macs == counter.get_total_flops() // 2
    assert counted.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_published_macs_are_met():
    assert 10.4e9 <= complexity(PRESETS["base"]).clip_macs <= 10.8e9
    assert 10.2e9 <= complexity(PRESETS["wide"]).clip_macs <= 10.5e9
