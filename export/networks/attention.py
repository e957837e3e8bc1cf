"""Attention and trunk of all families, written for the compiler.

What differs from the readable modules, each exact:

* the batch axis is gone: windows, regions or frames are the leading axis;
* the attention scale is folded into Wq, and into the bias of Q;
* the bias of Q is added after the head transpose: added before it, as a linear layer does, it keeps the compiler from
  fusing the transpose into the product;
* the bias of K is left out: it adds the same number to all scores of a query, and the softmax takes that away again;
* the bias of V is in the bias of the output: the weights of a softmax sum to 1;
* BatchNorm, the division by 255 and by std are folded into convolutions (the mean is not: zero padding).

Notation: W windows of S queries and K keys, H heads, D channels of a head, d = H*D.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ...model.networks.attention import Attention
from ...model.networks.backbone import BasicBlock, Trunk
from ...model.networks.network import Network


class WindowAttention(nn.Module):
    """Attention inside windows, in the form of TensorRT's fused kernels: the scale lies in Wq.

    Shape:
        queries `[W, S, d]`, keys `[W, K, d]` -> `[W, S, d]`.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        self.q, self.k, self.v = (without_bias(getattr(attention, name)) for name in ("q", "k", "v"))
        self.out = copy.deepcopy(attention.out)
        bias = attention.q.bias
        self.q_bias = None if bias is None else nn.Parameter(split_bias(bias, self.heads) * attention.scale)
        with torch.no_grad():
            self.q.weight *= attention.scale
            if attention.v.bias is not None:
                self.out.bias.add_(attention.out.weight @ attention.v.bias)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        w, s, d = queries.shape
        k = keys.shape[1]
        query = self.q(queries).view(w, s, self.heads, -1).transpose(1, 2)  # [W, H, S, D]
        if self.q_bias is not None:
            query = query + self.q_bias
        key = self.mixed(self.k(keys).view(w, k, self.heads, -1)).permute(0, 2, 3, 1)  # [W, H, D, K]
        value = self.mixed(self.v(keys).view(w, k, self.heads, -1)).transpose(1, 2)  # [W, H, K, D]
        weights = torch.softmax(query @ key, dim=-1)  # [W, H, S, K]
        return self.out((weights @ value).transpose(1, 2).reshape(w, s, d))

    def mixed(self, x: Tensor) -> Tensor:
        """What a scheme does to projected keys and values, `[W, K, H, D]`; nothing here."""
        return x


def without_bias(linear: nn.Linear) -> nn.Linear:
    """The weights of a linear layer alone."""
    bare = nn.Linear(linear.in_features, linear.out_features, bias=False)
    with torch.no_grad():
        bare.weight.copy_(linear.weight)
    return bare


def split_bias(bias: Tensor, heads: int) -> Tensor:
    """The bias of a projection by head: `[d]` -> `[H, 1, D]`."""
    return bias.detach().view(heads, 1, -1).clone()


def fold_batchnorm(trunk: Trunk) -> Trunk:
    """A copy of a trunk, in evaluation mode, whose BatchNorms are in its convolutions."""
    folded = copy.deepcopy(trunk).eval()

    def fold(owner: nn.Module, conv: str, norm: str) -> None:
        fused = fuse_conv_bn_eval(owner.get_submodule(conv), owner.get_submodule(norm))  # type: ignore[type-var, arg-type]
        owner.set_submodule(conv, fused)
        owner.set_submodule(norm, nn.Identity())

    fold(folded, "conv1", "bn1")
    for module in folded.modules():
        if isinstance(module, BasicBlock):
            fold(module, "conv1", "bn1")
            fold(module, "conv2", "bn2")
            if module.downsample is not None:
                fold(module.downsample, "0", "1")
    return folded


def fold_normalisation(model: Network, trunk: Trunk) -> Tensor | None:
    """Lets a folded trunk take 0..255: its first convolution is divided by 255 and std.

    Returns:
        What is to be subtracted from the pixels, float32 `[3]`; None where it is nothing.
    """
    mean, std = model.mean.view(3), model.std.view(3)
    with torch.no_grad():  # (x/255 - mean) / std = (x - 255*mean) / (255*std): the divisor goes into the weights
        trunk.conv1.weight /= (255.0 * std).view(1, 3, 1, 1)
    return (255.0 * mean) if bool(mean.any()) else None
