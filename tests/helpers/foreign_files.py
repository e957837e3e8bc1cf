"""Checkpoints as other programs write them, made here, small, and traps for whoever runs what a pickle names."""

from __future__ import annotations

import argparse
import io
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


class RecorderMeter:
    """Stands for the class of the same name that Former-DFER's training script pickles."""

    __module__ = "__main__"

    def __init__(self) -> None:
        self.epoch_losses = np.zeros((3, 2), np.float32)
        self.total_epoch = 3


class Touches:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def saved(content: Any, *, legacy: bool = False) -> bytes:
    """The bytes that torch.save writes."""
    main = sys.modules["__main__"]
    main.RecorderMeter = RecorderMeter  # pickling looks there
    try:
        stream = io.BytesIO()
        torch.save(content, stream, _use_new_zipfile_serialization=not legacy)
        return stream.getvalue()
    finally:
        del main.RecorderMeter


def weights(prefix: str = "") -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"fc.weight": (7, 4), "fc.bias": (7,), "norm.weight": (4,), "steps": ()}
    return {prefix + name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def mae_like(**changes: Any) -> dict[str, Any]:
    """As MAE-DFER's training saves: with its arguments, an optimizer and a scaler."""
    state = weights()
    parameter = torch.nn.Parameter(torch.ones(4))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    args = argparse.Namespace(depth=2, lg_region_size=[2, 2, 4], data_set="DFEW", opt_betas=(0.9, 0.999), gpu=0)
    content = {"model": state, "optimizer": optimizer.state_dict(), "epoch": "best", "scaler": {"scale": 65536.0}}
    return {**content, "args": args, **changes}


def former_like(**changes: Any) -> dict[str, Any]:
    """As Former-DFER's training saves: with a recorder of its own class and a numpy scalar."""
    content = {"epoch": 99, "state_dict": weights("module."), "best_acc": np.float64(65.7)}
    return {**content, "recorder": RecorderMeter(), **changes}


def archive(pickled: bytes, storages: dict[str, bytes] | None = None, *, root: str = "archive") -> bytes:
    """A torch archive around the bytes of any pickle."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as files:
        files.writestr(f"{root}/data.pkl", pickled)
        files.writestr(f"{root}/byteorder", b"little")
        for key, data in (storages or {}).items():
            files.writestr(f"{root}/data/{key}", data)
        files.writestr(f"{root}/version", b"3\n")
    return stream.getvalue()


def opened_up(data: bytes) -> tuple[bytes, dict[str, bytes]]:
    """The pickle and the storages of a torch archive: what `archive` takes."""
    with zipfile.ZipFile(io.BytesIO(data)) as files:
        inside = {name.partition("/")[2]: files.read(name) for name in files.namelist()}
    return inside["data.pkl"], {n.removeprefix("data/"): d for n, d in inside.items() if n.startswith("data/")}
