"""A real tritonserver for these tests, from a wheel in a venv of its own, made once and kept under build/venvs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logoformer.bundle import Bundle
from logoformer.errors import MachineError
from logoformer.serving.repository import write_models
from logoformer.serving.settings import TritonConfig
from logoformer.studies.serving.server import TritonServer, install_triton


@pytest.fixture(scope="session")
def triton_packages() -> Path:
    """The packages of the server; its client can be imported from then on."""
    try:
        packages = install_triton()
    except MachineError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
    sys.path.append(str(packages))  # behind what this Python has itself
    return packages


@pytest.fixture(scope="session")
def serve(triton_packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., TritonServer]]:
    """`serve(folder of models, options)` starts a server, which ends with the session."""
    with ExitStack() as stack:

        def start(models: Path, *options: str) -> TritonServer:
            folder = tmp_path_factory.mktemp("triton")
            return stack.enter_context(TritonServer(triton_packages, folder, [models], options))

        yield start


@pytest.fixture(scope="session")
def make_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`make_models(bundle, ...)`: a model repository of the bundle on ONNX Runtime, FP32."""

    def make(bundle: Path, out: Path | None = None, **config: Any) -> Path:
        out = tmp_path_factory.mktemp("models") if out is None else out
        write_models(Bundle(bundle), out, TritonConfig(backend="onnxruntime", precision="fp32", threads=1, **config))
        return out

    return make


@pytest.fixture(scope="session")
def recording() -> Callable[[int], tuple[np.ndarray, list[float]]]:
    """`recording(seed)`: 80 frames of 70 x 64 pixels and their times, with jitter, frames too close, and a gap."""

    def make(seed: int) -> tuple[np.ndarray, list[float]]:
        rng = np.random.default_rng(seed)
        waits_s = rng.uniform(0.03, 0.05, 80)
        waits_s[rng.integers(10, 70, 5)] = 0.004  # skipped
        waits_s[50] += 5.0 * (seed % 2)
        times = 1.7e9 + seed + np.cumsum(waits_s)
        return rng.integers(0, 256, (80, 70, 64, 3), np.uint8), times.tolist()

    return make
