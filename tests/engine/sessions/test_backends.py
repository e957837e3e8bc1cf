"""Which backend 'auto' takes, and what it says of those that it passed over."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import logoformer
import numpy as np
import pytest
from doubles.machine import machine
from logoformer.bundle import Bundle
from logoformer.engine.machine.environment import Gpu
from logoformer.engine.sessions import backends
from logoformer.engine.sessions.backends import BACKENDS, cpu_backends
from logoformer.engine.trust.index import add_to_index, read_index
from logoformer.engine.trust.store import TrustStore
from logoformer.errors import MachineError, RefusedError, UsageError

ON_CPU = cpu_backends()[0]  # what 'auto' takes without a card


@pytest.fixture
def bundle(untrained_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    shutil.copytree(untrained_bundle, tmp_path / "face.bundle")
    return Bundle(tmp_path / "face.bundle")


@pytest.fixture
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no CUDA graphs")
        yield


def test_without_engines_nothing_of_a_card_is_even_imported(bundle):
    with mock.patch.dict(sys.modules, dict.fromkeys(("tensorrt", "tensorrt_rtx", "pycuda", "cuda.bindings"))):
        with logoformer.load(bundle) as engine:
            assert engine.backend.startswith(ON_CPU)
        assert [reason.split(":")[0] for reason in engine.passed_over][:2] == ["tensorrt", "tensorrt_rtx"]
        assert all("holds no engine" in reason for reason in engine.passed_over[:2])
        for backend, target in (("tensorrt", "tensorrt"), ("tensorrt_rtx", "rtx")):
            with pytest.raises(MachineError, match="holds no engine") as caught:
                logoformer.load(bundle, backend=backend)
            assert caught.value.next == f"logoformer build {bundle.path} --target {target}"


@pytest.mark.parametrize("version", ["10.3", "rtx-1.7"])
def test_a_fitting_trusted_engine_is_taken(bundle, version, quiet):
    with machine(version, "cuda-python") as here:
        here.plant_engines(bundle, "fp16")
        with logoformer.load(bundle) as engine:
            assert (engine.precision, engine.backend) == ("fp16", f"{here.trt} on sm86 by cuda-python (CUDA 13.5)")
            expected = [] if version == "10.3" else ["tensorrt"]
            assert [reason.split(":")[0] for reason in engine.passed_over] == expected
            golden = bundle.golden()
            np.testing.assert_allclose(
                engine(golden.clips[0], color="rgb").probabilities, golden.probabilities[0], atol=5e-3
            )
        with logoformer.load(bundle, backend="onnxruntime") as engine:
            assert engine.passed_over == () and engine.precision == "fp32"
        assert here.gpu.leaks() == {}


def test_the_precision_that_was_built_is_taken(bundle):
    with machine("10.3", "cuda-python") as here:
        here.plant_engines(bundle, "fp32")
        with logoformer.load(bundle) as engine:
            assert engine.precision == "fp32" and engine.backend.startswith("TensorRT")
        with pytest.raises(MachineError, match="no engine of clip fp16") as caught:
            logoformer.load(bundle, backend="tensorrt", precision="fp16")
        assert "logoformer build" in caught.value.next
        with logoformer.load(bundle, precision="fp16") as engine:
            assert engine.backend.startswith(ON_CPU) and "no engine of clip fp16" in engine.passed_over[0]


def test_an_untrusted_engine_is_passed_over_aloud_and_refused_by_name(bundle):
    with machine("10.3", "cuda-python") as here:
        here.plant_engines(bundle)
        for digest in TrustStore().read().engines:
            TrustStore().remove(digest)
        # The command line escapes what would break a line of its log.
        with (
            pytest.warns(RuntimeWarning, match=r"^tensorrt is passed over.* Next: [^\n]*$"),
            logoformer.load(bundle) as engine,
        ):
            assert engine.backend.startswith(ON_CPU) and len(engine.passed_over) >= 2
        with pytest.raises(RefusedError) as caught:
            logoformer.load(bundle, backend="tensorrt")
        assert "logoformer trust" in caught.value.next
        assert here.gpu.calls["deserialize"] == 0


@pytest.mark.parametrize(("card", "word"), [({"sm": "sm87"}, "sm87"), ({"count": 0}, "finds no card 0")])
def test_another_card_or_none(bundle, card, word):
    with machine("10.3", "cuda-python") as here:
        here.plant_engines(bundle)
    with machine("10.3", "cuda-python", **card) as here:
        with logoformer.load(bundle) as engine:
            assert engine.backend.startswith(ON_CPU) and word in engine.passed_over[0]
        assert here.gpu.calls["deserialize"] == 0


def test_an_engine_of_another_model_of_card_warns_and_is_refused_when_asked(bundle, monkeypatch):
    """Both are sm86, so that the engine loads: an RTX 3060 has 28 multiprocessors, an RTX 3090 has 82."""
    card = Gpu("NVIDIA GeForce RTX 3060", "sm86", False, "12.6", 28)
    monkeypatch.setattr(backends, "find_gpu", lambda device: card)
    with machine("10.3", "cuda-python") as here:
        folder = here.plant_engines(bundle)
        planted = [replace(engine, gpu="NVIDIA GeForce RTX 3090, 82 multiprocessors") for engine in read_index(folder)]
        (folder / "index.json").unlink()
        add_to_index(folder, planted)
        with pytest.warns(RuntimeWarning, match="another model of GPU") as caught:
            logoformer.load(bundle, backend="tensorrt").close()
        said = [str(item.message) for item in caught if "another model" in str(item.message)]
        assert len(said) == 1 and f"logoformer build {bundle.path} --target tensorrt" in said[0]
        with pytest.raises(RefusedError, match=r"82 multiprocessors, running here on .* 28 multiprocessors"):
            logoformer.load(bundle, backend="tensorrt", strict=True)
        card = replace(card, name="NVIDIA GeForce RTX 3090", multiprocessors=82)
        logoformer.load(bundle, backend="tensorrt", strict=True).close()


def test_another_version_is_named_with_both_sides(bundle):
    with machine("10.3", "cuda-python") as here:
        here.plant_engines(bundle)
    with machine("10.16", "cuda-python"), pytest.raises(MachineError) as caught:
        logoformer.load(bundle, backend="tensorrt")
    assert "built with TensorRT 10.3.0 (an older one), running here 10.16.1.11" in str(caught.value)


def test_an_engine_swapped_after_the_choice_never_reaches_tensorrt(bundle):
    """Chosen, trusted, and exchanged before it is opened: the bytes themselves are asked about when they are read."""
    with machine("10.3", "cuda-python") as here:
        folder = here.plant_engines(bundle)
        with logoformer.load(bundle, backend="tensorrt", precision="fp32") as engine:
            for path in folder.rglob("*.engine"):
                data = bytearray(path.read_bytes())
                data[-1] ^= 1
                path.write_bytes(data)
            with pytest.raises(RefusedError):
                engine.session("clip")
        assert here.gpu.calls["deserialize"] == 0


@pytest.mark.parametrize("layer", ["cuda-python", "pycuda"])
def test_device_and_layer_are_handed_on(bundle, layer, quiet):
    with machine("10.3", layer, count=2) as here:
        here.plant_engines(bundle)
        with logoformer.load(bundle, backend="tensorrt", precision="fp32", device=1, cuda=layer) as engine:
            assert engine.session("frame").cuda.device == 1 and layer in engine.backend
        with pytest.raises(MachineError, match="finds no card 2"):
            logoformer.load(bundle, backend="tensorrt", device=2)
        other = "pycuda" if layer == "cuda-python" else "cuda-python"
        with pytest.raises(MachineError, match="not installed"):
            logoformer.load(bundle, backend="tensorrt", cuda=other)
        with pytest.raises(UsageError, match="'cupy'"):
            logoformer.load(bundle, backend="tensorrt", cuda="cupy")
        assert here.gpu.leaks() == {}


def test_names(bundle):
    assert BACKENDS == (
        "auto", "tensorrt", "tensorrt_rtx", "openvino", "onnxruntime", "onnxruntime-cuda", "openvino-gpu",
        "openvino-npu",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["cuda", "onnxruntime-tensorrt"])
def test_an_unknown_name_is_answered_with_the_known_ones(bundle, name):
    with pytest.raises(UsageError, match=f"'{name}'") as caught:
        logoformer.load(bundle, backend=name)
    assert all(known in caught.value.next for known in BACKENDS)
