"""Saved state of a training, for a resume.

One file beside the checkpoint, replaced whole: weights, optimiser, averages, the random state of torch, and how far it
had come. Order and augmentation need no state: they follow from (seed, epoch, clip). At the same number of threads, a
resumed run on the CPU ends with the same bits as one that was never interrupted.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch

from ...bundle.files import atomic_path, read_file
from ...errors import BadInputError, command
from ..networks.weight_files import load_plain

MAX_BYTES = 8 << 30
FORMAT = "logoformer-training-2"


def state_path(folder: str | os.PathLike[str]) -> Path:
    """Path of the state of a training, beside its checkpoint."""
    path = Path(folder)
    return path.parent / f"{path.name}.state.pt"


def save_state(folder: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Writes the state atomically.

    Raises:
        MachineError: the disk is full or may not be written; the older state is unchanged.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    with atomic_path(state_path(folder)) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_state(folder: str | os.PathLike[str], same: dict[str, Any]) -> dict[str, Any]:
    """Reads the state of an interrupted training.

    Args:
        folder: of the checkpoint that it was to become.
        same: what must be as it was (recipe, architecture, data), by name.

    Raises:
        BadInputError: there is none, it is damaged, or it belongs to another training; the difference is named.
        RefusedError: it holds more than tensors and plain values.
    """
    path = state_path(folder)
    if not path.exists():
        raise BadInputError(
            f"There is no interrupted training at {path}.",
            cause="it ended well, or it was killed before the first state was written",
            next=command("logoformer", "train", "--help"),
        )
    state = load_plain(read_file(path, MAX_BYTES), str(path))
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise BadInputError(f"{path} is not the state of a training.")
    for name, value in same.items():
        if state.get(name) != value:
            raise BadInputError(
                f"The interrupted training at {path} had another {name}.",
                cause=f"then {state.get(name)!r:.300}, now {value!r:.300}",
                next="give the same arguments as before, or leave --resume out to begin anew",
            )
    return state


def forget_state(folder: str | os.PathLike[str]) -> None:
    """Removes the state of a training that ended well."""
    state_path(folder).unlink(missing_ok=True)
