"""Files of weights, read without running anything in them; weights for a trunk.

The layouts of pre-trained ResNet-18 weights that are common in this field:

* `{'state_dict': {'module.conv1.weight', ..., 'module.fc.*', 'module.feature.*'}}` (MS-Celeb-1M, in the lineage of
  Region-Attention-Network and LOGO-Former),
* `{'state_dict': {'conv1.weight', ..., 'fc.*'}}` (DAN and many others),
* a bare state dict with the same names (torchvision, timm), as `.pth` or `.safetensors`.

A loader that does not count is how trunks stay random for a whole paper: with `strict=False`, a prefix that does not
match loads nothing and says so nowhere. Here tensors are matched by name *and* shape, counted, and fewer than 95 % is
an error. The classifier of the old task is not wanted and not counted.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...bundle.files import read_file, sha256
from ...errors import BadInputError, RefusedError, command
from ..foreign.misfits import import_command
from ..foreign.sniff import looks_like_safetensors, refuse_other_formats, refuse_other_zips
from .backbone import Trunk
from .values import refuse_kinds, refuse_value

MAX_BYTES = 2 << 30
SHARE_WANTED = 0.95
_PREFIXES = ("module.", "backbone.", "model.", "")
_HEADS = (b"PK\x03\x04", b"\x80")  # a zip archive, or a pickle as torch.save wrote it before version 1.6


@dataclass(frozen=True)
class TrunkWeights:
    """Record of the weights that were loaded into a trunk.

    Attributes:
        file: its name.
        sha256: of the file.
        prefix: that its names carried.
        matched: tensors of the trunk that were filled.
        wanted: tensors that the trunk has (counters of batches apart).
        unused: tensors of the file that the trunk has no place for, such as the old classifier and later stages.
        color: channel order that the weights expect, as the user said: 'rgb' or 'bgr'.
    """

    file: str
    sha256: str
    prefix: str
    matched: int
    wanted: int
    unused: tuple[str, ...]
    color: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def line(self) -> str:
        """The record as one readable line."""
        prefix = f" behind the prefix {self.prefix!r}" if self.prefix else ""
        return f"{self.file}: {self.matched} of {self.wanted} tensors of the trunk loaded{prefix}, {self.color}"


def load_trunk(trunk: Trunk, path: str | os.PathLike[str], *, color: str = "rgb") -> TrunkWeights:
    """Fills a trunk from a file.

    Args:
        trunk: of any depth; stages that it does not have are left out of the count.
        path: `.pth`, `.pt`, `.pth.tar` or `.safetensors`.
        color: 'bgr' when the weights were trained on BGR: the first convolution's input channels are turned round.

    Returns:
        What was matched.

    Raises:
        BadInputError: fewer than 95 % of the trunk's tensors are in the file, or it is not a file of weights.
        RefusedError: a pickle that carries code.
    """
    data = read_file(path, MAX_BYTES)
    shown = os.fspath(path)
    found = _state(data, shown)
    wanted = {name: value for name, value in trunk.state_dict().items() if not name.endswith("num_batches_tracked")}
    prefix = max(_PREFIXES, key=lambda p: sum(p + name in found for name in wanted))
    matched = {
        name: found[prefix + name]
        for name, value in wanted.items()
        if prefix + name in found and found[prefix + name].shape == value.shape
    }
    if len(matched) < SHARE_WANTED * len(wanted):
        missing = sorted(wanted.keys() - matched.keys(), key=lambda name: (name != "conv1.weight", name))
        shapes = [
            f"{name}: {list(found[prefix + name].shape)} in the file, {list(wanted[name].shape)} in the trunk"
            for name in missing
            if prefix + name in found
        ]
        raise BadInputError(
            f"{shown} fills {len(matched)} of the trunk's {len(wanted)} tensors; {SHARE_WANTED:.0%} are needed.",
            cause="another architecture, or names with another prefix",
            next="use ResNet-18 weights: names such as conv1.weight, layer1.0.conv1.weight, with or without 'module.'",
            log=[
                *shapes[:3],
                *[f"missing: {name}" for name in missing if prefix + name not in found][:3],
                f"in the file: {sorted(found)[:3]}",
            ],
        )
    refuse_kinds(matched, shown, wanted)
    state = {name: value.to(wanted[name].dtype) for name, value in matched.items()}
    for name, value in state.items():
        refuse_value(name, value, shown)
    if color == "bgr":
        state["conv1.weight"] = state["conv1.weight"].flip(1)
    trunk.load_state_dict(state, strict=False)
    unused = tuple(sorted(found.keys() - {prefix + name for name in matched}))
    return TrunkWeights(Path(shown).name, sha256(data), prefix, len(matched), len(wanted), unused, color)


def _state(data: bytes, shown: str) -> dict[str, Tensor]:
    """The tensors of a file, by name."""
    if shown.endswith(".safetensors"):
        return load_safetensors(data, shown)
    content = load_plain(data, shown)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    state = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not state:
        raise BadInputError(f"{shown} holds no tensors by name.", cause="a whole pickled model, or another file")
    return state


# -------------------------------------------------------------------------------------------------------------- files
def load_plain(data: bytes, shown: str) -> Any:
    """Tensors and plain values of a `.pt` file.

    Raises:
        RefusedError: it holds anything else: a pickle can run code.
        BadInputError: another format, or damaged.
    """
    if not data.startswith(_HEADS) or looks_like_safetensors(data[:9]):
        refuse_other_formats(shown, data[:1024], len(data), "{shown} is not a PyTorch checkpoint; it is {what}.")
        raise _safetensors_alone(Path(shown))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols, at every file that is refused below
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RefusedError(
            f"{shown} was not loaded: it holds more than tensors and plain values, or is damaged.",
            cause="a pickle can run code; this one names classes or functions (training recorders, argparse, or worse)",
            next="convert it in a sandbox: keep only the state dict and save that with safetensors",
            # what is named, without torch's advice to allow it
            log=[
                line.split(" was not an allowed")[0].strip()
                for line in str(error).splitlines()
                if "GLOBAL" in line or "Unsupported" in line
            ][:1],
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # the unpickler lets through whatever the bytes make a constructor raise
        with contextlib.suppress(zipfile.BadZipFile, ValueError, OSError):
            refuse_other_zips(shown, zipfile.ZipFile(io.BytesIO(data)).namelist())
        raise BadInputError(
            f"{shown} is not a PyTorch checkpoint: {type(error).__name__}: {str(error).splitlines()[0][:300]}.",
            cause="a truncated copy",
            next="copy or download it again, and compare its size",
        ) from error


def _safetensors_alone(path: Path) -> BadInputError:
    """The error for weights without a configuration, or under a wrong name."""
    what = f"{path} is not a PyTorch checkpoint, but a safetensors file."
    if path.suffix != ".safetensors":
        named = path.with_suffix(".safetensors")
        return BadInputError(what, cause="a file that was renamed", next=command("mv", path, named))
    if path.name == "model.safetensors" and (path.parent / "config.json").is_file():
        cause, next = "a file was named in place of its folder", f"name the folder: {command(path.parent)}"
    else:
        cause, next = "weights of another program: their architecture and labels are unknown", import_command(path)
    return BadInputError(what, cause=cause, next=next)


def load_safetensors(data: bytes, shown: str) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, by name.

    Raises:
        BadInputError: another format, or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    if data.startswith(_HEADS) and not looks_like_safetensors(data[:9]):
        raise BadInputError(
            f"{shown} cannot be read: it is no safetensors file, but a PyTorch checkpoint.",
            cause="a file that was renamed",
            next=command("mv", shown, Path(shown).with_suffix(".pth")),
        )
    refuse_other_formats(shown, data[:1024], len(data), "{shown} cannot be read: it is {what}.")
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise BadInputError(
            f"{shown} cannot be read: {error}.", cause="a truncated copy or another file format"
        ) from error


# {dtype: its name in a safetensors header}; what a state dict of ours may hold
_HEADER_TYPES = {torch.float32: "F32", torch.int64: "I64"}


def write_safetensors(path: Path, specs: Mapping[str, Tensor], tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Writes tensors as they come, so that one at a time needs to be in memory.

    Args:
        path: a new or empty file.
        specs: what will come: shapes and types by name, such as a state dict on the meta device.
        tensors: each of them once, in any order, on the CPU.

    Raises:
        ValueError: one is missing, comes twice or is of another shape or type.
        OSError: the disk is full.
    """
    header: dict[str, Any] = {}
    places: dict[str, int] = {}
    at = 0
    for name, spec in sorted(specs.items(), key=lambda item: (-item[1].element_size(), item[0])):  # so they are aligned
        size = spec.numel() * spec.element_size()
        header[name] = {
            "dtype": _HEADER_TYPES[spec.dtype], "shape": list(spec.shape), "data_offsets": [at, at + size],
        }  # fmt: skip
        places[name] = at
        at += size
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)  # the values begin at a multiple of 8
    start = 8 + len(text)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(start + at)
        for name, value in tensors:
            if value.shape != specs[name].shape or value.dtype != specs[name].dtype or name not in places:
                raise ValueError(f"{name}: {value.dtype} {list(value.shape)}, once, was not what comes")
            stream.seek(start + places.pop(name))
            stream.write(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        if places:
            raise ValueError(f"{len(places)} tensors never came: {sorted(places)[:3]}")
        stream.flush()
        os.fsync(stream.fileno())
