"""Weights that no network works with, refused by the tensor's name.

An exporter would find them too, but late, and as a fault of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...errors import BadInputError

VANISHED = 1e-12  # the largest magnitude of a matrix that is as good as zero in float32
ALIKE = 1e-4  # deviation between clips as a share of the values; below it, parity compares nothing but rounding
_READ = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_OTHER_WEIGHTS = "take another epoch's checkpoint, or train again: logoformer train --help"


def refuse_kinds(state: Mapping[str, Tensor], shown: str, wanted: Mapping[str, Tensor]) -> None:
    """Refuses tensors without plain values: sparse, quantized, meta, complex, float8.

    Casting would hide what they are. Integers are refused too where the network has real numbers.

    Args:
        state: of the file, by name.
        shown: the file, for the message.
        wanted: of the network, by name.

    Raises:
        BadInputError: names the tensor and what it is.
    """
    for name, value in state.items():
        kind = _kind(value)
        if kind is None and name in wanted and wanted[name].is_floating_point() and not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
        if kind is not None:
            raise BadInputError(
                f"The tensor {name!r} of {shown} is {kind}; plain floating-point values are expected.",
                cause="weights that were quantized, pruned or converted for another program",
                next="take the checkpoint that the training wrote, before any conversion",
            )


def _kind(value: Tensor) -> str | None:
    """What a tensor is that is not read, else None."""
    if value.layout != torch.strided:
        return "sparse"
    if value.is_nested:
        return "nested"
    if value.is_quantized:
        return f"quantized ({str(value.dtype).removeprefix('torch.')})"
    if value.is_meta:
        return "a meta tensor, without values"
    if value.is_complex() or (value.is_floating_point() and value.dtype not in _READ):
        return str(value.dtype).removeprefix("torch.")
    return None


def refuse_value(name: str, value: Tensor, shown: str) -> None:
    """Refuses one tensor whose values no trained network has.

    Args:
        name: in our state dict; `.weight` are matrices, kernels and scales, `.running_var` are variances.
        value: as it will be used, float32.
        shown: the file, for the message.

    Raises:
        BadInputError: NaN or infinite values, a negative variance, or a matrix that is zero or says nothing.
    """
    what = _fault(name, value) if value.is_floating_point() and value.numel() else None
    if what is not None:
        raise BadInputError(
            f"The tensor {name!r} of {shown} {what[0]}.",
            cause=what[1],
            next=_OTHER_WEIGHTS,
        )


def _fault(name: str, value: Tensor) -> tuple[str, str] | None:
    diverged = "a training that diverged, or a file that was damaged"
    if not bool(torch.isfinite(value).all()):
        nan = int(torch.isnan(value).sum())
        bad = int((~torch.isfinite(value)).sum())
        kinds = "NaN" if nan == bad else "infinite" if not nan else f"not finite ({nan} of them NaN)"
        return f"has {bad} of {value.numel()} values that are {kinds}", diverged
    if name.endswith("running_var"):
        if float(value.min()) < 0:
            return f"has a negative variance, {float(value.min()):.4g}", "weights that were averaged or edited wrongly"
        if float(value.max()) == 0:
            return "holds variances that are all zero", "a BatchNorm that saw constant pictures"
        return None
    if not name.endswith(".weight"):
        return None
    collapsed = "weights that were never loaded or trained, or that collapsed"
    most = float(value.abs().max())
    if most == 0:
        return f"is zero throughout ({value.numel()} values)", collapsed
    if most < VANISHED:
        return f"vanishes: no value exceeds {most:.3g}", collapsed
    rows = value.ndim >= 2 and value.shape[0] > 1 and value.shape[1] > 1  # depthwise kernels may be equal
    if rows and bool((value == value[:1]).all()):
        return f"has {value.shape[0]} equal rows: what it computes is the same for all", collapsed
    return None


def refuse_scaling(mean: Sequence[float], std: Sequence[float], shown: str) -> None:
    """Refuses mean and std of pixels in 0..255: the network reads them in 0..1.

    Raises:
        BadInputError: with the numbers to write instead.
    """
    if not all(math.isfinite(value) for value in (*mean, *std)) or max(map(abs, mean)) > 1 or max(std) > 1:
        divided = [[round(value / 255, 6) for value in values] for values in (mean, std)]
        raise BadInputError(
            f"{shown} has mean {list(mean)} and std {list(std)}; pixels are read in 0..1, so neither exceeds 1.",
            cause="values for pixels in 0..255",
            next=f'write "mean": {divided[0]} and "std": {divided[1]} in its config.json',
        )


def refuse_answers(model: nn.Module, answers: npt.NDArray[np.float32], clips: Tensor) -> None:
    """Refuses a network whose answers are not finite, or that gives different clips one answer.

    Parity would find both, and take them for a fault of the exporter.

    Args:
        model: in evaluation mode.
        answers: its probabilities, float32 `[N, C]`, for different clips.
        clips: some of these clips, float `[B, T, 3, S, S]`.

    Raises:
        BadInputError: names the tensor.
    """
    if not np.isfinite(answers).all():
        sizes = {name: float(value.abs().max()) for name, value in model.named_parameters()}
        name = max(sizes, key=sizes.__getitem__)
        raise BadInputError(
            f"The network's answers are not finite; its largest weights are in {name!r}: up to {sizes[name]:.3g}.",
            cause="a training that diverged",
            next=_OTHER_WEIGHTS,
        )
    logits = np.log(np.maximum(answers, np.float32(1e-30)))
    if logits.std(0).max() <= ALIKE:
        refuse_alike(model, clips)


def refuse_alike(model: nn.Module, clips: Tensor) -> None:
    """Refuses a network that gives different clips one answer; names where they become alike.

    Args:
        model: in evaluation mode.
        clips: float `[B, T, 3, S, S]`, different ones.

    Raises:
        BadInputError: names the last layer whose input differs between clips and whose output does not.
    """
    alike: list[str] = []  # layers, in the order of their computation

    def differs(value: object, least: float = 0.0) -> bool:
        if not isinstance(value, Tensor) or not value.is_floating_point() or len(value) % len(clips):
            return False
        rows = value.reshape(len(clips), -1)
        return float(rows.std(0).max()) > ALIKE * max(float(rows.abs().max()), least)

    def note(name: str, given: tuple[object, ...], made: object) -> None:
        if any(map(differs, given)) and not differs(made):
            alike.append(name)

    handles = [
        module.register_forward_hook(lambda _module, given, made, name=name: note(name, given, made))
        for name, module in model.named_modules()
        if not any(module.children())
    ]
    try:
        with torch.no_grad():
            logits = model(clips)
    finally:
        for handle in handles:
            handle.remove()
    if differs(logits, 1.0):  # probabilities depend on differences of logits, whose rounding is absolute
        return
    named = [name for name, _ in model.named_parameters()]
    layer = alike[-1] if alike else named[-1].rpartition(".")[0]
    tensor = next((name for name in named if name.startswith(f"{layer}.")), layer)
    raise BadInputError(
        f"The network answers {len(clips)} different clips alike: they are the same from {tensor!r} on.",
        cause="weights that collapsed in training, or that were scaled to nothing",
        next=_OTHER_WEIGHTS,
    )
