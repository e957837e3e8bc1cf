"""The site's own tools, and the built site."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def tool(name: str) -> ModuleType:
    """A module of docs/tools/."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def site_tools() -> ModuleType:
    return tool("site")


@pytest.fixture(scope="session")
def figures() -> ModuleType:
    return tool("figures")


@pytest.fixture(scope="session")
def drawings() -> ModuleType:
    return tool("drawings")


# Every look-up of a name and every connection fails in the process that builds.
OFFLINE = """
import runpy, socket, sys
def refuse(*words, **named):
    raise OSError(f"the build asked for the network: {words}")
socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse
sys.argv = ["mkdocs", *sys.argv[1:]]
runpy.run_module("mkdocs", run_name="__main__")
"""


def build(out: Path, config: Path = ROOT / "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    """Builds a site as `make docs` does, without a network."""
    words = [sys.executable, "-c", OFFLINE, "build", "--strict", "--config-file", str(config), "--site-dir", str(out)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site's folder."""
    for module in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(module, reason="the site needs the extra 'docs'")
    out = tmp_path_factory.mktemp("site") / "site"
    done = build(out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out
