"""Cards and contexts: nothing is made on a card that nobody asked for, and what was current stays so."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path

import logoformer
import numpy as np
import pytest
from doubles.container import pack
from doubles.machine import FACES, machine
from logoformer.bundle import Bundle
from logoformer.engine.builder.compile import BuildOptions, Compilation
from logoformer.engine.cuda.layer import CudaError, explain
from logoformer.engine.cuda.open import open_cuda
from logoformer.engine.machine.log import BuildLog
from logoformer.engine.sessions.trt import TrtSession
from logoformer.errors import MachineError


@pytest.fixture(scope="module")
def bundle(untrained_bundle: Path) -> Bundle:
    return Bundle(untrained_bundle)


@pytest.fixture(params=FACES)
def layer(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_second_card_gets_the_only_context(layer, bundle, tmp_path):
    """In a fresh thread, where card 0 is what the runtime API takes by itself."""
    with machine("10.3", layer, count=2) as here, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = here.plant_engines(bundle, folder=tmp_path)
        answers = []

        def work() -> None:
            with logoformer.load(
                bundle, backend="tensorrt", precision="fp32", engines_dir=folder, cuda=layer, device=1
            ) as runtime:
                answers.append(runtime(bundle.golden().clips[0], color="rgb").probabilities)
                with runtime.stream(hop=1, color="rgb", warmup="repeat") as stream:
                    for number, frame in enumerate(bundle.golden().clips[0]):
                        stream.push(frame, number / 10)
            assert here.gpu.stack == []

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert here.gpu.made == {1} and here.gpu.leaks() == {}
        np.testing.assert_allclose(answers[0], bundle.golden().probabilities[0], atol=1e-5)


def test_what_was_current_stays_current(layer, bundle):
    """torch may work on another card in this thread, and its context may lie on the driver's stack."""
    with machine("10.3", layer, count=3) as here, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if layer == "cuda-python":
            from cuda.bindings import runtime

            runtime.cudaSetDevice(2)
        else:
            here.gpu.retain(2)
            here.gpu.push(2)
        session = here.open(bundle, "clip", open_cuda(layer, 1))
        session.run()
        session.close()
        assert here.gpu.here() == 2 and here.gpu.made == {1, 2}
        assert here.gpu.calls["push"] == here.gpu.calls["pop"] + (layer == "pycuda")


def test_opening_a_card_makes_no_context_yet():
    with machine("10.3", "cuda-python", count=2) as here:
        open_cuda("cuda-python", 1)
        assert here.gpu.made == set()


def test_free_memory_is_that_of_the_card_in_question(layer):
    """An error is explained outside of the call that failed, when another card is current again."""
    with machine("10.3", layer, count=2) as here:
        cuda = open_cuda(layer, 1)
        with cuda:
            kept = cuda.alloc(1 << 20)
        left = here.gpu.total - (1 << 20)
        said = str(explain(CudaError("cudaMalloc", "cudaErrorMemoryAllocation (out of memory)"), cuda, "opening x", 12))
        assert f"12 bytes were asked for, {left} of {here.gpu.total} are free" in said
        assert here.gpu.made == {1}
        with cuda:
            cuda.free(kept)


def test_a_context_that_cannot_be_had_is_explained(bundle):
    with machine("10.3", "cuda-python") as here:
        here.gpu.inject("retain", 2)
        with pytest.raises(MachineError, match="has not enough memory"):
            here.open(bundle, "clip")
        here.open(bundle, "clip").close()
        assert here.gpu.leaks() == {}


# ------------------------------------------------------------------------------------------------ copies, one logger
def test_a_copy_of_the_wrong_kind_is_noticed(monkeypatch):
    """Mapped memory is the host's: a copy from it to it is none from device to device."""
    with machine("10.3", "cuda-python", integrated=True) as here:
        from cuda.bindings import runtime as rt

        cuda = open_cuda("cuda-python")
        with cuda:
            stream, blocks = cuda.stream(), [cuda.alloc_host(64, mapped=True) for _ in range(2)]
            assert [block.device_pointer for block in blocks] == [block.array.ctypes.data for block in blocks]
            cuda.on_device(blocks[0].device_pointer, blocks[1].device_pointer, 64, stream)
            cuda.synchronize(stream)
            assert here.gpu.violations == []
            monkeypatch.setattr(cuda, "_default", rt.cudaMemcpyKind.cudaMemcpyDeviceToDevice)
            cuda.on_device(blocks[0].device_pointer, blocks[1].device_pointer, 64, stream)
            assert "Host to Host of the kind cudaMemcpyDeviceToDevice" in here.gpu.violations.pop()
            cuda.free_stream(stream)
            for block in blocks:
                cuda.free_host(block)


def test_a_second_logger_and_a_freed_one_are_noticed():
    with machine("10.3", "cuda-python") as here:
        module = here.trt.module
        first = module.Logger()
        module.Runtime(first)
        module.Builder(module.Logger())
        assert "the first is another one" in here.gpu.violations.pop()
        del first
        module.Builder(module.Logger())
        assert "the first was freed" in here.gpu.violations.pop()


def test_sessions_and_builds_share_one_logger(bundle):

    with machine("10.3", "cuda-python") as here:
        here.open(bundle, "frame").close()
        entry = bundle.graph("frame", "fp32")
        log = BuildLog()
        Compilation(here.trt, bundle.read_graph(entry), entry.file, BuildOptions("tensorrt"), log).run("NONE")
        session = here.open(bundle, "clip")
        here.gpu.inject("enqueue", "refuse")
        with session.cuda:
            assert not session._engine.enqueue(session._stream)
        assert "API Usage" in session._engine.log.complaints[-1] and log.complaints == ()
        session.close()


def test_rtx_engines_are_built_to_be_captured(bundle, monkeypatch):
    """Without the flag a run may allocate, and RTX says that it cannot be captured."""
    entry = bundle.graph("clip", "fp32")
    with machine("rtx-1.7", "cuda-python") as here:
        onnx = bundle.read_graph(entry)
        plan, _ = Compilation(here.trt, onnx, entry.file, BuildOptions("rtx"), BuildLog()).run("NONE")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            session = TrtSession(here.trt, open_cuda(), plan, entry)
        session.close()
        plain = pack(here.trt.version, "rtx", onnx, own_memory=False)
        with pytest.warns(RuntimeWarning, match="cannot be captured"):
            TrtSession(here.trt, open_cuda(), plain, entry).close()
