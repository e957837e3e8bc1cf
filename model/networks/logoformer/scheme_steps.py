"""Timed parts of an attention scheme: its products, everything after the frames, the frames.

The readable model runs in FP32 on the CPU, on one thread: the time is then the work's and not that of meeting at
barriers, and the CPU time of the process is the time of the step, however busy the machine is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..attention import attend, split_heads
from ..network import Network
from .complexity import products
from .config import LogoFormerConfig
from .model import LogoFormer

Step = Callable[[int], None]  # takes the running index, which decides nothing here


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Inference on one thread inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)


def resized(model: Network, config: LogoFormerConfig) -> LogoFormer:
    """The same weights, in the same memory, for other T or S.

    Weights that have another shape there are zero. Its trunk cannot run: mean and std are no weights and stay empty.
    """
    with torch.device("meta"):
        other = LogoFormer(config).eval()
    weights = model.state_dict()
    for name, wanted in other.state_dict().items():
        if weights[name].shape != wanted.shape:
            weights[name] = torch.zeros(wanted.shape)
    other.load_state_dict(weights, assign=True)
    return other


def products_step(config: LogoFormerConfig) -> Step:
    """QK^T, softmax and weights V of every attention of every block.

    The operands are laid out as the model's.
    """

    def operand(groups: int, tokens: int) -> Tensor:
        return split_heads(torch.randn(groups, tokens, config.embed_dim), config.heads)  # [groups, H, tokens, D]

    operands = [
        (operand(p.groups, p.queries), operand(p.groups, p.keys), operand(p.groups, p.keys)) for p in products(config)
    ]

    def step(_index: int) -> None:
        for _ in range(config.depth):
            for q, k, v in operands:
                attend(q, k, v)

    return step


def temporal_step(model: Network) -> Step:
    """Positions, blocks and the classifier, on the tokens of one clip."""
    c = model.config
    tokens = torch.randn(1, c.frames, c.tokens_per_frame, c.token_dim)

    def step(_index: int) -> None:
        model.head(model.encode(tokens))

    return step


def frames_step(model: Network, config: LogoFormerConfig) -> Step:
    """Trunk and projection, which no scheme changes, on a clip of `config`'s T and size."""
    frames = torch.rand(config.frames, 3, config.image_size, config.image_size)

    def step(_index: int) -> None:
        model.embed_frames(frames)

    return step
