"""Where each setting of an imported network is from, and which of them no shape can check.

A wrong number of heads gives a network that loads and answers, wrongly: whoever imports has to know what was believed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import UsageError
from ..networks.contract import NetworkConfig
from ..networks.family import ASSUMED, FILE, OPTION, OPTION_NAMES, Family, Settings


@dataclass(frozen=True)
class SettingOrigin:
    """One setting of an imported network.

    Attributes:
        name: for people.
        value: as JSON.
        origin: `FILE`, `OPTION` or `ASSUMED`.
        checked: what the shapes hold against it; '' where a wrong value goes unnoticed.
    """

    name: str
    value: Any
    origin: str
    checked: str

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "from": self.origin, "checked": self.checked}

    def __str__(self) -> str:
        value = ",".join(map(str, self.value)) if isinstance(self.value, list) else str(self.value)
        return f"{self.name} {value}"


def setting_origins(
    family: Family, config: NetworkConfig, settings: Settings, options: Settings, shown: str, *, own: bool = False
) -> tuple[SettingOrigin, ...]:
    """The settings of an import.

    Args:
        family: of the network.
        config: of the network.
        settings: the file's own arguments.
        options: the caller's.
        shown: the file, for messages.
        own: the file holds a whole configuration that this program wrote.

    Raises:
        UsageError: an option has no effect on such a file; it is named.
    """
    taken = {option for setting in family.settings for option in setting.options} if not own else set()
    for option in options:
        if option not in taken and option != "preset":
            flag = OPTION_NAMES.get(option, f"--{option}")
            why = "its configuration is in it" if own else f"a {family.title}'s files leave no choice there"
            raise UsageError(f"{flag} has no effect on {shown}.", cause=why, next=f"leave {flag} out")
    found = []
    for setting in family.settings:
        value = setting.value(config)
        value = list(value) if isinstance(value, tuple) else value
        origin = FILE if own else setting.origin(settings, options)
        found.append(SettingOrigin(setting.name, value, origin, setting.checked))
    return tuple(found)


def origin_lines(origins: Sequence[SettingOrigin]) -> list[str]:
    """Lines of a report: what is from where, and what no shape can check."""
    lines = []
    for origin, words in ((FILE, "from the file"), (OPTION, "from options"), (ASSUMED, "assumed, as published")):
        if named := [str(one) for one in origins if one.origin == origin]:
            lines.append(f"{words}: {'; '.join(named)}")
    if loose := [one.name for one in origins if not one.checked]:
        lines.append(
            f"no shape can check: {', '.join(loose)}; a wrong one loads and answers wrongly, so score clips whose "
            "labels you know (logoformer evaluate) before you trust it"
        )
    return lines


def origins_json(origins: Sequence[SettingOrigin]) -> dict[str, Mapping[str, Any]]:
    """By name, for the checkpoint's provenance."""
    return {one.name: one.to_json() for one in origins}
