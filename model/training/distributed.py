"""Training on several processes: `torchrun --nproc-per-node N -m logoformer train ...`.

Each process takes its share of every batch. Metrics are summed as counts, so that no clip is counted twice, whatever
the number of processes; a share may be empty.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, distributed

from ...errors import UsageError


@dataclass(frozen=True)
class World:
    """This process among the others.

    Attributes:
        rank: its number, from 0.
        size: processes.
        device: where it computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes files and draws progress."""
        return self.rank == 0

    def share(self, group: npt.NDArray[np.int64], parts: int = 1) -> list[npt.NDArray[np.int64]]:
        """This process's micro-batches of one batch: `parts` runs of clips, one after the other.

        Raises:
            UsageError: the batch cannot be split evenly; an uneven mean would weigh clips unevenly.
        """
        pieces = self.size * parts
        if len(group) % pieces:
            raise UsageError(
                f"A batch of {len(group)} clips cannot be split evenly over {self.size} processes x {parts} parts.",
                next=f"choose a batch that is a multiple of {pieces}",
            )
        return np.split(group, pieces)[self.rank * parts : (self.rank + 1) * parts]

    def sum(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The sum over all processes of an array of counts; the same on each."""
        if self.size == 1:
            return values
        total = torch.from_numpy(np.ascontiguousarray(values)).to(self.device)
        distributed.all_reduce(total)
        return np.asarray(total.cpu().numpy())

    def mean_(self, tensors: list[Tensor]) -> None:
        """Replaces tensors by their mean over all processes."""
        if self.size > 1:
            for tensor in tensors:
                distributed.all_reduce(tensor)
                tensor /= self.size

    def wait(self) -> None:
        """Waits until all processes have come to this point."""
        if self.size > 1:
            distributed.barrier()


@contextlib.contextmanager
def world() -> Iterator[World]:
    """This process's rank and device, from torchrun's variables; alone without them."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    if size == 1:
        yield World(0, 1, device)
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(distributed.get_rank(), distributed.get_world_size(), device)
    finally:
        distributed.destroy_process_group()
