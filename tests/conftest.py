"""Shared fixtures: checkpoints and bundles, each made once a session from the package's own functions."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _neighbour(path: Path) -> ModuleType:
    """Imports a helper module that lies beside the tests (importlib mode puts no test folder on the path)."""
    name = f"logoformer_tests_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained `tiny`, whose answers differ between clips."""
    from logoformer.model.init import init_checkpoint

    return init_checkpoint("tiny", tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def untrained_bundle(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `tiny_checkpoint`, FP32 and FP16. Copy it before changing it."""
    return _export(tiny_checkpoint, tmp_path_factory.mktemp("untrained") / "tiny.bundle", clips=16)


@pytest.fixture(scope="session")
def trained_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny` trained on synthetic faces: minutes. Tests that ask for it are marked slow."""
    trained = _neighbour(Path(__file__).parent / "model" / "trained.py")
    return Path(trained.train_tiny(tmp_path_factory.mktemp("trained")).checkpoint)


@pytest.fixture(scope="session")
def tiny_bundle(trained_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `trained_checkpoint`. Copy it before changing it."""
    return _export(trained_checkpoint, tmp_path_factory.mktemp("bundle") / "face.bundle", clips=32)


@pytest.fixture(scope="session")
def base_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of an untrained `base`, FP32 and FP16: half a minute. Copy it before changing it."""
    from logoformer.model.init import init_checkpoint

    folder = tmp_path_factory.mktemp("base")
    return _export(init_checkpoint("base", folder / "base"), folder / "base.bundle", clips=8)


def _export(checkpoint: Path, out: Path, clips: int) -> Path:
    from logoformer.export.export import ExportConfig
    from logoformer.verbs import export_checkpoint

    return export_checkpoint(checkpoint, out, ExportConfig(), clips=clips).path
