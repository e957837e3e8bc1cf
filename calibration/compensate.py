"""Weights rounded so that their errors cancel.

Rounding every weight to its nearest step makes the least error in the weights, not in the answers. Here the columns of
a weight matrix are rounded one after the other, and those still to come take up the error, as far as they see the same
inputs. The graph is walked once, in its own order, on some calibration clips, quantized so far: what comes later sees
the inputs that it will see.

Source: Frantar et al., "GPTQ", ICLR 2023 (arXiv 2210.17323). Scales stay those of `quantize`: only steps change, so
kernels, bytes and ranges do not. Correcting the biases by the mean of what is left (Nagel et al., ICCV 2019, arXiv
1906.04721) was measured on top and gained nothing: on 63 clips the logits were off by 14.6 % of their deviation instead
of 14.7 % on an untrained `base`, by 8.4 % instead of 8.3 % on an untrained `tiny`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .amax import LEVELS
from .equalise import initializers
from .placement import Site, sites
from .quantize import QuantizeConfig, Ranges, Steps, round_up, weight_scale

if TYPE_CHECKING:
    import onnx
    from torch import Tensor

    from ..model.data.clips import Progress

CLIPS = 32  # activations of this many are held at a time: 1 GB for `base`
# Columns that take up each other's errors: 64 channels of a 3 x 3 convolution. The cost grows with it; 1152 gained
# nothing on `base`.
TOGETHER = 576
ROWS = 4  # inputs that are looked at, for each column
DAMPING = 0.01  # of the mean diagonal, as in the paper
_LAZY = 32  # columns after which the rest of a matrix is brought up to date

Floats = npt.NDArray[np.float64]
Runs = list["list[Tensor]"]  # by run: the inputs of a node
# Runs a graph on several inputs, node by node; the second argument changes what each node reads, in all runs at once.
SideBySide = Callable[[Sequence[Mapping[str, npt.NDArray[Any]]], Callable[[str, Runs], Runs]], None]


def compensate(
    model: onnx.ModelProto,
    fp16: onnx.ModelProto,
    run: SideBySide,
    ranges: Ranges,
    config: QuantizeConfig,
    clips: npt.NDArray[np.uint8],
    progress: Progress | None = None,
) -> dict[str, Steps]:
    """Round every quantized weight: its steps by the name of its node.

    Equal for equal clips and threads.

    Args:
        model: the FP32 clip graph.
        fp16: the same in FP16; its weights are what is rounded.
        run: runs the FP32 graph (`side_by_side` of `export/reference.py`).
        ranges: of the activations.
        config: what is quantized.
        clips: the calibration's, uint8 `[N, T, S, S, 3]`; the first `CLIPS` are looked at.
        progress: called with (stage, done, total).
    """
    walk = _Walk(model, fp16, ranges, config, progress)
    run([{"clip": clip[None]} for clip in clips[:CLIPS]], walk)
    return walk.found


def compensation_record(steps: Mapping[str, Steps], clips: int) -> dict[str, Any]:
    """What the calibration record keeps of it, of `clips` clips."""
    return {
        "clips": min(clips, CLIPS),
        "columns_together": TOGETHER,
        "damping": DAMPING,
        "weights": len(steps),
    }


@dataclass
class _Walk:
    """Quantizes what the nodes read, weights included, as the walk comes to them."""

    model: onnx.ModelProto
    fp16: onnx.ModelProto
    ranges: Ranges
    config: QuantizeConfig
    progress: Progress | None
    found: dict[str, Steps] = field(default_factory=dict)

    def __post_init__(self) -> None:
        chosen = sites(self.model, attention=self.config.attention, exclude=self.config.exclude)
        self.sites = {site.node: site for site in chosen}
        self.nodes = {node.name: node for node in self.model.graph.node}
        self.weights, self.halves = initializers(self.model), initializers(self.fp16)
        self.products = sum(site.weight is not None for site in chosen)
        self.random = np.random.default_rng(0)

    def __call__(self, name: str, runs: Runs) -> Runs:
        site = self.sites.get(name)
        if site is None:
            return runs
        runs = [rounded_activations(site, inputs, self.ranges) for inputs in runs]
        if site.weight is None:
            return runs
        if self.progress is not None:
            self.progress("round weights", len(self.found), self.products)
        rounded = self._round(site, site.weight, [inputs[0] for inputs in runs])
        return [_with(inputs, site.weight, rounded) for inputs in runs]

    def _round(self, site: Site, slot: int, seen: list[Tensor]) -> Tensor:
        """Rounds one weight and gives what INT8 makes of it."""
        import torch

        node = self.nodes[site.node]
        weight, half = (values[node.input[slot]] for values in (self.weights, self.halves))
        scale = weight_scale(half, site.axis).astype(np.float64)
        convolves = node.op_type == "Conv"
        matrix = weight.reshape(len(weight), -1) if convolves else weight.T  # [outputs, inputs]
        steps = round_columns(matrix.astype(np.float64), scale, _rows(node, seen, self.random))
        stored = (steps if convolves else steps.T).reshape(weight.shape)
        self.found[site.node] = np.ascontiguousarray(stored)
        shape = [-1 if place == site.axis else 1 for place in range(weight.ndim)]
        return torch.from_numpy((stored * scale.reshape(shape)).astype(np.float32))


def rounded_activations(site: Site, inputs: list[Tensor], ranges: Ranges) -> list[Tensor]:
    """What a quantized node reads: its activations in INT8 and back."""
    for slot, name in zip(site.slots, site.tensors, strict=True):
        scale = float(round_up(np.asarray(ranges[name] / LEVELS), np.float16))
        inputs = _with(inputs, slot, (inputs[slot] / scale).round_().clamp_(-LEVELS - 1, LEVELS).mul_(scale))
    return inputs


def round_columns(wanted: Floats, scale: Floats, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
    """Rounds a matrix so that `rows @ steps.T * scale` is near `rows @ wanted.T`.

    Args:
        wanted: float64 `[n, K]`.
        scale: of each output, float64 `[n]`.
        rows: inputs, float32 `[R, K]`.

    Returns:
        INT8 `[n, K]`.
    """
    steps = np.empty(wanted.shape, np.int8)
    for start in range(0, wanted.shape[1], TOGETHER):
        own = slice(start, start + TOGETHER)
        gram = (rows[:, own].T @ rows[:, own]).astype(np.float64)
        steps[:, own] = _round_block(wanted[:, own] / scale[:, None], gram)
    return steps


def _round_block(left: Floats, gram: Floats) -> npt.NDArray[np.int8]:
    """GPTQ on weights in units of their steps: columns that are read the most come first."""
    diagonal = np.diag(gram).copy()
    order = np.argsort(-diagonal, kind="stable")
    damped = gram[np.ix_(order, order)] + np.eye(len(gram)) * (DAMPING * diagonal.mean() or 1.0)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    left = left.T[order]  # by column, which is then one piece of memory
    steps = np.empty(left.shape)
    for start in range(0, len(gram), _LAZY):
        end = min(start + _LAZY, len(gram))
        errors = np.empty((end - start, left.shape[1]))
        for column in range(start, end):
            np.clip(np.rint(left[column]), -LEVELS, LEVELS, out=steps[column])
            error = (left[column] - steps[column]) / upper[column, column]
            left[column + 1 : end] -= np.multiply.outer(upper[column, column + 1 : end], error)
            errors[column - start] = error
        left[end:] -= upper[start:end, end:].T @ errors
    found = np.empty(left.shape[::-1], np.int8)
    found[:, order] = steps.T
    return found


def _with(inputs: list[Tensor], slot: int, value: Tensor) -> list[Tensor]:
    return [value if place == slot else read for place, read in enumerate(inputs)]


def _columns(node: onnx.NodeProto, read: Tensor) -> Tensor:
    """What a product multiplies its matrix with: `[rows, inputs]`."""
    import torch
    from onnx import helper

    if node.op_type != "Conv":
        return read.reshape(-1, read.shape[-1])
    a = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    patches = torch.nn.functional.unfold(
        read, a["kernel_shape"], padding=tuple(a.get("pads", [0, 0])[:2]), stride=a.get("strides", 1)
    )
    return patches.transpose(1, 2).flatten(0, 1)


def _rows(node: onnx.NodeProto, reads: Sequence[Tensor], random: np.random.Generator) -> npt.NDArray[np.float32]:
    """Pick some rows of every run; all patches of all images would be gigabytes."""
    import torch

    first = _columns(node, reads[0][:1])
    columns = min(TOGETHER, first.shape[1])
    wanted = -(-ROWS * columns // len(reads))
    images = min(len(reads[0]), -(-wanted // len(first)))
    parts = []
    for read in reads:
        some = np.sort(random.choice(len(read), images, replace=False))
        rows = _columns(node, read[torch.from_numpy(some)])
        kept = np.sort(random.choice(len(rows), min(wanted, len(rows)), replace=False))
        parts.append(rows[torch.from_numpy(kept)].numpy())
    found: npt.NDArray[np.float32] = np.concatenate(parts)
    return found
