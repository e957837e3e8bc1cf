"""Checkpoints: a folder with `model.safetensors` and `config.json`.

`.pt` files are read only through `torch.load(weights_only=True)`; one that carries anything but tensors and plain
values is refused and never executed.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..bundle.files import atomic_folder, dump_json, parse_json, read_file, read_regular, sha256
from ..errors import (
    INSTALL_NEWER,
    BadInputError,
    LogoformerError,
    MachineError,
    RefusedError,
    UsageError,
    command,
    one_of,
)
from .foreign.misfits import advise_path, explain_misfit, import_command
from .foreign.paths import WEIGHTS, looks_like_url
from .networks.configs import config_from_json
from .networks.contract import NetworkConfig
from .networks.families import build_network
from .networks.network import Network
from .networks.shapes import network_state
from .networks.values import refuse_kinds, refuse_scaling, refuse_value
from .networks.weight_files import load_plain, load_safetensors, write_safetensors

_log = logging.getLogger(__name__)

FORMAT = "logoformer-checkpoint"
FORMAT_VERSION = 1
_FILES = {"config.json", "model.safetensors"}
MAX_WEIGHT_BYTES = 4 << 30
_ANOTHER = command("logoformer", "init", "--preset", "base", "-o", "new-checkpoint")


def save_checkpoint(folder: str | os.PathLike[str], model: Network, extra: Mapping[str, Any] | None = None) -> Path:
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
    with atomic_folder(final) as part:
        _write_synced(part / "model.safetensors", save(state))
        _write_synced(part / "config.json", _described(model.config, extra))
    return final


def write_checkpoint(
    folder: str | os.PathLike[str],
    config: NetworkConfig,
    tensors: Iterable[tuple[str, Tensor]],
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """`save_checkpoint` for tensors that come one after the other.

    They are never in memory together.

    Args:
        folder: as there.
        config: of the network.
        tensors: all of its state dict, in any order.
        extra: as there.

    Raises:
        BadInputError: something that is not a checkpoint is there; and what `tensors` raises.
        MachineError: the disk is full or may not be written.
    """
    final = Path(folder)
    check_replaceable(final)
    specs = network_state(config)
    with atomic_folder(final) as part:
        write_safetensors(part / "model.safetensors", specs, tensors)
        _write_synced(part / "config.json", _described(config, extra))
    return final


def _described(config: NetworkConfig, extra: Mapping[str, Any] | None) -> bytes:
    return dump_json(
        {"format": FORMAT, "format_version": FORMAT_VERSION, "model": config.to_json(), "extra": dict(extra or {})}
    )


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def check_replaceable(folder: str | os.PathLike[str]) -> None:
    """Refuse a place that holds anything but an older checkpoint.

    Asked before a long training too, whose result would have no place.

    Raises:
        BadInputError: a file, a link, or a folder with anything in it that is not a checkpoint's.
    """
    final = Path(folder)
    if not os.path.lexists(final):
        return
    if final.is_symlink():
        raise BadInputError(
            f"{final} is a link; a checkpoint takes the place of what stands there, and the link was left alone.",
            next="name the folder that it leads to, or another one, with -o",
        )
    ours = final.is_dir() and {item.name for item in final.iterdir()} <= _FILES
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


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[Network, dict[str, Any]]:
    """Reads a checkpoint folder, or a `.pt` file of `{"config": ..., "state_dict": ...}`.

    Returns:
        The model in evaluation mode, and provenance: `{"sha256": of the weights, "extra": ...}`.

    Raises:
        BadInputError: missing, empty, of another program, or weights that do not fit the configuration.
        RefusedError: a pickle that carries code, or a file that is not a regular file.
    """
    given = Path(path)
    if not os.path.exists(given):  # noqa: PTH110 - a name that is too long is no checkpoint either; pathlib raises
        raise _not_there(given)
    try:
        config, state, digest = _read_folder(given) if given.is_dir() else _read_pt(given)
        return _assemble(config, state, given), {"sha256": digest, "extra": _extra(config, given)}
    except LogoformerError as error:
        error.next = error.next or advise_path(given) or _ANOTHER
        raise


def _not_there(given: Path) -> BadInputError:
    if os.path.lexists(given):
        return BadInputError(
            f"{given} is a symbolic link that leads nowhere.",
            cause="what it pointed to was removed: a cache that was cleaned, a drive that is not mounted",
            next="name the checkpoint itself, or copy it again",
        )
    if looks_like_url(given):
        return BadInputError(
            f"There is no checkpoint at {given}.",
            cause="a URL: nothing is downloaded here",
            next="download the file, and give its path",
        )
    return BadInputError(
        f"There is no checkpoint at {given}.", next=command("logoformer", "init", "--preset", "base", "-o", given)
    )


def _read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    missing = [name for name in ("config.json", "model.safetensors") if not (folder / name).exists()]
    if missing and (folder / "manifest.json").is_file():
        raise BadInputError(
            f"{folder} is not a checkpoint, but a bundle.",
            cause="a bundle is what a checkpoint becomes by export",
            next=command("logoformer", "inspect", folder),
        )
    if missing:
        weights = sorted(item for item in folder.iterdir() if item.suffix in WEIGHTS and item.is_file())
        raise BadInputError(
            f"{folder} is not a checkpoint: {' and '.join(missing)} not found.",
            cause=f"a checkpoint of another program: it holds {weights[0].name}"
            if weights
            else "an empty folder, an unfinished copy, or a checkpoint of another program",
            next=import_command(weights[0]) if weights else "",
        )
    config = parse_json(read_regular(folder, "config.json", 4 << 20), f"{folder}/config.json")
    data = read_regular(folder, "model.safetensors", MAX_WEIGHT_BYTES)
    return config, load_safetensors(data, f"{folder}/model.safetensors"), sha256(data)


def _read_pt(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    data = read_file(path, MAX_WEIGHT_BYTES)
    try:
        content = load_plain(data, str(path))
    except RefusedError as error:
        error.next = import_command(path)  # it runs nothing, and takes what trainings of this field save
        raise
    if not isinstance(content, dict) or "state_dict" not in content or "config" not in content:
        found = [key for key in content if isinstance(key, str)][:4] if isinstance(content, dict) else []
        raise BadInputError(
            f"{path} holds no 'config' and 'state_dict'{f', but {one_of(found)}' if found else ''}.",
            cause="a checkpoint of another program: its architecture and labels are unknown",
            next=import_command(path),
        )
    return {"format": FORMAT, **content, "model": content["config"]}, content["state_dict"], sha256(data)


def _assemble(config: Any, state: Mapping[str, Tensor], shown: Path) -> Network:
    if not isinstance(config, dict) or config.get("format") != FORMAT or "model" not in config:
        raise BadInputError(
            f"{shown} has a config.json that is not this program's.", cause="a checkpoint of another program"
        )
    version = config.get("format_version", FORMAT_VERSION)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise RefusedError(
            f"{shown} has checkpoint format {version!r}; this version reads up to {FORMAT_VERSION}.",
            next=INSTALL_NEWER,
        )
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BadInputError(
            f"The 'state_dict' of {shown} is not a dict of tensors.",
            cause="weights inside another dictionary, or a list of them",
            next=import_command(shown),
        )
    try:
        described = config_from_json(config["model"])
    except (BadInputError, UsageError) as error:  # the file's fault, and not the caller's
        raise BadInputError(f"{shown}: {error.what}", cause=error.cause, next=error.next) from error
    if described.least_tensors > len(state):
        raise BadInputError(f"{shown} describes more layers than its weights have tensors ({len(state)}).")
    wanted = network_state(described)  # without memory: sizes that the file only claims are compared first
    missing = sorted(wanted.keys() - state.keys())
    unknown = sorted(state.keys() - wanted.keys(), key=str)
    shapes = [
        f"{name}: {list(state[name].shape)} in the file, {list(wanted[name].shape)} in the model"
        for name in sorted(wanted.keys() & state.keys())
        if state[name].shape != wanted[name].shape
    ]
    refuse_kinds(state, str(shown), wanted)
    if missing or unknown or shapes:
        cause, mend = explain_misfit(shown, [*map(str, state)], missing, [*map(str, unknown)], len(shapes))
        raise BadInputError(
            f"The weights of {shown} do not fit its configuration: {len(missing)} missing, {len(unknown)} unknown, "
            f"{len(shapes)} of another shape.",
            cause=cause,
            next=mend,
            log=[str(name) for name in (*missing[:3], *unknown[:3], *shapes[:3])],
        )
    refuse_scaling(described.mean, described.std, str(shown))
    for name in wanted:
        refuse_value(name, state[name].to(wanted[name].dtype), str(shown))
    others = Counter(state[name].dtype for name in wanted if wanted[name].is_floating_point())
    for dtype, count in others.items():
        if dtype != torch.float32:
            _log.warning("%s: %d tensors are %s; they are used as float32", shown, count, str(dtype)[6:])
    try:
        model = build_network(described)
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
