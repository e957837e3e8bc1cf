"""Former-DFER against an oracle in float64 that shares no code with it: einsum and functional calls, from the facts."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from logoformer.errors import BadInputError
from logoformer.model.networks.configs import PRESETS
from logoformer.model.networks.families import FAMILIES
from published import imported

FAMILY = FAMILIES["former-dfer"]


def foreign_state(config, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under the authors' names; BatchNorm statistics that matter."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in FAMILY.foreign(config).items():
        value = torch.randn(tensor.shape, generator=generator) if tensor.shape else torch.zeros((), dtype=torch.long)
        if name.endswith("running_var") or (".bn" in name and name.endswith("weight")) or "norm.weight" in name:
            value = 1 + 0.3 * value.abs()
        elif len(tensor.shape) > 1 and "embedding" not in name and "cls" not in name:
            value = value / math.sqrt(math.prod(tensor.shape[1:]))
        state[name] = value
    return state


def oracle(state: dict[str, torch.Tensor], clip: torch.Tensor, heads: tuple[int, int]) -> torch.Tensor:
    """Logits `[1, C]` in float64: `clip` is `[T, 3, S, S]` in 0..1."""
    w = {name: value.double() for name, value in state.items()}

    def norm2d(x, name):
        p = f"s_former.{name}"
        return F.batch_norm(x, w[f"{p}.running_mean"], w[f"{p}.running_var"], w[f"{p}.weight"], w[f"{p}.bias"])

    def stage(x, number):
        block = 0
        while f"s_former.layer{number}.{block}.conv1.weight" in w:
            at = f"layer{number}.{block}"
            stride = 2 if number > 1 and block == 0 else 1
            y = torch.relu(norm2d(F.conv2d(x, w[f"s_former.{at}.conv1.weight"], None, stride, 1), f"{at}.bn1"))
            y = norm2d(F.conv2d(y, w[f"s_former.{at}.conv2.weight"], None, 1, 1), f"{at}.bn2")
            if f"s_former.{at}.downsample.0.weight" in w:
                x = F.conv2d(x, w[f"s_former.{at}.downsample.0.weight"], None, stride)
                x = norm2d(x, f"{at}.downsample.1")
            x = torch.relu(x + y)
            block += 1
        return x

    def layer_norm(x, name):
        mean = x.mean(-1, keepdim=True)
        variance = ((x - mean) ** 2).mean(-1, keepdim=True)
        return (x - mean) / torch.sqrt(variance + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def transformer(x, name, count):
        layer = 0
        while f"{name}.layers.{layer}.0.fn.fn.to_qkv.weight" in w:
            p = f"{name}.layers.{layer}"
            q, k, v = torch.einsum(
                "bnd,cd->bnc", layer_norm(x, f"{p}.0.fn.norm"), w[f"{p}.0.fn.fn.to_qkv.weight"]
            ).split(x.shape[-1], -1)
            q, k, v = (part.unflatten(-1, (count, -1)) for part in (q, k, v))
            scores = torch.einsum("bnhd,bmhd->bhnm", q, k) / math.sqrt(q.shape[-1])
            told = torch.einsum("bhnm,bmhd->bnhd", scores.softmax(-1), v).flatten(2)
            x = x + told @ w[f"{p}.0.fn.fn.to_out.0.weight"].T + w[f"{p}.0.fn.fn.to_out.0.bias"]
            y = layer_norm(x, f"{p}.1.fn.norm") @ w[f"{p}.1.fn.fn.net.0.weight"].T + w[f"{p}.1.fn.fn.net.0.bias"]
            y = 0.5 * y * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
            x = x + y @ w[f"{p}.1.fn.fn.net.3.weight"].T + w[f"{p}.1.fn.fn.net.3.bias"]
            layer += 1
        return x

    kernel = w["s_former.conv1.weight"]
    x = torch.relu(norm2d(F.conv2d(clip.double(), kernel, None, 2, kernel.shape[-1] // 2), "bn1"))
    x = F.max_pool2d(x, 3, 2, 1)
    stages = 1
    while f"s_former.layer{stages + 1}.0.conv1.weight" in w:
        x = stage(x, stages)
        stages += 1
    rows, columns = x.shape[2:]
    tokens = x.flatten(2).transpose(1, 2) + w["s_former.pos_embedding"]
    tokens = transformer(tokens, "s_former.spatial_transformer", heads[0])
    x = stage(tokens.transpose(1, 2).unflatten(2, (rows, columns)), stages)
    x = torch.cat([w["t_former.cls_token"][0], x.mean((2, 3))])[None] + w["t_former.pos_embedding"]
    x = transformer(x, "t_former.spatial_transformer", heads[1])
    return x[:, 0] @ w["fc.weight"].T + w["fc.bias"]


@pytest.mark.parametrize("preset", ["former-dfer-tiny", pytest.param("former-dfer", marks=pytest.mark.slow)])
def test_the_network_is_the_oracles(preset: str, tmp_path):
    config = PRESETS[preset]
    state = foreign_state(config)
    model = FAMILY.build(config).eval()
    model.load_state_dict(imported(state, config, tmp_path / "theirs.pth"))
    clip = torch.rand(
        config.frames, 3, config.image_size, config.image_size, generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        wanted = oracle(state, clip, (config.spatial_heads, config.temporal_heads))
        torch.testing.assert_close(model.double()(clip[None].double()), wanted, rtol=0, atol=1e-9)
        torch.testing.assert_close(model.float()(clip[None]).double(), wanted, rtol=1e-4, atol=1e-4)


def test_the_configuration_of_a_file_is_the_published_one_and_its_classes_are_checked():
    shapes = {name: tensor.shape for name, tensor in FAMILY.foreign(PRESETS["former-dfer"]).items()}
    assert FAMILY.recognise(shapes) and not FAMILIES["mae-dfer"].recognise(shapes)
    assert FAMILY.config_of(shapes, {}, {}) == PRESETS["former-dfer"]
    with pytest.raises(BadInputError, match="has 11 classes"):
        FAMILY.config_of({**shapes, "fc.weight": (11, 512)}, {}, {})
    with pytest.raises(BadInputError, match="no classifier"):
        FAMILY.config_of({name: shape for name, shape in shapes.items() if not name.startswith("fc.")}, {}, {})
