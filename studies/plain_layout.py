"""MAE-DFER in its authors' layout, exported as it comes: what ours is compared with.

Written from the description of their network: one convolution over tubelets `[B, 3, T, S, S]`, positions added in
natural order, keys and values of one packed projection whose bias is zero for the keys, a bias inside each linear
layer, regions along the batch axis, and results written into slices of the tokens.
"""

from __future__ import annotations

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..export.trace import OPSET, quiet
from ..model.networks.attention import Attention
from ..model.networks.mae_dfer.model import MaeDfer, RegionBlock


class PackedAttention(nn.Module):
    """Queries `[B, S, d]` over keys `[B, K, d]`, or over themselves -> `[B, S, d]`."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads, self.scale = attention.heads, attention.scale
        self.q, self.q_bias, self.v_bias = attention.q.weight, attention.q.bias, attention.v.bias
        self.kv = nn.Parameter(torch.cat([attention.k.weight, attention.v.weight]))
        self.proj = attention.out

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        b, s, d = x.shape
        told = x if context is None else context
        query = F.linear(x, self.q, self.q_bias).reshape(b, s, self.heads, -1).transpose(1, 2)
        packed = F.linear(told, self.kv, torch.cat([torch.zeros_like(self.v_bias), self.v_bias]))
        key, value = packed.reshape(b, told.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = ((query * self.scale) @ key.transpose(-2, -1)).softmax(dim=-1)
        answer: Tensor = self.proj((weights @ value).transpose(1, 2).reshape(b, s, d))
        return answer


class PlainBlock(nn.Module):
    """A block: `[B*W, 1 + L, d]` -> the same."""

    def __init__(self, block: RegionBlock) -> None:
        super().__init__()
        self.block = block
        self.first, self.second, self.third = (
            PackedAttention(part) for part in (block.local_attention, block.global_attention, block.interaction)
        )

    def forward(self, x: Tensor, batch: int) -> Tensor:
        norms = self.block
        x = x + self.first(norms.norm_local(x))
        rows, tokens, d = x.shape
        own = x[:, 0].clone().view(batch, rows // batch, d)
        own = own + self.second(norms.norm_global(own))
        x[:, 0] = own.reshape(rows, d)
        local = x[:, 1:].clone().reshape(batch, -1, d)
        local = local + self.third(norms.norm_tokens(local), norms.norm_keys(own))
        x[:, 1:] = local.reshape(rows, tokens - 1, d)
        fed: Tensor = x + norms.ffn(norms.norm_ffn(x))
        return fed


class PlainMaeDfer(nn.Module):
    """uint8 `[1, T, S, S, 3]` -> probabilities `[1, C]`."""

    def __init__(self, model: MaeDfer) -> None:
        super().__init__()
        self.model = model
        self.blocks = nn.ModuleList(PlainBlock(block) for block in model.blocks)  # type: ignore[arg-type]

    def forward(self, clip: Tensor) -> Tensor:
        m, c = self.model, self.model.config
        x = (clip.float().permute(0, 1, 4, 2, 3) / 255.0 - m.mean) / m.std
        x = m.embed(x.transpose(1, 2)).flatten(2).transpose(1, 2) + m.positions  # [B, N, d]
        batch, _, d = x.shape
        (t, h, w), (times, rows, columns) = c.region, c.map
        x = x.view(batch, times // t, t, rows // h, h, columns // w, w, d).permute(0, 1, 3, 5, 2, 4, 6, 7)
        x = x.reshape(batch, c.regions, c.region_tokens, d)
        x = torch.cat([m.region_tokens[None, :, None].expand(batch, -1, -1, -1), x], 2).flatten(0, 1)
        for block in self.blocks:
            x = block(x, batch)
        features = m.norm(x.view(batch, c.regions, -1, d)[:, :, 0].mean(1))
        return torch.softmax(m.head(features), dim=-1)


def plain_export(model: MaeDfer) -> onnx.ModelProto:
    """The network in its authors' layout as `torch.onnx.export` writes and optimises it."""
    c = model.config
    clip = torch.zeros(1, c.frames, c.image_size, c.image_size, 3, dtype=torch.uint8)
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            PlainMaeDfer(model).eval(), (clip,), None, dynamo=True, opset_version=OPSET, external_data=False,
            input_names=["clip"], output_names=["probabilities"], verbose=False,
        )  # fmt: skip
    if program is None:
        raise TypeError("torch.onnx.export returned nothing")
    made: onnx.ModelProto = program.model_proto
    return made
