"""Files of weights, read without running anything in them."""

from __future__ import annotations

import io
import pickle
import warnings
from typing import Any

import torch
from torch import Tensor

from ...errors import BadInputError, RefusedError

_HEADS = (b"PK\x03\x04", b"\x80")  # a zip archive, or a pickle as torch.save wrote it before version 1.6


def load_plain(data: bytes, shown: str) -> Any:
    """Tensors and plain values of a `.pt` file.

    Raises:
        RefusedError: it holds anything else: a pickle can run code.
        BadInputError: another format, or damaged.
    """
    if not data.startswith(_HEADS):
        raise BadInputError(
            f"{shown} is not a PyTorch checkpoint.", cause="another file format, or a copy that never began"
        )
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
        raise BadInputError(
            f"{shown} is not a PyTorch checkpoint: {type(error).__name__}: {error}.",
            cause="a truncated copy",
        ) from error


def load_safetensors(data: bytes, shown: str) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, by name.

    Raises:
        BadInputError: another format, or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise BadInputError(
            f"{shown} cannot be read: {error}.", cause="a truncated copy or another file format"
        ) from error
