"""Every committed result says by which command, on which machine and with which versions it was measured."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from logoformer.bundle.files import parse_json
from logoformer.cli.main import make_parser

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "benchmarks" / "results").iterdir())
SETTINGS = {"variants"}  # of ablations.json: what was varied


def read(path: Path) -> Any:
    return parse_json(path.read_bytes(), path.name, max_bytes=32 << 20)


def lacking(found: Any, where: str, above: str = "") -> Iterator[str]:
    """What the measurements below one place of a file do not say."""
    if isinstance(found, list):
        for place, item in enumerate(found):
            yield from lacking(item, f"{where}[{place}]", above)
        return
    if not isinstance(found, dict):
        yield f"{where}: a figure outside a measurement with its machine"
        return
    command = found.get("command", above)
    if "machine" in found:
        machine = found["machine"]
        versions = found.get("versions") or (isinstance(machine, dict) and machine.get("packages"))
        if not command:
            yield f"{where}: no command"
        if not machine or (isinstance(machine, dict) and not machine.get("cpu")):
            yield f"{where}: no machine"
        if not versions or any(not re.match(r"\d", str(version)) for version in versions.values()):
            yield f"{where}: no versions"
        return
    for name, value in found.items():
        if name not in SETTINGS and not isinstance(value, str) and name != "data_seed":
            yield from lacking(value, f"{where}.{name}", command)


def commands(found: Any) -> set[str]:
    if isinstance(found, list):
        return set().union(*map(commands, found))
    if not isinstance(found, dict):
        return set()
    own = {found["command"]} if "command" in found else set()
    return own.union(*map(commands, found.values()))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_every_measurement_names_command_machine_and_versions(path):
    assert path.suffix == ".json"
    assert list(lacking(read(path), path.name)) == []


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_every_command_is_there(path):
    verbs = next(a for a in make_parser()._actions if a.dest == "verb").choices
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    found = commands(read(path))
    assert found
    for command in found:
        words = command.split()
        if words[0] == "make":
            assert words[1] in targets, command
        elif words[0] == "logoformer":
            assert words[1] in verbs, command
        elif words[1].endswith(".py"):
            assert words[0] == "python" and (ROOT / words[1]).is_file(), command
        else:
            assert words[:2] == ["python", "-m"], command
            assert importlib.util.find_spec(words[2]) is not None, command


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_no_measurement_is_below_its_floor(path):
    def below(found: Any) -> Iterator[Any]:
        items = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
        if isinstance(found, dict) and {"floor_ms", "ratio"} <= set(found) and not found["ratio"] >= 1:
            yield found
        for item in items:
            yield from below(item)

    assert list(below(read(path))) == []


@pytest.mark.parametrize(
    "planted",
    [
        {"command": "make bench", "machine": {"cpu": "x", "packages": {}}},
        {"command": "make bench", "machine": {"cpu": None, "packages": {"numpy": "2.1"}}},
        {"command": "make bench", "machine": {"cpu": "x", "packages": {"numpy": "unknown"}}},
        {"machine": {"cpu": "x", "packages": {"numpy": "2.1"}}},
        {"command": "make bench", "runs": {"a": [{"machine": "x"}]}},
        {"command": "make bench", "p50_ms": 1.0},
    ],
)
def test_a_planted_gap_is_found(planted):
    assert list(lacking(planted, "planted"))
