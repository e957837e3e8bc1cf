"""A checkpoint is a folder: `model.safetensors` and `config.json`.

`.pt` files are read only through `torch.load(weights_only=True)`; one that carries anything but tensors and plain
values is refused and never executed.
"""

from __future__ import annotations

import io
import os
import pickle
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import BadInputError, MachineError, RefusedError, command
from ..files import dump_json, parse_json, read_file, read_regular, sha256, writing_failed
from .config import ModelConfig
from .logoformer import LogoFormer

FORMAT = "logoformer-checkpoint"
FORMAT_VERSION = 1
MAX_WEIGHT_BYTES = 4 << 30


def save_checkpoint(folder: str | os.PathLike[str], model: LogoFormer, extra: Mapping[str, Any] | None = None) -> Path:
    """Writes a checkpoint folder; it appears whole or not at all, and one that stood there is replaced.

    Args:
        folder: where; a folder that is not a checkpoint is never replaced.
        model: its weights and configuration.
        extra: JSON values that say where it came from (recipe, metrics, seeds).

    Returns:
        The folder.

    Raises:
        BadInputError: something that is not a checkpoint stands there.
        MachineError: the disk is full or may not be written.
    """
    from safetensors.torch import save

    final = Path(folder)
    if final.exists() and (not final.is_dir() or (any(final.iterdir()) and not (final / "config.json").is_file())):
        raise BadInputError(f"{final} exists and is not a checkpoint; it was left alone.", next="name another folder")
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": model.config.to_json(),
        "extra": dict(extra or {}),
    }
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}-"))
    except OSError as error:
        raise writing_failed(error, final) from error
    try:
        for name, data in (("model.safetensors", save(state)), ("config.json", dump_json(config))):
            with (part / name).open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        part.chmod(0o755)
        if final.exists():  # a folder cannot replace a full folder in one step: move the old one aside first
            aside = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}-old-"))
            final.replace(aside / "was")
            part.replace(final)
            shutil.rmtree(aside)
        else:
            part.replace(final)
    except OSError as error:
        raise writing_failed(error, final) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return final


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[LogoFormer, dict[str, Any]]:
    """Reads a checkpoint folder, or a `.pt` file that holds `{"config": ..., "state_dict": ...}`.

    Returns:
        The model in evaluation mode, and provenance: `{"sha256": of the weights, "extra": ...}`.

    Raises:
        BadInputError: missing, empty, of another program, or weights that do not fit the configuration.
        RefusedError: a pickle that carries code, or a file that is not a regular file.
    """
    given = Path(path)
    if not given.exists():
        raise BadInputError(
            f"There is no checkpoint at {given}.",
            next=command("logoformer", "init", "--preset", "base", "-o", given),
        )
    if given.is_dir():
        config, state, digest = _read_folder(given)
    else:
        config, state, digest = _read_pt(given)
    return _assemble(config, state, given), {"sha256": digest, "extra": config.get("extra", {})}


def _read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    missing = [name for name in ("config.json", "model.safetensors") if not (folder / name).exists()]
    if missing:
        raise BadInputError(
            f"{folder} is not a checkpoint: {' and '.join(missing)} not found.",
            cause="an empty folder, an unfinished copy, or a checkpoint of another program",
            next=command("logoformer", "init", "--preset", "base", "-o", "new-checkpoint"),
        )
    config = parse_json(read_regular(folder, "config.json", 4 << 20), f"{folder}/config.json")
    weights = read_regular(folder, "model.safetensors", MAX_WEIGHT_BYTES)
    try:
        return config, load(weights), sha256(weights)
    except (SafetensorError, ValueError, KeyError) as error:
        raise BadInputError(
            f"{folder}/model.safetensors cannot be read: {error}.", cause="a truncated copy or another file format"
        ) from error


def _read_pt(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    data = read_file(path, MAX_WEIGHT_BYTES)
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RefusedError(
            f"{path} was not loaded: it holds more than tensors and plain values.",
            cause="a pickle can run code; this one names classes or functions (training recorders, argparse, or worse)",
            next="convert it in a sandbox: keep only the state dict and save that with safetensors",
            log=str(error).splitlines()[:1],
        ) from error
    except (RuntimeError, EOFError, ValueError) as error:
        raise BadInputError(f"{path} is not a PyTorch checkpoint: {error}.", cause="a truncated copy") from error
    if not isinstance(content, dict) or "state_dict" not in content or "config" not in content:
        raise BadInputError(
            f"{path} holds no 'config' and 'state_dict'.",
            cause="a checkpoint of another program: its architecture and labels are unknown",
            next=command("logoformer", "init", "--help"),
        )
    return {"format": FORMAT, **content, "model": content["config"]}, content["state_dict"], sha256(data)


def _assemble(config: Any, state: Mapping[str, Tensor], shown: Path) -> LogoFormer:
    if not isinstance(config, dict) or config.get("format") != FORMAT or "model" not in config:
        raise BadInputError(
            f"{shown} has a config.json that is not this program's.", cause="a checkpoint of another program"
        )
    if config.get("format_version", FORMAT_VERSION) > FORMAT_VERSION:
        raise RefusedError(
            f"{shown} has checkpoint format {config['format_version']}; this version reads up to {FORMAT_VERSION}.",
            next="pip install --upgrade logoformer",
        )
    model = LogoFormer(ModelConfig.from_json(config["model"]))
    wanted = model.state_dict()
    missing = sorted(wanted.keys() - state.keys())
    unknown = sorted(state.keys() - wanted.keys())
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
            log=[*missing[:3], *unknown[:3], *shapes[:3]],
        )
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:  # memory: names and shapes were checked above
        raise MachineError(f"The weights of {shown} could not be loaded: {error}.") from error
    return model.eval()
