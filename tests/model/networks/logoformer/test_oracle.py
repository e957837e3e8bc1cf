"""The readable model against an oracle in float64 that shares no code with it: numbered places, einsum, no torch layer.

Written from the formulas: He et al. 2015 for the trunk; Ma, Sun, Li 2023 for local and pooled global attention; the
papers that `schemes.py` names for the other five.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from logoformer.clips import Sampling
from logoformer.model.networks.configs import preset
from logoformer.model.networks.logoformer.config import ATTENTIONS, LogoFormerConfig
from logoformer.model.networks.logoformer.model import LogoFormer
from torch import Tensor, einsum

Weights = dict[str, Tensor]
# No two sizes alike where a mix-up could hide: frames, grid, heads, channels of a head, and no side of the window.
SIZES = replace(
    preset("tiny"), image_size=32, stage_widths=(4, 8), stage_blocks=(2, 1), embed_dim=24, heads=3, ffn_dim=20, depth=2,
    window=(3, 4, 2), sampling=Sampling(6, 1), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25),
    labels=("a", "b", "c", "d", "e"),
)  # fmt: skip


class Oracle:
    """Logits of clips `[B, T, 3, S, S]`, from weights by their names and sizes alone."""

    def __init__(self, w: Weights, c: LogoFormerConfig) -> None:
        self.w, self.heads, self.frames, self.window, self.scheme = w, c.heads, c.frames, c.window, c.attention
        self.mean, self.std = (torch.tensor(x).double()[:, None, None] for x in (c.mean, c.std))
        self.depth, self.stages = c.depth, c.stage_blocks

    # -------------------------------------------------------------------------------------------------------- the trunk
    def conv(self, x: Tensor, name: str, stride: int) -> Tensor:
        """The sum over patches, written out: zeros around the picture, half the kernel on each side."""
        kernel = self.w[name]
        side, around = kernel.shape[-1], kernel.shape[-1] // 2
        patches = F.pad(x, [around] * 4).unfold(2, side, stride).unfold(3, side, stride)  # [n, c, h, w, k, k]
        return einsum("nchwij,ocij->nohw", patches, kernel)

    def norm2d(self, x: Tensor, name: str) -> Tensor:
        w = {
            part: self.w[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        }
        return (x - w["running_mean"]) / torch.sqrt(w["running_var"] + 1e-5) * w["weight"] + w["bias"]

    def maps(self, frames: Tensor) -> Tensor:
        """Frames `[n, 3, S, S]` -> the last map of the trunk."""
        positive = torch.clamp_min
        x = positive(self.norm2d(self.conv((frames - self.mean) / self.std, "trunk.conv1.weight", 2), "trunk.bn1"), 0)
        x = F.pad(x, [1] * 4, value=-math.inf).unfold(2, 3, 2).unfold(3, 3, 2).amax((-1, -2))
        for stage, blocks in enumerate(self.stages, start=1):
            for block in range(blocks):
                at, stride = f"trunk.layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
                y = positive(self.norm2d(self.conv(x, f"{at}.conv1.weight", stride), f"{at}.bn1"), 0)
                y = self.norm2d(self.conv(y, f"{at}.conv2.weight", 1), f"{at}.bn2")
                if f"{at}.downsample.0.weight" in self.w:
                    x = self.norm2d(self.conv(x, f"{at}.downsample.0.weight", stride), f"{at}.downsample.1")
                x = positive(x + y, 0)
        return x

    # ------------------------------------------------------------------------------------------------------- the blocks
    def linear(self, x: Tensor, name: str) -> Tensor:
        y = einsum("...i,oi->...o", x, self.w[f"{name}.weight"])
        return y + self.w[f"{name}.bias"] if f"{name}.bias" in self.w else y

    def norm(self, x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        deviation = torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5)
        return centred / deviation * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def attention(self, asking: Tensor, asked: Tensor, name: str, *, borrowing: bool = False) -> Tensor:
        """softmax(q k / sqrt(D)) v of every head, `[..., s, d]` over `[..., k, d]`."""
        q, k, v = (
            self.linear(x, f"{name}.{part}").reshape(*x.shape[:-1], self.heads, -1)
            for x, part in ((asking, "q"), (asked, "k"), (asked, "v"))
        )
        if borrowing:
            k, v = self.borrowed(k), self.borrowed(v)
        scores = einsum("...shc,...khc->...hsk", q, k) / math.sqrt(q.shape[-1])
        shares = torch.exp(scores - scores.amax(-1, keepdim=True))
        shares = shares / shares.sum(-1, keepdim=True)
        told = einsum("...hsk,...khc->...shc", shares, v)
        return self.linear(told.reshape(asking.shape), f"{name}.out")

    def borrowed(self, x: Tensor) -> Tensor:
        """`[B, T, k, H, D]`: a quarter of a head's channels from the frame before, a quarter from the one after."""
        last, quarter = x.shape[1] - 1, x.shape[-1] // 4
        made = x.clone()
        for t in range(last + 1):
            made[:, t, ..., :quarter] = x[:, max(t - 1, 0), ..., :quarter]
            made[:, t, ..., -quarter:] = x[:, min(t + 1, last), ..., -quarter:]
        return made

    def regions(self, side: int) -> list[list[int]]:
        """The natural numbers of the tokens of each window, windows and tokens by time, row, column."""
        f, h, w = self.window
        starts = product(range(0, self.frames, f), range(0, side, h), range(0, side, w))
        return [
            [((t + a) * side + (y + b)) * side + (x + c) for a, b, c in product(range(f), range(h), range(w))]
            for t, y, x in starts
        ]

    def logo(self, p: str, cls: Tensor, x: Tensor, regions: list[list[int]]) -> tuple[Tensor, Tensor]:
        y, local = self.norm(x, f"{p}.norm_local"), torch.empty_like(x)
        for places in regions:
            local[:, places] = self.attention(y[:, places], y[:, places], f"{p}.local_attention.attention")
        x = x + local
        both = self.norm(torch.cat([cls, x], 1), f"{p}.norm_global")
        kernel, bias = (self.w[f"{p}.global_attention.pool.{part}"] for part in ("weight", "bias"))
        pooled = [einsum("bld,dl->bd", both[:, 1:][:, places], kernel.reshape(len(kernel), -1)) for places in regions]
        pooled = self.norm(torch.stack(pooled, 1) + bias, f"{p}.global_attention.norm")
        z = self.attention(both, torch.cat([both[:, :1], pooled], 1), f"{p}.global_attention.attention")
        return cls + z[:, :1], x + z[:, 1:]

    def frame_by_frame(self, p: str, cls: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Joint: one sequence; space and mixing: one a frame, each with its own [CLS]."""
        b, _, d = x.shape
        own = torch.cat([cls[:, :, None], x.reshape(b, cls.shape[1], -1, d)], 2)
        y = self.norm(own, f"{p}.norm")
        own = own + self.attention(y, y, f"{p}.attention", borrowing=self.scheme == "mixing")
        return own[:, :, 0], own[:, :, 1:].reshape(x.shape)

    def divided(self, p: str, cls: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        frames = x.reshape(x.shape[0], self.frames, -1, x.shape[2])  # [B, T, S, d]
        y = self.norm(frames, f"{p}.norm_time")
        over_time = [self.attention(y[:, :, s], y[:, :, s], f"{p}.time_attention") for s in range(y.shape[2])]
        frames = frames + torch.stack(over_time, 2)
        told = []
        for t in range(self.frames):
            y = self.norm(torch.cat([cls, frames[:, t]], 1), f"{p}.norm_space")
            told.append(self.attention(y, y, f"{p}.space_attention"))
        z = torch.stack(told, 1)  # [B, T, 1 + S, d]
        return cls + z[:, :, :1].sum(1) / self.frames, (frames + z[:, :, 1:]).reshape(x.shape)

    def lgi(self, p: str, prefix: Tensor, x: Tensor, regions: list[list[int]]) -> tuple[Tensor, Tensor]:
        x, speakers = x.clone(), [prefix[:, :1]]
        for number, places in enumerate(regions, start=1):
            own = torch.cat([prefix[:, number : number + 1], x[:, places]], 1)
            y = self.norm(own, f"{p}.norm_local")
            own = own + self.attention(y, y, f"{p}.local_attention")
            speakers.append(own[:, :1])
            x = x.index_copy(1, torch.tensor(places), own[:, 1:])
        prefix = torch.cat(speakers, 1)
        y = self.norm(prefix, f"{p}.norm_global")
        prefix = prefix + self.attention(y, y, f"{p}.global_attention")
        asking, asked = self.norm(x, f"{p}.norm_tokens"), self.norm(prefix, f"{p}.norm_keys")
        return prefix, x + self.attention(asking, asked, f"{p}.interaction")

    def feed(self, x: Tensor, p: str) -> Tensor:
        y = self.linear(self.norm(x, f"{p}.norm_ffn"), f"{p}.ffn.fc1")
        return x + self.linear(y * (1 + torch.erf(y / math.sqrt(2))) / 2, f"{p}.ffn.fc2")

    # -------------------------------------------------------------------------------------------------------- the whole
    def __call__(self, clips: Tensor) -> Tensor:
        clips, w = clips.double(), self.w
        b = len(clips)
        maps = self.maps(clips.flatten(0, 1))
        side = maps.shape[-1]
        x = einsum("ncyx,dcij->nyxd", maps, w["project.weight"]) + w["project.bias"]
        x = x.reshape(b, self.frames, side * side, -1) + w["pos_spatial"]
        if self.scheme != "space":
            x = x + w["pos_temporal"][:, None]
        x = x.flatten(1, 2)
        own = self.frames if self.scheme in ("space", "mixing") else 1  # [CLS] tokens
        prefix = w["cls"].expand(b, own, -1)
        if self.scheme == "lgi":
            prefix = torch.cat([prefix, w["representatives"].expand(b, -1, -1)], 1)
        regions = self.regions(side)
        for number in range(self.depth):
            p = f"blocks.{number}"
            if self.scheme == "logo":
                prefix, x = self.logo(p, prefix, x, regions)
            elif self.scheme == "lgi":
                prefix, x = self.lgi(p, prefix, x, regions)
            elif self.scheme == "divided":
                prefix, x = self.divided(p, prefix, x)
            else:
                prefix, x = self.frame_by_frame(p, prefix, x)
            prefix, x = self.feed(prefix, p), self.feed(x, p)
        read = sum(self.norm(prefix[:, place], "norm") for place in range(own)) / own
        return self.linear(read, "head")


def model_of(config: LogoFormerConfig) -> LogoFormer:
    """A model whose every weight matters: no zero, no norm that is the identity."""
    generator = torch.Generator().manual_seed(3)
    model = LogoFormer(config).eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if not value.is_floating_point():
                continue
            drawn = torch.randn(value.shape, generator=generator)
            if name.endswith("running_var"):
                value.copy_(0.5 + drawn.abs())
            elif value.ndim > 1 and "pos_" not in name and "representatives" not in name:
                value.copy_(drawn / math.sqrt(value[0].numel()) * 1.5)
            else:
                value.copy_(drawn * 0.4 + ("weight" in name))
    return model.double()


@pytest.mark.parametrize("biased", [False, True], ids=["no biases", "q, k and v biased"])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_logits_and_gradients_are_the_oracles(attention: str, biased: bool):
    config = replace(SIZES, attention=attention, qkv_bias=biased)
    model = model_of(config)
    clips = torch.rand(2, config.frames, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()
    weights = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    oracle = Oracle({**dict(model.named_buffers()), **weights}, config)
    found, wanted = model(clips), oracle(clips)
    assert found.shape == (2, 5) and wanted.std(0).min() > 1e-3, "clips that are told apart"
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
    pull = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(2)).double()
    ours = torch.autograd.grad((found * pull).sum(), list(dict(model.named_parameters()).values()))
    theirs = torch.autograd.grad((wanted * pull).sum(), list(weights.values()), allow_unused=True)
    for name, one, other in zip(weights, ours, theirs, strict=True):
        other = torch.zeros_like(one) if other is None else other  # of lgi's last block tokens ask for nobody
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")
    torch.testing.assert_close(model.float()(clips.float()).double(), wanted, rtol=0, atol=1e-3)


def test_every_scheme_is_another_function():
    """Else one oracle branch could stand for two."""
    answers = []
    for attention in ATTENTIONS:
        config = replace(SIZES, attention=attention, depth=1)
        clips = torch.rand(1, config.frames, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()
        with torch.no_grad():
            answers.append(model_of(config)(clips))
    for one, other in product(range(len(answers)), repeat=2):
        assert one == other or not torch.allclose(answers[one], answers[other], atol=1e-3)
