"""The training loop: batches, steps, the log, the state for a resume.

The state is one file beside the checkpoint, replaced whole: weights, optimiser, averages, and how far it had come.
Order and augmentation need none: they follow from (seed, epoch, clip), as torch's random state from (seed, step). At
the same number of threads, a resumed run on the CPU ends with the same bits as one that was never interrupted.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ...bundle.files import read_file, write_atomic
from ...errors import BadInputError, command
from ..data.augment import draw_augmentations
from ..data.clips import ClipSource, Progress, at_random, balanced, batches, fingerprint, random_pick
from ..networks.network import Network, to_tensor
from ..networks.weight_files import load_plain
from .distributed import World
from .evaluate import evaluate_together
from .log import Figures, LogOptions, TrainLog, log_path
from .metrics import uar_war
from .recipe import TrainConfig
from .step import Average, MicroBatch, Stepper, make_optimizer

LOG_EVERY = 10
SAVE_EVERY = 100  # steps from one saved state to the next
MAX_STATE_BYTES = 8 << 30
STATE_FORMAT = "logoformer-training-2"


class Fit:
    """One training that can be interrupted and resumed.

    Args:
        model: on the world's device.
        config: the recipe.
        source: what it learns from.
        world: this process among the others.
        folder: of the checkpoint that it will become; the log and the state lie beside it.
        resume: go on from the saved state.
        logs: where figures go, beside the log.
        trunk: hash and channel order of the weights that its trunk began with; None began at random.

    Attributes:
        log: the JSON lines.
        losses: of every step so far, the mean over this process's clips.
        average: the moving average of the weights, or None.
        best: (WAR, weights) of the best epoch, where weights are chosen by a score.

    Raises:
        BadInputError: with `resume`, there is no state, or it is of another training.
        MachineError: event files are wanted and the package that writes them is missing.
    """

    def __init__(
        self, model: Network, config: TrainConfig, source: ClipSource, world: World, folder: Path, *, resume: bool,
        logs: LogOptions | None = None, trunk: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.model, self.config, self.source, self.world, self.folder = model, config, source, world, folder
        self.total = config.total_steps(len(source))
        self.log = TrainLog(log_path(folder), logs or LogOptions(), first=world.first)
        self.losses: list[float] = []
        self.average = Average(model, config.ema) if config.ema else None
        self.best: tuple[float, dict[str, Tensor]] | None = None
        classes = len(model.config.labels)
        self._confusion = torch.zeros((classes, classes), dtype=torch.int64, device=world.device)  # of this epoch
        self._epoch = 0
        self._optimizer = make_optimizer(model, config)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda step: config.rate(step, self.total))
        self._scaler = torch.amp.GradScaler(world.device.type, enabled=config.precision == "fp16")
        self._saved: dict[str, Any] = {  # what keeps its own state
            "model": model, "optimizer": self._optimizer, "schedule": self._schedule, "scaler": self._scaler,
        }  # fmt: skip
        self._identity = {
            "recipe": asdict(config),
            "architecture": model.config.to_json(),
            "data": fingerprint((source.clip_id(i), source.label(i)) for i in range(len(source))),
            "processes": world.size,
            "trunk": None if trunk is None else dict(trunk),
        }
        if resume:
            self._restore(load_state(folder, self._identity))
        else:
            self.log.begin(0)
        self._reseed()

    @property
    def scored(self) -> Network:
        """The weights that are scored and kept: the average where there is one."""
        return self.model if self.average is None else self.average.model  # type: ignore[return-value]

    def run(self, chosen_on: ClipSource | None, progress: Progress | None) -> None:
        """Takes every step that is left.

        Args:
            chosen_on: clips that are scored after each epoch; the weights with the best WAR become `best`.
            progress: called with (stage, done, total).

        Raises:
            BadInputError: the loss is no longer finite.
            MachineError: the disk is full.
        """
        net: nn.Module = self.model
        if self.world.size > 1:
            # Running statistics stay each process's own; they are averaged before anybody reads them.
            net = DistributedDataParallel(self.model, broadcast_buffers=False)
        stepper = Stepper(net, self._optimizer, self.config, self.world, self._scaler, self._confusion)
        self._train_mode()
        for epoch, micro_batches, last in self._batches():
            loss = stepper.step(micro_batches)
            self.losses.append(loss)
            if not math.isfinite(loss):
                raise BadInputError(
                    f"The loss became {loss} at step {len(self.losses)}.",
                    cause="the learning rate is too high for this model",
                    next=f"train again with a learning rate below {self.config.learning_rate}",
                )
            if self.average is not None:
                self.average.update(self.model)
            self._epoch = epoch
            self._record_step()
            self._schedule.step()
            if last:
                uar, war = uar_war(self.world.sum(self._confusion.cpu().numpy()))
                self.record({"train_uar": uar, "train_war": war})
                self._confusion.zero_()
            if last and chosen_on is not None:
                self._agree()
                self._select(chosen_on)
                self._train_mode()
            if len(self.losses) % SAVE_EVERY == 0 and len(self.losses) < self.total:
                self._save()
            if progress:
                progress("train", len(self.losses), self.total)
        self._agree()

    def _train_mode(self) -> None:
        """Puts the model in training mode; frozen BatchNorm stays in evaluation mode."""
        self.model.train()
        if self.config.freeze_bn:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _select(self, source: ClipSource) -> None:
        """Scores the weights and keeps them where they are the best so far."""
        found = evaluate_together(self.scored, source, self.world)
        clips = "test" if self.config.select == "test-fold" else "validation"
        self.record({f"{clips}_uar": found.uar, f"{clips}_war": found.war})
        if self.best is None or found.war > self.best[0]:
            weights = {name: value.detach().cpu().clone() for name, value in self.scored.state_dict().items()}
            self.best = found.war, weights

    def _batches(self) -> Iterator[tuple[int, list[MicroBatch], bool]]:
        """(epoch, this process's micro-batches, whether the epoch ends) of every step that is left."""
        config, world = self.config, self.world
        labels = [self.source.label(index) for index in range(len(self.source))] if config.balanced else []
        step = epoch = 0
        while step < self.total:
            rng = np.random.default_rng([config.seed, epoch])
            groups = balanced(labels, config.batch, rng) if labels else at_random(len(self.source), config.batch, rng)
            first, ends = max(0, len(self.losses) - step), min(step + len(groups), self.total)
            ahead = groups[first : ends - step]
            if ahead:
                # Drawn for the whole epoch, before anything is shared out or skipped: it follows (seed, epoch, clip).
                size = self.model.config.image_size
                drawn = draw_augmentations(config.augment, groups, size, (config.seed, epoch), rng)
                shares, shown = [], []
                for group, changes in zip(ahead, drawn[first:], strict=False):
                    for places in world.share(np.arange(len(group)), config.accumulate):
                        shares.append(group[places])
                        shown.append([changes[place] for place in places])
                pick = random_pick(self.model.config.sampling, config.seed, epoch)
                micro: list[MicroBatch] = []
                for clips, answers in batches(self.source, shares, pick, shown):
                    micro.append((to_tensor(clips).to(world.device), torch.from_numpy(answers).to(world.device)))
                    if len(micro) == config.accumulate:
                        yield epoch, micro, len(self.losses) + 1 == ends
                        micro = []
            step, epoch = ends, epoch + 1

    def record(self, figures: Figures) -> None:
        """Writes figures of the current step and epoch to the log, and shows them."""
        self.log.write(len(self.losses), self._epoch, figures)
        self.log.note(figures)

    def _record_step(self) -> None:
        loss = float(np.mean(self.losses[-LOG_EVERY:]))
        if len(self.losses) % LOG_EVERY == 0 or len(self.losses) == self.total:
            self.record({"loss": loss, "learning_rate": float(self._schedule.get_last_lr()[0])})
        else:
            self.log.note({"loss": loss})

    # ---------------------------------------------------------------------------------------------------------- state
    def _reseed(self) -> None:
        """Seeds dropout: differently in each process, the same after an interruption."""
        seeds = np.random.SeedSequence([self.config.seed, self.world.rank, len(self.losses)])
        torch.manual_seed(int(seeds.generate_state(1)[0]))

    def _save(self) -> None:
        self._agree()  # one file holds what all processes go on from
        counted = self.world.sum(self._confusion.cpu().numpy())
        if self.world.first:
            average = self.average
            state = {
                "format": STATE_FORMAT,
                **self._identity,
                **{name: part.state_dict() for name, part in self._saved.items()},
                "average": None if average is None else (average.model.state_dict(), average.updates),
                "best": self.best,
                "losses": self.losses,
                "confusion": counted.tolist(),
                "log": self.log.text(),
            }
            buffer = io.BytesIO()
            torch.save(state, buffer)
            write_atomic(state_path(self.folder), buffer.getbuffer())
        self._reseed()

    def _agree(self) -> None:
        """Gives all processes, and the average of the weights, the mean running statistics."""
        self.world.mean_(statistics(self.model))
        if self.average is not None:
            self.average.take_buffers(self.model)

    def _restore(self, state: dict[str, Any]) -> None:
        for name, part in self._saved.items():
            part.load_state_dict(state[name])
        if self.average is not None:
            weights, self.average.updates = state["average"]
            self.average.model.load_state_dict(weights)
        self.best = state["best"]
        self.losses = list(state["losses"])
        if self.world.first:  # the counts are summed over the processes at the end of an epoch
            self._confusion += torch.tensor(state["confusion"], device=self.world.device)
        self.log.begin(len(self.losses), state["log"])


def statistics(model: nn.Module) -> list[Tensor]:
    """BatchNorm's running means and variances."""
    return [buffer for name, buffer in model.named_buffers() if name.endswith(("running_mean", "running_var"))]


# --------------------------------------------------------------------------------------------------------------- files
def state_path(folder: str | os.PathLike[str]) -> Path:
    """Path of the state of a training, beside its checkpoint."""
    path = Path(folder)
    return path.parent / f"{path.name}.state.pt"


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
    state = load_plain(read_file(path, MAX_STATE_BYTES), str(path))
    if not isinstance(state, dict) or state.get("format") != STATE_FORMAT:
        raise BadInputError(f"{path} is not the state of a training.")
    for name, value in same.items():
        if state.get(name) != value:
            raise BadInputError(
                f"The interrupted training at {path} had another {name}.",
                cause=f"then {state.get(name)!r:.300}, now {value!r:.300}",
                next="give the same arguments as before, or leave --resume out to begin anew",
            )
    return state
