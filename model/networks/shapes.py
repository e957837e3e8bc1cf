"""Networks without memory: names, shapes and types of a configuration's state dict."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .contract import NetworkConfig
from .families import build_network


class _NoRandomValues(TorchFunctionMode):
    """Skips `normal_`, for which PyTorch loads 800 modules (75 MB) where a tensor has no memory."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__name__", "") == "normal_":  # of tensors, and of torch.nn.init
            return args[0] if args else given["tensor"]
        return func(*args, **given)


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Tensors that are made in this block have shapes and no memory."""
    with torch.device("meta"), _NoRandomValues():
        yield


def network_state(config: NetworkConfig) -> Mapping[str, Tensor]:
    """Our state dict of a configuration, on the meta device."""
    with shapes_only():
        state: Mapping[str, Tensor] = build_network(config).state_dict()
    return state
