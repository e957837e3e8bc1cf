"""Which tensor of a file becomes which of ours; checked as a whole before one value is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import BadInputError
from ..foreign.inert import StoredTensor
from ..foreign.reader import ForeignFile
from ..networks.contract import NetworkConfig
from ..networks.family import ForeignTensor
from ..networks.shapes import network_state
from ..networks.values import refuse_value
from .states import FoundWeights

Progress = Callable[[str, int, int], None]
_FLOATS = ("float32", "float16", "bfloat16", "float64")
MAX_WEIGHT_BYTES = 4 << 30  # what a checkpoint of ours may have
COUNTER = "num_batches_tracked"  # of BatchNorm; no answer depends on it


@dataclass(frozen=True)
class ImportStep:
    """One tensor of the file.

    Attributes:
        theirs: its name, without the prefix.
        tensor: where it lies.
        ours: what it becomes, cut along its first axis into equal parts.
    """

    theirs: str
    tensor: StoredTensor
    ours: tuple[str, ...]


@dataclass(frozen=True)
class ImportPlan:
    """The whole import.

    Attributes:
        config: of the network.
        steps: one for each tensor that is taken.
        counters: of ours, BatchNorm's counters that the file lacks; they become 0.
        ignored: names of the file that are not taken.
        dtypes: how many tensors are of each type, such as `{"float16": 519}`.
    """

    config: NetworkConfig
    steps: tuple[ImportStep, ...]
    counters: tuple[str, ...]
    ignored: tuple[str, ...]
    dtypes: Mapping[str, int]

    @property
    def casts(self) -> Mapping[str, int]:
        """Tensors that are cast to float32, by type."""
        return {dtype: count for dtype, count in self.dtypes.items() if dtype in _FLOATS[1:]}


def make_plan(
    found: FoundWeights, config: NetworkConfig, wanted: Mapping[str, ForeignTensor], shown: str
) -> ImportPlan:
    """Compares a file's tensors with those that a network needs.

    Args:
        found: the file's weights.
        config: of the network.
        wanted: by the file's names, what each becomes.
        shown: the file, for messages.

    Raises:
        BadInputError: tensors are missing or left over, of another shape, or cannot be read; the first are named.
    """
    missing = [name for name in wanted if name not in found.tensors]
    counters = tuple(own for name in missing if name.endswith(COUNTER) for own in wanted[name].ours)
    missing = [name for name in missing if not name.endswith(COUNTER)]
    unexpected = [name for name in found.tensors if name not in wanted]
    both = [name for name in wanted if name in found.tensors]
    shapes = [
        f"{name}: {list(found.tensors[name].shape)} in the file, {list(wanted[name].shape)} in the network"
        for name in both
        if found.tensors[name].shape != wanted[name].shape
    ]
    if missing or unexpected or shapes:
        raise BadInputError(
            f"{shown} fits the network in part only: {len(both) - len(shapes)} tensors matched, {len(missing)} are "
            f"missing, {len(unexpected)} are unexpected, {len(shapes)} have another shape.",
            cause="a changed copy of the authors' code, other settings, or a part of a checkpoint",
            next="take the file as its authors publish it; of a LOGO-Former of other code, map its names with --map",
            log=[
                *(f"missing: {name}" for name in missing[:3]),
                *(f"unexpected: {name}" for name in unexpected[:3]),
                *(f"other shape: {line}" for line in shapes[:3]),
            ],
        )
    size = sum(found.tensors[name].count for name in both) * 4
    if size > MAX_WEIGHT_BYTES:
        raise BadInputError(
            f"{shown} has weights of {size} bytes; at most {MAX_WEIGHT_BYTES} are taken.",
            cause="a network far larger than those of this field",
        )
    steps = tuple(ImportStep(name, found.tensors[name], wanted[name].ours) for name in both)
    dtypes = Counter(step.tensor.dtype for step in steps if not step.theirs.endswith(COUNTER))
    return ImportPlan(config, steps, counters, found.outside, dict(dtypes))


def refuse_unreadable(tensors: Mapping[str, StoredTensor], shown: str) -> None:
    """Refuses tensors without plain floating-point values, before their shapes are asked for.

    Raises:
        BadInputError: names the first one and what it is.
    """
    for name, tensor in tensors.items():
        if tensor.shown not in _FLOATS and not name.endswith(COUNTER):
            raise BadInputError(
                f"The tensor {name!r} of {shown} is {tensor.shown}; plain floating-point values are expected.",
                cause="weights that were quantized, pruned or converted after their training",
                next="take the checkpoint that the training wrote, before any conversion",
            )


def converted(file: ForeignFile, plan: ImportPlan, progress: Progress | None = None) -> Iterator[tuple[str, Tensor]]:
    """Our tensors, read one after the other, so that no more than one is in memory.

    Args:
        file: the file, open.
        plan: of its import.
        progress: called with (stage, done, total).

    Raises:
        BadInputError: the file is damaged, or a tensor's values are none of a trained network.
    """
    ours = network_state(plan.config)
    note = progress or (lambda *_: None)
    for done, step in enumerate(plan.steps):
        note("copy tensors", done, len(plan.steps))
        whole = file.read(step.tensor)
        parts = whole.chunk(len(step.ours)) if len(step.ours) > 1 else (whole,)
        for name, part in zip(step.ours, parts, strict=True):
            value = part.to(ours[name].dtype).reshape(ours[name].shape).contiguous()
            refuse_value(name, value, f"{file.path} ({step.theirs})" if step.theirs != name else file.path)
            yield name, value
    note("copy tensors", len(plan.steps), len(plan.steps))
    for name in plan.counters:
        yield name, torch.zeros(ours[name].shape, dtype=ours[name].dtype)
