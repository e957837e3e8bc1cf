"""LOGO-Former as a family. There are no public weights; only our own names are recognised."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ....errors import BadInputError
from ..family import Family, FamilySetting, ForeignTensor, Licences, PublishedScore, Settings, Shapes
from .config import LOGOFORMER_PRESETS, LogoFormerConfig
from .model import LogoFormer


def _recognise(shapes: Shapes) -> bool:
    return {"trunk.conv1.weight", "project.weight", "pos_spatial", "cls"} <= shapes.keys()


def _config_of(shapes: Shapes, args: Settings, options: Settings) -> LogoFormerConfig:
    named = options.get("preset")
    fitting = [name for name, config in LOGOFORMER_PRESETS.items() if _fits(config, shapes)]
    if named in LOGOFORMER_PRESETS and (named in fitting or not fitting):
        return LOGOFORMER_PRESETS[named]
    if fitting:
        given = "there are no public weights to know it from" if named is None else f"it is not that of {named!r}"
        raise BadInputError(
            f"A LOGO-Former's configuration is in no such file: {given}.",
            cause=f"its shapes are those of the preset {fitting[0]!r}",
            next=f"name it with --preset {fitting[0]}",
        )
    raise BadInputError(
        "A LOGO-Former's configuration is in no such file: there are no public weights to know it from.",
        cause="its names are ours, but its shapes are those of no preset",
        next="keep the folder that its training wrote: the configuration is in its config.json",
    )


def _fits(config: LogoFormerConfig, shapes: Shapes) -> bool:
    """Whether a file has the tensors of a configuration, of whatever classes."""
    wanted = {name: tensor.shape for name, tensor in _foreign(config).items()}
    free = {name for name in wanted if name.startswith("head.") or name.endswith("num_batches_tracked")}
    return all(shapes.get(name) == shape for name, shape in wanted.items() if name not in free)


def _foreign(config: LogoFormerConfig) -> Mapping[str, ForeignTensor]:
    with torch.device("meta"):
        state = LogoFormer(config).state_dict()
    return {name: ForeignTensor(tuple(value.shape), (name,)) for name, value in state.items()}


LOGOFORMER = Family(
    name=LogoFormerConfig.family,
    title="LOGO-Former",
    paper="Ma, Sun, Li: Logo-Former, ICASSP 2023, arXiv 2305.03343",
    network=LogoFormer,
    recognise=_recognise,
    config_of=_config_of,
    foreign=_foreign,
    licences=Licences(
        code="Apache-2.0: this project's own implementation",
        weights="there are no public weights; those of a training follow the terms of its data",
        data="those of the data set that a checkpoint was trained on",
    ),
    settings=(
        FamilySetting("preset", lambda c: c.preset, ("preset",), "preset", "base", "the shapes of all tensors"),
        FamilySetting("heads", lambda c: c.heads),
        FamilySetting("sampling", lambda c: str(c.sampling)),
        FamilySetting("order of the classes", lambda c: c.labels, ("labels", "data_set")),
    ),
    published=(
        PublishedScore("DFEW", 54.21, 66.98, "five folds"),
        PublishedScore("FERV39k", 38.22, 48.13, "its own split"),
    ),
    published_config=LOGOFORMER_PRESETS["base"],
)
