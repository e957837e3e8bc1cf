"""The families that there are."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .contract import NetworkConfig
from .family import Family
from .former_dfer.family import FORMER_DFER
from .logoformer.family import LOGOFORMER
from .mae_dfer.family import MAE_DFER
from .network import Network

FAMILIES: Mapping[str, Family] = {family.name: family for family in (LOGOFORMER, FORMER_DFER, MAE_DFER)}


def build_network(config: NetworkConfig) -> Network:
    """A network of a configuration's family, with random weights, in training mode."""
    return FAMILIES[config.family].build(config)


def untrained(config: NetworkConfig, seed: int = 0) -> Network:
    """A network with random weights, in evaluation mode; the caller's random state is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(config).eval()
