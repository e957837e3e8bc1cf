"""MAE-DFER with fewer multiply-accumulates, for processors without fused attention kernels.

What differs from `mae_dfer.py`, each exact:

* the many queries of the interaction are not projected: a head's scores x Wq (y Wk)^T are x (y Wk Wq^T)^T, so the
  projection moves to the keys, of which there are few, and that of the output to their values. Of 2 N d^2
  multiply-accumulates 2 N d H K are left, for K keys. The last block's few queries take the projections of its many
  keys and values in the same way;
* all tokens are rows of one matrix from the first to the last block, the regions' own among them: where others take
  what they were told, an own row takes its own update out of the same product;
* residual sums are the third operand of the products before them; an output bias is spread over the values where that
  saves a sum, because the weights of each head sum to 1;
* the feed-forward network goes through its hidden channels in slices of d, whose weights fit into a core's cache;
* a clip's pixels are brought into the order of regions once, and one product with the positions as its third operand
  makes them tokens.

`benchmarks/results/families.json` has what that is worth on a CPU, and what TensorRT-RTX makes of both forms.

Notation: W regions of L tokens, N = W*L, H heads, D channels of a head, d = H*D; G groups of rows.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...model.networks.attention import Attention, FeedForward
from ...model.networks.mae_dfer.config import MaeDferConfig
from ...model.networks.mae_dfer.model import MaeDfer, RegionBlock
from .attention import without_bias
from .mae_dfer import blocks_of, folded_embedding, region_order, tubelets_of


class RowAttention(nn.Module):
    """Attention inside groups of rows, added to its queries' residual.

    Shape:
        residual and queries `[G*S, d]`, keys `[G*K, d]` -> `[G*S, d]`.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        self.q, self.k, self.v = scaled_queries(attention), without_bias(attention.k), without_bias(attention.v)
        self.out = nn.Parameter(attention.out.weight.detach().t().clone())
        self.bias = nn.Parameter(folded_bias(attention))

    def forward(self, residual: Tensor, queries: Tensor, keys: Tensor, groups: int) -> Tensor:
        query, key, value = (
            part(rows).view(groups, -1, self.heads, rows.shape[1] // self.heads).transpose(1, 2)
            for part, rows in ((self.q, queries), (self.k, keys), (self.v, keys))
        )  # each [G, H, S or K, D]
        weights = torch.softmax(query @ key.transpose(2, 3), dim=-1)
        return (weights @ value).transpose(1, 2).reshape(residual.shape) @ self.out + (residual + self.bias)


class SingleAttention(nn.Module):
    """Attention of one query in each group, without projections of keys and values.

    Added to the residual.

    Shape:
        residual and queries `[G, d]`, keys `[G*K, d]` -> `[G, d]`.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        h, d = attention.heads, attention.q.in_features
        self.heads = h
        self.q = scaled_queries(attention)
        self.asked = nn.Parameter(attention.k.weight.detach().view(h, -1, d).clone())  # [H, D, d]
        self.told = nn.Parameter(attention.v.weight.detach().view(h, -1, d).transpose(1, 2).clone())  # [H, d, D]
        self.out = nn.Parameter(attention.out.weight.detach().t().clone())
        self.bias = nn.Parameter(folded_bias(attention))

    def forward(self, residual: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
        groups, d = queries.shape
        rows = keys.view(groups, -1, d)  # [G, K, d]
        query = self.q(queries).view(groups, self.heads, -1).transpose(0, 1)  # [H, G, D]
        scores = (query @ self.asked).transpose(0, 1) @ rows.transpose(1, 2)  # [G, H, K]
        read = (torch.softmax(scores, dim=-1) @ rows).transpose(0, 1)  # [H, G, d]
        return (read @ self.told).transpose(0, 1).reshape(groups, d) @ self.out + (residual + self.bias)


class Interaction(nn.Module):
    """Local tokens ask the regions' own; own rows take their update. See the top of the file.

    Shape:
        x `[W*(1 + L), d]`, queries the same, keys `[W, d]`, update `[W, d]` -> `[W*(1 + L), d]`.
    """

    def __init__(self, attention: Attention, regions: int, rows: int) -> None:
        super().__init__()
        h, d = attention.heads, attention.q.in_features
        self.heads = h
        self.k, self.v = without_bias(attention.k), without_bias(attention.v)
        queries = scaled_queries(attention)
        with torch.no_grad():
            self.asked = nn.Parameter(queries.weight.view(h, -1, d).clone())  # [H, D, d]
            self.told = nn.Parameter(attention.out.weight.t().reshape(h, -1, d).clone())  # [H, D, d]
            self.bias = nn.Parameter(folded_bias(attention) / h)
            self.q_bias = None if queries.bias is None else nn.Parameter(queries.bias.view(h, -1, 1).clone())
        own = torch.zeros(regions, rows, regions)
        own[range(regions), 0, range(regions)] = 1
        self.own = nn.Parameter(own.flatten(0, 1))  # [W*(1 + L), W]: 1 where a row is that region's own
        self.local = nn.Parameter(1 - self.own.detach().sum(1, keepdim=True))  # [W*(1 + L), 1]

    def forward(self, x: Tensor, queries: Tensor, keys: Tensor, update: Tensor) -> Tensor:
        h, (k, d) = self.heads, keys.shape
        key, value = (part(keys).view(k, h, -1).transpose(0, 1) for part in (self.k, self.v))  # [H, K, D]
        scores = queries @ (key @ self.asked).view(h * k, d).t()  # [W*(1 + L), H*K]
        if self.q_bias is not None:
            scores = scores + (key @ self.q_bias).view(h * k)
        weights = torch.softmax(scores.view(-1, h, k), dim=-1).view(-1, h * k) * self.local
        values = (value @ self.told + self.bias).view(h * k, d)
        return torch.cat([weights, self.own], 1) @ torch.cat([values, update]) + x


class SlicedFeedForward(nn.Module):
    """A feed-forward network through slices of its hidden channels, added to the residual.

    Shape:
        residual and x `[N, d]` -> `[N, d]`.
    """

    def __init__(self, ffn: FeedForward) -> None:
        super().__init__()
        hidden, dim = ffn.fc1.weight.shape
        width = dim if hidden % dim == 0 else hidden
        slices = [nn.Linear(dim, width) for _ in range(hidden // width)]
        with torch.no_grad():
            for part, weight, bias in zip(slices, ffn.fc1.weight.split(width), ffn.fc1.bias.split(width), strict=True):
                part.weight.copy_(weight)
                part.bias.copy_(bias)
        self.fc1 = nn.ModuleList(slices)
        self.fc2 = nn.ParameterList(part.clone() for part in ffn.fc2.weight.detach().t().split(width))
        self.bias = nn.Parameter(ffn.fc2.bias.detach().clone())
        self.approximate = ffn.act.approximate

    def forward(self, residual: Tensor, x: Tensor) -> Tensor:
        found = residual + self.bias
        for first, second in zip(self.fc1, self.fc2, strict=True):
            found = F.gelu(first(x), approximate=self.approximate) @ second + found
        return found


class AbsorbedRegion(nn.Module):
    """A block: `[W*(1 + L), d]` -> the same."""

    def __init__(self, block: RegionBlock, config: MaeDferConfig) -> None:
        super().__init__()
        self.shape = (config.regions, 1 + config.region_tokens, config.embed_dim)
        for name, module in block.named_children():
            if name.startswith("norm"):
                self.add_module(name, copy.deepcopy(module))
        self.local_attention = RowAttention(block.local_attention)
        self.global_attention = RowAttention(block.global_attention)
        self.interaction = Interaction(block.interaction, *self.shape[:2])
        self.ffn = SlicedFeedForward(block.ffn)

    def forward(self, x: Tensor) -> Tensor:
        norm = self.get_submodule
        y = norm("norm_local")(x)
        x = self.local_attention(x, y, y, self.shape[0])
        own = x.view(self.shape)[:, 0]  # [W, d]
        y = norm("norm_global")(own)
        updated = self.global_attention(own, y, y, 1)
        x = self.interaction(x, norm("norm_tokens")(x), norm("norm_keys")(updated), updated - own)
        return self.ffn(x, norm("norm_ffn")(x))


class LastRegion(nn.Module):
    """A block after which only the regions' own tokens are read: `[W*(1 + L), d]` -> `[W, d]`."""

    def __init__(self, block: RegionBlock, config: MaeDferConfig) -> None:
        super().__init__()
        self.shape = (config.regions, 1 + config.region_tokens, config.embed_dim)
        self.norm_local, self.norm_global = copy.deepcopy(block.norm_local), copy.deepcopy(block.norm_global)
        self.norm_ffn = copy.deepcopy(block.norm_ffn)
        self.local_attention = SingleAttention(block.local_attention)
        self.global_attention = RowAttention(block.global_attention)
        self.ffn = SlicedFeedForward(block.ffn)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_local(x)
        own = self.local_attention(x.view(self.shape)[:, 0], y.view(self.shape)[:, 0], y)
        y = self.norm_global(own)
        own = self.global_attention(own, y, y, 1)
        return self.ffn(own, self.norm_ffn(own))


class AbsorbedTokens(nn.Module):
    """Tokens region by region, positions added, to probabilities: `[N, d]` -> `[1, C]`."""

    def __init__(self, model: MaeDfer) -> None:
        super().__init__()
        c = self.config = model.config
        self.own = nn.Parameter(model.region_tokens.detach()[:, None].clone())  # [W, 1, d]
        self.blocks = nn.ModuleList(
            LastRegion(block, c) if last else AbsorbedRegion(block, c) for block, last in blocks_of(model)
        )
        self.norm, self.head = copy.deepcopy(model.norm), copy.deepcopy(model.head)

    def forward(self, tokens: Tensor) -> Tensor:
        c = self.config
        x = torch.cat([self.own, tokens.view(c.regions, c.region_tokens, -1)], 1).view(-1, c.embed_dim)
        for block in self.blocks:
            x = block(x)
        if c.read == "local":
            x = x.view(c.regions, -1, c.embed_dim)[:, 1:].flatten(0, 1)
        return torch.softmax(self.head(self.norm(x.mean(0, keepdim=True))), dim=-1)


class AbsorbedTemporal(AbsorbedTokens):
    """Frames' shares in the graphs' order to probabilities: `[T*g*g, t*d]` -> `[1, C]`."""

    def __init__(self, model: MaeDfer) -> None:
        super().__init__(model)
        self.positions = nn.Parameter(region_order(model).contiguous())

    def forward(self, shares: Tensor) -> Tensor:
        return super().forward(tubelets_of(shares, self.config).flatten(0, 1) + self.positions)


class PatchTokens(nn.Module):
    """All frames of a clip to tokens region by region, positions added.

    Shape:
        float `[T, S, S, 3]` RGB in 0..255 -> `[N, d]`.
    """

    def __init__(self, model: MaeDfer) -> None:
        super().__init__()
        self.config = model.config
        weight, bias = folded_embedding(model)
        self.weight = nn.Parameter(weight.permute(2, 3, 4, 1, 0).flatten(0, 3).clone())  # [t*p*p*3, d]
        self.positions = nn.Parameter(region_order(model) + bias)

    def forward(self, frames: Tensor) -> Tensor:
        c, p = self.config, self.config.patch
        (t, h, w), (times, rows, columns) = c.region, c.map
        line = p * 3  # pixels and colours of a patch's row lie side by side
        if columns == w:  # one transpose; TensorRT's tensors have at most 8 axes
            x = frames.view(times // t, t, c.tubelet, rows // h, h, p, w, line).permute(0, 3, 1, 4, 6, 2, 5, 7)
        else:
            x = frames.view(times, c.tubelet, rows, p, columns, line).permute(0, 2, 4, 1, 3, 5)
            x = x.reshape(times // t, t, rows // h, h, columns // w, w, -1).permute(0, 2, 4, 1, 3, 5, 6)
        return x.reshape(c.tokens, -1) @ self.weight + self.positions


def folded_bias(attention: Attention) -> Tensor:
    """The bias of an attention's output with that of its values in it, `[d]`."""
    bias = attention.out.bias.detach()
    return bias.clone() if attention.v.bias is None else bias + attention.out.weight @ attention.v.bias


def scaled_queries(attention: Attention) -> nn.Linear:
    """The projection of the queries with the scale of the scores in it."""
    queries = copy.deepcopy(attention.q)
    with torch.no_grad():
        for parameter in queries.parameters():
            parameter.mul_(attention.scale)
    return queries
