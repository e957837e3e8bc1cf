"""Training loss: cross-entropy and the compact loss.

The compact loss of LOGO-Former asks that a wrong answer be wrong without preference. With q the softmax over the C - 1
classes other than the target, and u = 1 / (C - 1), it is the symmetric Kullback-Leibler divergence

    D(u || q) + D(q || u) = sum over c != y of (q_c - u) * log q_c        (the log u terms cancel)

Twice the regulariser of Kobayashi, "Large Margin in Softmax Cross-Entropy Loss", BMVC 2019, whose public default weight
is 0.3 for its half; the weight of LOGO-Former is not public, so `weight` is this project's choice.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def compact_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The symmetric divergence of the non-target softmax from uniform.

    Computed in float64: near uniform, `q - u` cancels, and under autocast the logits are 16 bits wide. `[B, C]` is
    small, so this costs nothing beside the network.

    Args:
        logits: float `[B, C]`, C >= 2.
        labels: int64 `[B]`, 0 ... C - 1.

    Returns:
        float32 `[B]`, each >= 0; 0 for C = 2, where one other class has all of q.
    """
    classes = logits.shape[1]
    others = torch.arange(classes - 1, device=logits.device)[None]  # [1, C - 1]
    others = others + (others >= labels[:, None])  # [B, C - 1]: every class but the target
    log_q = torch.log_softmax(logits.double().gather(1, others), dim=1)
    return ((log_q.exp() - 1.0 / (classes - 1)) * log_q).sum(1).float()


def training_loss(logits: Tensor, labels: Tensor, *, compact: float = 0.0, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy plus the weighted compact loss, averaged over the batch.

    Args:
        logits: float `[B, C]`; taken to float32, because cross-entropy overflows in FP16.
        labels: int64 `[B]`.
        compact: weight of the compact loss.
        label_smoothing: of the cross-entropy, 0 ... 1.

    Returns:
        float32 scalar.
    """
    loss = nn.functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
    return loss + compact * compact_loss(logits, labels).mean() if compact else loss
