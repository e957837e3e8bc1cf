"""Training on one process: cross-entropy, AdamW, warm-up and cosine.

The answer on the held-out clips is measured once, after the last step. Picking the best epoch on the test fold, as
most published code of this field does, reports a figure that nobody will meet again.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..errors import BadInputError, UsageError
from ..files import writing_failed
from .checkpoint import check_target, save_checkpoint
from .config import ModelConfig
from .data import Batch, ClipSource, Progress, at_random, batches, check_source, random_pick
from .evaluate import Metrics, evaluate
from .logoformer import LogoFormer, to_tensor


@dataclass(frozen=True)
class TrainConfig:
    """How to train. The defaults are those of `tiny` on the synthetic faces.

    Attributes:
        steps: optimiser steps.
        batch: clips in each.
        learning_rate: at its highest, after the warm-up.
        weight_decay: AdamW's, on weights; not on norms, biases, positions and [CLS].
        warmup: share of the steps over which the learning rate rises.
        seed: of weights, order, sampling and augmentation.
    """

    steps: int = 800
    batch: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.seed < 0:
            raise UsageError(f"Training needs steps >= 1, batch >= 1 and seed >= 0; got {self}.")
        if not (self.learning_rate > 0 and self.weight_decay >= 0 and 0 <= self.warmup < 1):
            raise UsageError(f"Training needs learning_rate > 0, weight_decay >= 0 and 0 <= warmup < 1; got {self}.")


@dataclass(frozen=True)
class TrainResult:
    """What a training left.

    Attributes:
        checkpoint: its folder.
        log: JSON lines, one every 10 steps and one at the end.
        metrics: on the held-out clips.
        final_loss: mean cross-entropy of the last tenth of the steps.
        duration_s: wall-clock time, with evaluation.
        device: 'cpu' or 'cuda', where it ran.
    """

    checkpoint: Path
    log: Path
    metrics: Metrics
    final_loss: float
    duration_s: float
    device: str

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "checkpoint": str(self.checkpoint), "log": str(self.log)}


def train(
    config: TrainConfig,
    model_config: ModelConfig,
    source_train: ClipSource,
    source_val: ClipSource,
    out_folder: str | os.PathLike[str],
    progress: Progress | None = None,
) -> TrainResult:
    """Trains a model and writes its checkpoint; a log stands beside it (`<out_folder>.log.jsonl`).

    Args:
        config: the recipe.
        model_config: the architecture.
        source_train: what it learns from; wrap it in `CachedClips` where decoding is dear.
        source_val: held-out clips, looked at once.
        out_folder: of the checkpoint; an older checkpoint there is replaced.
        progress: called with (stage, done, total).

    Raises:
        BadInputError: the clips do not fit the model, or the loss is no longer finite.
        MachineError: the disk is full or may not be written.
    """
    started = time.perf_counter()
    check_target(out_folder)  # now, not after hours
    for source in (source_train, source_val):
        check_source(source, model_config.labels, model_config.image_size)
    torch.manual_seed(config.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = LogoFormer(model_config).to(device).train()
    folder = Path(out_folder)
    log_path = folder.parent / f"{folder.name}.log.jsonl"
    _write(log_path, "w", "")
    losses = _fit(model, config, source_train, log_path, progress)
    final_loss = float(np.mean(losses[-max(1, config.steps // 10) :]))
    extra = {"recipe": asdict(config), "final_loss": final_loss, "device": device}
    save_checkpoint(folder, model, extra)  # before the score: a damaged held-out clip must not cost the weights
    metrics = evaluate(model.eval(), source_val, progress=progress)
    save_checkpoint(folder, model, {**extra, "metrics": metrics.to_json()})
    return TrainResult(folder, log_path, metrics, final_loss, time.perf_counter() - started, device)


def _fit(
    model: LogoFormer, config: TrainConfig, source: ClipSource, log: Path, progress: Progress | None
) -> list[float]:
    """Runs every step; returns their losses."""
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(_groups(model, config.weight_decay), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, config))
    losses: list[float] = []
    for step, (clips, labels) in enumerate(_stream(source, model.config, config), start=1):
        logits = model(to_tensor(clips).to(device))
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels).to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise BadInputError(
                f"The loss became {losses[-1]} at step {step}.",
                cause="the learning rate is too high for this model",
                next=f"train again with a learning rate below {config.learning_rate}",
            )
        if step % 10 == 0 or step == config.steps:
            line = {"step": step, "loss": float(np.mean(losses[-10:])), "learning_rate": schedule.get_last_lr()[0]}
            _write(log, "a", json.dumps(line) + "\n")
        schedule.step()
        if progress:
            progress("train", step, config.steps)
    return losses


def _write(log: Path, mode: str, text: str) -> None:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open(mode, encoding="ascii") as stream:
            stream.write(text)
    except OSError as error:
        raise writing_failed(error, log) from error


def _stream(source: ClipSource, model: ModelConfig, config: TrainConfig) -> Iterator[Batch]:
    """Augmented batches, epoch after epoch, `config.steps` of them."""
    left, epoch = config.steps, 0
    while left > 0:
        rng = np.random.default_rng([config.seed, epoch])
        groups = at_random(len(source), config.batch, rng)[:left]
        for clips, labels in batches(source, groups, random_pick(model.sampling, config.seed, epoch)):
            yield augment(clips, rng), labels
        left -= len(groups)
        epoch += 1


def augment(clips: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Mirrors and moves each clip, all its frames alike.

    Args:
        clips: uint8 `[B, T, S, S, 3]`.
        rng: the source of chance.

    Returns:
        The same shape: half of the clips mirrored left to right, each moved by up to S/16 pixels; the border repeats.
    """
    room = clips.shape[2] // 16
    padded = np.pad(clips, ((0, 0), (0, 0), (room, room), (room, room), (0, 0)), mode="edge")
    result = np.empty_like(clips)
    for index, (top, left) in enumerate(rng.integers(0, 2 * room + 1, (len(clips), 2))):
        moved = padded[index, :, top : top + clips.shape[2], left : left + clips.shape[3]]
        result[index] = moved[:, :, ::-1] if rng.random() < 0.5 else moved
    return result


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Splits the parameters: matrices and kernels decay, everything else does not."""
    decayed: list[Tensor] = []
    free: list[Tensor] = []
    for name, parameter in model.named_parameters():
        (free if parameter.ndim < 2 or name.startswith(("pos_", "cls")) else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def _rate(step: int, config: TrainConfig) -> float:
    """Learning rate as a share of the highest: a line up, then half a cosine down to 0."""
    rise = round(config.warmup * config.steps)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1.0 + math.cos(math.pi * (step - rise) / max(1, config.steps - rise)))
