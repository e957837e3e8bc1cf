"""The readable MAE-DFER against the authors' class: `tests/data/checkpoints`, made by running it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from logoformer.model.networks.configs import PRESETS
from logoformer.model.networks.families import FAMILIES, untrained
from logoformer.model.networks.mae_dfer.model import MaeDfer, StochasticDepth, sinusoids
from logoformer.model.networks.network import to_tensor
from published import imported

pytest.importorskip("safetensors", reason="safetensors is not installed (the extra 'train')")
from safetensors import safe_open

CASE = Path(__file__).parents[3] / "data" / "checkpoints" / "lgi_small_dfew.safetensors"
ARGS = {
    "model": "vit_base_dim512_no_depth_patch16_160", "depth": 2, "nb_classes": 7, "input_size": 64, "num_frames": 8,
    "tubelet_size": 2, "attn_type": "local_global", "lg_region_size": [2, 2, 4], "lg_classify_token_type": "region",
    "lg_first_attn_type": "self", "lg_third_attn_type": "cross", "data_set": "DFEW", "sampling_rate": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def case() -> dict[str, torch.Tensor]:
    with safe_open(CASE, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict


@pytest.fixture(scope="module")
def model(case, tmp_path_factory) -> MaeDfer:
    family = FAMILIES["mae-dfer"]
    state = {name.removeprefix("model."): value for name, value in case.items() if name.startswith("model.")}
    config = family.config_of({name: tuple(value.shape) for name, value in state.items()}, ARGS, {"heads": 4})
    built = family.build(config)
    built.load_state_dict(imported(state, config, tmp_path_factory.mktemp("authors") / "small.pth"))
    return built.eval()


@torch.no_grad()
def test_logits_and_every_intermediate_are_the_authors(model: MaeDfer, case):
    x = to_tensor(case["io.frames_uint8"][None])
    blocks: list[torch.Tensor] = []
    handles = [block.register_forward_hook(lambda _m, _i, out: blocks.append(out[0])) for block in model.blocks]
    logits = model(x)
    for handle in handles:
        handle.remove()
    assert (logits - case["io.logits"]).abs().max() <= 1e-6
    assert (logits.softmax(-1) - case["io.probabilities"]).abs().max() <= 1e-6
    pixels = ((x - model.mean) / model.std).transpose(1, 2)
    found = {
        "patch_embed": model.embed(pixels).flatten(2).transpose(1, 2), "fc_norm": model.features(x),
        **{f"block{index}": value for index, value in enumerate(blocks)},
    }  # fmt: skip
    expected = {name.removeprefix("mid."): value for name, value in case.items() if name.startswith("mid.")}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name].reshape(value.shape) - value).abs().max() <= 1e-5, name


@torch.no_grad()
def test_what_a_stream_keeps_of_each_frame_gives_the_same_answer(model: MaeDfer, case):
    frames = to_tensor(case["io.frames_uint8"][None])[0]
    shares = torch.cat([model.embed_frames(frame[None]) for frame in frames])  # each frame by itself
    logits = model.head(model.encode(shares[None]))
    torch.testing.assert_close(logits, case["io.logits"], rtol=0, atol=2e-6)


@pytest.mark.parametrize(("read", "atol"), [("local", 1e-6), ("all", 1e-6)])
@torch.no_grad()
def test_the_classifier_reads_the_tokens_that_it_is_told_to(model: MaeDfer, case, read: str, atol: float):
    other = MaeDfer(replace(model.config, read=read)).eval()
    other.load_state_dict(model.state_dict())
    last = case["mid.block1"]
    rows = last[:, 1:] if read == "local" else last
    wanted = torch.nn.functional.layer_norm(
        rows.reshape(-1, 64).mean(0), (64,), case["model.fc_norm.weight"], case["model.fc_norm.bias"], 1e-6
    )
    torch.testing.assert_close(other.features(to_tensor(case["io.frames_uint8"][None]))[0], wanted, rtol=0, atol=atol)


def test_positions_are_sine_and_cosine_over_the_flat_index():
    table = sinusoids(800, 512)
    for place, channel in [(0, 0), (0, 1), (1, 0), (799, 511), (400, 257), (37, 100)]:
        angle = place / math.pow(10000, 2 * (channel // 2) / 512)
        assert table[place, channel].item() == np.float32(math.cos(angle) if channel % 2 else math.sin(angle))


def test_stochastic_depth_leaves_whole_clips_out_in_training_only():
    drop = StochasticDepth(0.5)
    x = torch.ones(400, 3, 2)
    torch.manual_seed(0)
    kept = drop.train()(x)
    assert set(kept.unique().tolist()) == {0.0, 2.0} and torch.equal(kept, kept[:, :1, :1].expand_as(kept))
    assert 0.4 < kept.mean() / 2 < 0.6
    assert torch.equal(drop.eval()(x), x)
    rates = [block.drop_path.rate for block in untrained(replace(PRESETS["mae-dfer-tiny"], drop_path=0.1)).blocks]
    assert rates == [0.0, 0.1]
