"""Builds, verdicts and benchmarks on the card that was asked for: two cards of two models, and the second is named."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import logoformer
import pytest
from doubles.driver import Driver
from doubles.machine import Machine, machine
from logoformer.benchmarks import bench as benchmark
from logoformer.benchmarks.sensors.find import Sensors
from logoformer.bundle import Bundle
from logoformer.cli import main as cli
from logoformer.engine import verify as verdicts
from logoformer.engine.builder import bundle as module
from logoformer.engine.builder import proof
from logoformer.engine.builder.bundle import build_bundle
from logoformer.engine.builder.compile import BuildOptions, build_here
from logoformer.engine.machine import environment
from logoformer.engine.machine.environment import card_context, find_gpu
from logoformer.engine.trust.index import VERIFIED, read_index
from logoformer.errors import MachineError, RefusedError, UsageError

SECOND = BuildOptions("tensorrt", device=1)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    """Two cards. What a build does in a process of its own is done in this one."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with machine("10.3", "cuda-python", count=2) as found:
        driver = Driver(found.gpu)
        monkeypatch.setattr(environment, "load_driver", lambda: driver)
        monkeypatch.setattr(module, "build_engine", lambda *given, **more: build_here(given[0], given[1], **more))
        monkeypatch.setattr(module, "inspect_engine", proof.inspect_here)
        monkeypatch.setattr(proof, "network_macs", lambda *_: {})  # a double parses no layers
        yield found
        assert found.gpu.stack == [] and driver.retained == 0


@pytest.fixture
def bundle(untrained_bundle: Path, tmp_path: Path) -> Bundle:
    return Bundle(shutil.copytree(untrained_bundle, tmp_path / "face.bundle"))


def test_a_build_measures_on_the_card_that_was_asked_for(here, bundle):
    build_bundle(bundle.path, SECOND, precisions=["fp32"])
    assert here.gpu.built_on == [1, 1, 1] and here.gpu.made == {1}
    assert {entry.gpu for entry in read_index(bundle.path / "engines")} == {"Double 1, 41 multiprocessors"}


def test_each_graph_is_compiled_once_and_its_own_engine_tells_its_kernels(here, bundle):
    """The session that runs it then makes no markers of its layers: the double would blame it."""
    report = build_bundle(bundle.path, BuildOptions("tensorrt"), precisions=["fp32"])
    assert len(here.gpu.built_on) == len(report.engines) == 3 and report.notes == ()
    for entry in report.engines:
        assert entry.plan["this-gpu"]["kernels"] == 1 and entry.flags["profiling_verbosity"] == "DETAILED"
    here.gpu.history = []
    with logoformer.load(bundle, backend="tensorrt", precision="fp32") as runtime:
        runtime(bundle.golden().clips[0], color="rgb")
    assert "clip" in {operation.what for operation in here.gpu.history}


def test_a_plan_is_asked_for_on_that_card_too(here, bundle, monkeypatch):
    entry = bundle.graph("frame", "fp32")
    monkeypatch.setattr(proof, "engine_information", lambda *_: f"on card {here.gpu.here()}")
    assert proof.inspect_here(bundle.read_graph(entry), b"", SECOND).text == "on card 1"
    assert here.gpu.built_on == [] and here.gpu.made == {1}


def test_the_verbs_take_the_card(here, bundle, capsys):
    words = [str(bundle.path), "--device", "1"]
    assert cli.main(["build", *words, "--target", "tensorrt", "--precision", "fp32"]) == 0
    assert cli.main(["verify", *words, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert {row["verdict"] for row in rows if row["what"].endswith(".engine")} == {VERIFIED}
    assert here.gpu.made == {1} and here.gpu.leaks() == {}


def test_another_model_warns_with_the_command_that_builds_for_it_and_strict_refuses(here, bundle):
    build_bundle(bundle.path, BuildOptions("tensorrt"), precisions=["fp32"])
    given = {"backend": "tensorrt", "precision": "fp32", "device": 1}
    rebuild = f"logoformer build {bundle.path} --target tensorrt --precision fp32 --device 1"
    told = "built on Double 0, 40 multiprocessors, running here on Double 1, 41 multiprocessors"
    with pytest.warns(RuntimeWarning, match=told) as caught:
        logoformer.load(bundle, **given).close()
    assert any(rebuild in str(one.message) for one in caught)
    with pytest.raises(RefusedError, match=told) as refused:
        logoformer.load(bundle, strict=True, **given)
    assert refused.value.next == rebuild
    config = benchmark.BenchConfig(bundle.path, others=(), strict=True, **given)
    with pytest.raises(RefusedError, match=told):
        benchmark.bench(config, sensors=Sensors((), {"GPU": "double"}))
    shown = config.command()
    assert shown.endswith("--device 1 --strict")
    with warnings.catch_warnings():  # on its own card nothing is said
        warnings.simplefilter("error")
        logoformer.load(bundle, strict=True, **{**given, "device": 0}).close()


def test_a_strict_verdict_refuses_them_before_anything_is_run(here, bundle, fails, monkeypatch, capsys):
    build_bundle(bundle.path, BuildOptions("tensorrt"), precisions=["fp32"])
    on_second = ["verify", bundle.path, "--device", "1"]
    assert cli.main([*map(str, on_second), "--no-write"]) == 0
    assert capsys.readouterr().err.count("built on Double 0, 40 multiprocessors, running here on Double 1") == 1
    assert cli.main(["verify", str(bundle.path), "--strict"]) == 0  # on its own card
    monkeypatch.setattr(verdicts, "_rows", lambda *_: pytest.fail("golden clips were answered"))
    told = fails(4, *on_second, "--strict", names=("running here on Double 1, 41 multiprocessors",))
    assert f"logoformer build {bundle.path} --target tensorrt" in told and "--device 1" in told


def test_a_card_that_is_not_there_is_refused(here, bundle):
    with pytest.raises(MachineError, match="no card 2 to build on"):
        build_bundle(bundle.path, BuildOptions("tensorrt", device=2), precisions=["fp32"])
    with card_context(2) as current:
        assert not current
    assert find_gpu(2) is None and here.gpu.made == set()


@pytest.mark.parametrize("options", [{"target": "rtx", "device": 1}, {"target": "tensorrt", "device": -1}])
def test_cards_that_cannot_be_asked_for(options):
    with pytest.raises(UsageError):
        BuildOptions(**options)
