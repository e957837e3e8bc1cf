"""Removal of what names a person or a machine: paths, users, hosts, serial numbers."""

from __future__ import annotations

import contextlib
import getpass
import re
import socket
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# Two parts at least: '/255' is no path. What every such system has alike names nobody.
_PATH = re.compile(r"(?<![\w<>./~-])~?/(?!(?:usr|proc|sys|dev|etc|lib)/)(?:[\w.+@=,-]+/)+[\w.+@=,-]*")
_UUID, _MAC = r"(?:GPU-|MIG-)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b"
_NUMBERS = re.compile(f"{_UUID}|{_MAC}", re.IGNORECASE)
_SERIALS = ("proc/device-tree/serial-number", "sys/class/dmi/id/product_serial", "etc/machine-id")
_EVERYBODYS = {"root", "user", "ubuntu", "nvidia", "jetson", "localhost", "linux", "debian", "admin", "docker"}


class Scrubber:
    """Replaces what is known of this machine and its user, and what looks like it.

    Args:
        literals: what replaces a text, such as {'/home/ada/face.bundle': 'BUNDLE'}.
        names: words that name a user or a machine.
    """

    def __init__(self, literals: Mapping[str, str], names: Iterable[str]) -> None:
        self._literals = sorted(literals.items(), key=lambda item: -len(item[0]))
        wanted = sorted({name for name in names if len(name) > 2 and name.lower() not in _EVERYBODYS})
        self._names = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in wanted)) if wanted else None

    @classmethod
    def here(cls, literals: Mapping[str, str], root: Path = Path("/")) -> Scrubber:
        """For this machine and this user."""
        found = {str(Path.home()): "<home>", sys.prefix: "<python>", str(Path.cwd()): "<here>", **literals}
        for place in _SERIALS:
            serial = _text(root / place)
            if len(serial) > 5:
                found[serial] = "<number>"
        names = [socket.gethostname().partition(".")[0], Path.home().name]
        with contextlib.suppress(KeyError, OSError):  # a user without a name, as in some containers
            names.append(getpass.getuser())
        return cls({text: put for text, put in found.items() if len(text) > 2}, names)

    def text(self, text: str) -> str:
        """One text without them.

        A single word is an identifier of ours: no user's name is looked for in it.
        """
        for literal, put in self._literals:
            text = text.replace(literal, put)
        text = _NUMBERS.sub("<number>", _PATH.sub("<path>", text))
        return self._names.sub("<name>", text) if self._names is not None and " " in text else text

    def value(self, value: Any) -> Any:
        """JSON without them; the keys of objects are ours, but paths may be among them."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value


def private_texts(value: Any) -> list[str]:
    """Texts in JSON that look like a path, an address or a serial number of somebody."""
    if isinstance(value, str):
        return [value] if _PATH.search(value) or _NUMBERS.search(value) else []
    if isinstance(value, Mapping):
        return [text for key, item in value.items() for text in (*private_texts(str(key)), *private_texts(item))]
    if isinstance(value, list | tuple):
        return [text for item in value for text in private_texts(item)]
    return []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return ""
