"""The small model and clips of `small.py`, and runs of it as a program of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("small.py")


@pytest.fixture(scope="session")
def small() -> ModuleType:
    """`small.SMALL` and `small.TwoColors`."""
    spec = importlib.util.spec_from_file_location("small", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules["small"] = module  # dataclasses and pickling look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def start_training() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`start_training(out, recipe, processes=1, ...)` runs `small.py`, under torchrun for several processes."""

    started: list[subprocess.Popen[str]] = []

    def start(
        out: Path, recipe: dict[str, Any], *, processes: int = 1, clips: int = 16, dropout: float = 0.0,
        resume: bool = False,
    ) -> subprocess.Popen[str]:  # fmt: skip
        words = [str(PROGRAM), str(out), json.dumps(recipe), str(clips), str(dropout)]
        words.append("resume" if resume else "anew")
        if processes > 1:
            runner = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
            words = [*runner, *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True, env=environment)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
