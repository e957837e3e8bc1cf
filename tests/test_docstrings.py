"""Every example of a docstring gives what stands below it."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import logoformer
import pytest

ROOT = Path(logoformer.__file__).parent
FOLDERS = ("benchmarks", "bundle", "calibration", "camera", "cli", "engine", "export", "media", "model", "serving",
           "studies", "workflows")  # fmt: skip


def with_examples() -> list[str]:
    """Modules with a prompt, such as `bundle.kinds`."""
    files = [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
    found = [path.relative_to(ROOT) for path in files if ">>> " in path.read_text(encoding="utf-8")]
    return sorted(".".join(path.with_suffix("").parts) for path in found)


@pytest.mark.parametrize("name", with_examples())
def test_the_examples_of_a_module_hold(name):
    result = doctest.testmod(importlib.import_module(f"logoformer.{name}"))
    assert result.attempted and not result.failed


def test_modules_with_examples_are_found():
    assert {"errors", "bundle.kinds", "calibration.quantize"} <= set(with_examples())
