"""Committed results: read, written with the machine, shown between the markers of a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..benchmarks.report.readme import replace_between
from ..benchmarks.sensors.machine import read_machine
from ..bundle.files import dump_json, parse_json, write_atomic

FOLDER = Path("benchmarks/results")


def read_results(path: Path) -> dict[str, Any]:
    """What an earlier run wrote; nothing where there was none.

    Raises:
        RefusedError: it is not JSON.
    """
    found: dict[str, Any] = parse_json(path.read_bytes(), str(path)) if path.exists() else {}
    return found


def write_results(path: Path, results: Mapping[str, Any]) -> None:
    """Replaces the file."""
    write_atomic(path, dump_json(results))


def measured(command: str, **found: Any) -> dict[str, Any]:
    """Figures with the command that gives them again and the machine that gave them."""
    return {"command": command, "machine": asdict(read_machine()), **found}


def show_results(page: Path, shown: Mapping[str, str]) -> None:
    """Puts each text between its markers `<!-- name:begin -->` and `<!-- name:end -->`."""
    for name, text in shown.items():
        replace_between(page, f"<!-- {name}:begin -->", f"<!-- {name}:end -->", text)
