"""The benchmark and the field test on a real card. Nothing here asserts a time, and no figure is kept.

What needs another card than the machine's skips, naming what is missing.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from logoformer.benchmarks import bench as b
from logoformer.benchmarks.baselines import contract as p
from logoformer.benchmarks.field.check import check_kit
from logoformer.benchmarks.field.kit import DONE
from logoformer.benchmarks.field.plan import TARGETS
from logoformer.benchmarks.field.run import fieldtest
from logoformer.bundle import Bundle
from logoformer.engine.builder.bundle import build_bundle
from logoformer.engine.builder.compile import BuildOptions
from logoformer.engine.machine.environment import find_gpu, target_here
from logoformer.engine.machine.tensorrt import find_module
from logoformer.engine.trust.index import read_index
from logoformer.errors import MachineError

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def backend() -> str:
    if find_gpu() is None:
        pytest.skip("no NVIDIA GPU or no driver (libcuda.so.1)")
    try:
        find_module(target_here())
    except MachineError as error:
        pytest.skip(error.what)
    return next(name for name, target in TARGETS.items() if target == target_here())


@pytest.fixture
def bundle(backend: str, untrained_bundle: Path, tmp_path: Path) -> Bundle:
    return Bundle(shutil.copytree(untrained_bundle, tmp_path / "face.bundle"))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_baseline_beside_the_card(backend: str, bundle: Bundle, precision: str, monkeypatch: Any) -> None:
    """The processor's answers are no fault of the card's, and two devices make no ratio."""
    build_bundle(bundle.path, BuildOptions(target_here()), precisions=[precision])
    monkeypatch.setattr(b, "REST_S", 0.0)
    report = b.bench(b.BenchConfig(bundle.path, iterations=20, backend=backend, precision=precision, roofline=False))
    device = {row.name: row.device for row in report.rows}
    assert device[p.CLIP] == device[p.STREAM] == device[p.NAIVE] == device[p.PER_FRAME] != "cpu"
    assert all(device[c.numerator] == device[c.denominator] for c in report.comparisons)
    assert not any("not the verified ones" in skipped.reason for skipped in report.skipped)


def test_an_engine_names_the_card_that_built_it(backend: str, bundle: Bundle) -> None:
    build_bundle(bundle.path, BuildOptions(target_here()), precisions=["fp16"], graphs=["frame"])
    (entry,) = read_index(bundle.path / "engines")
    gpu = find_gpu()
    assert gpu is not None and gpu.multiprocessors > 0
    assert entry.gpu == (gpu.model if backend == "tensorrt" else "")


@pytest.mark.slow
def test_a_kit_of_this_card(backend: str, bundle: Bundle, tmp_path: Path) -> None:
    said: list[str] = []
    fieldtest(bundle.path, tmp_path / "kit.zip", iterations=20, say=said.append)
    checked = check_kit(tmp_path / "kit.zip")
    missing = {step.name: step.why for step in checked.kit.steps if step.status != DONE and step.name != "power"}
    assert missing == {}, said
    assert checked.reports["bench-closed"].subject.device != "cpu"
