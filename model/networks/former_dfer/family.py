"""Former-DFER's public files: names, shapes, settings, rights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch

from ....errors import BadInputError
from ..backbone import Trunk
from ..family import (
    Family,
    FamilySetting,
    ForeignTensor,
    Licences,
    PublishedScore,
    Settings,
    Shapes,
    fitting_labels,
    refuse_disagreement,
)
from .config import FORMER_DFER_PRESETS, FormerDferConfig
from .model import FormerDfer

_DATA = ("DFEW", "FERV39k")  # one order of classes
_PUBLISHED = FORMER_DFER_PRESETS["former-dfer"]


def _recognise(shapes: Shapes) -> bool:
    return any(name.startswith("s_former.") for name in shapes) and any(n.startswith("t_former.") for n in shapes)


def _config_of(shapes: Shapes, args: Settings, options: Settings) -> FormerDferConfig:
    """The published sizes, of which only the classes may differ.

    The files say nothing about heads.
    """
    if "fc.weight" not in shapes:
        raise BadInputError(
            "The file has Former-DFER's names but no classifier (fc.weight).",
            cause="a checkpoint that was cut for transfer",
            next="take the file as its authors published it",
        )
    _refuse_other_sizes(shapes, options)
    classes = shapes["fc.weight"][0]
    if options.get("data_set") not in (None, *_DATA):
        raise BadInputError(
            f"The order of Former-DFER's classes is known for {' and '.join(_DATA)} alone.",
            cause=f"the data set {options['data_set']}, for which its authors published no weights",
            next="name the classes in the order of the training lists with --labels",
        )
    known = str(options.get("data_set") or "DFEW")
    return replace(_PUBLISHED, labels=fitting_labels(classes, options.get("labels"), _PUBLISHED.labels, known))


def _refuse_other_sizes(shapes: Shapes, options: Settings) -> None:
    """Refuses frames of another size or another number of them, which the positions show.

    Raises:
        BadInputError: says what the file was trained on.
    """
    p = _PUBLISHED
    places, sequence = shapes.get("s_former.pos_embedding", ()), shapes.get("t_former.pos_embedding", ())
    wrong = []
    if len(places) == 3 and places[1] != p.places:
        side = p.image_size * math.isqrt(places[1]) // math.isqrt(p.places)
        wrong.append(f"pictures of about {side} pixels ({places[1]} places), not {p.image_size} ({p.places})")
    if len(sequence) == 3 and sequence[1] != 1 + p.frames:
        wrong.append(f"clips of {sequence[1] - 1} frames, not {p.frames}")
    if wrong:
        raise BadInputError(
            f"This Former-DFER was trained on {' and '.join(wrong)}.",
            cause=f"a training of other people; {p.image_size} pixels and {p.frames} frames are assumed, as published, "
            "and no option changes them",
            next="take the authors' file, or train this network: logoformer train --help",
        )
    for shown, option, value in (("--size", "image_size", p.image_size), ("--frames", "frames", p.frames)):
        refuse_disagreement(shown, options.get(option), value)


def _block(theirs: str, ours: str, dim: int, hidden: int) -> Iterator[tuple[str, ForeignTensor]]:
    """The tensors of one block: their prefix, ours, d, hidden channels."""
    attention, ffn = f"{theirs}.0.fn", f"{theirs}.1.fn"
    packed = tuple(f"{ours}.attention.{part}.weight" for part in "qkv")
    yield f"{attention}.fn.to_qkv.weight", ForeignTensor((3 * dim, dim), packed)
    for name, own, shape in (
        (f"{attention}.norm.weight", "norm_attention.weight", (dim,)),
        (f"{attention}.norm.bias", "norm_attention.bias", (dim,)),
        (f"{attention}.fn.to_out.0.weight", "attention.out.weight", (dim, dim)),
        (f"{attention}.fn.to_out.0.bias", "attention.out.bias", (dim,)),
        (f"{ffn}.norm.weight", "norm_ffn.weight", (dim,)),
        (f"{ffn}.norm.bias", "norm_ffn.bias", (dim,)),
        (f"{ffn}.fn.net.0.weight", "ffn.fc1.weight", (hidden, dim)),
        (f"{ffn}.fn.net.0.bias", "ffn.fc1.bias", (hidden,)),
        (f"{ffn}.fn.net.3.weight", "ffn.fc2.weight", (dim, hidden)),
        (f"{ffn}.fn.net.3.bias", "ffn.fc2.bias", (dim,)),
    ):
        yield name, ForeignTensor(shape, (f"{ours}.{own}",))


def _foreign(config: FormerDferConfig) -> Mapping[str, ForeignTensor]:
    d, inner = config.embed_dim, config.spatial_dim
    with torch.device("meta"):
        trunk = Trunk(config.stem_kernel, config.stage_widths, config.stage_blocks).state_dict()
    found = {f"s_former.{name}": ForeignTensor(tuple(t.shape), (f"trunk.{name}",)) for name, t in trunk.items()}
    found["s_former.pos_embedding"] = ForeignTensor((1, config.places, inner), ("pos_spatial",))
    found["t_former.cls_token"] = ForeignTensor((1, 1, d), ("cls",))
    found["t_former.pos_embedding"] = ForeignTensor((1, 1 + config.frames, d), ("pos_temporal",))
    found["fc.weight"] = ForeignTensor((config.classes, d), ("head.weight",))
    found["fc.bias"] = ForeignTensor((config.classes,), ("head.bias",))
    layers = "spatial_transformer.layers"  # so they are called in both halves
    for index in range(config.spatial_depth):
        found |= _block(f"s_former.{layers}.{index}", f"spatial_blocks.{index}", inner, config.spatial_ffn)
    for index in range(config.temporal_depth):
        found |= _block(f"t_former.{layers}.{index}", f"temporal_blocks.{index}", d, config.temporal_ffn)
    return found


FORMER_DFER = Family(
    name=FormerDferConfig.family,
    title="Former-DFER",
    paper="Zhao, Liu: Former-DFER, ACM MM 2021",
    network=FormerDfer,
    recognise=_recognise,
    config_of=_config_of,
    foreign=_foreign,
    licences=Licences(
        code="the authors' code is under the MIT licence; none of it is in this program",
        weights="their page states no licence for the weights",
        data="DFEW is for academic, non-commercial use; weights that were trained on it follow its terms",
    ),
    settings=(
        FamilySetting("heads", lambda c: (c.spatial_heads, c.temporal_heads), assumed=_PUBLISHED.temporal_heads),
        FamilySetting("frames", lambda c: c.frames, ("frames",), "", _PUBLISHED.frames, "the positions"),
        FamilySetting("size", lambda c: c.image_size, ("image_size",), "", _PUBLISHED.image_size, "the positions"),
        FamilySetting("sampling", lambda c: str(c.sampling), assumed=str(_PUBLISHED.sampling)),
        FamilySetting("order of the classes", lambda c: c.labels, ("labels", "data_set"), "", "that of DFEW"),
    ),
    published=(
        PublishedScore("DFEW", 53.69, 65.70, "five folds; each fold's epoch was chosen on its own test clips"),
        PublishedScore("FERV39k", 36.88, 45.72, "no weights are public; the epoch was chosen on the test clips"),
    ),
    published_config=_PUBLISHED,
)
