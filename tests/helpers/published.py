"""Files as the authors of Former-DFER and MAE-DFER save them, small or at full size, with random weights."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from logoformer.model.foreign.reader import open_foreign
from logoformer.model.importing.plan import converted, make_plan
from logoformer.model.importing.states import find_weights
from logoformer.model.networks.contract import NetworkConfig
from logoformer.model.networks.families import FAMILIES, untrained
from torch import Tensor

# What MAE-DFER's training script adds to a file of its small configuration (facts: shared/checkpoints).
SMALL_MAE = {
    "model": "vit_base_dim512_no_depth_patch16_160", "depth": 2, "nb_classes": 7, "input_size": 64, "num_frames": 8,
    "tubelet_size": 2, "attn_type": "local_global", "lg_region_size": [2, 2, 4], "lg_classify_token_type": "region",
    "lg_first_attn_type": "self", "lg_third_attn_type": "cross", "lg_no_second": False, "lg_no_third": False,
    "data_set": "DFEW", "sampling_rate": 4,
}  # fmt: skip


def theirs(config: NetworkConfig, seed: int = 0) -> dict[str, Tensor]:
    """The state dict of an untrained network under its authors' names."""
    family = FAMILIES[config.family]
    ours = untrained(config, seed).state_dict()
    found = {}
    for name, tensor in family.foreign(config).items():
        parts = [ours[own] for own in tensor.ours]
        found[name] = (torch.cat(parts) if len(parts) > 1 else parts[0]).reshape(tensor.shape).contiguous()
    return found


def imported(state: Mapping[str, Tensor], config: NetworkConfig, path: Path) -> dict[str, Tensor]:
    """Our state dict of one under its authors' names, through a file and the package's own import."""
    torch.save(dict(state), path)
    with open_foreign(path) as file:
        found = find_weights(file.content, str(path), None, str)
        plan = make_plan(found, config, FAMILIES[config.family].foreign(config), str(path))
        return dict(converted(file, plan))


def mae_file(state: Mapping[str, Tensor], **args: Any) -> dict[str, Any]:
    """As MAE-DFER's training saves it."""
    settings = argparse.Namespace(**{**SMALL_MAE, **args})
    return {"model": dict(state), "optimizer": {"state": {}, "param_groups": []}, "epoch": "best", "args": settings}
