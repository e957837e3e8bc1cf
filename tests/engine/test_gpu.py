"""The same promises on a real card: run by `make gpu-test` where there is one.

Each test asks for what it needs and skips naming what is missing. Nothing here reports a time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import logoformer
import numpy as np
import pytest
from logoformer.bundle import Bundle
from logoformer.engine.builder.bundle import build_bundle
from logoformer.engine.builder.compile import BuildOptions
from logoformer.engine.cuda.layer import Cuda
from logoformer.engine.cuda.open import LAYERS, open_cuda
from logoformer.engine.cuda.queue import WAITS
from logoformer.engine.golden import answers_of_clip, golden_answers
from logoformer.engine.machine.environment import find_gpu
from logoformer.engine.machine.targets import RTX_SMS
from logoformer.engine.machine.tensorrt import find_module
from logoformer.engine.sessions.trt import TrtSession
from logoformer.engine.verify import verify
from logoformer.errors import DeviceLostError, MachineError, UsageError

pytestmark = pytest.mark.gpu
BACKENDS = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx"}


@pytest.fixture(scope="module", autouse=True)
def gpu() -> Any:
    found = find_gpu()
    if found is None:
        pytest.skip("no NVIDIA GPU or no driver (libcuda.so.1)")
    return found


@pytest.fixture(scope="module", params=LAYERS)
def layer(request: pytest.FixtureRequest) -> str:
    try:
        open_cuda(request.param)
    except MachineError as error:
        pytest.skip(error.what)
    return request.param


@pytest.fixture(scope="module", params=BACKENDS)
def built(
    request: pytest.FixtureRequest, gpu: Any, untrained_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Bundle]:
    """(backend, bundle with engines that were built here)."""
    return request.param, build_here(request.param, gpu, untrained_bundle, tmp_path_factory.mktemp(request.param))


def build_here(backend: str, gpu: Any, bundle: Path, folder: Path) -> Bundle:
    """A copy of the bundle with engines of this card."""
    target = BACKENDS[backend]
    try:
        find_module(target)
    except MachineError as error:
        pytest.skip(error.what)
    if target == "rtx" and gpu.compute_capability not in RTX_SMS:
        pytest.skip(f"TensorRT-RTX does not know {gpu.compute_capability}")
    shutil.copytree(bundle, folder / "face.bundle")
    build_bundle(folder / "face.bundle", BuildOptions(target))
    return Bundle(folder / "face.bundle")


@pytest.fixture
def runtime(built: tuple[str, Bundle], layer: str) -> Iterator[Any]:
    backend, bundle = built
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no CUDA graphs")
        with logoformer.load(bundle, backend=backend, precision="fp32", cuda=layer) as opened:
            yield opened


def test_answers_equal_onnx_runtime(runtime):
    golden = runtime.bundle.golden()
    with logoformer.load(runtime.bundle, backend="onnxruntime", precision="fp32", threads=1) as reference:
        for found, wanted in zip(golden_answers(runtime, golden), golden_answers(reference, golden), strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=0)


def test_fp16_answers_within_the_exports_bound(built, layer):
    backend, bundle = built
    golden = bundle.golden()
    with logoformer.load(bundle, backend=backend, precision="fp16", cuda=layer) as runtime:
        np.testing.assert_allclose(
            answers_of_clip(runtime.session("clip"), golden), golden.probabilities, atol=5e-3, rtol=0
        )


def test_cuda_python_starts_by_a_graph(runtime, layer):
    session = runtime.session("clip")
    assert (session._graphs[0] is not None) == (layer == "cuda-python")


def test_memory_comes_back(built, layer):
    backend, bundle = built
    cuda = open_cuda(layer)

    def once() -> int:
        with logoformer.load(bundle, backend=backend, precision="fp32", cuda=layer) as runtime:
            runtime(bundle.golden().clips[0], color="rgb")
        with cuda:
            return cuda.memory()[0]

    once()  # the driver keeps what it loads at first use
    first = once()
    assert min(once() for _ in range(5)) >= first - (8 << 20)


def test_streams_of_two_faces_equal_onnx_runtime(runtime):
    frames = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)

    def answers(of: Any) -> np.ndarray:
        with of.stream(hop=4, color="bgr", warmup="repeat") as one, of.stream(hop=4, color="rgb") as two:
            results = []
            for number, frame in enumerate(frames):
                results += [one.push(frame, number / 15), two.push(frame[::-1], number / 15)]
            results += [one.flush(), two.flush()]
        return np.stack([result.probabilities for result in results if result is not None])

    with logoformer.load(runtime.bundle, backend="onnxruntime", precision="fp32", threads=1) as reference:
        np.testing.assert_allclose(answers(runtime), answers(reference), atol=1e-4, rtol=0)


def test_a_worker_answers_as_push_does(runtime):
    """The next picture is sent while an answer is computed; the answers are the same."""
    frames = np.random.default_rng(2).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    with runtime.stream(hop=1, color="bgr", warmup="repeat") as stream:
        wanted = [stream.push(frame, number / 15).probabilities for number, frame in enumerate(frames)]
    with runtime.worker(queue=len(frames)) as worker:
        own = worker.stream(hop=1, color="bgr", warmup="repeat")
        futures = [worker.submit(own, frame, number / 15) for number, frame in enumerate(frames)]
    np.testing.assert_array_equal([future.result(0).probabilities for future in futures], wanted)


def test_a_runtime_goes_on_when_another_one_is_closed(runtime, built, layer):
    backend, bundle = built
    clip = bundle.golden().clips[0]
    wanted = runtime(clip, color="rgb").probabilities
    with logoformer.load(bundle, backend=backend, precision="fp32", cuda=layer) as other:
        np.testing.assert_array_equal(other(clip, color="rgb").probabilities, wanted)
    np.testing.assert_array_equal(runtime(clip, color="rgb").probabilities, wanted)


@pytest.mark.parametrize("wait", WAITS)
def test_every_way_to_wait_answers_alike(runtime, built, layer, wait):
    backend, bundle = built
    clip = bundle.golden().clips[0]
    with logoformer.load(bundle, backend=backend, precision="fp32", cuda=layer, wait=wait) as other:
        found = other(clip, color="rgb").probabilities
    np.testing.assert_array_equal(found, runtime(clip, color="rgb").probabilities)


def test_the_second_card_is_the_only_one_used(built, layer):
    """Of two alike: an engine belongs to a model of card."""
    backend, bundle = built
    try:
        cards = [open_cuda(layer, number) for number in range(2)]
    except MachineError as error:
        pytest.skip(error.what)
    if cards[0].compute_capability != cards[1].compute_capability:
        pytest.skip("the two cards are of different kinds")
    with logoformer.load(bundle, backend=backend, precision="fp32", cuda=layer, device=1) as runtime:
        golden = bundle.golden()
        found = answers_of_clip(runtime.session("clip"), golden)
    np.testing.assert_allclose(found, golden.probabilities, atol=1e-4, rtol=0)


def test_stages_are_timed_by_the_card(runtime):
    times = runtime.session("clip").time_stages()
    assert list(times) == ["upload", "engine", "download"] and times["engine"] > 0


@pytest.mark.parametrize("library", ["torch", "cupy"])
def test_arrays_on_the_card_need_no_host(runtime, library):
    picture = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    module = pytest.importorskip(library, reason=f"needs {library} for this card")
    if library == "torch" and not module.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    if library == "cupy" and not module.is_available():
        pytest.skip("this cupy finds no card")
    session: TrtSession = runtime.session("frame")
    session.feed("frame", picture)
    session.run()
    wanted = session.output("tokens").copy()
    session.feed("frame", np.zeros_like(picture))
    session.run()
    session.feed("frame", module.asarray(picture).cuda() if library == "torch" else module.asarray(picture))
    session.run()
    np.testing.assert_array_equal(session.output("tokens"), wanted)


def test_it_lives_beside_torch(runtime):
    torch = pytest.importorskip("torch", reason="needs torch for this card")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    clip = runtime.bundle.golden().clips[0]
    wanted = runtime(clip, color="rgb").probabilities
    left = torch.randn(256, 256, device="cuda")
    product = left @ left
    np.testing.assert_array_equal(runtime(clip, color="rgb").probabilities, wanted)
    torch.testing.assert_close(left @ left, product)


def test_a_card_that_is_not_there(layer):
    with pytest.raises(MachineError, match="finds no card 99"):
        open_cuda(layer, 99)


def test_the_layers_say_the_same_of_the_card(gpu, layer):
    cuda: Cuda = open_cuda(layer)
    assert (cuda.compute_capability, cuda.integrated) == (gpu.compute_capability, gpu.integrated)
    with cuda:
        free, total = cuda.memory()
        assert 0 < free <= total
        pointer = cuda.alloc(1 << 20)
        assert cuda.owns(pointer, 1 << 20) and not cuda.owns(0xDEAD000, 1)
        cuda.free(pointer)


def test_use_after_close_is_refused(runtime):
    session = runtime.session("frame")
    runtime.close()
    with pytest.raises(UsageError, match="is closed"):
        session.run()


def test_onnx_runtime_on_the_card_answers_every_clip_anew(untrained_bundle):
    try:
        opened = logoformer.load(untrained_bundle, backend="onnxruntime-cuda", precision="fp32")
    except MachineError as error:
        pytest.skip(error.what)
    with opened as runtime:
        golden = runtime.bundle.golden()
        for answers in golden_answers(runtime, golden):
            np.testing.assert_allclose(answers, golden.probabilities, atol=1e-4, rtol=0)


def test_verify_runs_what_was_built_here(built):
    _, bundle = built
    report = verify(bundle.path)
    report.require()
    rows = [row for row in report.rows if row.what.endswith(".engine")]
    assert rows and {row.verdict for row in rows} == {"verified"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_base_answers_its_golden_clips(backend, gpu, request, tmp_path):
    bundle = build_here(backend, gpu, request.getfixturevalue("base_bundle"), tmp_path)
    golden = bundle.golden()
    for precision, apart in (("fp32", 1e-4), ("fp16", 5e-3)):
        with logoformer.load(bundle, backend=backend, precision=precision) as runtime:
            for answers in golden_answers(runtime, golden):
                np.testing.assert_allclose(answers, golden.probabilities, atol=apart, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_int8_is_as_near_to_fp32_as_the_reference_is(backend, gpu, request, tmp_path):
    from logoformer.export.entries import read_model
    from logoformer.export.parity import RoundingClip

    bundle = build_here(backend, gpu, request.getfixturevalue("int8_bundle"), tmp_path)
    golden = bundle.golden()
    reference = RoundingClip(read_model(bundle, "clip", "int8")).answers(golden.clips)
    with logoformer.load(bundle, backend=backend, precision="int8") as runtime:
        found = answers_of_clip(runtime.session("clip"), golden)

    def logits(answers: np.ndarray) -> np.ndarray:
        logs = np.log(np.maximum(answers, 1e-12))
        return logs - logs.mean(1, keepdims=True)

    def off(answers: np.ndarray) -> float:
        return float(np.std(logits(answers) - logits(golden.probabilities)))

    assert 0.5 * off(reference) < off(found) < 1.5 * off(reference)


def test_engines_that_are_replaced_while_a_runtime_answers(runtime, built, layer):
    """The old runtime goes on with what it opened; a new one takes the new engines."""
    backend, bundle = built
    clip = bundle.golden().clips[0]
    wanted = runtime(clip, color="rgb").probabilities
    build_bundle(bundle.path, BuildOptions(BACKENDS[backend]))
    np.testing.assert_array_equal(runtime(clip, color="rgb").probabilities, wanted)
    with logoformer.load(bundle.path, backend=backend, precision="fp32", cuda=layer) as fresh:
        np.testing.assert_allclose(fresh(clip, color="rgb").probabilities, wanted, atol=1e-4, rtol=0)


LOST = """
import sys
import logoformer
from cuda.bindings import driver
from logoformer.errors import DeviceLostError

PTX = b'''.version 7.0
.target sm_50
.address_size 64
.visible .entry write_nowhere() { .reg .u64 %p; mov.u64 %p, 16; st.global.u32 [%p], 0; ret; }
''' + bytes(1)
with logoformer.load(sys.argv[1], backend=sys.argv[2], precision="fp32", cuda="cuda-python") as runtime:
    clip = runtime.bundle.golden().clips[0]
    runtime(clip, color="rgb")
    _, device = driver.cuDeviceGet(0)
    _, context = driver.cuDevicePrimaryCtxRetain(device)
    driver.cuCtxPushCurrent(context)
    error, module = driver.cuModuleLoadData(PTX)
    assert not int(error), error
    _, kernel = driver.cuModuleGetFunction(module, b"write_nowhere")
    driver.cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0)
    driver.cuCtxSynchronize()
    driver.cuCtxPopCurrent()
    try:
        runtime(clip, color="rgb")
    except DeviceLostError as error:
        sys.exit(error.exit_code)
"""


def test_a_lost_card_ends_a_program_with_its_own_exit_code(built, tmp_path):
    """A kernel that writes to no memory: nothing of this process can use the card again."""
    pytest.importorskip("cuda.bindings", reason="cuda-python is not installed")
    backend, bundle = built
    environment = {**os.environ, "PYTHONPATH": str(Path(logoformer.__file__).parents[1])}
    line = [sys.executable, "-c", LOST, str(bundle.path), backend]
    assert subprocess.run(line, env=environment, timeout=120).returncode == DeviceLostError.exit_code
