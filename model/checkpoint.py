"""Checkpoints: a folder with `model.safetensors` and `config.json`.

`.pt` files are read only through `torch.load(weights_only=True)`; one that carries anything but tensors and plain
values is refused and never executed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..bundle.files import atomic_folder, dump_json, parse_json, read_file, read_regular, sha256
from ..errors import BadInputError, LogoformerError, MachineError, RefusedError, UsageError, advising, command
from .networks.config import ModelConfig
from .networks.logoformer import LogoFormer
from .networks.weight_files import load_plain, load_safetensors

FORMAT = "logoformer-checkpoint"
FORMAT_VERSION = 1
_FILES = {"config.json", "model.safetensors"}
MAX_WEIGHT_BYTES = 4 << 30
_ANOTHER = command("logoformer", "init", "--preset", "base", "-o", "new-checkpoint")


def save_checkpoint(folder: str | os.PathLike[str], model: LogoFormer, extra: Mapping[str, Any] | None = None) -> Path:
    """Writes a checkpoint folder, whole or not at all; an older checkpoint there is replaced.

    Args:
        folder: where; a folder that is not a checkpoint is never replaced.
        model: its weights and configuration.
        extra: JSON values that say where it came from (recipe, metrics, seeds).

    Returns:
        The folder.

    Raises:
        BadInputError: something that is not a checkpoint is there.
        MachineError: the disk is full or may not be written.
    """
    from safetensors.torch import save

    final = Path(folder)
    check_replaceable(final)
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": model.config.to_json(),
        "extra": dict(extra or {}),
    }
    with atomic_folder(final) as part:
        for name, data in (("model.safetensors", save(state)), ("config.json", dump_json(config))):
            with (part / name).open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
    return final


def check_replaceable(folder: str | os.PathLike[str]) -> None:
    """Refuse a place that holds anything but an older checkpoint.

    Asked before a long training too, whose result would have no place.

    Raises:
        BadInputError: a file, or a folder with anything in it that is not a checkpoint's.
    """
    final = Path(folder)
    if not os.path.lexists(final):
        return
    ours = final.is_dir() and not final.is_symlink() and {item.name for item in final.iterdir()} <= _FILES
    if ours and (final / "config.json").is_file():
        try:
            config = parse_json(read_regular(final, "config.json", 4 << 20), f"{final}/config.json")
            ours = isinstance(config, dict) and config.get("format") == FORMAT
        except LogoformerError:
            ours = False
    if not ours:
        raise BadInputError(
            f"{final} exists and is not a checkpoint; it was left alone.", next="name another folder with -o"
        )


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[LogoFormer, dict[str, Any]]:
    """Reads a checkpoint folder, or a `.pt` file of `{"config": ..., "state_dict": ...}`.

    Returns:
        The model in evaluation mode, and provenance: `{"sha256": of the weights, "extra": ...}`.

    Raises:
        BadInputError: missing, empty, of another program, or weights that do not fit the configuration.
        RefusedError: a pickle that carries code, or a file that is not a regular file.
    """
    given = Path(path)
    if not os.path.exists(given):  # noqa: PTH110 - a name that is too long is no checkpoint either; pathlib raises
        raise BadInputError(
            f"There is no checkpoint at {given}.",
            next=command("logoformer", "init", "--preset", "base", "-o", given),
        )
    with advising(_ANOTHER):
        config, state, digest = _read_folder(given) if given.is_dir() else _read_pt(given)
        return _assemble(config, state, given), {"sha256": digest, "extra": _extra(config, given)}


def _read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    missing = [name for name in ("config.json", "model.safetensors") if not (folder / name).exists()]
    if missing:
        raise BadInputError(
            f"{folder} is not a checkpoint: {' and '.join(missing)} not found.",
            cause="an empty folder, an unfinished copy, or a checkpoint of another program",
        )
    config = parse_json(read_regular(folder, "config.json", 4 << 20), f"{folder}/config.json")
    weights = read_regular(folder, "model.safetensors", MAX_WEIGHT_BYTES)
    return config, load_safetensors(weights, f"{folder}/model.safetensors"), sha256(weights)


def _read_pt(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    data = read_file(path, MAX_WEIGHT_BYTES)
    content = load_plain(data, str(path))
    if not isinstance(content, dict) or "state_dict" not in content or "config" not in content:
        raise BadInputError(
            f"{path} holds no 'config' and 'state_dict'.",
            cause="a checkpoint of another program: its architecture and labels are unknown",
            next="torch.save({'config': the 'model' of a config.json of the same preset, 'state_dict': ...}, path)",
        )
    return {"format": FORMAT, **content, "model": content["config"]}, content["state_dict"], sha256(data)


def _assemble(config: Any, state: Mapping[str, Tensor], shown: Path) -> LogoFormer:
    if not isinstance(config, dict) or config.get("format") != FORMAT or "model" not in config:
        raise BadInputError(
            f"{shown} has a config.json that is not this program's.", cause="a checkpoint of another program"
        )
    version = config.get("format_version", FORMAT_VERSION)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise RefusedError(
            f"{shown} has checkpoint format {version!r}; this version reads up to {FORMAT_VERSION}.",
            next="pip install --upgrade logoformer",
        )
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BadInputError(f"The 'state_dict' of {shown} is not a dict of tensors.")
    try:
        described = ModelConfig.from_json(config["model"])
    except (BadInputError, UsageError) as error:  # the file's fault, and not the caller's
        raise BadInputError(f"{shown}: {error.what}", cause=error.cause, next=error.next) from error
    if described.depth + sum(described.stage_blocks) > len(state):
        raise BadInputError(f"{shown} describes more layers than its weights have tensors ({len(state)}).")
    with torch.device("meta"):  # without memory: sizes that the file only claims are compared first
        wanted = LogoFormer(described).state_dict()
    missing = sorted(wanted.keys() - state.keys())
    unknown = sorted(state.keys() - wanted.keys(), key=str)
    shapes = [
        f"{name}: {list(state[name].shape)} in the file, {list(wanted[name].shape)} in the model"
        for name in sorted(wanted.keys() & state.keys())
        if state[name].shape != wanted[name].shape
    ]
    if missing or unknown or shapes:
        raise BadInputError(
            f"The weights of {shown} do not fit its configuration: {len(missing)} missing, {len(unknown)} unknown, "
            f"{len(shapes)} of another shape.",
            cause="config.json and the weights come from different trainings",
            log=[str(name) for name in (*missing[:3], *unknown[:3], *shapes[:3])],
        )
    try:
        model = LogoFormer(described)
        model.load_state_dict(state)
    except RuntimeError as error:  # memory: names and shapes were checked above
        raise MachineError(f"The weights of {shown} could not be loaded: {error}.") from error
    return model.eval()


def _extra(config: Mapping[str, Any], shown: Path) -> Any:
    """The checkpoint's origin, which goes into the bundle's index: plain JSON."""
    extra = config.get("extra", {})
    try:
        dump_json(extra)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInputError(
            f"'extra' of {shown} is not plain JSON: {error}.", next="save numbers and texts there, no tensors"
        ) from error
    return extra
