"""`verify` runs the engines that this machine can run, and a wrong one is not chosen again."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import logoformer
import numpy as np
import pytest
from doubles.machine import machine
from logoformer.bundle import Bundle
from logoformer.cli.main import main
from logoformer.engine.sessions.backends import cpu_backends
from logoformer.engine.trust.index import FAILED, NOT_RUN, VERIFIED, read_index
from logoformer.engine.trust.store import TrustStore
from logoformer.engine.verify import verify
from logoformer.errors import DeviceLostError, RefusedError, VerificationError


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(no CUDA graphs|without a CUDA graph)")
        yield


@pytest.fixture
def bundle(untrained_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    shutil.copytree(untrained_bundle, tmp_path / "face.bundle")
    return Bundle(tmp_path / "face.bundle")


def of_engines(report) -> dict[str, str]:
    return {row.what.split(".")[0]: row.verdict for row in report.rows if row.what.endswith(".engine")}


def in_index(bundle: Bundle) -> dict[str, str]:
    return {entry.graph: entry.verdict for entry in read_index(bundle.path / "engines")}


def all_three(verdict: str) -> dict[str, str]:
    return dict.fromkeys(("clip", "frame", "temporal"), verdict)


def wrong_kernel(bundle: Bundle, graph: str, pack: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """A build whose engine of one graph computes with other weights."""
    onnx = pytest.importorskip("onnx")
    victim = bundle.read_graph(bundle.graph(graph, "fp32"))

    def build(data: bytes) -> bytes:
        if data != victim:
            return pack(data)
        model = onnx.load_from_string(data)
        real = [
            t for t in model.graph.initializer if onnx.numpy_helper.to_array(t).dtype.kind == "f" and len(t.dims) > 1
        ]
        for tensor in real:
            values = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values[::-1]), tensor.name))
        return pack(model.SerializeToString())

    return build


@pytest.mark.parametrize(("version", "precision"), [("10.3", "fp32"), ("rtx-1.7", "fp16")])
def test_right_engines_are_verified(bundle, version, precision):
    with machine(version, "cuda-python") as here:
        here.plant_engines(bundle, precision)
        assert in_index(bundle) == all_three(NOT_RUN)
        report = verify(bundle.path)
        report.require()
        assert of_engines(report) == in_index(bundle) == all_three(VERIFIED)
        for row in report.rows:
            if row.what.endswith(".engine"):
                assert row.evaluator.startswith(f"{here.trt} on sm86") and row.share >= 0 and row.agreement == 1.0
            else:
                assert row.evaluator.startswith(cpu_backends())
        assert here.gpu.leaks() == {}


def test_batches_are_judged_too(bundle, add_batches):
    bundle = add_batches(bundle.path, (3,))
    with machine("10.3", "cuda-python") as here:
        here.plant_engines(bundle)
        verify(bundle.path).require()
        entries = read_index(bundle.path / "engines")
        for graph in ("frame", "temporal"):
            assert {entry.batch for entry in entries if entry.graph == graph} == {1, 3}
        assert {entry.verdict for entry in entries} == {VERIFIED} and here.gpu.leaks() == {}


@pytest.mark.parametrize("graph", ["clip", "frame", "temporal"])
def test_a_wrong_engine_fails_alone_and_is_not_chosen_until_it_passes(bundle, graph, monkeypatch, capsys):
    with machine("10.3", "cuda-python") as here:
        right = here.engine_of
        monkeypatch.setattr(here, "engine_of", wrong_kernel(bundle, graph, right))
        here.plant_engines(bundle)
        with logoformer.load(bundle) as runtime:
            assert runtime.backend.startswith("TensorRT")
        report = verify(bundle.path)
        assert of_engines(report) == in_index(bundle) == {**all_three(VERIFIED), graph: FAILED}
        with pytest.raises(VerificationError, match="1 of") as caught:
            report.require()
        assert f"{graph}.fp32.b1" in str(caught.value) and caught.value.next == f"logoformer build {bundle.path}"
        assert main(["verify", str(bundle.path)]) == 5  # tried again, and wrong again
        with logoformer.load(bundle) as runtime:
            assert runtime.backend.startswith(cpu_backends()[0])
            assert "no engine of " + graph in runtime.passed_over[0]
        monkeypatch.setattr(here, "engine_of", right)
        here.plant_engines(bundle)
        verify(bundle.path).require()
        with logoformer.load(bundle) as runtime:
            assert runtime.backend.startswith("TensorRT")
        assert here.gpu.leaks() == {}


def test_a_failed_engine_that_passes_now_is_taken_again(bundle):
    with machine("10.3", "cuda-python") as here:
        here.plant_engines(bundle)
        for call in range(8):  # opening the first engine, and some of its answers
            here.gpu.inject("enqueue", "nan", skip=call)
        assert FAILED in of_engines(verify(bundle.path)).values()
        verify(bundle.path).require()
        assert in_index(bundle) == all_three(VERIFIED)


def test_without_write_the_index_stays(bundle):
    with machine("10.3", "cuda-python") as here:
        here.plant_engines(bundle)
        before = (bundle.path / "engines" / "index.json").read_bytes()
        assert of_engines(verify(bundle.path, write=False)) == all_three(VERIFIED)
        assert (bundle.path / "engines" / "index.json").read_bytes() == before


def test_what_cannot_run_here_stays_built_and_says_why(bundle, capsys):
    with machine("10.3", "cuda-python") as here:
        here.plant_engines(bundle)
    for version, card, word in (
        ("10.3", {"sm": "sm87"}, "sm87"),
        ("10.3", {"count": 0}, "no card 0"),
        ("10.16", {}, "10.16"),
    ):
        with machine(version, "cuda-python", **card) as here:
            report = verify(bundle.path)
            report.require()
            assert of_engines(report) == in_index(bundle) == all_three(NOT_RUN)
            assert all(word in row.why_not for row in report.rows if row.what.endswith(".engine"))
            assert here.gpu.calls["deserialize"] == 0
            assert main(["verify", str(bundle.path), "--no-write"]) == 0
            assert capsys.readouterr().out.count("Not run here") == 1


def test_an_engine_that_nobody_vouches_for_does_not_reach_tensorrt(bundle):
    with machine("10.3", "cuda-python") as here:
        folder = here.plant_engines(bundle)
        for digest in TrustStore().read().engines:
            TrustStore().remove(digest)
        report = verify(bundle.path)
        assert of_engines(report) == all_three(NOT_RUN) and here.gpu.calls["deserialize"] == 0
        victim = next(folder.rglob("*.engine"))
        victim.write_bytes(victim.read_bytes()[:-1] + b"\0")
        with pytest.raises(RefusedError):
            verify(bundle.path)


def test_a_lost_card_ends_it_and_writes_no_verdict(bundle):
    with machine("10.3", "cuda-python") as here:
        here.plant_engines(bundle)
        here.gpu.inject("enqueue", 700)
        with pytest.raises(DeviceLostError):
            verify(bundle.path)
        assert in_index(bundle) == all_three(NOT_RUN)
