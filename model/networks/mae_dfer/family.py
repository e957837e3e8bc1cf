"""MAE-DFER's public fine-tuned files: names, shapes, settings, rights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ....clips import DFEW_LABELS, Sampling
from ....errors import BadInputError
from ..family import (
    Family,
    FamilySetting,
    ForeignTensor,
    Licences,
    PublishedScore,
    Settings,
    Shapes,
    assumed_words,
    fitting_labels,
    refuse_disagreement,
    required,
    said_number,
    whole,
)
from .config import MAE_DFER_PRESETS, MaeDferConfig
from .model import MaeDfer

_PUBLISHED = MAE_DFER_PRESETS["mae-dfer"]
# The order of classes in the authors' lists.
DATA_LABELS: Mapping[str, tuple[str, ...]] = {
    "DFEW": DFEW_LABELS,
    "FERV39k": DFEW_LABELS,
    "MAFW": (
        "anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise", "contempt", "anxiety",
        "helplessness", "disappointment",
    ),
    "CREMA-D": ("angry", "disgust", "fear", "happy", "neutral", "sad"),
    "RAVDESS": ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"),
}  # fmt: skip
_ENTRY_HEADS = {"vit_base_dim512_no_depth_patch16_160": (512, 8), "vit_base_patch16_160": (768, 12)}
_READ = {"region": "region", "org": "local", "all": "all"}
# What the authors' own ablations change, and the only value that their published files have.
_FLAGS: Mapping[str, Any] = {
    "attn_type": "local_global", "lg_first_attn_type": "self", "lg_third_attn_type": "cross", "lg_no_second": False,
    "lg_no_third": False, "lg_attn_param_sharing_first_third": False, "lg_attn_param_sharing_all": False,
    "use_mean_pooling": True,
}  # fmt: skip
_ATTENTIONS = {"first_attn": "local_attention", "second_attn": "global_attention", "third_attn": "interaction"}
_NORMS = {
    "first_attn_norm0": "norm_local", "second_attn_norm0": "norm_global", "third_attn_norm0": "norm_tokens",
    "third_attn_norm1": "norm_keys", "norm2": "norm_ffn",
}  # fmt: skip


def _recognise(shapes: Shapes) -> bool:
    return any(re.search(r"(^|\.)(lg_region_tokens$|blocks\.\d+\.first_attn\.)", name) for name in shapes)


def _config_of(shapes: Shapes, args: Settings, options: Settings) -> MaeDferConfig:
    _refuse_other_kinds(shapes, args)
    d, channels, tubelet, patch, _ = shapes["patch_embed.proj.weight"]
    blocks = {int(found[1]) for name in shapes if (found := re.match(r"blocks\.(\d+)\.", name))}
    depth, classes = max(blocks) + 1, shapes["head.weight"][0]
    hidden = shapes["blocks.0.mlp.fc1.weight"][0]
    for name, shaped in (("depth", depth), ("tubelet_size", tubelet), ("nb_classes", classes)):
        refuse_disagreement(name, args.get(name), shaped)
    refuse_disagreement("The number of colour channels", 3, channels)
    said = options.get("region") or required(args, options, "lg_region_size", "--region T,H,W")
    if not isinstance(said, (list, tuple)) or len(said) != 3:
        raise BadInputError(f"lg_region_size is {said!r:.80}; three sizes are expected: time, rows, columns.")
    time, rows, columns = (whole(size) for size in said)
    if time is None or rows is None or columns is None:
        raise BadInputError(
            f"lg_region_size is {said!r:.80}; three whole numbers from 1 are expected.",
            cause="the file's own arguments were changed, or mean something else by that name",
            next="say what it was trained with: --region T,H,W",
        )
    region = (time, rows, columns)
    frames = said_number(options, "frames", args, "num_frames", _PUBLISHED.frames)
    data = str(options.get("data_set") or args.get("data_set") or "DFEW")
    stride = said_number(options, "stride", args, "sampling_rate", 1 if data == "FERV39k" else 4)
    read = str(options.get("read") or args.get("lg_classify_token_type") or "region")
    size = said_number(options, "image_size", args, "input_size", _PUBLISHED.image_size)
    made = replace(
        _PUBLISHED,
        preset=str(options.get("preset") or "mae-dfer"),
        image_size=size,
        patch=patch,
        tubelet=tubelet,
        embed_dim=d,
        heads=_heads(d, args, options),
        ffn_dim=hidden,
        depth=depth,
        region=region,
        read=_READ.get(read, read),
        labels=fitting_labels(classes, options.get("labels"), DATA_LABELS.get(data, ()), data),
        sampling=Sampling.strided(frames, stride),
    )
    count = shapes["lg_region_tokens"][0]
    refuse_disagreement(
        f"The number of regions ({frames} frames of {size} pixels, regions of {'x'.join(map(str, region))})",
        made.regions, count, assumed_words(_SETTINGS, args, options),
    )  # fmt: skip
    return made


def _refuse_other_kinds(shapes: Shapes, args: Settings) -> None:
    if any(name.startswith(("encoder.", "decoder.")) or name == "mask_token" for name in shapes):
        raise BadInputError(
            "This is a pre-training file of MAE-DFER: an encoder and a decoder, and no classifier.",
            cause="the file for fine-tuning was taken instead of a fine-tuned one",
            next="take the fine-tuned checkpoint of a data set (checkpoint-best.pth)",
        )
    other = [f"{name}={args[name]}" for name, value in _FLAGS.items() if args.get(name, value) != value]
    names = set(shapes)
    if any(".first_attn_norm1." in name for name in names):
        other.append("lg_first_attn_type=cross")
    if not any(".third_attn_norm1." in name for name in names):
        other.append("lg_third_attn_type=self, or no third attention")
    if not any(".second_attn." in name for name in names):
        other.append("no second attention")
    if any(name.startswith("norm.") or ".gamma_" in name or name in ("pos_embed", "cls_token") for name in names):
        other.append("learned positions, layer scale, or a classification token")
    if other:
        raise BadInputError(
            f"The network of this file is another one than the published MAE-DFER: {', '.join(dict.fromkeys(other))}.",
            cause="an ablation, or a changed copy of the authors' code",
            next="take a file that was trained with the authors' published settings",
        )
    wanted = ("patch_embed.proj.weight", "lg_region_tokens", "head.weight", "blocks.0.mlp.fc1.weight")
    missing = [name for name in wanted if name not in shapes]
    if missing or len(shapes["patch_embed.proj.weight"]) != 5:
        raise BadInputError(
            f"The file has MAE-DFER's names but not {', '.join(missing) or 'a convolution over tubelets'}.",
            cause="a part of a checkpoint, or a pre-training file with other names",
            next="take the fine-tuned checkpoint of a data set (checkpoint-best.pth)",
        )


def _heads(dim: int, args: Settings, options: Settings) -> int:
    """The heads of the entry that the file names.

    Of a width that is not that entry's, only an option can tell.
    """
    entry = _ENTRY_HEADS.get(str(args.get("model")))
    if options.get("heads"):
        return int(options["heads"])
    if entry is None and not args and dim == _PUBLISHED.embed_dim:
        return _PUBLISHED.heads
    if entry is not None and entry[0] == dim:
        return entry[1]
    return int(required({}, options, "heads", f"--heads N; {dim} channels must be a multiple of it"))


def _foreign(config: MaeDferConfig) -> Mapping[str, ForeignTensor]:
    d, hidden = config.embed_dim, config.ffn_dim
    kernel = (d, 3, config.tubelet, config.patch, config.patch)
    found = {
        "lg_region_tokens": ForeignTensor((config.regions, d), ("region_tokens",)),
        "patch_embed.proj.weight": ForeignTensor(kernel, ("embed.weight",)),
        "patch_embed.proj.bias": ForeignTensor((d,), ("embed.bias",)),
        "fc_norm.weight": ForeignTensor((d,), ("norm.weight",)),
        "fc_norm.bias": ForeignTensor((d,), ("norm.bias",)),
        "head.weight": ForeignTensor((config.classes, d), ("head.weight",)),
        "head.bias": ForeignTensor((config.classes,), ("head.bias",)),
    }
    shapes = {"q.weight": (d, d), "proj.weight": (d, d), "proj.bias": (d,), "q_bias": (d,), "v_bias": (d,)}
    ours = {"q.weight": "q.weight", "proj.weight": "out.weight", "proj.bias": "out.bias", "q_bias": "q.bias",
            "v_bias": "v.bias"}  # fmt: skip
    for index in range(config.depth):
        block = f"blocks.{index}"
        for theirs, own in _NORMS.items():
            for kind in ("weight", "bias"):
                found[f"{block}.{theirs}.{kind}"] = ForeignTensor((d,), (f"{block}.{own}.{kind}",))
        for theirs, own in _ATTENTIONS.items():
            for name, shape in shapes.items():
                found[f"{block}.{theirs}.{name}"] = ForeignTensor(shape, (f"{block}.{own}.{ours[name]}",))
            packed = tuple(f"{block}.{own}.{part}.weight" for part in "kv")
            found[f"{block}.{theirs}.kv.weight"] = ForeignTensor((2 * d, d), packed)
        for layer, shape in (("fc1", (hidden, d)), ("fc2", (d, hidden))):
            found[f"{block}.mlp.{layer}.weight"] = ForeignTensor(shape, (f"{block}.ffn.{layer}.weight",))
            found[f"{block}.mlp.{layer}.bias"] = ForeignTensor(shape[:1], (f"{block}.ffn.{layer}.bias",))
    return found


_REGIONS = "the number of regions, together with region, frames and size"
_SETTINGS = (
    FamilySetting("heads", lambda c: c.heads, ("heads",), "model", _PUBLISHED.heads),
    FamilySetting("region", lambda c: c.region, ("region",), "lg_region_size", checked=_REGIONS),
    FamilySetting("frames", lambda c: c.frames, ("frames",), "num_frames", _PUBLISHED.frames, _REGIONS),
    FamilySetting("size", lambda c: c.image_size, ("image_size",), "input_size", _PUBLISHED.image_size, _REGIONS),
    FamilySetting("stride", lambda c: c.sampling.stride, ("stride",), "sampling_rate", 4),
    FamilySetting("tokens that are read", lambda c: c.read, (), "lg_classify_token_type", "region"),
    FamilySetting("order of the classes", lambda c: c.labels, ("labels", "data_set"), "data_set", "that of DFEW"),
)
_CHOSEN = "the epoch was chosen on the test clips; measured in mixed FP16"
MAE_DFER = Family(
    name=MaeDferConfig.family,
    title="MAE-DFER",
    paper="Sun, Lian, Liu, Tao: MAE-DFER, ACM MM 2023, arXiv 2307.02227",
    network=MaeDfer,
    recognise=_recognise,
    config_of=_config_of,
    foreign=_foreign,
    licences=Licences(
        code="the authors' code is under the MIT licence; none of it is in this program",
        weights="their page states no licence for the weights",
        data="DFEW, FERV39k and MAFW are for academic, non-commercial use; weights that were trained on them follow "
        "their terms",
    ),
    settings=_SETTINGS,
    published=(
        PublishedScore("DFEW", 63.41, 74.43, f"five folds; {_CHOSEN}"),
        PublishedScore("FERV39k", 43.12, 52.07, f"{_CHOSEN}; the public file: 43.29 / 52.50"),
        PublishedScore("MAFW", 41.62, 54.31, f"five folds; {_CHOSEN}; the public files: 42.36 / 55.03"),
    ),
    published_config=_PUBLISHED,
)
