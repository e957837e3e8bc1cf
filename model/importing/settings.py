"""The arguments of a training that its checkpoint carries, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..foreign.inert import Inert, StoredTensor

KEYS = ("args", "config", "cfg", "opt", "opts", "hyper_parameters", "hparams")
MOST_SETTINGS = 1000
MOST_TEXT = 500
MOST_INTEGER = 1 << 40
MOST_SIZE = 1 << 20
MOST_ITEMS = 32


def file_settings(content: Any) -> dict[str, Any]:
    """Numbers, texts, flags and short lists of them; everything else is left out.

    Args:
        content: of `ForeignFile`.
    """
    if not isinstance(content, dict):
        return {}
    for key in KEYS:
        value = content.get(key)
        given = value.attributes() if isinstance(value, Inert) else value
        if isinstance(given, dict):
            found = {k: plain(v) for k, v in list(given.items())[:MOST_SETTINGS] if isinstance(k, str)}
            return {k[:MOST_TEXT]: v for k, v in found.items() if v is not None and not _absurd(v)}
    return {}


def _absurd(value: Any) -> bool:
    """Whether a setting holds a size that no network has, whose divisors nobody should look for."""
    values = value if isinstance(value, list) else [value]
    return any(isinstance(item, int) and abs(item) > MOST_SIZE for item in values)


def plain(value: Any) -> Any:
    """A value that JSON can hold, short; None for everything else."""
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) <= MOST_INTEGER):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) < 1e300 else None
    if isinstance(value, str):
        return value if len(value) <= MOST_TEXT and value.isprintable() else None
    if isinstance(value, (list, tuple)) and len(value) <= MOST_ITEMS:
        items = [plain(item) for item in value if not isinstance(item, (list, tuple))]
        return items if len(items) == len(value) and None not in items else None
    return None


def training_facts(content: Any) -> Mapping[str, Any]:
    """What a checkpoint says of its training: epoch and best score, where it is plain."""
    if not isinstance(content, dict):
        return {}
    facts = {}
    for key in ("epoch", "best_acc", "best_metric", "max_accuracy", "global_step"):
        value = content.get(key)
        if isinstance(value, (Inert, StoredTensor)):
            continue
        if (said := plain(value)) is not None:
            facts[key] = said
    return facts
