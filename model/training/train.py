"""Training: from clips to a scored checkpoint.

Which weights are kept is a choice that changes the figure. The last ones are looked at on the held-out clips once.
`select="validation"` keeps the best epoch on clips taken out of the training fold. `select="test-fold"` keeps the best
epoch on the held-out clips themselves, as most published code of this field does; the result says so.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...clips import check_color
from ...errors import UsageError
from ..checkpoint import check_replaceable, save_checkpoint
from ..data.clips import ClipSource, Progress, check_source, split
from ..networks.backbone import Trunk
from ..networks.contract import NetworkConfig
from ..networks.families import build_network
from ..networks.network import Network
from ..networks.weight_files import TrunkWeights, load_trunk
from .distributed import world
from .evaluate import evaluate_together
from .fit import Fit, state_path
from .log import LogOptions, check_log
from .metrics import Metrics
from .recipe import TrainConfig


@dataclass(frozen=True)
class Start:
    """Starting point of a training.

    Attributes:
        trunk: a file of pre-trained ResNet weights; None begins at random.
        trunk_color: 'rgb' or 'bgr', the channel order that those weights were trained on.
        resume: go on with the interrupted training of the same checkpoint.
    """

    trunk: str | os.PathLike[str] | None = None
    trunk_color: str = "rgb"
    resume: bool = False

    def __post_init__(self) -> None:
        check_color(self.trunk_color)
        if self.trunk is None and self.trunk_color != "rgb":
            raise UsageError("--trunk-color says how a trunk's weights were trained; no --trunk is given.")


@dataclass(frozen=True)
class TrainResult:
    """Result of a training.

    Attributes:
        checkpoint: its folder.
        log: JSON lines; see `log.py`.
        metrics: on the held-out clips.
        selected: how the weights were chosen, in words.
        final_loss: mean loss of the last tenth of the steps.
        duration_s: wall-clock time, with evaluation.
        device: 'cpu' or 'cuda', where it ran.
        processes: how many trained together.
        trunk: what was loaded into the trunk, None when it began at random.
        reading: what was read and how, where the caller told it: fold, policy for short clips, what was left out,
            frames that could not be read (of the first process).
    """

    checkpoint: Path
    log: Path
    metrics: Metrics
    selected: str
    final_loss: float
    duration_s: float
    device: str
    processes: int
    trunk: TrunkWeights | None
    reading: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "checkpoint": str(self.checkpoint), "log": str(self.log)}


def train(
    config: TrainConfig,
    model_config: NetworkConfig,
    source_train: ClipSource,
    source_val: ClipSource,
    out_folder: str | os.PathLike[str],
    progress: Progress | None = None,
    *,
    start: Start | None = None,
    logs: LogOptions | None = None,
    reading: Callable[[], Mapping[str, Any]] | None = None,
) -> TrainResult:
    """Trains a model and writes its checkpoint.

    A log lies beside it (`<out_folder>.log.jsonl`). Under torchrun all processes call this; the first one writes.

    Args:
        config: the recipe.
        model_config: the architecture.
        source_train: what it learns from; wrap it in `CachedClips` where decoding is dear.
        source_val: held-out clips, looked at once, unless `config.select` is 'test-fold'.
        out_folder: of the checkpoint; an older checkpoint there is replaced.
        progress: called with (stage, done, total) in the first process.
        start: what it begins from.
        logs: where figures go while it runs, beside the log.
        reading: asked before the score and after it what was read and how, as JSON values; kept with the checkpoint.

    Raises:
        BadInputError: the clips do not fit the model, the trunk's file does not fit, or the loss is no longer finite.
        RefusedError: the trunk's file carries code.
        UsageError: a batch that the processes cannot share evenly.
        MachineError: the disk is full or may not be written.
    """
    start = start or Start()
    began = time.perf_counter()
    check_replaceable(out_folder)  # now, not after hours
    check_log(out_folder)
    for source in (source_train, source_val):
        check_source(source, model_config.labels, model_config.image_size)
    chosen_on: ClipSource | None = source_val if config.select == "test-fold" else None
    if config.select == "validation":
        source_train, chosen_on = split(source_train, config.validation_share, config.seed)
        check_source(chosen_on, model_config.labels, model_config.image_size)
    folder = Path(out_folder)
    with contextlib.ExitStack() as closing, world() as here:
        torch.manual_seed(config.seed)  # every process makes the same weights
        model = build_network(model_config)
        trunk = load_trunk(_trunk_of(model), start.trunk, color=start.trunk_color) if start.trunk else None
        model = model.to(here.device)
        if model.trunk is not None:  # a step on a CPU takes a sixth less
            model.trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        began_with = None if trunk is None else {"sha256": trunk.sha256, "color": trunk.color}
        fit = Fit(model, config, source_train, here, folder, resume=start.resume, logs=logs, trunk=began_with)
        closing.callback(fit.log.close)
        shown = progress if here.first else None
        fit.run(chosen_on, shown)
        kept = fit.scored
        if fit.best is not None:
            kept.load_state_dict(fit.best[1])
        extra: dict[str, Any] = {
            "recipe": asdict(config),
            "final_loss": float(np.mean(fit.losses[-max(1, fit.total // 10) :])),
            "device": here.device.type,
            "processes": here.size,
            "selected": _selected(config),
            "trunk": None if trunk is None else trunk.to_json(),
        }
        if here.first:  # before the score: a damaged held-out clip must not cost the weights
            save_checkpoint(folder, kept, {**extra, "reading": None if reading is None else dict(reading())})
        metrics = evaluate_together(kept.eval(), source_val, here, shown)
        fit.record({"test_uar": metrics.uar, "test_war": metrics.war})
        read = None if reading is None else dict(reading())
        if here.first:
            save_checkpoint(folder, kept, {**extra, "metrics": metrics.to_json(), "reading": read})
            state_path(folder).unlink(missing_ok=True)  # it ended well
        here.wait()
        return TrainResult(
            checkpoint=folder,
            log=fit.log.path,
            metrics=metrics,
            selected=extra["selected"],
            final_loss=extra["final_loss"],
            duration_s=time.perf_counter() - began,
            device=here.device.type,
            processes=here.size,
            trunk=trunk,
            reading=read,
        )


def _trunk_of(model: Network) -> Trunk:
    """The ResNet of a network.

    Raises:
        UsageError: it has none.
    """
    if model.trunk is None:
        raise UsageError(
            f"A {model.config.family} has no ResNet trunk to load weights into.",
            next="leave --trunk out, or train a preset that has one",
        )
    return model.trunk


def _selected(config: TrainConfig) -> str:
    return {
        "last": "the last weights; the held-out clips were looked at once",
        "validation": f"the epoch with the best WAR on {config.validation_share:.0%} of the training clips",
        "test-fold": "the epoch with the best WAR on the very clips that are scored: optimistic, the field's habit",
    }[config.select]
