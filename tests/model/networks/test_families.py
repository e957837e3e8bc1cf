"""Every family keeps the contract: configuration, counts, the split into frames and clip, the authors' tensors."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from logoformer.errors import BadInputError, UsageError
from logoformer.model.checkpoint import load_checkpoint, save_checkpoint
from logoformer.model.networks.configs import PRESETS, complexity, config_from_json, preset
from logoformer.model.networks.families import FAMILIES, build_network, untrained
from logoformer.model.networks.logoformer.config import LOGOFORMER_PRESETS
from published import imported, theirs

SMALL = ["tiny", "former-dfer-tiny", "mae-dfer-tiny"]
PARAMETERS = {"former-dfer": 18_031_943, "mae-dfer": 84_878_343}
TENSORS = {"former-dfer": 169, "mae-dfer": 519}


def test_each_family_has_a_full_size_and_a_small_preset():
    assert {PRESETS[name].family for name in SMALL} == FAMILIES.keys() == {c.family for c in PRESETS.values()}


@pytest.mark.parametrize("name", list(PARAMETERS))
def test_published_sizes(name: str):
    with torch.device("meta"):
        model = build_network(PRESETS[name])
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    assert complexity(PRESETS[name]).parameters == PARAMETERS[name]
    assert len(FAMILIES[name].foreign(PRESETS[name])) == TENSORS[name]


def test_published_macs():
    assert round(complexity(PRESETS["former-dfer"]).clip_macs / 1e9, 2) == 8.30
    assert round(complexity(PRESETS["mae-dfer"]).clip_macs / 1e9, 2) == 49.65
    assert round(complexity(PRESETS["mae-dfer"]).clip_macs_exported / 1e9, 2) == 47.04


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_configuration_survives_json(name: str):
    config = PRESETS[name]
    data = json.loads(json.dumps(config.to_json()))
    assert config_from_json(data) == config
    for broken in ({**data, "depht": 3}, {k: v for k, v in data.items() if k != "labels"}, {**data, "mean": [0, 0]}):
        with pytest.raises(BadInputError, match="cannot be read"):
            config_from_json(broken)


def test_a_configuration_without_a_family_is_a_logoformers():
    data = {name: value for name, value in PRESETS["tiny"].to_json().items() if name not in ("family", "qkv_bias")}
    data["sampling"] = {name: data["sampling"][name] for name in ("segments", "frames_per_segment", "span_s", "fps")}
    assert config_from_json(data) == PRESETS["tiny"]


def test_an_unknown_family_is_refused_and_only_logoformers_have_schemes():
    with pytest.raises(BadInputError, match="'resnet'"):
        config_from_json({**PRESETS["tiny"].to_json(), "family": "resnet"})
    assert preset("tiny", "lgi") == replace(LOGOFORMER_PRESETS["tiny"], attention="lgi")
    with pytest.raises(UsageError, match="no attention schemes"):
        preset("mae-dfer-tiny", "lgi")


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_frames_and_what_follows_are_the_whole(name: str):
    config = PRESETS[name]
    model = untrained(config)
    clips = torch.rand(2, config.frames, 3, config.image_size, config.image_size)
    rows = torch.stack([torch.cat([model.embed_frames(frame[None]) for frame in clip]) for clip in clips])
    assert rows.shape == (2, config.frames, config.tokens_per_frame, config.token_dim)
    torch.testing.assert_close(model.head(model.encode(rows)), model(clips), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_the_authors_tensors_fill_every_one_of_ours(name: str, tmp_path):
    config = PRESETS[name]
    ours, state, file = untrained(config).state_dict(), theirs(config), tmp_path / "theirs.pth"
    foreign = FAMILIES[config.family].foreign(config)
    assert sorted(own for tensor in foreign.values() for own in tensor.ours) == sorted(ours)
    mapped = imported(state, config, file)
    assert mapped.keys() == ours.keys() and all(torch.equal(mapped[key], value) for key, value in ours.items())
    first = next(key for key, tensor in foreign.items() if len(tensor.shape) > 1)
    with pytest.raises(BadInputError, match="1 are missing"):
        imported({key: value for key, value in state.items() if key != first}, config, file)
    with pytest.raises(BadInputError, match="1 have another shape"):
        imported({**state, first: torch.zeros(1, 2, 3)}, config, file)


@pytest.mark.parametrize("name", SMALL)
def test_a_checkpoint_is_read_as_it_was_written(name: str, tmp_path):
    model = untrained(PRESETS[name], seed=3)
    loaded, _ = load_checkpoint(save_checkpoint(tmp_path / "checkpoint", model))
    assert loaded.config == model.config and type(loaded) is type(model)
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("mae-dfer-tiny", {"region": (3, 2, 4)}, "choose t from"),
        ("mae-dfer-tiny", {"patch": 15}, "patch 15"),
        ("mae-dfer-tiny", {"read": "cls"}, "'cls'"),
        ("mae-dfer-tiny", {"labels": ("one",)}, "two labels"),
        ("former-dfer-tiny", {"stage_blocks": (1, 1)}, "stage"),
        ("former-dfer-tiny", {"temporal_heads": 5}, "5 heads"),
        ("former-dfer-tiny", {"stem_kernel": 4}, "odd"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(name: str, change: dict, words: str):
    with pytest.raises(UsageError) as caught:
        replace(PRESETS[name], **change)
    assert words in str(caught.value)
