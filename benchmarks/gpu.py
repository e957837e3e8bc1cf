"""Which NVIDIA GPU is here: read from files, without a library and without touching it."""

from __future__ import annotations

from pathlib import Path


def gpu_name(root: Path = Path("/")) -> str | None:
    """The first NVIDIA GPU's name; None when there is none.

    On a desktop the driver lists its cards below /proc/driver/nvidia/gpus; on a Jetson the GPU is a part of the board,
    so the board's name stands for it.

    Args:
        root: where `proc` stands.
    """
    for card in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        for line in _text(card).splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "Model" and value.strip():
                return value.strip()
    board = _text(root / "proc/device-tree/model").strip("\0 \n")
    return board if "jetson" in board.casefold() else None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
