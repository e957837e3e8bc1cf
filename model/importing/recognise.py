"""Which network a file's tensors belong to, and its configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...bundle.files import parse_json, read_regular
from ...errors import BadInputError, LogoformerError, UsageError, one_of
from ..foreign.inert import StoredTensor
from ..networks.configs import config_from_json
from ..networks.contract import NetworkConfig, check_labels
from ..networks.families import FAMILIES
from ..networks.family import Family, Settings, assumed_options, assumed_words

MOST_TOKENS = 1 << 17
MOST_LEVELS = 4
_SIZES = "correct --region, --frames, --size or --heads, which go before the file's own arguments"
# (pattern of a name, what the network is, what to do)
_OTHERS = (
    (r"^(encoder|decoder)\.blocks\.|^mask_token$|^encoder_to_decoder", "a masked autoencoder's pre-training",
     "take the checkpoint that was fine-tuned on expressions: it has a classifier (head.weight)"),
    (r"^(image_encoder|visual|text_encoder|prompt_learner)\.", "a CLIP model, such as DFER-CLIP",
     "DFER-CLIP is not supported; take Former-DFER's or MAE-DFER's weights"),
    (r"(^|\.)blocks\.\d+\.attn\.qkv\.", "a plain vision transformer, such as VideoMAE, SVFAP or HiCMAE",
     "take Former-DFER's or MAE-DFER's weights"),
    (r"^(temporal_net|transformer)\.", "a transformer of another project",
     "DFER-CLIP and the like are not supported; of a LOGO-Former, map the names with --suggest-map"),
    (r"^(backbone\.)?(conv1\.weight|layer1\.0\.conv1\.weight)$", "a ResNet alone: weights for a trunk",
     "give it to the training: logoformer train --trunk FILE"),
)  # fmt: skip


def choose_family(
    tensors: Mapping[str, StoredTensor], named: str | None, shown: str, suggesting: str, recognising: str
) -> Family:
    """The family of a file's tensors.

    Args:
        tensors: by name, without prefix.
        named: by the caller; None recognises it.
        shown: the file, for messages.
        suggesting: the command that suggests a map of names.
        recognising: the command that leaves the family to the file.

    Raises:
        BadInputError: none fits, or another one than was named.
    """
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    fitting = [family for family in FAMILIES.values() if family.recognise(shapes)]
    if named is not None:
        if fitting and FAMILIES[named] not in fitting:
            raise BadInputError(
                f"{shown} holds a {fitting[0].title}, not a {FAMILIES[named].title}.",
                cause="another file, or the wrong --family",
                next=recognising,
            )
        if not fitting:
            raise _unknown(tensors, shown, f"a {FAMILIES[named].title}", suggesting)
        return FAMILIES[named]
    if len(fitting) != 1:
        raise _unknown(tensors, shown, f"of the families {one_of(FAMILIES)}", suggesting)
    return fitting[0]


def _unknown(tensors: Mapping[str, StoredTensor], shown: str, wanted: str, suggesting: str) -> BadInputError:
    for pattern, what, advice in _OTHERS:
        if any(re.search(pattern, name) for name in tensors):
            return BadInputError(
                f"{shown} is not {wanted}.",
                cause=f"by its names it is {what}",
                next=advice,
                log=[f"in the file: {name}" for name in list(tensors)[:3]],
            )
    return BadInputError(
        f"{shown} is not {wanted}.",
        cause="a network of another project, or a LOGO-Former whose names differ from ours",
        next=suggesting,
        log=[f"in the file: {name}" for name in list(tensors)[:3]],
    )


def family_config(
    family: Family, tensors: Mapping[str, StoredTensor], settings: Settings, options: Settings, shown: str
) -> NetworkConfig:
    """The configuration of a file of a family.

    Args:
        family: of the file.
        tensors: by name, without prefix.
        settings: the file's own arguments.
        options: the caller's; they go first.
        shown: the file, for messages.

    Raises:
        BadInputError: shapes, arguments and options do not fit each other, or something is known from none of them.
        UsageError: labels that no network can have.
    """
    if labels := options.get("labels"):
        check_labels(tuple(labels))
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    assumed = assumed_words(family.settings, settings, options)
    try:
        config = family.config_of(shapes, settings, options)
    except BadInputError as error:
        cause = error.cause or "the file's own arguments lack it, or say it in another way"
        raise BadInputError(f"{shown}: {error.what}", cause=cause, next=error.next or _SIZES, log=error.log) from error
    except UsageError as error:  # sizes that do not fit each other; whose they are, the cause says
        cause, step = _sizes_of(options, assumed), error.next or _SIZES
        if lacking := assumed_options(family.settings, settings, options):
            step = f"name what was assumed with {' and '.join(lacking)}; where that is right, {step}"
        raise BadInputError(f"{shown}: {error.what}", cause=cause, next=step) from error
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise BadInputError(
            f"{shown}: its sizes cannot be read as those of a {family.title} ({error}).",
            cause="shapes or arguments that the authors' files do not have",
            next=_SIZES,
        ) from error
    if config.least_tensors > len(tensors):
        raise BadInputError(
            f"{shown}: its names describe more layers than it has tensors ({len(tensors)}).",
            cause="a part of a checkpoint, or a damaged file",
        )
    if config.frames * config.tokens_per_frame > MOST_TOKENS:
        raise BadInputError(
            f"{shown}: {config.frames} frames of {config.image_size} pixels would make "
            f"{config.frames * config.tokens_per_frame} tokens; at most {MOST_TOKENS} are taken.",
            cause=_sizes_of(options, assumed),
            next=_SIZES,
        )
    return config


def _sizes_of(options: Settings, assumed: str) -> str:
    """Whose the sizes are."""
    return f"{_source(options)}; {assumed}" if assumed else _source(options)


def _source(options: Settings) -> str:
    given = [name for name, value in options.items() if value is not None]
    return f"the options for {', '.join(given)}, or the file's own arguments" if given else "the file's own arguments"


# ----------------------------------------------------------------------------------------------- files of this program
def own_config(content: Any, path: Path, count: int) -> NetworkConfig | None:
    """The configuration that this program wrote into or beside a file; None where there is none.

    Args:
        content: of `ForeignFile`.
        path: of the file; a `config.json` beside it counts.
        count: tensors of the file.

    Raises:
        BadInputError: it is damaged, or describes more layers than there are tensors.
    """
    given = content.get("config") if isinstance(content, dict) else None
    if isinstance(given, dict):
        given = _json_of(given, MOST_LEVELS)
    elif path.suffix == ".safetensors" and (path.parent / "config.json").is_file():
        try:
            beside = parse_json(read_regular(path.parent, "config.json", 4 << 20), str(path.parent / "config.json"))
        except LogoformerError:
            return None
        ours = isinstance(beside, dict) and beside.get("format") == "logoformer-checkpoint"
        given = beside.get("model") if ours else None
    if not isinstance(given, dict) or not {"preset", "labels", "sampling"} <= given.keys():
        return None
    try:
        config = config_from_json(given)
    except UsageError as error:
        raise BadInputError(f"The configuration of {path}: {error.what}", cause=error.cause, next=error.next) from error
    if config.least_tensors > count:
        raise BadInputError(
            f"The configuration of {path} describes more layers than the file has tensors ({count}).",
            cause="a configuration of another file",
        )
    return config


def _json_of(value: Any, levels: int) -> Any:
    """Plain values of a dictionary, a few levels deep."""
    if isinstance(value, dict) and levels:
        return {key: _json_of(item, levels - 1) for key, item in list(value.items())[:200] if isinstance(key, str)}
    if isinstance(value, (list, tuple)) and levels:
        return [_json_of(item, levels - 1) for item in value[:200]]
    return value if isinstance(value, (str, int, float, bool)) or value is None else None
