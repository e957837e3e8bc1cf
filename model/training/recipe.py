"""Recipes of a training: every number that decides its result, and the named ones.

A recipe is a small JSON file in `recipes/`; the command line may override any field, and the resolved recipe is saved
with the checkpoint. What a paper does not publish is this project's choice and is said so in the recipe's note.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeVar

from ...errors import UsageError, one_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Config = TypeVar("_Config", bound="DataclassInstance")
FOLDER = files(__package__ or "") / "recipes"  # the package may be inside a zip file
OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "step", "constant")
PRECISIONS = ("fp32", "bf16", "fp16")
AUGMENTATIONS = ("shift", "crop", "none")
SELECTIONS = ("last", "validation", "test-fold")


@dataclass(frozen=True)
class TrainConfig:
    """How to train. The defaults are those of `tiny` on the synthetic faces.

    Attributes:
        steps: optimiser steps; 0 when `epochs` decides.
        epochs: passes over the training clips; 0 when `steps` decides.
        batch: clips in each step, over all processes and micro-batches.
        accumulate: micro-batches that a process splits its share of a batch into.
        optimizer: 'adamw' or 'sgd'.
        learning_rate: at its highest, after the warm-up.
        momentum: of SGD.
        weight_decay: on weights; not on norms, biases, positions and [CLS].
        schedule: 'cosine' down to 0, 'step' or 'constant', each after a linear warm-up.
        warmup: share of the steps over which the learning rate rises.
        step_share, step_factor: 'step' multiplies the rate by the factor after each such share of the steps.
        clip_norm: largest norm of a gradient; 0 leaves it alone.
        sam_rho: radius of sharpness-aware minimisation; 0 turns it off.
        sam_adaptive: measure that radius relative to each weight.
        sam_sync: climb along the gradient of the whole batch; otherwise each micro-batch climbs along its own (m-SAM),
            which needs no communication and is what Foret et al. did across accelerators.
        compact: weight of the compact loss.
        label_smoothing: of the cross-entropy.
        balanced: draw classes equally often (disgust is 1.2 % of DFEW).
        augment: 'shift' (mirror, move by S/16), 'crop' (Former-DFER's random sized crop, mirror) or 'none'.
        freeze_bn: the trunk's BatchNorm keeps the statistics that it came with.
        ema: decay of an exponential moving average of the weights, which is then what is scored and saved; 0: none.
        precision: 'fp32', or autocast in 'bf16' or 'fp16'.
        select: which weights are kept: the 'last', the best on a 'validation' share of the training clips, or the best
            on the 'test-fold', the habit of this field, which reports a figure that new clips will not repeat.
        validation_share: of the training clips, when `select` is 'validation'.
        seed: of weights, order, sampling and augmentation.
    """

    steps: int = 800
    epochs: int = 0
    batch: int = 32
    accumulate: int = 1
    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    momentum: float = 0.9
    weight_decay: float = 0.05
    schedule: str = "cosine"
    warmup: float = 0.25
    step_share: float = 0.4
    step_factor: float = 0.1
    clip_norm: float = 1.0
    sam_rho: float = 0.0
    sam_adaptive: bool = False
    sam_sync: bool = False
    compact: float = 0.0
    label_smoothing: float = 0.0
    balanced: bool = False
    augment: str = "shift"
    freeze_bn: bool = False
    ema: float = 0.0
    precision: str = "fp32"
    select: str = "last"
    validation_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.steps > 0) == (self.epochs > 0) or min(self.steps, self.epochs) < 0:
            raise UsageError(f"Give steps or epochs, one of them above 0; got {self.steps} and {self.epochs}.")
        if self.batch < 1 or self.accumulate < 1 or self.batch % self.accumulate or self.seed < 0:
            raise UsageError(
                f"Training needs batch >= 1, a multiple of accumulate, and seed >= 0; got batch {self.batch}, "
                f"accumulate {self.accumulate}, seed {self.seed}."
            )
        if not (self.learning_rate > 0 and self.weight_decay >= 0 and 0 <= self.warmup < 1 and 0 <= self.momentum < 1):
            raise UsageError(
                "Training needs learning_rate > 0, weight_decay >= 0, 0 <= warmup < 1 and 0 <= momentum < 1; got "
                f"{self.learning_rate}, {self.weight_decay}, {self.warmup}, {self.momentum}."
            )
        if not (0 < self.step_share <= 1 and 0 < self.step_factor <= 1 and 0 <= self.ema < 1):
            raise UsageError(f"step_share and step_factor lie in (0, 1], ema in [0, 1); got {self}.")
        if min(self.clip_norm, self.sam_rho, self.compact) < 0 or not 0 <= self.label_smoothing < 1:
            raise UsageError(f"clip_norm, sam_rho and compact are >= 0, label_smoothing in [0, 1); got {self}.")
        if not 0 < self.validation_share < 1:
            raise UsageError(f"validation_share lies between 0 and 1; got {self.validation_share}.")
        for name, known in (
            ("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("precision", PRECISIONS),
            ("augment", AUGMENTATIONS), ("select", SELECTIONS),
        ):  # fmt: skip
            if getattr(self, name) not in known:
                raise UsageError(f"Unknown {name} {getattr(self, name)!r}.", next=f"choose from {one_of(known)}")

    def total_steps(self, clips: int) -> int:
        """Optimiser steps for that many training clips.

        A batch that would not be full is left for another epoch.
        """
        return self.steps or self.epochs * max(1, clips // min(self.batch, clips))

    def rate(self, step: int, total: int) -> float:
        """Learning rate of a step, from 0, as a share of the highest."""
        rise = round(self.warmup * total)
        if step < rise:
            return (step + 1) / rise
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "step":
            return float(self.step_factor ** math.floor((step - rise) / max(1.0, self.step_share * total)))
        return 0.5 * (1.0 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


@dataclass(frozen=True)
class Recipe:
    """A named recipe.

    Attributes:
        name: of its file.
        preset: of the architecture it was made for.
        train: the settings.
        note: what is published, and what is this project's choice.
    """

    name: str
    preset: str
    train: TrainConfig
    note: str


def recipe_names() -> tuple[str, ...]:
    """The recipes that there are."""
    return tuple(sorted(item.name.removesuffix(".json") for item in FOLDER.iterdir() if item.name.endswith(".json")))


def recipe(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in recipe_names():
        raise UsageError(f"There is no recipe {name!r}.", next=f"choose from {one_of(recipe_names())}")
    data = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return Recipe(name, data["preset"], TrainConfig(**data["train"]), data["note"])


def override(config: _Config, settings: Sequence[str]) -> _Config:
    """Changes fields of a configuration by `name=value`, as the command line gives them.

    Naming `epochs` turns `steps` off, and the other way round.

    Raises:
        UsageError: an unknown field, or a value that does not fit it.
    """
    kinds = {field.name: type(getattr(config, field.name)) for field in fields(config)}
    changed: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if name not in kinds or not equals:
            raise UsageError(
                f"The setting {setting!r} is not 'name=value' of a recipe.", next=f"choose from {one_of(kinds)}"
            )
        changed[name] = _value(name, text, kinds[name])
    for one, other in (("epochs", "steps"), ("steps", "epochs")):
        if one in changed and other in kinds:
            changed.setdefault(other, 0)
    return replace(config, **changed)


def _value(name: str, text: str, kind: type) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        return kind(text)
    except (KeyError, ValueError) as error:
        raise UsageError(f"{name}={text!r} is not of type {kind.__name__}.") from error
