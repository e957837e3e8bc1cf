"""ONNX Runtime on a card: never on the CPU instead, always on the frame of now."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import logoformer
import numpy as np
import pytest
from logoformer.bundle import Bundle
from logoformer.cli.main import main
from logoformer.engine.machine.environment import Gpu
from logoformer.engine.sessions import ort
from logoformer.errors import DeviceLostError, MachineError

onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (the extra 'cpu' or 'gpu')")

CUDA, BACKEND = "CUDAExecutionProvider", "onnxruntime-cuda"
ILLEGAL = "CUDA failure 700: an illegal memory access was encountered ; GPU=0"


# ------------------------------------------------------------------------------------- the real one, without a card
@pytest.mark.skipif(
    CUDA not in onnxruntime.get_available_providers(), reason="the installed wheel is onnxruntime, not onnxruntime-gpu"
)
def test_the_real_one_without_cuda_says_which_library_is_missing(untrained_bundle, capfd):
    if _opens("libcuda.so.1") or _opens("libcublasLt.so.12"):
        pytest.skip("this machine has CUDA libraries")
    with pytest.raises(MachineError, match=r"libcublas\w*\.so\.12: cannot open") as caught:
        logoformer.load(untrained_bundle, backend=BACKEND)
    assert "onnxruntime-gpu[cuda,cudnn]==" in caught.value.next and "onnxruntime'" in caught.value.next
    assert capfd.readouterr() == ("", ""), "ONNX Runtime's own complaints are not the user's"
    assert main(["selftest", str(untrained_bundle), "--backend", BACKEND]) == 6


def _opens(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


# ------------------------------------------------------------------------- a card that is not there, real arithmetic
class Binding:
    """ONNX Runtime's IO binding as it is on a card: a host input is copied when it is bound, and never looked at
    again; an output arrives once it was waited for."""

    def __init__(self, card: SimpleNamespace, session: Any) -> None:
        self.card, self.real = card, session.io_binding()
        self.inputs: dict[str, np.ndarray] = {}
        self.outputs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.synchronized = False

    def bind_input(self, name: str, device: str, index: int, dtype: type, shape: tuple, pointer: int) -> None:
        self.synchronized = False
        self.inputs[name] = _at(pointer, shape, dtype).copy()
        self.real.bind_input(name, device, index, dtype, shape, self.inputs[name].ctypes.data)

    def synchronize_inputs(self) -> None:
        self.synchronized = True

    def bind_output(self, name: str, device: str, index: int, dtype: type, shape: tuple, pointer: int) -> None:
        there = np.zeros(shape, dtype)
        self.outputs[name] = there, _at(pointer, shape, dtype)
        self.real.bind_output(name, device, index, dtype, shape, there.ctypes.data)

    def synchronize_outputs(self) -> None:
        for there, here in self.outputs.values():
            here[...] = there


def _at(pointer: int, shape: tuple, dtype: type) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_uint8 * size).from_address(pointer), dtype).reshape(shape)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """onnxruntime-gpu on a machine with a card: computes by the CPU provider, and keeps what it was asked for.

    `given`: what `get_providers` says; None: what was asked for. `fails`: text of the exception of every run.
    """
    card = SimpleNamespace(sessions=[], given=None, fails="", runs=0)

    class InferenceSession:
        def __init__(self, data, options, providers, enable_fallback):
            card.sessions.append((dict(providers), options, enable_fallback))
            self.names = [name for name, _ in providers]
            plain = onnxruntime.SessionOptions()
            plain.intra_op_num_threads = 1
            self.real = onnxruntime.InferenceSession(data, plain, providers=["CPUExecutionProvider"])
            self.get_inputs, self.get_outputs = self.real.get_inputs, self.real.get_outputs

        def get_providers(self):
            return [*self.names, "CPUExecutionProvider"] if card.given is None else card.given

        def io_binding(self):
            return Binding(card, self.real)

        def run_with_iobinding(self, binding):
            card.runs += 1
            if card.fails:
                raise RuntimeError(card.fails)
            assert binding.synchronized, "the copy to the card was not waited for"
            self.real.run_with_iobinding(binding.real)

    module = SimpleNamespace(
        __version__="1.24.4", __file__=onnxruntime.__file__, SessionOptions=onnxruntime.SessionOptions,
        InferenceSession=InferenceSession, get_available_providers=lambda: [CUDA, "CPUExecutionProvider"],
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    monkeypatch.setattr(ort.ctypes, "CDLL", lambda name, mode=0: name)
    return card


def test_it_answers_as_the_cpu_does_on_every_frame_anew(card, untrained_bundle: Path):
    golden = Bundle(untrained_bundle).golden()
    with logoformer.load(untrained_bundle, backend=BACKEND, precision="fp32", device=1, selftest=True) as engine:
        assert engine.backend == "onnxruntime 1.24.4 CUDA"
        session = engine.session("clip")
        where = session.input("clip").ctypes.data, session.output("probabilities").ctypes.data
        for clip, wanted in zip(golden.clips, golden.probabilities, strict=True):
            np.testing.assert_allclose(engine(clip, color="rgb").probabilities, wanted, atol=1e-5)
        assert where == (session.input("clip").ctypes.data, session.output("probabilities").ctypes.data)
    asked, options, fallback = card.sessions[0]
    assert asked == {CUDA: {"device_id": "1", "use_tf32": "0"}} and fallback == 0
    assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"


@pytest.mark.parametrize("given", [["CPUExecutionProvider"], ["CPUExecutionProvider", CUDA], []])
def test_the_cpu_in_its_place_is_an_error(card, untrained_bundle, given):
    card.given = given
    with (
        logoformer.load(untrained_bundle, backend="onnxruntime-cuda") as engine,
        pytest.raises(MachineError, match=f"not on {CUDA}"),
    ):
        engine.session("clip")


@pytest.mark.parametrize(
    ("cuda", "jetson", "python", "said"),
    [(None, False, (3, 12), "logoformer[gpu]"), ("12.8", False, (3, 12), "logoformer[gpu12]"),
     ("13.0", False, (3, 12), "logoformer[gpu]"), ("12.6", True, (3, 10), "--backend tensorrt")],
)  # fmt: skip
def test_the_cpu_wheel_is_told_from_the_other(card, monkeypatch, cuda, jetson, python, said):
    """On JetPack 6 no other wheel exists: who uninstalls the one for the CPU has none."""
    monkeypatch.setattr(sys.modules["onnxruntime"], "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(ort, "find_gpu", lambda: None if cuda is None else Gpu("a card", "sm89", jetson, cuda))
    monkeypatch.setattr(ort, "is_jetson", lambda: jetson)
    monkeypatch.setattr(ort, "sys", SimpleNamespace(version_info=python))
    with pytest.raises(MachineError, match=f"has no {CUDA}") as caught:
        ort.require_cuda()
    assert said in caught.value.next and ("uninstall" in caught.value.next) is not jetson


def test_a_sticky_error_is_for_good_and_another_is_not(card, untrained_bundle):
    clip = Bundle(untrained_bundle).golden().clips[0]
    with logoformer.load(untrained_bundle, backend="onnxruntime-cuda") as engine:
        card.fails = "Failed to allocate memory for requested buffer of size 4096"
        with pytest.raises(MachineError, match="on the card"):
            engine(clip, color="rgb")
        card.fails = ""
        engine(clip, color="rgb")
        card.fails = ILLEGAL
        runs = card.runs + 1
        for _ in range(10):
            with pytest.raises(DeviceLostError, match="lost"):
                engine(clip, color="rgb")
            card.fails = ""
        assert card.runs == runs
    engine.close()


def test_auto_never_takes_it(card, untrained_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with logoformer.load(untrained_bundle) as engine:
        card.given = ["CPUExecutionProvider"]
        assert engine.backend == "onnxruntime 1.24.4 CPU" and engine.session("clip")
    assert list(card.sessions[0][0]) == ["CPUExecutionProvider"]
