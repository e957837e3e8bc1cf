"""Configurations of all families: presets, reading, counts. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...errors import BadInputError, UsageError, one_of
from .contract import Complexity, NetworkConfig
from .former_dfer.config import FORMER_DFER_PRESETS, FormerDferConfig, former_dfer_complexity
from .logoformer.complexity import logoformer_complexity
from .logoformer.config import LOGOFORMER_PRESETS, LogoFormerConfig, logoformer_preset
from .mae_dfer.config import MAE_DFER_PRESETS, MaeDferConfig, mae_dfer_complexity

_CONFIGS: dict[str, type[NetworkConfig]] = {
    kind.family: kind for kind in (LogoFormerConfig, FormerDferConfig, MaeDferConfig)
}
_COUNTS: dict[str, Callable[[Any], Complexity]] = {
    "logoformer": logoformer_complexity,
    "former-dfer": former_dfer_complexity,
    "mae-dfer": mae_dfer_complexity,
}
PRESETS: Mapping[str, NetworkConfig] = {**LOGOFORMER_PRESETS, **FORMER_DFER_PRESETS, **MAE_DFER_PRESETS}


def preset(name: str, attention: str | None = None) -> NetworkConfig:
    """A preset by name, with another attention scheme where one is named.

    Raises:
        UsageError: there is none of that name, or its family has no attention schemes.
    """
    if name not in PRESETS:
        raise UsageError(f"There is no preset {name!r}.", next=f"choose from {one_of(PRESETS)}")
    if attention is None:
        return PRESETS[name]
    if name not in LOGOFORMER_PRESETS:
        raise UsageError(
            f"The preset {name!r} is a {PRESETS[name].family}: it has no attention schemes to choose from.",
            next=f"leave --attention out, or choose from {one_of(LOGOFORMER_PRESETS)}",
        )
    return logoformer_preset(name, attention)


def config_from_json(data: Mapping[str, Any]) -> NetworkConfig:
    """Reads what a configuration's `to_json` wrote.

    Without `family` it is a LOGO-Former's, as until version 0.1.

    Raises:
        BadInputError: an unknown family, or a field that is missing, unknown or of the wrong type.
        UsageError: fields that do not fit each other.
    """
    family = data.get("family", LogoFormerConfig.family) if isinstance(data, Mapping) else None
    if not isinstance(family, str) or family not in _CONFIGS:
        raise BadInputError(
            f"The model configuration cannot be read: its family is {family!r:.80}; known are {one_of(_CONFIGS)}.",
            cause="a configuration of another program or of a newer version",
        )
    return _CONFIGS[family].from_json(data)


def complexity(config: NetworkConfig) -> Complexity:
    """Counts a configuration of any family."""
    return _COUNTS[config.family](config)
